//! Acting as another user: the `Impersonate-*` headers and who may send them.
//!
//! Behaviour: upstream's constrained impersonation (KEP-5284). A requester who may only act as someone for certain requests
//! passes by two checks, `impersonate-on:MODE:VERB` on the request itself and `impersonate:MODE` on the user; otherwise
//! the plain verb `impersonate` on the user, each group, the uid and each extra value has to be allowed.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use percent_encoding::percent_decode_str;
use xebec_api::status::StatusError;

use super::{ANONYMOUS, GROUP_AUTHENTICATED, GROUP_MASTERS, GROUP_UNAUTHENTICATED, User, service_account_groups};
use crate::authz::{Attributes, Authorizer, Decision};
use crate::resources::validation::dns;

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
const NODE_PREFIX: &str = "system:node:";
const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";

/// The user as whom the request is to go on, if it asks for another; the headers are taken away. `request` is what the
/// requester wants to do.
pub async fn act_as(
    authorizer: &dyn Authorizer,
    request: &Attributes<'_>,
    headers: &mut HeaderMap,
) -> Result<Option<Arc<User>>, StatusError> {
    let Some(wanted) = wanted_user(headers)? else { return Ok(None) };
    take_headers(headers);
    let mut refused = None;
    for mode in MODES.iter().filter(|mode| (mode.applies)(&wanted, request.user)) {
        match mode.check(authorizer, request, &wanted).await {
            Ok(user) => return Ok(Some(Arc::new(user))),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or_else(|| StatusError::internal("all impersonation modes failed")))
}

/// One way of being allowed. Upstream tries them in this order and tells the first refusal.
struct Mode {
    /// Empty for the plain verb.
    name: &'static str,
    applies: fn(&User, &User) -> bool,
}

const MODES: &[Mode] = &[
    Mode { name: "associated-node", applies: |wanted, requester| only_named(wanted) && is_own_node(wanted, requester) },
    Mode { name: "arbitrary-node", applies: |wanted, _| only_named(wanted) && is_node(wanted) },
    Mode { name: "serviceaccount", applies: |wanted, _| only_named(wanted) && account(&wanted.name).is_some() },
    Mode { name: "user-info", applies: |wanted, _| !is_node(wanted) && account(&wanted.name).is_none() },
    Mode { name: "", applies: |_, _| true },
];

impl Mode {
    async fn check(
        &self,
        authorizer: &dyn Authorizer,
        request: &Attributes<'_>,
        wanted: &User,
    ) -> Result<User, StatusError> {
        let constrained = !self.name.is_empty();
        let verb = if constrained { format!("impersonate:{}", self.name) } else { "impersonate".to_owned() };
        if constrained {
            let on = format!("impersonate-on:{}:{}", self.name, request.verb);
            allowed(authorizer, &Attributes { verb: &on, ..request.clone() }).await?;
        }
        let base = Attributes {
            verb: &verb,
            group: if constrained { AUTHENTICATION_GROUP } else { "" },
            version: "v1",
            is_resource: true,
            ..Attributes::new(request.user)
        };
        let mut user = wanted.clone();
        self.check_name(authorizer, &base, &mut user).await?;
        if !wanted.uid.is_empty() {
            let uid = Attributes { group: AUTHENTICATION_GROUP, resource: "uids", name: &wanted.uid, ..base.clone() };
            allowed(authorizer, &uid).await?;
        }
        for group in &wanted.groups {
            let group = Attributes { resource: "groups", name: group, ..base.clone() };
            if constrained && (group.name.is_empty() || group.name == GROUP_MASTERS) {
                let which = if group.name.is_empty() { "empty string" } else { GROUP_MASTERS };
                return Err(group.refusal(&format!("impersonating the {which} group is not allowed")));
            }
            allowed(authorizer, &group).await?;
        }
        for (key, values) in &wanted.extra {
            for value in values {
                let extra = Attributes { group: AUTHENTICATION_GROUP, resource: "userextras", ..base.clone() };
                allowed(authorizer, &Attributes { subresource: key, name: value, ..extra }).await?;
            }
        }
        belong(&mut user);
        Ok(user)
    }

    async fn check_name(
        &self,
        authorizer: &dyn Authorizer,
        base: &Attributes<'_>,
        user: &mut User,
    ) -> Result<(), StatusError> {
        let name = user.name.clone();
        let mut attributes = Attributes { resource: "users", name: &name, ..base.clone() };
        if let Some(node) = name.strip_prefix(NODE_PREFIX).filter(|_| !self.name.is_empty()) {
            attributes.resource = "nodes";
            // The check for a requester's own node holds for whichever node that is.
            attributes.name = if self.name == "associated-node" { "*" } else { node };
            user.groups = vec!["system:nodes".to_owned()];
        }
        if let Some((namespace, account)) = account(&name) {
            attributes = Attributes { resource: "serviceaccounts", namespace, name: account, ..attributes };
            if user.groups.is_empty() {
                user.groups = service_account_groups(namespace);
            }
        }
        allowed(authorizer, &attributes).await
    }
}

async fn allowed(authorizer: &dyn Authorizer, attributes: &Attributes<'_>) -> Result<(), StatusError> {
    let verdict = authorizer.authorize(attributes).await;
    if verdict.decision == Decision::Allow { Ok(()) } else { Err(attributes.refusal(&verdict.reason)) }
}

/// Every user is authenticated or not, whatever groups were asked for.
fn belong(user: &mut User) {
    let wanted = if user.name == ANONYMOUS { GROUP_UNAUTHENTICATED } else { GROUP_AUTHENTICATED };
    if !user.is_in(wanted) && !user.is_in(GROUP_UNAUTHENTICATED) {
        user.groups.push(wanted.to_owned());
    }
}

fn only_named(wanted: &User) -> bool {
    wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty()
}

fn is_node(wanted: &User) -> bool {
    wanted.name.strip_prefix(NODE_PREFIX).is_some_and(|node| !node.is_empty())
}

fn is_own_node(wanted: &User, requester: &User) -> bool {
    let node = wanted.name.strip_prefix(NODE_PREFIX);
    let own = requester.extra.get("authentication.kubernetes.io/node-name").map(Vec::as_slice);
    requester.service_account().is_some() && matches!((node, own), (Some(node), Some([own])) if node == own)
}

fn account(name: &str) -> Option<(&str, &str)> {
    let (namespace, name) = name.strip_prefix(super::SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    (dns::label(namespace).is_empty() && dns::subdomain(name).is_empty()).then_some((namespace, name))
}

/// The user that the headers describe; `None` without any of them.
fn wanted_user(headers: &HeaderMap) -> Result<Option<User>, StatusError> {
    let one = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let all = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in headers.keys().filter(|name| name.as_str().starts_with(EXTRA)) {
        let encoded = &name.as_str()[EXTRA.len()..];
        let key = percent_decode_str(encoded).decode_utf8().map_or_else(|_| encoded.to_owned(), |key| key.into_owned());
        extra.entry(key).or_default().extend(all(name.as_str()));
    }
    let user = User { name: one(USER), uid: one(UID), groups: all(GROUP), extra };
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if only_named(&user) {
        return Ok(None);
    }
    Err(StatusError::bad_request(format!("requested {} without impersonating a user name", go_syntax(&user))))
}

fn take_headers(headers: &mut HeaderMap) {
    let extra = headers.keys().filter(|name| name.as_str().starts_with(EXTRA)).cloned();
    for name in extra.collect::<Vec<_>>() {
        headers.remove(name);
    }
    for name in [USER, UID, GROUP] {
        headers.remove(name);
    }
}

/// The user as upstream's message shows it, in Go's syntax.
fn go_syntax(user: &User) -> String {
    let list = |values: &[String]| {
        let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
        format!("[]string{{{}}}", quoted.join(", "))
    };
    let groups = if user.groups.is_empty() { "[]string(nil)".to_owned() } else { list(&user.groups) };
    let values = |values: &[String]| list(values).trim_start_matches("[]string").to_owned();
    let pairs: Vec<String> = user.extra.iter().map(|(key, all)| format!("{key:?}:[]string{}", values(all))).collect();
    let extra = if pairs.is_empty() { "(nil)".to_owned() } else { format!("{{{}}}", pairs.join(", ")) };
    format!(
        "&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:{groups}, Extra:map[string][]string{extra}}}",
        user.name, user.uid
    )
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::authz::Verdict;

    /// Allows what is listed, as `verb resource[/subresource] name`.
    struct Listed(&'static [&'static str]);

    #[async_trait]
    impl Authorizer for Listed {
        async fn authorize(&self, asked: &Attributes<'_>) -> Verdict {
            let slash = if asked.subresource.is_empty() { "" } else { "/" };
            let shown = format!("{} {}{slash}{} {}", asked.verb, asked.resource, asked.subresource, asked.name);
            if self.0.contains(&&*shown) { Verdict::allow("") } else { Verdict::no_opinion() }
        }
    }

    async fn check(headers: &[(&str, &str)], allowed: &'static [&'static str], expected: Result<Option<&str>, &str>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let requester = User::new("jane", &[]);
        let request = Attributes { verb: "list", resource: "nodes", is_resource: true, ..Attributes::new(&requester) };
        let result = act_as(&Listed(allowed), &request, &mut map).await;
        let shown =
            result.map(|user| user.map(|user| format!("{} {} {:?}", user.name, user.groups.join(","), user.extra)));
        let shown = shown.map_err(|error| error.to_string());
        assert_eq!(shown.as_ref().map(Option::as_deref).map_err(String::as_str), expected, "{headers:?}");
        assert!(shown.is_err() || map.is_empty(), "{map:?}");
    }

    #[tokio::test]
    async fn who_may_act_as_whom() {
        check(&[], &[], Ok(None)).await;
        let bob = [("impersonate-user", "bob")];
        check(&bob, &["impersonate users bob"], Ok(Some("bob system:authenticated {}"))).await;
        let refusal = "nodes is forbidden: User \"jane\" cannot impersonate-on:user-info:list resource \"nodes\" in API \
                       group \"\" at the cluster scope";
        check(&bob, &[], Err(refusal)).await;
        let constrained = &["impersonate-on:user-info:list nodes ", "impersonate:user-info users bob"];
        check(&bob, constrained, Ok(Some("bob system:authenticated {}"))).await;
        let groups = [("impersonate-user", "bob"), ("impersonate-group", "a"), ("impersonate-group", "b")];
        let each = &["impersonate users bob", "impersonate groups a", "impersonate groups b"];
        check(&groups, each, Ok(Some("bob a,b,system:authenticated {}"))).await;
        let extra = [("impersonate-user", "bob"), ("impersonate-extra-a%2fb", "c")];
        let each = &["impersonate users bob", "impersonate userextras/a/b c"];
        check(&extra, each, Ok(Some("bob system:authenticated {\"a/b\": [\"c\"]}"))).await;
        let robot = [("impersonate-user", "system:serviceaccount:ns:robot")];
        let expected =
            "system:serviceaccount:ns:robot system:serviceaccounts,system:serviceaccounts:ns,system:authenticated {}";
        check(&robot, &["impersonate serviceaccounts robot"], Ok(Some(expected))).await;
        let node = [("impersonate-user", "system:node:n1")];
        let constrained = &["impersonate-on:arbitrary-node:list nodes ", "impersonate:arbitrary-node nodes n1"];
        check(&node, constrained, Ok(Some("system:node:n1 system:nodes,system:authenticated {}"))).await;
        let anonymous = [("impersonate-user", "system:anonymous")];
        let expected = "system:anonymous system:unauthenticated {}";
        check(&anonymous, &["impersonate users system:anonymous"], Ok(Some(expected))).await;
        let nobody = "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"x\"}, \
                      Extra:map[string][]string(nil)} without impersonating a user name";
        check(&[("impersonate-group", "x")], &[], Err(nobody)).await;
    }
}
