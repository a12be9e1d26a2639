//! `/containerLogs`: what a container has written, and goes on writing.
//!
//! This file reads the request and finds the container's log; [`super::log_file`] reads the log. Which instance of a
//! container is meant, and what is said when there is none yet, follows the Pod's status as upstream's kubelet does.

use std::path::PathBuf;
use std::sync::Arc;

use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use tokio::sync::mpsc;
use xebec_cri::v1::ContainerState;

use super::NodeServer;
use super::answer::{Answer, error, stream};
use super::exec::{Target, values};
use super::log_file::{Follow, LogFile, Selection, Stream};

/// How many pieces of a log wait for a client that reads slowly; each holds up to 32 KiB.
const QUEUE: usize = 4;

/// What a request asks of a log.
#[derive(Debug, Default, PartialEq)]
struct Options {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail_lines: Option<u64>,
    limit_bytes: Option<u64>,
    since: Option<Timestamp>,
    stream: Stream,
}

/// A query that cannot be read, or asks for what cannot be.
#[derive(Debug, PartialEq, Eq)]
enum BadOptions {
    Undecodable,
    Invalid,
}

/// Streams the log of a container.
pub async fn serve(server: &NodeServer, target: Target<'_>, query: &str) -> Response<Answer> {
    let Target { namespace, pod: name, container, .. } = target;
    let options = match Options::parse(query, server.clock.now()) {
        Ok(options) => options,
        Err(BadOptions::Undecodable) => return message(StatusCode::BAD_REQUEST, "Unable to decode query."),
        Err(BadOptions::Invalid) => return message(StatusCode::UNPROCESSABLE_ENTITY, "Invalid request."),
    };
    let Some(pod) = server.node.pod(namespace, name) else {
        return error(StatusCode::NOT_FOUND, format!("pod {name:?} does not exist"));
    };
    if !names(&pod).any(|known| known == container) {
        return error(StatusCode::NOT_FOUND, format!("container {container:?} not found in pod {name:?}"));
    }
    let instance = match instance(&pod, name, container, options.previous) {
        Ok(instance) => instance,
        Err(reason) => return error(StatusCode::BAD_REQUEST, reason),
    };
    let id = instance.split_once("://").map_or(instance.as_str(), |(_, id)| id).to_owned();
    let path = match server.containers.container_status(&id).await {
        Ok(status) => PathBuf::from(status.log_path),
        Err(failure) => {
            tracing::debug!(error = %failure, container = instance, "status of a container whose log is asked for");
            let text = format!("unable to retrieve container logs for {instance}");
            return error(StatusCode::BAD_REQUEST, text);
        }
    };
    let file = match LogFile::open(path, options.tail_lines).await {
        Ok(file) => file,
        Err(failure) => return error(StatusCode::BAD_REQUEST, failure),
    };
    let Options { follow, timestamps, limit_bytes, since, stream: wanted, tail_lines, .. } = options;
    // Without following, lines that are written while we read are not among the last of the log.
    let lines = tail_lines.filter(|_| !follow);
    let selection = Selection { lines, bytes: limit_bytes, since, timestamps, stream: wanted };
    let (sender, pieces) = mpsc::channel(QUEUE);
    let containers = server.containers.clone();
    let follow = follow.then(|| Follow {
        is_running: Box::new(move || {
            let (containers, id) = (Arc::clone(&containers), id.clone());
            Box::pin(async move {
                match containers.container_status(&id).await {
                    Ok(status) => status.state() == ContainerState::ContainerRunning,
                    // A runtime that does not answer has not ended its containers; one that it does not know has ended.
                    Err(failure) => !failure.is_not_found(),
                }
            })
        }),
        clock: server.clock.clone(),
    });
    server.shutdown.spawn(async move {
        if let Err(failure) = file.copy(selection, follow, &sender).await {
            tracing::debug!(error = %failure, "reading a container's log");
            let _ = sender.send(Err(std::io::Error::other(failure))).await;
        }
    });
    stream(pieces)
}

/// Upstream words these two refusals as JSON, and sends them as text.
fn message(status: StatusCode, text: &str) -> Response<Answer> {
    error(status, format!(r#"{{"message": "{text}"}}"#))
}

impl Options {
    fn parse(query: &str, now: Timestamp) -> Result<Options, BadOptions> {
        let first = |name: &str| values(query, name).into_iter().next();
        let flag = |name: &str| first(name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"));
        let number = |name: &str| match first(name).map(|value| value.parse::<i64>()) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(BadOptions::Undecodable),
        };
        let at_least = |least: i64, number: Option<i64>| match number {
            Some(number) if number < least => Err(BadOptions::Invalid),
            number => Ok(number.map(|number| number as u64)),
        };
        // "tail" is the parameter of old clients, and "all" the same as nothing.
        let tail = match first("tail").filter(|tail| !tail.is_empty()).as_deref() {
            Some("all") => None,
            Some(_) => number("tail")?,
            None => number("tailLines")?,
        };
        let (limit, seconds) = (number("limitBytes")?, number("sinceSeconds")?);
        let time = first("sinceTime").filter(|time| !time.is_empty()).map(|time| time.parse::<Timestamp>());
        let time = time.transpose().map_err(|_| BadOptions::Undecodable)?;
        let stream = match first("stream").as_deref() {
            None | Some("All") => Stream::All,
            Some("Stdout") => Stream::Stdout,
            Some("Stderr") => Stream::Stderr,
            Some(_) => return Err(BadOptions::Invalid),
        };
        if (time.is_some() && seconds.is_some()) || (stream != Stream::All && tail.is_some()) {
            return Err(BadOptions::Invalid);
        }
        let seconds = at_least(1, seconds)?;
        let ago = |seconds: u64| now.checked_sub(SignedDuration::from_secs(seconds as i64)).unwrap_or(Timestamp::MIN);
        Ok(Options {
            follow: flag("follow"),
            previous: flag("previous"),
            timestamps: flag("timestamps"),
            tail_lines: at_least(0, tail)?,
            limit_bytes: at_least(1, limit)?,
            since: time.or(seconds.map(ago)),
            stream,
        })
    }
}

/// The names of every container in the Pod's spec.
fn names(pod: &Pod) -> impl Iterator<Item = &str> {
    pod.spec.iter().flat_map(|spec| {
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let ephemeral = spec.ephemeral_containers.iter().flatten();
        containers.map(|container| container.name.as_str()).chain(ephemeral.map(|container| container.name.as_str()))
    })
}

/// The id of the instance whose log is meant, or why there is none.
fn instance(pod: &Pod, name: &str, container: &str, previous: bool) -> Result<String, String> {
    let find = |statuses: &Option<Vec<ContainerStatus>>| -> Option<ContainerStatus> {
        statuses.iter().flatten().find(|status| status.name == container).cloned()
    };
    let status = pod.status.as_ref().and_then(|status| {
        let regular = find(&status.container_statuses).or_else(|| find(&status.init_container_statuses));
        regular.or_else(|| find(&status.ephemeral_container_statuses))
    });
    let Some(status) = status else {
        return Err(format!("container {container:?} in pod {name:?} is not available"));
    };
    let known = |id: Option<String>| id.filter(|id| !id.is_empty());
    let last = status.last_state.and_then(|state| state.terminated);
    let has_last = last.is_some();
    let last = last.and_then(|terminated| known(terminated.container_id));
    let state = status.state.unwrap_or_default();
    let terminated = || format!("container {container:?} in pod {name:?} is terminated");
    if previous {
        last.ok_or_else(|| format!("previous terminated container {container:?} in pod {name:?} not found"))
    } else if state.running.is_some() {
        Ok(status.container_id.unwrap_or_default())
    } else if let Some(ended) = state.terminated {
        known(ended.container_id).or(last).ok_or_else(terminated)
    } else if has_last {
        last.ok_or_else(terminated)
    } else if let Some(waiting) = state.waiting {
        let reason = match waiting.reason.as_deref().unwrap_or_default() {
            "ErrImagePull" => "image can't be pulled",
            "ImagePullBackOff" => "trying and failing to pull image",
            reason => reason,
        };
        Err(format!("container {container:?} in pod {name:?} is waiting to start: {reason}"))
    } else {
        Err(format!("container {container:?} in pod {name:?} is waiting to start - no logs yet"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn queries_are_read_as_upstream_reads_them() {
        fn check(query: &str, expect: Result<Options, BadOptions>) {
            let now = Timestamp::from_second(1_000).unwrap();
            assert_eq!(Options::parse(query, now), expect, "{query}");
        }
        let none = Options::default;
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        check("", Ok(none()));
        check("follow=true&timestamps=1&previous=false", Ok(Options { follow: true, timestamps: true, ..none() }));
        check("follow=", Ok(Options { follow: true, ..none() }));
        check("tailLines=0&limitBytes=1", Ok(Options { tail_lines: Some(0), limit_bytes: Some(1), ..none() }));
        check("tail=5&tailLines=9", Ok(Options { tail_lines: Some(5), ..none() }));
        check("tail=all&tailLines=9", Ok(none()));
        check("sinceSeconds=60", Ok(Options { since: at(940), ..none() }));
        check("sinceTime=1970-01-01T00%3A00%3A07Z", Ok(Options { since: at(7), ..none() }));
        check("stream=Stderr", Ok(Options { stream: Stream::Stderr, ..none() }));
        check("tailLines=x", Err(BadOptions::Undecodable));
        check("sinceTime=yesterday", Err(BadOptions::Undecodable));
        check("tailLines=-1", Err(BadOptions::Invalid));
        check("limitBytes=0", Err(BadOptions::Invalid));
        check("sinceSeconds=0", Err(BadOptions::Invalid));
        check("sinceSeconds=1&sinceTime=1970-01-01T00%3A00%3A07Z", Err(BadOptions::Invalid));
        check("stream=Stdout&tailLines=1", Err(BadOptions::Invalid));
        check("stream=stdin", Err(BadOptions::Invalid));
    }

    #[test]
    fn the_instance_follows_the_pods_status() {
        fn check(status: serde_json::Value, previous: bool, expect: Result<&str, &str>) {
            let mut status = status;
            status["name"] = json!("app");
            for field in ["image", "imageID"] {
                status[field] = json!("");
            }
            status["ready"] = json!(false);
            status["restartCount"] = json!(0);
            let pod = json!({"spec": {"containers": [{"name": "app"}]}, "status": {"containerStatuses": [status]}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let found = instance(&pod, "web", "app", previous);
            assert_eq!(found.as_deref().map_err(String::as_str), expect);
        }
        let ended = |id: &str| json!({"terminated": {"exitCode": 1, "containerID": id}});
        let running = json!({"state": {"running": {}}, "containerID": "c://2", "lastState": ended("c://1")});
        check(running.clone(), false, Ok("c://2"));
        check(running, true, Ok("c://1"));
        check(json!({"state": ended("c://1")}), false, Ok("c://1"));
        check(
            json!({"state": ended("c://1")}),
            true,
            Err("previous terminated container \"app\" in pod \"web\" not found"),
        );
        check(json!({"state": ended(""), "lastState": ended("c://0")}), false, Ok("c://0"));
        check(json!({"state": ended("")}), false, Err("container \"app\" in pod \"web\" is terminated"));
        let waiting = |reason: &str| json!({"state": {"waiting": {"reason": reason}}});
        let backoff = json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended("c://3")});
        check(backoff, false, Ok("c://3"));
        for (reason, said) in [
            ("ContainerCreating", "ContainerCreating"),
            ("ErrImagePull", "image can't be pulled"),
            ("ImagePullBackOff", "trying and failing to pull image"),
        ] {
            let text = format!("container \"app\" in pod \"web\" is waiting to start: {said}");
            check(waiting(reason), false, Err(&text));
        }
        check(json!({}), false, Err("container \"app\" in pod \"web\" is waiting to start - no logs yet"));
        let pod = Pod::default();
        assert_eq!(
            instance(&pod, "web", "app", false),
            Err("container \"app\" in pod \"web\" is not available".to_owned())
        );
    }
}
