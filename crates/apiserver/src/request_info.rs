//! What a request is about, read from its method, path and query alone. Behaviour: upstream's `RequestInfo`.

use http::Method;

/// Parts of a path, borrowed from its decoded form. Empty where the request has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo<'a> {
    pub is_resource: bool,
    /// `get`, `list`, `watch`, …; the lower-case method for non-resource requests.
    pub verb: &'static str,
    pub group: &'a str,
    pub version: &'a str,
    pub namespace: &'a str,
    pub resource: &'a str,
    pub name: &'a str,
    pub subresource: &'a str,
    /// What stands behind the subresource: the path of a proxied request.
    pub rest: &'a str,
    pub path: &'a str,
}

/// What of the query matters to the verb.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueryHints<'q> {
    pub watch: bool,
    /// The one name that a field selector allows.
    pub name: Option<&'q str>,
}

const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl<'a> RequestInfo<'a> {
    /// `path` is decoded. `None` for a path that begins like one of a resource and is none.
    pub fn parse(method: &Method, path: &'a str, hints: QueryHints<'a>) -> Option<Self> {
        let plain = RequestInfo { verb: method_verb(method), path, ..RequestInfo::default() };
        let trimmed = path.trim_matches('/');
        let mut parts = trimmed.split('/');
        let prefix = parts.next().unwrap_or("");
        let group = match prefix {
            "api" => "",
            "apis" => parts.next().unwrap_or(""),
            _ => return Some(plain),
        };
        let Some(version) = parts.next() else { return Some(plain) };
        let Some(mut first) = parts.next() else { return Some(plain) };

        let mut info = RequestInfo { is_resource: true, group, version, ..plain };
        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        };
        let by_prefix = first == "watch";
        if by_prefix {
            info.verb = "watch";
            first = parts.next()?;
        }
        info.take_parts(first, parts);
        info.settle_verb(hints, by_prefix);
        Some(info)
    }

    fn take_parts(&mut self, first: &'a str, mut parts: std::str::Split<'a, char>) {
        self.resource = first;
        let mut name = parts.next();
        if first == "namespaces"
            && let Some(namespace) = name
        {
            self.namespace = namespace;
            let mut ahead = parts.clone();
            if let Some(next) = ahead.next().filter(|next| !NAMESPACE_SUBRESOURCES.contains(next)) {
                self.resource = next;
                name = ahead.next();
                parts = ahead;
            }
        }
        self.name = name.unwrap_or("");
        if let Some(subresource) = parts.next() {
            self.subresource = subresource;
            let rest =
                parts.next().map_or(self.path.len(), |next| next.as_ptr() as usize - self.path.as_ptr() as usize);
            self.rest = &self.path[rest..];
        }
    }

    fn settle_verb(&mut self, hints: QueryHints<'a>, by_prefix: bool) {
        if !self.name.is_empty() || by_prefix {
            return;
        }
        match self.verb {
            "get" => {
                self.verb = if hints.watch { "watch" } else { "list" };
                self.name = hints.name.unwrap_or("");
            }
            "delete" => self.verb = "deletecollection",
            _ => {}
        }
    }
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::HEAD => "head",
        Method::OPTIONS => "options",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method and path, and `verb group/version namespace resource name subresource rest`.
    fn check(request: &str, expected: &str) {
        let (method, path) = request.split_once(' ').unwrap();
        let hints = QueryHints { watch: path.ends_with("?watch"), name: None };
        let path = path.trim_end_matches("?watch");
        let info = RequestInfo::parse(&method.parse().unwrap(), path, hints).unwrap();
        let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let shown = if info.is_resource {
            let gv = format!("{}/{}", info.group, info.version);
            [info.verb, &gv, info.namespace, info.resource, info.name, info.subresource, info.rest].map(dash).join(" ")
        } else {
            format!("{} {}", info.verb, info.path)
        };
        assert_eq!(shown, expected, "{request}");
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        check("GET /api/v1/namespaces", "list /v1 - namespaces - - -");
        check("GET /api/v1/namespaces/a", "get /v1 a namespaces a - -");
        check("PUT /api/v1/namespaces/a/finalize", "update /v1 a namespaces a finalize -");
        check("GET /api/v1/namespaces/a/pods", "list /v1 a pods - - -");
        check("GET /api/v1/namespaces/a/pods?watch", "watch /v1 a pods - - -");
        check("GET /api/v1/watch/namespaces/a/pods/b", "watch /v1 a pods b - -");
        check("DELETE /api/v1/namespaces/a/pods", "deletecollection /v1 a pods - - -");
        check("GET /api/v1/namespaces/a/pods/b/log", "get /v1 a pods b log -");
        check("POST /api/v1/namespaces/a/services/b/proxy/c/d", "create /v1 a services b proxy c/d");
        check("PATCH /apis/apps/v1/namespaces/a/deployments/b/scale", "patch apps/v1 a deployments b scale -");
        check("GET /apis/apps/v1/deployments", "list apps/v1 - deployments - - -");
        check("GET /apis/apps/v1", "get /apis/apps/v1");
        check("GET /api", "get /api");
        check("POST /healthz", "post /healthz");
    }
}
