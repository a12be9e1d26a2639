//! `/livez`, `/readyz` and `/healthz`: whether the server lives, and whether it should be sent requests.
//!
//! Each consists of named checks, which can be asked for one by one or left out. Behaviour: upstream's `healthz`; reasons
//! are written to the log and withheld from whoever asks.

use std::sync::atomic::Ordering;

use http::header::X_CONTENT_TYPE_OPTIONS;
use http::{HeaderValue, Response, StatusCode};

use crate::body::{self, Body};
use crate::server_state::ServerState;

/// One check: its name, which of the three ask for it, and how it is made.
struct Check {
    name: &'static str,
    ready_only: bool,
    what: What,
}

enum What {
    Nothing,
    Store,
    /// What has to exist from the first moment.
    Bootstrap,
    /// The server has not begun to end.
    Shutdown,
}

const CHECKS: &[Check] = &[
    Check { name: "ping", ready_only: false, what: What::Nothing },
    Check { name: "log", ready_only: false, what: What::Nothing },
    Check { name: "etcd", ready_only: false, what: What::Store },
    Check { name: "etcd-readiness", ready_only: true, what: What::Store },
    // The caches are filled before the first request is accepted.
    Check { name: "informer-sync", ready_only: true, what: What::Nothing },
    Check { name: "poststarthook/start-system-namespaces-controller", ready_only: false, what: What::Bootstrap },
    Check { name: "poststarthook/rbac/bootstrap-roles", ready_only: false, what: What::Bootstrap },
    Check {
        name: "poststarthook/scheduling/bootstrap-system-priority-classes",
        ready_only: false,
        what: What::Bootstrap,
    },
    Check { name: "poststarthook/priority-and-fairness-config-consumer", ready_only: false, what: What::Nothing },
    Check { name: "poststarthook/priority-and-fairness-filter", ready_only: false, what: What::Nothing },
    Check { name: "poststarthook/priority-and-fairness-config-producer", ready_only: false, what: What::Bootstrap },
    Check {
        name: "poststarthook/start-cluster-authentication-info-controller",
        ready_only: false,
        what: What::Bootstrap,
    },
    Check { name: "shutdown", ready_only: true, what: What::Shutdown },
];

const ENDPOINTS: [&str; 3] = ["healthz", "livez", "readyz"];

/// Every path that is answered here.
pub fn paths() -> Vec<String> {
    let of = |endpoint: &'static str| {
        let checks = CHECKS.iter().filter(move |check| check.belongs(endpoint));
        std::iter::once(format!("/{endpoint}")).chain(checks.map(move |check| format!("/{endpoint}/{}", check.name)))
    };
    ENDPOINTS.into_iter().flat_map(of).collect()
}

/// `parts` is the path; `None` if there is no such check.
pub async fn answer(server: &ServerState, parts: &[&str], query: &str) -> Option<Response<Body>> {
    let endpoint = ENDPOINTS.into_iter().find(|endpoint| *endpoint == parts[0])?;
    let single = parts[1..].join("/");
    let (mut report, mut failed) = (String::new(), Vec::new());
    if !single.is_empty() {
        let check = CHECKS.iter().find(|check| check.name == single && check.belongs(endpoint))?;
        let made = check.make(server).await;
        return Some(match made {
            Ok(()) => plain(StatusCode::OK, "ok".to_owned()),
            Err(why) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
        });
    }
    let parameters: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    let mut excluded: Vec<&str> =
        parameters.iter().filter(|(key, _)| key == "exclude").map(|(_, value)| &**value).collect();
    for check in CHECKS.iter().filter(|check| check.belongs(endpoint)) {
        let name = check.name;
        if excluded.contains(&name) {
            excluded.retain(|one| *one != name);
            report.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        let made = check.make(server).await;
        server.metrics.checked(name, endpoint, made.is_ok());
        match made {
            Ok(()) => report.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                tracing::info!(endpoint, name, why, "a health check failed");
                failed.push(name);
                report.push_str(&format!("[-]{name} failed: reason withheld\n"));
            }
        }
    }
    if !excluded.is_empty() {
        excluded.sort();
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let names = names.join(",");
        report.push_str(&format!("warn: some health checks cannot be excluded: no matches for {names}\n"));
    }
    if !failed.is_empty() {
        return Some(plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{report}{endpoint} check failed\n")));
    }
    if parameters.iter().any(|(key, _)| key == "verbose") {
        return Some(plain(StatusCode::OK, format!("{report}{endpoint} check passed\n")));
    }
    Some(plain(StatusCode::OK, "ok".to_owned()))
}

fn plain(code: StatusCode, text: String) -> Response<Body> {
    let mut response = body::text(code, text);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl Check {
    fn belongs(&self, endpoint: &str) -> bool {
        endpoint == "readyz" || !self.ready_only
    }

    async fn make(&self, server: &ServerState) -> Result<(), String> {
        match self.what {
            What::Nothing => Ok(()),
            What::Store => server.registry.is_healthy().await.map_err(|error| error.to_string()),
            What::Bootstrap if server.ready.load(Ordering::Acquire) => Ok(()),
            What::Bootstrap => Err("not finished".to_owned()),
            What::Shutdown if server.ending.load(Ordering::Acquire) => Err("process is shutting down".to_owned()),
            What::Shutdown => Ok(()),
        }
    }
}
