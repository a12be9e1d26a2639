//! Following a runtime: three sources behind one stream of [`Event`]s, with a `Resync` after every gap.
//!
//! containerd's event service is asked first, since it exists in every version and costs nothing while nothing happens.
//! Its exit event comes from the shim and may overtake the CRI side's own book-keeping, so an exit is held back until the
//! status of the container has caught up: a reader that asks at once must not see a container still running.

use std::pin::Pin;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use prost::Message;
use tokio::sync::mpsc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use crate::containerd_events::events_client::EventsClient;
use crate::containerd_events::{ContainerDelete, Envelope, PublishRequest, SubscribeRequest, TaskExit, TaskOom};
use crate::v1::{ContainerEventResponse, ContainerEventType, ContainerState, GetEventsRequest, PodSandboxState};
use crate::{Event, Remote, Runtime};

/// Between two attempts to reach a runtime that is away.
const RECONNECT: Duration = Duration::from_millis(200);
/// How often a runtime without any event stream is listed; upstream's interval.
const RELIST: Duration = Duration::from_secs(1);
/// How long the CRI side may lag behind the shim before the exit is told regardless.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
/// The CRI plugin keeps its containers in this containerd namespace.
const NAMESPACE: &str = "k8s.io";
/// The topic of the event by which a new subscription is proven.
const HELLO: &str = "/xebec/hello";
/// How long a runtime that lacks the event stream may take to say so.
const REFUSAL: Duration = Duration::from_millis(500);

/// Runs until the reader goes away.
pub(crate) async fn follow(remote: Remote, sender: mpsc::Sender<Event>) {
    loop {
        match follow_once(&remote, &sender).await {
            Ended::ReaderGone => return,
            Ended::Unsupported => return relist(sender).await,
            Ended::Lost => {}
        }
        tokio::select! {
            () = sender.closed() => return,
            () = tokio::time::sleep(RECONNECT) => {}
        }
    }
}

enum Ended {
    Lost,
    Unsupported,
    ReaderGone,
}

async fn follow_once(remote: &Remote, sender: &mpsc::Sender<Event>) -> Ended {
    match subscribe_containerd(remote).await {
        Ok(stream) => return pass_on(remote, sender, stream).await,
        Err(status) if status.code() != Code::Unimplemented => {
            tracing::debug!(error = %status.message(), "runtime events cannot be followed yet");
            return Ended::Lost;
        }
        Err(_) => {}
    }
    match subscribe_cri(remote).await {
        Ok(stream) => pass_on(remote, sender, stream).await,
        Err(status) if status.code() == Code::Unimplemented => Ended::Unsupported,
        Err(_) => Ended::Lost,
    }
}

/// What a source says, before an exit has been checked against the CRI side.
enum Told {
    Exit(String),
    Ready(Event),
    Nothing,
}

async fn pass_on(
    remote: &Remote,
    sender: &mpsc::Sender<Event>,
    mut stream: impl Stream<Item = Result<Told, Status>> + Unpin,
) -> Ended {
    // Subscribed first, told second: what happens between is either in the listing or in the stream.
    if sender.send(Event::Resync).await.is_err() {
        return Ended::ReaderGone;
    }
    loop {
        let item = tokio::select! {
            () = sender.closed() => return Ended::ReaderGone,
            item = stream.next() => item,
        };
        match item {
            None | Some(Err(_)) => return Ended::Lost,
            Some(Ok(Told::Nothing)) => {}
            Some(Ok(Told::Ready(event))) => {
                if sender.send(event).await.is_err() {
                    return Ended::ReaderGone;
                }
            }
            Some(Ok(Told::Exit(id))) => {
                let (remote, sender) = (remote.clone(), sender.clone());
                tokio::spawn(async move {
                    settle(&remote, &id).await;
                    let _ = sender.send(Event::Exited { id }).await;
                });
            }
        }
    }
}

/// Waits until the CRI side knows that the container or sandbox has ended.
async fn settle(remote: &Remote, id: &str) {
    let mut pause = Duration::from_millis(5);
    let mut waited = Duration::ZERO;
    while waited < SETTLE_LIMIT && !has_ended(remote, id).await {
        tokio::time::sleep(pause).await;
        waited += pause;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// What the CRI side does not know (any more) counts as ended.
async fn has_ended(remote: &Remote, id: &str) -> bool {
    match remote.container_status(id).await {
        Ok(status) => matches!(status.state(), ContainerState::ContainerExited | ContainerState::ContainerUnknown),
        Err(error) if error.is_not_found() => match remote.pod_sandbox_status(id).await {
            Ok(status) => status.state() == PodSandboxState::SandboxNotready,
            Err(error) => error.is_not_found(),
        },
        Err(_) => false,
    }
}

type Source = BoxStream<'static, Result<Told, Status>>;

/// A Go server sends nothing, not even headers, before its first event, so that one could not tell when the subscription
/// stands. Therefore an event of our own is published until it comes back.
async fn subscribe_containerd(remote: &Remote) -> Result<Source, Status> {
    let topics = ["/tasks/exit", "/tasks/oom", "/containers/delete", HELLO];
    let filters = topics.iter().map(|topic| format!("namespace=={NAMESPACE},topic==\"{topic}\"")).collect();
    let (mut subscriber, mut publisher) = (EventsClient::new(remote.channel()), EventsClient::new(remote.channel()));
    let subscribed = subscriber.subscribe(in_namespace(SubscribeRequest { filters }));
    tokio::pin!(subscribed);
    let mut pause = Duration::from_millis(2);
    loop {
        tokio::select! {
            answer = &mut subscribed => {
                return Ok(answer?.into_inner().map(|item| item.map(containerd_event)).boxed());
            }
            () = tokio::time::sleep(pause) => {}
        }
        let event = prost_types::Any { type_url: "containerd.events.ContainerDelete".into(), value: Vec::new() };
        let hello = PublishRequest { topic: HELLO.into(), event: Some(event) };
        publisher.publish(in_namespace(hello)).await?;
        pause = (pause * 2).min(RELIST);
    }
}

fn in_namespace<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
    request
}

/// Here nothing can be published: a server that has not refused within `REFUSAL` is taken to have subscribed us.
async fn subscribe_cri(remote: &Remote) -> Result<Source, Status> {
    let mut client = remote.runtime_client();
    let mut subscribed = Box::pin(async move { client.get_container_events(Request::new(GetEventsRequest {})).await });
    let answer = match tokio::time::timeout(REFUSAL, &mut subscribed).await {
        Ok(answer) => futures::future::ready(answer).boxed(),
        Err(_) => subscribed.boxed(),
    };
    let flattened = futures::stream::once(answer).flat_map(|answer| match answer {
        Ok(answer) => answer.into_inner().map(|item| item.map(cri_event)).boxed(),
        Err(status) => futures::stream::once(futures::future::ready(Err(status))).boxed(),
    });
    let mut source = flattened.boxed().peekable();
    match Pin::new(&mut source).peek().now_or_never() {
        Some(Some(Err(status))) => Err(status.clone()),
        _ => Ok(source.boxed()),
    }
}

fn containerd_event(envelope: Envelope) -> Told {
    let Some(event) = envelope.event else { return Told::Nothing };
    let bytes = event.value.as_slice();
    match envelope.topic.as_str() {
        "/tasks/exit" => match TaskExit::decode(bytes) {
            // An exec's end is none of ours: its caller waits for it.
            Ok(exit) if exit.id == exit.container_id => Told::Exit(exit.container_id),
            _ => Told::Nothing,
        },
        "/tasks/oom" => told(TaskOom::decode(bytes).map(|oom| Event::OutOfMemory { id: oom.container_id })),
        "/containers/delete" => told(ContainerDelete::decode(bytes).map(|delete| Event::Deleted { id: delete.id })),
        _ => Told::Nothing,
    }
}

fn told(event: Result<Event, prost::DecodeError>) -> Told {
    event.map_or(Told::Nothing, Told::Ready)
}

fn cri_event(event: ContainerEventResponse) -> Told {
    match event.container_event_type() {
        ContainerEventType::ContainerStoppedEvent => Told::Exit(event.container_id),
        ContainerEventType::ContainerDeletedEvent => Told::Ready(Event::Deleted { id: event.container_id }),
        ContainerEventType::ContainerCreatedEvent | ContainerEventType::ContainerStartedEvent => Told::Nothing,
    }
}

async fn relist(sender: mpsc::Sender<Event>) {
    while sender.send(Event::Resync).await.is_ok() {
        tokio::time::sleep(RELIST).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(topic: &str, value: Vec<u8>, expected: &str) {
        let event = prost_types::Any { type_url: String::new(), value };
        let envelope = Envelope { namespace: NAMESPACE.into(), topic: topic.into(), event: Some(event) };
        let told = match containerd_event(envelope) {
            Told::Exit(id) => format!("exit {id}"),
            Told::Ready(event) => format!("{event:?}"),
            Told::Nothing => String::new(),
        };
        assert_eq!(told, expected, "{topic}");
    }

    #[test]
    fn containerd_events_are_read() {
        let exit =
            |id: &str| TaskExit { container_id: "c".into(), id: id.into(), pid: 7, exit_status: 1 }.encode_to_vec();
        check("/tasks/exit", exit("c"), "exit c");
        check("/tasks/exit", exit("exec-of-c"), "");
        check("/tasks/oom", TaskOom { container_id: "c".into() }.encode_to_vec(), r#"OutOfMemory { id: "c" }"#);
        check("/containers/delete", ContainerDelete { id: "c".into() }.encode_to_vec(), r#"Deleted { id: "c" }"#);
        check("/tasks/start", vec![], "");
    }
}
