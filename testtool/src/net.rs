//! TCP and UDP clients and echo servers. The servers answer each line or datagram with the host's name and what was
//! sent, so that a caller sees which Pod it reached.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::{Options, Outcome, dns};

pub fn tcp(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["send", "timeout"], &[])?;
    let mut stream = connect(options.first("HOST:PORT")?, options.timeout()?)?;
    match options.get("send") {
        None => println!("connected to {}", stream.peer_addr().map_err(text)?),
        Some(line) => {
            stream.write_all(format!("{line}\n").as_bytes()).map_err(text)?;
            stream.shutdown(std::net::Shutdown::Write).map_err(text)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).map_err(text)?;
            print!("{}", String::from_utf8_lossy(&answer));
        }
    }
    Ok(0)
}

pub fn udp(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["send", "timeout"], &[])?;
    let address = resolve(options.first("HOST:PORT")?)?[0];
    let message = options.get("send").ok_or("--send is missing")?;
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).map_err(text)?;
    socket.set_read_timeout(Some(options.timeout()?)).map_err(text)?;
    socket.connect(address).map_err(text)?;
    socket.send(message.as_bytes()).map_err(text)?;
    let mut answer = vec![0; 65_535];
    let length = socket.recv(&mut answer).map_err(text)?;
    println!("{}", String::from_utf8_lossy(&answer[..length]));
    Ok(0)
}

/// Connects to the first address of `target` (`HOST:PORT`) that answers.
pub fn connect(target: &str, timeout: Duration) -> Result<TcpStream, String> {
    let mut failure = String::new();
    for address in resolve(target)? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_read_timeout(Some(timeout)).map_err(text)?;
                return Ok(stream);
            }
            Err(error) => failure = format!("{address}: {error}"),
        }
    }
    Err(failure)
}

/// Serves TCP echo on every address; a listener that cannot be opened is an error at once.
pub fn serve_tcp(port: u16) -> Result<(), String> {
    let listener = TcpListener::bind(("0.0.0.0", port)).map_err(|error| format!("TCP port {port}: {error}"))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || echo_lines(&stream));
        }
    });
    Ok(())
}

pub fn serve_udp(port: u16) -> Result<(), String> {
    let socket = UdpSocket::bind(("0.0.0.0", port)).map_err(|error| format!("UDP port {port}: {error}"))?;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_535];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let answer = [hostname().as_bytes(), b" ", &buffer[..length]].concat();
            // A peer that has gone is the peer's affair.
            let _ = socket.send_to(&answer, peer);
        }
    });
    Ok(())
}

pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

fn echo_lines(stream: &TcpStream) {
    let mut writer = stream;
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        if writeln!(writer, "{} {line}", hostname()).is_err() {
            return;
        }
    }
}

fn resolve(target: &str) -> Result<Vec<SocketAddr>, String> {
    let (host, port) = target.rsplit_once(':').ok_or_else(|| format!("{target}: give HOST:PORT"))?;
    let port = port.parse().map_err(|_| format!("{port} is no port"))?;
    let addresses: Vec<_> = dns::addresses(host)?.into_iter().map(|address| SocketAddr::new(address, port)).collect();
    if addresses.is_empty() { Err(format!("{host}: no address")) } else { Ok(addresses) }
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}
