//! One probe or hook, carried out: a command in the container, an HTTP request, a TCP connection. Texts are upstream's, since they
//! end up in events.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, Pod, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::time::timeout;
use xebec_cri::{Code, Runtime};

use crate::http_get::{self, Request};

/// How much of an answer is kept.
const OUTPUT_LIMIT: usize = 10 << 10;

/// What a probe's result counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure,
    /// The probe could not be carried out: it counts as nothing.
    Unknown,
}

/// A result with what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Success,
    /// Counts as success.
    Warning(String),
    Failure(String),
    Error(String),
}

/// Where actions are carried out.
pub struct Place<'a> {
    pub runtime: &'a dyn Runtime,
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub container_id: &'a str,
    pub pod_ip: &'a str,
}

pub async fn probe(place: &Place<'_>, probe: &Probe) -> Answer {
    let limit = Duration::from_secs(probe.timeout_seconds.and_then(|it| u64::try_from(it).ok()).unwrap_or(1).max(1));
    if let Some(action) = &probe.exec {
        return exec(place, action, limit).await;
    }
    if let Some(action) = &probe.http_get {
        return match http_request(place, action) {
            Ok(request) => http(&request, limit).await,
            Err(message) => Answer::Error(message),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        return tcp(place, action, limit).await;
    }
    if let Some(action) = &probe.grpc {
        let address = (place.pod_ip.to_owned(), action.port as u16);
        return super::grpc::check(&address, action.service.as_deref().unwrap_or_default(), limit).await;
    }
    Answer::Error("missing probe handler".into())
}

async fn exec(place: &Place<'_>, action: &ExecAction, limit: Duration) -> Answer {
    let command = action.command.clone().unwrap_or_default();
    match place.runtime.exec_sync(place.container_id, &command, Some(limit)).await {
        Ok(answer) if answer.exit_code == 0 => Answer::Success,
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            output.truncate(OUTPUT_LIMIT);
            Answer::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(error) if error.code() == Some(Code::DeadlineExceeded) => {
            let command = command.join(" ");
            Answer::Failure(format!("command timed out: {command:?} timed out after {}s", limit.as_secs()))
        }
        Err(error) => Answer::Error(error.to_string()),
    }
}

/// The request of an action; ports may be named after the container's.
pub fn http_request(place: &Place<'_>, action: &HTTPGetAction) -> Result<Request, String> {
    let host = action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| place.pod_ip.to_owned());
    let headers = action.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone()));
    let path = action.path.as_deref().unwrap_or_default();
    Ok(Request {
        tls: action.scheme.as_deref() == Some("HTTPS"),
        host,
        port: port(place.container, &action.port)?,
        path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        headers: headers.collect(),
    })
}

async fn http(request: &Request, limit: Duration) -> Answer {
    let url = request.url();
    match timeout(limit, http_get::get(request)).await {
        Err(_) => Answer::Failure(format!(
            "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
        Ok(Err(message)) => Answer::Failure(format!("Get {url:?}: {message}")),
        Ok(Ok(answer)) => match answer.status {
            200..300 => Answer::Success,
            // Only a redirection that leads elsewhere is left by the request itself.
            300..400 => Answer::Warning(format!("Probe terminated redirects, Response body: {}", answer.body)),
            status => Answer::Failure(format!("HTTP probe failed with statuscode: {status}")),
        },
    }
}

async fn tcp(place: &Place<'_>, action: &TCPSocketAction, limit: Duration) -> Answer {
    let host = action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| place.pod_ip.to_owned());
    let port = match port(place.container, &action.port) {
        Ok(port) => port,
        Err(message) => return Answer::Error(message),
    };
    let address = http_get::join_host_port(&host, port);
    match timeout(limit, TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_)) => Answer::Success,
        Ok(Err(error)) => Answer::Failure(http_get::dial_error(&address, &error)),
        Err(_) => Answer::Failure(format!("dial tcp {address}: i/o timeout")),
    }
}

/// A number, or the name of one of the container's ports.
fn port(container: &Container, wanted: &IntOrString) -> Result<u16, String> {
    let number = match wanted {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    let valid = number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0);
    valid.ok_or_else(|| match wanted {
        IntOrString::Int(number) => format!("invalid port number: {number}"),
        IntOrString::String(name) => format!("couldn't find port: {name}"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check_port(wanted: serde_json::Value, expected: Result<u16, &str>) {
        let container = json!({"name": "c", "ports": [{"name": "http", "containerPort": 8080}]});
        let container: Container = serde_json::from_value(container).unwrap();
        let found = port(&container, &serde_json::from_value(wanted).unwrap());
        assert_eq!(found.as_ref().map(|port| *port).map_err(String::as_str), expected);
    }

    #[test]
    fn ports_may_be_named() {
        check_port(json!(80), Ok(80));
        check_port(json!("http"), Ok(8080));
        check_port(json!("81"), Ok(81));
        check_port(json!("none"), Err("couldn't find port: none"));
        check_port(json!(0), Err("invalid port number: 0"));
    }
}
