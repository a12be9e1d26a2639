//! Exec and attach over every protocol.

use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Method};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use xebec_streaming::remote_command::client::{self, ClientSession, ConnectError};
use xebec_streaming::remote_command::{Options, Outcome, Session, TerminalSize, V5, accept, relay};
use xebec_streaming::upgrade::{spdy_request_headers, websocket_request_headers};
use xebec_streaming::websocket;

use super::{pattern, serve, upgrade, within};

const ALL: Options = Options { stdin: true, stdout: true, stderr: true, tty: false };
const TERMINAL: Options = Options { stdin: true, stdout: true, stderr: false, tty: true };
const BIG: usize = 6 << 20;

/// A node whose commands are named by the request's path.
async fn node() -> SocketAddr {
    serve(|mut request| {
        let command = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let options = if command == "resize" { TERMINAL } else { ALL };
        match accept(&mut request, options) {
            Ok(accepted) => {
                tokio::spawn(async move {
                    if let Ok(session) = accepted.session.await {
                        run(&command, session).await;
                    }
                });
                accepted.reply
            }
            Err(refusal) => *refusal,
        }
    })
    .await
}

async fn run(command: &str, mut session: Session) {
    let outcome = match command {
        "cat" => {
            let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
            tokio::io::copy(&mut stdin, &mut stdout).await.unwrap();
            stdout.shutdown().await.unwrap();
            Outcome::Success
        }
        "fail" => {
            session.stderr.as_mut().unwrap().write_all(b"no\n").await.unwrap();
            Outcome::exit(3)
        }
        "both" => {
            let (mut stdout, mut stderr) = (session.stdout.take().unwrap(), session.stderr.take().unwrap());
            let (out, err) = (pattern(BIG), pattern(BIG / 2));
            let (out, err) = tokio::join!(stdout.write_all(&out), stderr.write_all(&err));
            out.and(err).unwrap();
            // Dropping the writers ends the streams as well.
            drop((stdout, stderr));
            Outcome::Success
        }
        "resize" => {
            let mut sizes = session.resize.take().unwrap();
            let mut stdout = session.stdout.take().unwrap();
            for _ in 0..2 {
                let size = sizes.recv().await.unwrap();
                stdout.write_all(format!("{}x{} ", size.width, size.height).as_bytes()).await.unwrap();
            }
            Outcome::Success
        }
        _ => Outcome::internal("no such command"),
    };
    session.finish(&outcome).await;
}

/// A node that hands every command on to another node over SPDY, as it does to its runtime.
async fn relaying_node() -> SocketAddr {
    let runtime = node().await;
    serve(move |mut request| {
        let url = format!("http://{runtime}{}", request.uri().path());
        let options = if url.ends_with("resize") { TERMINAL } else { ALL };
        match accept(&mut request, options) {
            Ok(accepted) => {
                tokio::spawn(async move {
                    let streams = client::connect(&url, options).await.unwrap();
                    relay(accepted.session.await.unwrap(), streams).await;
                });
                accepted.reply
            }
            Err(refusal) => *refusal,
        }
    })
    .await
}

#[derive(Debug, Clone, Copy)]
enum Client {
    Spdy,
    WebSocket,
}

impl Client {
    async fn start(self, address: SocketAddr, command: &str) -> ClientSession {
        let options = if command == "resize" { TERMINAL } else { ALL };
        match self {
            Client::Spdy => client::connect(&format!("http://{address}/exec/{command}"), options).await.unwrap(),
            Client::WebSocket => {
                let headers = websocket_request_headers(&[V5]);
                let io = upgrade(address, Method::GET, &format!("/exec/{command}"), headers).await.unwrap();
                client::over_websocket(io, options).await
            }
        }
    }
}

/// Runs a command with `stdin` and takes everything it says.
async fn check(client: Client, address: SocketAddr, command: &str, stdin: &[u8]) -> (Vec<u8>, Vec<u8>, Outcome) {
    let mut session = client.start(address, command).await;
    let (mut input, mut output) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    let mut errors = session.stderr.take();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let send = async {
        // A command that has ended takes no more input.
        let _ = input.write_all(stdin).await;
        let _ = input.shutdown().await;
    };
    let receive = async {
        if let Some(errors) = &mut errors {
            errors.read_to_end(&mut err).await.unwrap();
        }
    };
    let work = async { tokio::join!(send, output.read_to_end(&mut out), receive, session.outcome()) };
    let ((), read, (), outcome) = within(work).await;
    read.unwrap();
    within(session.close()).await;
    (out, err, outcome)
}

/// Runs a command over every protocol, directly and through a relay, and expects its output, errors and outcome.
async fn everywhere(command: &str, stdin: &[u8], (out, err, outcome): (&[u8], &[u8], Outcome)) {
    let nodes = [node().await, relaying_node().await];
    for (client, address) in [Client::Spdy, Client::WebSocket].into_iter().flat_map(|c| nodes.map(|node| (c, node))) {
        let (got_out, got_err, got) = check(client, address, command, stdin).await;
        let relayed = address == nodes[1];
        assert!(got_out == out, "{client:?} {command} relayed {relayed}: {} bytes of stdout", got_out.len());
        assert!(got_err == err, "{client:?} {command} relayed {relayed}: {} bytes of stderr", got_err.len());
        assert_eq!(got, outcome, "{client:?} {command} relayed {relayed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_that_ends_comes_back() {
    everywhere("cat", b"hello\n", (b"hello\n", b"", Outcome::Success)).await;
    everywhere("cat", b"", (b"", b"", Outcome::Success)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_input_and_output_pass_whole() {
    let big = pattern(BIG);
    everywhere("cat", &big, (&big, b"", Outcome::Success)).await;
    everywhere("both", b"", (&big, &pattern(BIG / 2), Outcome::Success)).await;
}

#[tokio::test]
async fn exit_codes_and_failures_arrive() {
    everywhere("fail", b"", (b"", b"no\n", Outcome::Exit(3))).await;
    everywhere("nonsense", b"", (b"", b"", Outcome::internal("no such command"))).await;
}

#[tokio::test]
async fn terminals_are_resized() {
    for address in [node().await, relaying_node().await] {
        for client in [Client::Spdy, Client::WebSocket] {
            let mut session = client.start(address, "resize").await;
            let mut resize = session.resize.take().unwrap();
            resize.resize(TerminalSize { width: 80, height: 24 }).await.unwrap();
            resize.resize(TerminalSize { width: 132, height: 50 }).await.unwrap();
            let (mut stdout, mut text) = (session.stdout.take().unwrap(), String::new());
            let work = async { tokio::join!(stdout.read_to_string(&mut text), session.outcome()) };
            let (_, outcome) = within(work).await;
            assert_eq!((text.as_str(), outcome), ("80x24 132x50 ", Outcome::Success), "{client:?}");
        }
    }
}

#[tokio::test]
async fn older_websocket_protocols_are_served() {
    async fn check(protocol: &str, send: &[Message], expect: &[&[u8]]) {
        let mut headers = websocket_request_headers(&[protocol]);
        if protocol.is_empty() {
            headers.remove("sec-websocket-protocol");
        }
        let io = upgrade(node().await, Method::GET, "/exec/fail", headers).await.unwrap();
        let mut socket = websocket::over(io, Role::Client).await;
        for message in send {
            socket.send(message.clone()).await.unwrap();
        }
        let mut received = Vec::new();
        while let Some(Ok(message)) = within(socket.next()).await {
            match message {
                Message::Close(frame) => assert_eq!(u16::from(frame.unwrap().code), 1000, "{protocol}"),
                message => received.push(message.into_data()),
            }
        }
        assert_eq!(received, expect, "{protocol}");
    }
    let status = [&[3], Outcome::Exit(3).to_json().as_slice()].concat();
    let text = [&[3], Outcome::Exit(3).message().as_bytes()].concat();
    // Input on a channel that is not read, and on one that does not exist, is passed over.
    let input = [Message::binary(vec![0, 1, 2]), Message::binary(vec![9, 9]), Message::binary(vec![])];
    check("v4.channel.k8s.io", &input, &[&[1], b"\x02no\n", &status]).await;
    check("channel.k8s.io", &[], &[&[1], b"\x02no\n", &text]).await;
    check("", &[], &[&[1], b"\x02no\n", &text]).await;
    let coded: &[u8] = b"3eyJtZXRhZGF0YSI6e30sInN0YXR1cyI6IkZhaWx1cmUiLCJtZXNzYWdlIjoiY29tbWFuZCB0ZXJtaW5hdGVkIHdpdGggbm9uLXplcm8gZXhpdCBjb2RlOiBjb21tYW5kIHRlcm1pbmF0ZWQgd2l0aCBleGl0IGNvZGUgMyIsInJlYXNvbiI6Ik5vblplcm9FeGl0Q29kZSIsImRldGFpbHMiOnsiY2F1c2VzIjpbeyJyZWFzb24iOiJFeGl0Q29kZSIsIm1lc3NhZ2UiOiIzIn1dfX0=";
    check("v4.base64.channel.k8s.io", &[Message::text("0!!")], &[b"1", b"2bm8K", coded]).await;
}

#[tokio::test]
async fn a_malformed_close_signal_ends_the_connection() {
    let headers = websocket_request_headers(&[V5]);
    let io = upgrade(node().await, Method::GET, "/exec/cat", headers).await.unwrap();
    let mut socket = websocket::over(io, Role::Client).await;
    socket.send(Message::binary(vec![255, 0, 0])).await.unwrap();
    let ended = async { while let Some(Ok(_)) = socket.next().await {} };
    within(ended).await;
}

#[tokio::test]
async fn oversize_and_unmasked_messages_end_the_connection() {
    async fn check(bytes: &[u8]) {
        let headers = websocket_request_headers(&[V5]);
        let mut io = upgrade(node().await, Method::GET, "/exec/cat", headers).await.unwrap();
        io.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        // Whether the end is an orderly one or a reset is the transport's affair.
        let _ = within(io.read_to_end(&mut rest)).await;
    }
    // A binary message that announces 2^62 bytes, and one without the mask that a client owes.
    check(&[0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]).await;
    check(&[0x82, 0x02, 0, b'x']).await;
    check(b"GET / HTTP/1.1\r\n\r\n").await;
}

#[tokio::test]
async fn what_cannot_be_negotiated_is_refused() {
    async fn check(method: Method, headers: HeaderMap, expect: u16) {
        let refusal = upgrade(node().await, method, "/exec/cat", headers).await.expect_err("granted");
        assert_eq!(refusal.status(), expect);
    }
    check(Method::GET, websocket_request_headers(&["soap"]), 403).await;
    check(Method::POST, spdy_request_headers(&["v9.channel.k8s.io"]), 403).await;
    check(Method::POST, spdy_request_headers(&[]), 400).await;
    check(Method::POST, HeaderMap::new(), 400).await;
}

#[tokio::test]
async fn a_refusing_runtime_says_why() {
    let address = serve(|_| xebec_streaming::upgrade::refuse(http::StatusCode::NOT_FOUND, "no such token")).await;
    let refused = client::connect(&format!("http://{address}/exec/x"), ALL).await.err().unwrap();
    assert!(
        matches!(&refused, ConnectError::Refused { status, message } if *status == 404 && message == "no such token")
    );
    assert!(matches!(client::connect("https://localhost/exec", ALL).await, Err(ConnectError::Url(_))));
    assert!(matches!(client::connect("/exec", ALL).await, Err(ConnectError::Url(_))));
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_relay() {
    let (ended, mut is_ended) = tokio::sync::mpsc::channel(1);
    let runtime = node().await;
    let address = serve(move |mut request| {
        let accepted = accept(&mut request, ALL).unwrap();
        let ended = ended.clone();
        tokio::spawn(async move {
            let streams = client::connect(&format!("http://{runtime}/exec/cat"), ALL).await.unwrap();
            relay(accepted.session.await.unwrap(), streams).await;
            ended.send(()).await.unwrap();
        });
        accepted.reply
    })
    .await;
    for client in [Client::Spdy, Client::WebSocket] {
        drop(client.start(address, "cat").await);
        within(is_ended.recv()).await.unwrap();
    }
}
