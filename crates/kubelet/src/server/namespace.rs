//! Connections to a Pod's ports, made from inside its network namespace.
//!
//! A socket belongs for ever to the namespace in which its thread stood when it was made. So a thread of its own enters
//! the Pod's namespace, connects, hands the socket over and ends; the agent's other threads never leave theirs.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

use super::answer::reason;

/// How long a program may take to accept a connection over loopback.
const CONNECT: Duration = Duration::from_secs(10);

/// Connects to `port` of the loopback addresses inside the network namespace at `path`; `None` is the node's own.
pub async fn connect(path: Option<PathBuf>, port: u16) -> io::Result<tokio::net::TcpStream> {
    let (sender, receiver) = oneshot::channel();
    let work = move || {
        let _ = sender.send(enter_and_connect(path, port));
    };
    std::thread::Builder::new().name("port-forward".to_owned()).stack_size(256 << 10).spawn(work)?;
    let socket = receiver.await.map_err(io::Error::other)??;
    socket.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(socket)
}

fn enter_and_connect(path: Option<PathBuf>, port: u16) -> io::Result<TcpStream> {
    if let Some(path) = path {
        let failed = |what: &str, error: io::Error| {
            io::Error::new(error.kind(), format!("{what} network namespace {path:?}: {}", reason(&error)))
        };
        let namespace = File::open(&path).map_err(|error| failed("open", error))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|error| failed("enter", error.into()))?;
    }
    let dial = |address| TcpStream::connect_timeout(&address, CONNECT);
    dial(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).or_else(|v4| {
        dial(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).map_err(|v6| {
            let text = format!(
                "failed to connect to localhost:{port} inside namespace, IPv4: dial tcp4 127.0.0.1:{port}: connect: {}, \
                 IPv6: dial tcp6 [::1]:{port}: connect: {}",
                reason(&v4),
                reason(&v6)
            );
            io::Error::new(v4.kind(), text)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ports_are_reached_over_either_family() {
        async fn check(address: &str) {
            let listener = tokio::net::TcpListener::bind(address).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (connected, accepted) = tokio::join!(connect(None, port), listener.accept());
            assert_eq!(connected.unwrap().local_addr().unwrap(), accepted.unwrap().1);
        }
        check("127.0.0.1:0").await;
        if std::net::TcpListener::bind("[::1]:0").is_ok() {
            check("[::1]:0").await;
        }
    }

    #[tokio::test]
    async fn what_cannot_be_reached_says_why() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let refused = connect(None, free).await.unwrap_err();
        assert!(refused.to_string().starts_with(&format!("failed to connect to localhost:{free} inside namespace")));
        let missing = connect(Some("/proc/0/ns/net".into()), 80).await.unwrap_err();
        assert!(missing.to_string().starts_with("open network namespace"), "{missing}");
    }
}
