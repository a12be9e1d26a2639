//! SPDY connections: both halves against each other, and the server against a hostile peer.

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use xebec_streaming::spdy::{Connection, Headers, IncomingStreams, MAX_STREAMS};

use super::{pattern, within};

fn pair() -> (Connection, Connection, IncomingStreams) {
    let (near, far) = tokio::io::duplex(16 << 10);
    let (server, incoming) = Connection::server(far);
    (Connection::client(near), server, incoming)
}

/// Serves every stream by sending back what arrives, and ends each direction when the client does.
fn echo(mut incoming: IncomingStreams) {
    tokio::spawn(async move {
        while let Ok(Some(stream)) = incoming.next().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.accept().await.unwrap().into_split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
}

#[tokio::test]
async fn streams_are_independent_and_half_close() {
    let (client, _server, incoming) = pair();
    echo(incoming);
    let work = (0..20).map(|n| {
        let client = &client;
        async move {
            let headers = Headers::new([("n", n.to_string().as_str())]);
            let stream = client.open(headers).await.unwrap().established().await.unwrap();
            let (mut reader, mut writer) = stream.into_split();
            let bytes = pattern(100_000 + n);
            let send = async {
                writer.write_all(&bytes).await.unwrap();
                writer.shutdown().await.unwrap();
                assert!(writer.write_all(b"late").await.is_err());
            };
            let mut back = Vec::new();
            let ((), read) = tokio::join!(send, reader.read_to_end(&mut back));
            read.unwrap();
            assert!(back == bytes, "stream {n}");
        }
    });
    within(join_all(work)).await;
}

#[tokio::test]
async fn refused_and_reset_streams_end() {
    let (client, _server, mut incoming) = pair();
    let first = client.open(Headers::default()).await.unwrap();
    let second = client.open(Headers::new([("streamType", "stdin")])).await.unwrap();
    incoming.next().await.unwrap().unwrap().refuse().await;
    assert!(within(first.established()).await.is_err());
    let accepted = incoming.next().await.unwrap().unwrap();
    assert_eq!((accepted.id(), accepted.headers().get("streamtype")), (3, Some("stdin")));
    let mut near = accepted.accept().await.unwrap();
    let mut far = within(second.established()).await.unwrap();
    near.write_all(b"before").await.unwrap();
    near.reset().await;
    // What was sent before the reset is still read, as upstream's readers do.
    let mut text = String::new();
    within(far.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "before");
    assert!(far.write_all(b"after").await.is_err());
}

#[tokio::test]
async fn an_orderly_end_delivers_everything() {
    let (client, server, mut incoming) = pair();
    let opening = client.open(Headers::default()).await.unwrap();
    let mut stream = incoming.next().await.unwrap().unwrap().accept().await.unwrap();
    let bytes = pattern(1 << 20);
    let expected = bytes.clone();
    let send = async move {
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        server.close().await;
    };
    let receive = async {
        let mut back = Vec::new();
        opening.established().await.unwrap().read_to_end(&mut back).await.unwrap();
        assert!(back == expected);
        client.closed().cancelled().await;
    };
    within(async { tokio::join!(send, receive) }).await;
    assert!(incoming.next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_stream_that_nobody_reads_does_not_stop_the_others() {
    let (client, _server, mut incoming) = pair();
    let ignored = client.open(Headers::default()).await.unwrap();
    drop(incoming.next().await.unwrap().unwrap().accept().await.unwrap());
    echo(incoming);
    let mut ignored = ignored.established().await.unwrap();
    within(ignored.write_all(&pattern(1 << 20))).await.unwrap();
    let mut stream = client.open(Headers::default()).await.unwrap().established().await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    within(stream.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "hello");
}

#[tokio::test]
async fn too_many_streams_are_refused_one_by_one() {
    let (client, _server, incoming) = pair();
    echo(incoming);
    let mut open = Vec::new();
    for _ in 0..MAX_STREAMS {
        open.push(within(client.open(Headers::default()).await.unwrap().established()).await.unwrap());
    }
    assert!(within(client.open(Headers::default()).await.unwrap().established()).await.is_err());
    let mut last = open.pop().unwrap();
    last.shutdown().await.unwrap();
    within(last.read_to_end(&mut Vec::new())).await.unwrap();
    assert!(within(client.open(Headers::default()).await.unwrap().established()).await.is_ok());
}

#[tokio::test]
async fn garbage_ends_the_connection_with_an_error() {
    async fn check(bytes: &[u8], expect: &str) {
        let (mut near, far): (DuplexStream, _) = tokio::io::duplex(1 << 20);
        let (server, mut incoming) = Connection::server(far);
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        let error = within(incoming.next()).await.err().expect(expect).to_string();
        assert!(error.contains(expect), "{error}");
        within(server.closed().cancelled()).await;
        assert!(server.open(Headers::default()).await.is_err());
    }
    check(b"GET / HTTP/1.1\r\n\r\n", "read a SPDY frame").await;
    check(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff], "more than").await;
    check(&[0x80, 3, 0, 99, 0, 0, 0, 0], "type 99").await;
    check(&[0, 0, 0, 0, 0, 0, 0, 0], "stream 0").await;
    check(&[0xff; 64], "version").await;
}

#[tokio::test]
async fn pings_are_answered_and_windows_ignored() {
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let (_server, _incoming) = Connection::server(far);
    // SETTINGS without entries, WINDOW_UPDATE of stream 1, data for a stream that is not there, then a ping.
    near.write_all(&[0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0]).await.unwrap();
    near.write_all(&[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 1]).await.unwrap();
    near.write_all(&[0, 0, 0, 77, 0, 0, 0, 2, 1, 2]).await.unwrap();
    let ping = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 5];
    near.write_all(&ping).await.unwrap();
    let mut answer = [0; 12];
    within(near.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, ping);
}
