//! The CNI plugin: the part of the binary which the container runtime starts for each Pod.
//!
//! Reads its parameters, passes them to the agent, prints the answer. It holds no state and changes nothing itself, so
//! it ends after a few milliseconds. Without an agent an ADD fails and says so (the runtime tries again), and a DEL
//! succeeds: the veth pair goes with the Pod's network namespace, and the agent finds its record orphaned when it
//! starts.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::protocol::{AttachmentKey, Failure, NetConf, OWN_VERSION, Reply, Request, VERSIONS, code};

/// How the plugin's process ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub exit_code: i32,
    pub stdout: String,
}

/// The whole plugin. `variable` looks up the process's environment, `stdin` holds the network configuration.
pub fn main(variable: &dyn Fn(&str) -> Option<String>, mut stdin: impl Read) -> Outcome {
    let mut input = Vec::new();
    // The runtime's configurations are a few hundred bytes; the limit only bounds a mistake.
    let read = stdin.by_ref().take(MESSAGE_LIMIT).read_to_end(&mut input);
    let conf = read.map_err(|e| Failure::new(code::IO_FAILURE, format!("read the network configuration: {e}")));
    let conf = conf.and_then(|_| parse(&input));
    let version = conf.as_ref().map_or(OWN_VERSION, |conf| conf.version.as_str()).to_owned();
    match conf.and_then(|conf| run(variable, &conf)) {
        Ok(Some(result)) => Outcome { exit_code: 0, stdout: format!("{result}\n") },
        Ok(None) => Outcome { exit_code: 0, stdout: String::new() },
        Err(failure) => Outcome { exit_code: 1, stdout: format!("{}\n", failure.to_json(&version)) },
    }
}

/// The plugin `loopback`, which containerd before 2.0 runs in every Pod's namespace beside the configured network. The agent
/// brings the loopback interface up together with the Pod's own, so there is nothing left to do but to answer.
pub fn loopback(variable: &dyn Fn(&str) -> Option<String>, mut stdin: impl Read) -> Outcome {
    let mut input = Vec::new();
    let read = stdin.by_ref().take(MESSAGE_LIMIT).read_to_end(&mut input);
    let conf = read.map_err(|e| Failure::new(code::IO_FAILURE, format!("read the network configuration: {e}")));
    let conf = match conf.and_then(|_| parse(&input)) {
        Ok(conf) => conf,
        Err(failure) => return Outcome { exit_code: 1, stdout: format!("{}\n", failure.to_json(OWN_VERSION)) },
    };
    let answer = match variable("CNI_COMMAND").as_deref() {
        Some("VERSION") => json!({"cniVersion": conf.version, "supportedVersions": VERSIONS}),
        Some("ADD") => {
            let interface = json!({"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": variable("CNI_NETNS")});
            json!({"cniVersion": conf.version, "interfaces": [interface]})
        }
        _ => return Outcome { exit_code: 0, stdout: String::new() },
    };
    Outcome { exit_code: 0, stdout: format!("{answer}\n") }
}

/// The longest message read from the runtime, the plugin or the agent, in bytes.
pub(crate) const MESSAGE_LIMIT: u64 = 1 << 20;

/// An ADD takes milliseconds. The kernel's link lock can be held by others for seconds on a machine under load.
const PATIENCE: Duration = Duration::from_secs(30);

fn parse(input: &[u8]) -> Result<NetConf, Failure> {
    serde_json::from_slice(input)
        .map_err(|e| Failure::new(code::DECODE_FAILURE, format!("understand the network configuration: {e}")))
}

fn run(variable: &dyn Fn(&str) -> Option<String>, conf: &NetConf) -> Result<Option<Value>, Failure> {
    let command = required(variable, "CNI_COMMAND")?;
    if command == "VERSION" {
        return Ok(Some(json!({"cniVersion": conf.version, "supportedVersions": VERSIONS})));
    }
    if !VERSIONS.contains(&conf.version.as_str()) {
        let message = format!("the network configuration asks for CNI {}, known are {VERSIONS:?}", conf.version);
        return Err(Failure::new(code::INCOMPATIBLE_VERSION, message));
    }
    let request = request(&command, variable, conf)?;
    let socket = conf.socket.as_deref();
    let socket =
        socket.ok_or_else(|| Failure::new(code::INVALID_CONFIG, "the network configuration names no socket"))?;
    match (ask(socket, &request), &request) {
        (Ok(Reply::Done), _) => Ok(None),
        (Ok(Reply::Attached(attached)), _) => Ok(Some(attached.to_json(&conf.version))),
        (Ok(Reply::Failed(failure)), _) => Err(failure),
        (Err(_), Request::Del { .. } | Request::Gc { .. }) => Ok(None),
        (Err(error), Request::Status) => Err(unreachable_agent(code::PLUGIN_NOT_AVAILABLE, socket, &error)),
        (Err(error), _) => Err(unreachable_agent(code::TRY_AGAIN_LATER, socket, &error)),
    }
}

fn unreachable_agent(code: u32, socket: &Path, error: &std::io::Error) -> Failure {
    let message = format!("the node agent does not answer on {}: {error}; is it running?", socket.display());
    Failure::new(code, message)
}

fn request(command: &str, variable: &dyn Fn(&str) -> Option<String>, conf: &NetConf) -> Result<Request, Failure> {
    let key = || AttachmentKey::checked(required(variable, "CNI_CONTAINERID")?, required(variable, "CNI_IFNAME")?);
    let namespace = || required(variable, "CNI_NETNS").map(PathBuf::from);
    Ok(match command {
        "ADD" => Request::Add {
            key: key()?,
            namespace: namespace()?,
            pod: pod_name(&variable("CNI_ARGS").unwrap_or_default()),
            ports: conf.runtime.port_mappings.clone().unwrap_or_default(),
        },
        "DEL" => Request::Del { key: key()? },
        "CHECK" => Request::Check { key: key()?, namespace: namespace()? },
        "GC" => {
            let valid = conf.valid_attachments.clone();
            let none = || Failure::new(code::INVALID_CONFIG, "GC without cni.dev/valid-attachments");
            Request::Gc { valid: valid.ok_or_else(none)? }
        }
        "STATUS" => Request::Status,
        other => return Err(Failure::new(code::INVALID_ENVIRONMENT, format!("CNI_COMMAND is not known: {other:?}"))),
    })
}

fn required(variable: &dyn Fn(&str) -> Option<String>, name: &str) -> Result<String, Failure> {
    let value = variable(name).filter(|value| !value.is_empty());
    value.ok_or_else(|| Failure::new(code::INVALID_ENVIRONMENT, format!("{name} is missing")))
}

/// `namespace/name` out of `IgnoreUnknown=1;K8S_POD_NAMESPACE=…;K8S_POD_NAME=…;…`.
fn pod_name(arguments: &str) -> String {
    let value = |key: &str| arguments.split(';').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    match (value("K8S_POD_NAMESPACE"), value("K8S_POD_NAME")) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        _ => String::new(),
    }
}

fn ask(socket: &Path, request: &Request) -> std::io::Result<Reply> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&serde_json::to_vec(request)?)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.take(MESSAGE_LIMIT).read_to_end(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_plugin(environment: &[(&str, &str)], conf: &str) -> (i32, Value) {
        let lookup = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let outcome = main(&lookup, conf.as_bytes());
        (outcome.exit_code, serde_json::from_str(&outcome.stdout).unwrap_or(Value::Null))
    }

    const CONF: &str = r#"{"cniVersion":"0.4.0","name":"xebec","type":"xebec-cni","socket":"/nonexistent/cni.sock"}"#;

    #[test]
    fn without_an_agent() {
        let (exit, output) = run_plugin(&[("CNI_COMMAND", "VERSION")], CONF);
        assert_eq!((exit, &output["supportedVersions"]), (0, &json!(VERSIONS)));
        let cases: &[(&str, &str, i32, Value)] = &[
            ("ADD", CONF, 1, json!(11)),
            ("CHECK", CONF, 1, json!(11)),
            ("DEL", CONF, 0, Value::Null),
            ("STATUS", CONF, 1, json!(50)),
            ("GC", CONF, 1, json!(7)),
            ("GC", r#"{"cniVersion":"1.1.0","socket":"/nonexistent","cni.dev/valid-attachments":[]}"#, 0, Value::Null),
            ("FROB", CONF, 1, json!(4)),
            ("ADD", "{", 1, json!(6)),
            ("ADD", r#"{"cniVersion":"9.9.9"}"#, 1, json!(1)),
            ("ADD", r#"{"cniVersion":"1.0.0"}"#, 1, json!(7)),
        ];
        for (command, conf, exit_code, error_code) in cases {
            let environment =
                [("CNI_COMMAND", *command), ("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/x"), ("CNI_IFNAME", "eth0")];
            let (exit, output) = run_plugin(&environment, conf);
            assert_eq!((exit, &output["code"]), (*exit_code, error_code), "{command} {conf}");
        }
        assert_eq!(run_plugin(&[], CONF).1["msg"], "CNI_COMMAND is missing");
    }

    #[test]
    fn the_pod_is_named_in_the_arguments() {
        let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=redis-master;K8S_POD_UID=1";
        assert_eq!(pod_name(arguments), "default/redis-master");
        assert_eq!(pod_name("A=B"), "");
    }
}
