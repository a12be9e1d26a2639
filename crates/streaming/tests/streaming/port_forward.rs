//! Port forwarding over SPDY, over SPDY in a WebSocket, and over a plain WebSocket.

use std::io;
use std::net::SocketAddr;

use futures::{SinkExt, StreamExt};
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use xebec_streaming::port_forward::{PROTOCOL, PortError, TUNNEL_PROTOCOL, accept, needs_ports, ports};
use xebec_streaming::spdy::{Connection, Headers, Stream};
use xebec_streaming::tunnel::Tunnel;
use xebec_streaming::upgrade::{spdy_request_headers, websocket_request_headers};
use xebec_streaming::websocket;

use super::{pattern, serve, upgrade, within};

/// The port under which the target is known to the client; any other is refused.
const TARGET: u16 = 8080;

/// What listens behind the forwarded port: sends back what it gets, and then a farewell.
async fn target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = socket.split();
                tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                writer.write_all(b"bye").await.unwrap();
            });
        }
    });
    address
}

async fn node() -> SocketAddr {
    let target = target().await;
    serve(move |mut request| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let values = query.split('&').filter_map(|pair| pair.strip_prefix("port="));
        let ports = if needs_ports(&request) { ports(values).unwrap() } else { Vec::new() };
        let accepted = match accept(&mut request, ports) {
            Ok(accepted) => accepted,
            Err(refusal) => return *refusal,
        };
        let connect = move |port| async move {
            match port {
                TARGET => TcpStream::connect(target).await,
                _ => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused")),
            }
        };
        tokio::spawn(accepted.forwarder.run("pod web, uid 1".to_owned(), connect));
        accepted.reply
    })
    .await
}

#[derive(Debug, Clone, Copy)]
enum Client {
    Spdy,
    Tunnel,
}

async fn connect(client: Client) -> Connection {
    match client {
        Client::Spdy => {
            let headers = spdy_request_headers(&[PROTOCOL]);
            Connection::client(upgrade(node().await, Method::POST, "/portForward", headers).await.unwrap())
        }
        Client::Tunnel => {
            let headers = websocket_request_headers(&[TUNNEL_PROTOCOL]);
            let io = upgrade(node().await, Method::GET, "/portForward", headers).await.unwrap();
            Connection::client(Tunnel::new(websocket::over(io, Role::Client).await))
        }
    }
}

/// The two streams of one forwarded connection, asked for as kubectl does.
async fn open(connection: &Connection, port: u16, request: Option<&str>) -> (Stream, Stream) {
    let port = port.to_string();
    let stream = async |kind: &str| {
        let mut headers = vec![("streamType", kind), ("port", port.as_str())];
        headers.extend(request.map(|id| ("requestID", id)));
        connection.open(Headers::new(headers)).await.unwrap().established().await.unwrap()
    };
    let error = stream("error").await;
    (stream("data").await, error)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_forwarded_both_ways() {
    for client in [Client::Spdy, Client::Tunnel] {
        let connection = connect(client).await;
        for (request, length) in [(Some("0"), 5), (Some("1"), 4 << 20), (None, 100)] {
            let (data, mut error) = open(&connection, TARGET, request).await;
            error.shutdown().await.unwrap();
            let (mut reader, mut writer) = data.into_split();
            let bytes = pattern(length);
            let send = async {
                writer.write_all(&bytes).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let (mut back, mut errors) = (Vec::new(), String::new());
            let receive =
                async { tokio::join!(send, reader.read_to_end(&mut back), error.read_to_string(&mut errors)) };
            let ((), data_read, error_read) = within(receive).await;
            data_read.and(error_read).unwrap();
            assert!(back == [&bytes, b"bye".as_slice()].concat(), "{client:?} {length}");
            assert_eq!(errors, "", "{client:?}");
        }
        within(connection.close()).await;
    }
}

#[tokio::test]
async fn a_refused_port_is_told_on_the_error_stream() {
    for client in [Client::Spdy, Client::Tunnel] {
        let connection = connect(client).await;
        let (mut data, mut error) = open(&connection, 81, Some("0")).await;
        let mut text = String::new();
        within(error.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "error forwarding port 81 to pod web, uid 1: connection refused", "{client:?}");
        within(data.read_to_end(&mut Vec::new())).await.unwrap();
        // The connection itself goes on.
        let (mut data, _error) = open(&connection, TARGET, Some("1")).await;
        data.shutdown().await.unwrap();
        within(data.read_to_string(&mut text)).await.unwrap();
        assert!(text.ends_with("bye"), "{client:?}");
    }
}

#[tokio::test]
async fn streams_that_make_no_sense_are_refused() {
    let connection = connect(Client::Spdy).await;
    for headers in [
        vec![("streamType", "data")],
        vec![("port", "80")],
        vec![("port", "0"), ("streamType", "data")],
        vec![("port", "65536"), ("streamType", "data")],
        vec![("port", "80"), ("streamType", "stdin")],
    ] {
        let opening = connection.open(Headers::new(headers.clone())).await.unwrap();
        assert!(within(opening.established()).await.is_err(), "{headers:?}");
    }
}

#[tokio::test]
async fn plain_websockets_announce_their_ports() {
    async fn check(protocol: &str, ports: &str, send: &[Message], expect: &[&[u8]]) {
        let path = format!("/portForward?{ports}");
        let io = upgrade(node().await, Method::GET, &path, websocket_request_headers(&[protocol])).await.unwrap();
        let mut socket = websocket::over(io, Role::Client).await;
        for message in send {
            socket.send(message.clone()).await.unwrap();
        }
        let mut received = Vec::new();
        while received.len() < expect.len() {
            received.push(within(socket.next()).await.unwrap().unwrap().into_data());
        }
        // The two directions of different ports have no order among each other.
        received.sort();
        let mut expect = expect.to_vec();
        expect.sort();
        assert_eq!(received, expect, "{protocol}");
        // A closed socket ends the forwarding; the server answers the close.
        socket.close(None).await.unwrap();
        within(async { while let Some(Ok(_)) = socket.next().await {} }).await;
    }
    let refused: &[u8] = b"\x03error forwarding port 81 to pod web, uid 1: connection refused";
    let announced: [&[u8]; 4] = [&[0, 0x90, 0x1f], &[1, 0x90, 0x1f], &[2, 81, 0], &[3, 81, 0]];
    let expect = [&announced[..], &[b"\0hi".as_slice(), refused]].concat();
    check("v4.channel.k8s.io", "port=8080,81", &[Message::binary(b"\0hi".to_vec())], &expect).await;
    check("v4.channel.k8s.io", "port=8080&port=81", &[Message::binary(b"\0hi".to_vec())], &expect).await;
    check("v4.base64.channel.k8s.io", "port=8080", &[Message::text("0aGk=")], &[b"0kB8=", b"1kB8=", b"0aGk="]).await;
}

#[tokio::test]
async fn text_in_a_tunnel_ends_it() {
    let headers = websocket_request_headers(&[TUNNEL_PROTOCOL]);
    let io = upgrade(node().await, Method::GET, "/portForward", headers).await.unwrap();
    let mut socket = websocket::over(io, Role::Client).await;
    socket.send(Message::text("hello")).await.unwrap();
    within(async { while let Some(Ok(_)) = socket.next().await {} }).await;
}

#[test]
fn ports_of_a_query_are_checked() {
    fn check(values: &[&str], expect: Result<&[u16], PortError>) {
        assert_eq!(ports(values.iter().copied()), expect.map(<[u16]>::to_vec), "{values:?}");
    }
    check(&["80"], Ok(&[80]));
    check(&["80,81", "82"], Ok(&[80, 81, 82]));
    check(&[], Err(PortError::Missing));
    check(&[""], Err(PortError::Empty));
    check(&["80,x"], Err(PortError::NotAPort("80,x".to_owned())));
    check(&["65536"], Err(PortError::NotAPort("65536".to_owned())));
    check(&["0"], Err(PortError::Zero("0".to_owned())));
}

#[tokio::test]
async fn other_tunnels_are_refused() {
    let headers = websocket_request_headers(&["SPDY/3.1+soap.k8s.io"]);
    let refusal = upgrade(node().await, Method::GET, "/portForward", headers).await.expect_err("granted");
    assert_eq!(refusal.status(), 403);
}
