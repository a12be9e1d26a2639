//! DNS look-ups by hand (RFC 1035, SRV of RFC 2782), with the search list and `ndots` of `/etc/resolv.conf` and with
//! `/etc/hosts` in front for addresses. UDP first, TCP where the answer was truncated. No cache, no EDNS, no DNSSEC.
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::{Options, Outcome};

/// As in glibc: five seconds a try, two tries for each server.
const TIMEOUT: Duration = Duration::from_secs(5);
const TRIES: usize = 2;
const TYPES: [(&str, u16); 6] = [("A", 1), ("CNAME", 5), ("PTR", 12), ("TXT", 16), ("AAAA", 28), ("SRV", 33)];
const NO_SUCH_NAME: u8 = 3;

pub fn look_up(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["server"], &[])?;
    let (kind, name) = match options.positional.as_slice() {
        [name] => (if name.parse::<IpAddr>().is_ok() { "PTR" } else { "A" }, name),
        [kind, name] => (kind.as_str(), name),
        _ => return Err("give a record type and a name".into()),
    };
    let code = TYPES.iter().find(|(text, _)| *text == kind).ok_or_else(|| format!("unknown type {kind}"))?.1;
    let mut resolver = Resolver::system();
    if let Some(server) = options.get("server") {
        let address = server.parse().or_else(|_| server.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)));
        resolver.servers = vec![address.map_err(|_| format!("{server} is no address"))?];
    }
    let name = match name.parse() {
        Ok(address) if kind == "PTR" => reverse(address),
        _ => name.clone(),
    };
    for record in resolver.query(&name, code)? {
        println!("{} {} {}", record.name, record.kind, record.value);
    }
    Ok(0)
}

/// The addresses of `host`: itself, from `/etc/hosts`, or by DNS (IPv4 before IPv6).
pub fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Ok(vec![address]);
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let known = hosts.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(host)).then_some(address)
    });
    if let Some(address) = known {
        return Ok(vec![address]);
    }
    let resolver = Resolver::system();
    let records = resolver.query(host, 1).or_else(|_| resolver.query(host, 28))?;
    Ok(records.iter().filter_map(|record| record.value.parse().ok()).collect())
}

struct Record {
    name: String,
    kind: &'static str,
    value: String,
}

struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
}

enum Answer {
    Records(Vec<Record>),
    Refused(u8),
}

impl Resolver {
    fn system() -> Self {
        let mut resolver = Self { servers: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default().lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse().ok());
                    resolver.servers.extend(address.map(|address| SocketAddr::new(address, 53)));
                }
                Some("search") => resolver.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let ndots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok()).next_back();
                    resolver.ndots = ndots.unwrap_or(resolver.ndots);
                }
                _ => {}
            }
        }
        resolver
    }

    /// Asks for `name` and its completions, in the order that `ndots` prescribes, and returns the first that exists.
    fn query(&self, name: &str, kind: u16) -> Result<Vec<Record>, String> {
        if self.servers.is_empty() {
            return Err("/etc/resolv.conf names no server".into());
        }
        let mut failure = format!("{name}: no such name");
        for candidate in self.candidates(name) {
            match self.ask(&candidate, kind) {
                Ok(Answer::Records(records)) if !records.is_empty() => return Ok(records),
                Ok(Answer::Records(_)) => failure = format!("{name}: no record of this type"),
                Ok(Answer::Refused(NO_SUCH_NAME)) => {}
                Ok(Answer::Refused(code)) => failure = format!("{candidate}: the server answered with code {code}"),
                Err(error) => failure = format!("{candidate}: {error}"),
            }
        }
        Err(failure)
    }

    fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut candidates: Vec<_> = self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        let place = if name.matches('.').count() >= self.ndots { 0 } else { candidates.len() };
        candidates.insert(place, name.to_owned());
        candidates
    }

    fn ask(&self, name: &str, kind: u16) -> Result<Answer, String> {
        let request = encode(name, kind)?;
        let mut failure = String::new();
        for server in std::iter::repeat_n(&self.servers, TRIES).flatten() {
            match exchange(*server, &request).map_err(|error| error.to_string()).and_then(|answer| decode(&answer)) {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = format!("server {server}: {error}"),
            }
        }
        Err(failure)
    }
}

fn encode(name: &str, kind: u16) -> Result<Vec<u8>, String> {
    let id = std::process::id() as u16;
    let mut message = vec![(id >> 8) as u8, id as u8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err(format!("{name}: a label is empty or longer than 63 bytes"));
        }
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend(1u16.to_be_bytes());
    Ok(message)
}

fn exchange(server: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.connect(server)?;
    socket.send(request)?;
    let mut answer = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut answer)?;
        if length >= 12 && answer[..2] == request[..2] {
            answer.truncate(length);
            break;
        }
    }
    if answer[2] & 2 == 0 {
        return Ok(answer);
    }
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(&(request.len() as u16).to_be_bytes())?;
    stream.write_all(request)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    answer.resize(u16::from_be_bytes(length).into(), 0);
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn decode(message: &[u8]) -> Result<Answer, String> {
    let cut = || "the answer is cut short".to_owned();
    let number = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let code = message.get(3).ok_or_else(cut)? & 15;
    if code != 0 {
        return Ok(Answer::Refused(code));
    }
    let (questions, answers) = (number(4).ok_or_else(cut)?, number(6).ok_or_else(cut)?);
    let mut at = 12;
    for _ in 0..questions {
        at = name_at(message, at).ok_or_else(cut)?.1 + 4;
    }
    let mut records = Vec::new();
    for _ in 0..answers {
        let (name, end) = name_at(message, at).ok_or_else(cut)?;
        let (code, length) = (number(end).ok_or_else(cut)?, number(end + 8).ok_or_else(cut)?);
        at = end + 10 + usize::from(length);
        let data = message.get(end + 10..at).ok_or_else(cut)?;
        if let Some((kind, _)) = TYPES.iter().find(|(_, known)| *known == code) {
            records.push(Record { name, kind, value: value(message, end + 10, data, kind).ok_or_else(cut)? });
        }
    }
    Ok(Answer::Records(records))
}

fn value(message: &[u8], at: usize, data: &[u8], kind: &str) -> Option<String> {
    Some(match kind {
        "A" => Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).to_string(),
        "AAAA" => Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).to_string(),
        "SRV" => {
            let number = |at: usize| Some(u16::from_be_bytes([*data.get(at)?, *data.get(at + 1)?]));
            format!("{} {} {} {}", number(0)?, number(2)?, number(4)?, name_at(message, at + 6)?.0)
        }
        "TXT" => {
            let mut texts = Vec::new();
            let mut rest = data;
            while let Some((length, tail)) = rest.split_first() {
                let (text, tail) = tail.split_at_checked((*length).into())?;
                texts.push(format!("\"{}\"", String::from_utf8_lossy(text)));
                rest = tail;
            }
            texts.join(" ")
        }
        _ => name_at(message, at)?.0,
    })
}

/// The name at `at`, compression followed, and where what comes after it begins.
fn name_at(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut name, mut end) = (String::new(), None);
    // A name has at most 127 labels; more jumps than that are a loop.
    for _ in 0..128 {
        match *message.get(at)? {
            0 => {
                let name = if name.is_empty() { ".".into() } else { name };
                return Some((name, end.unwrap_or(at + 1)));
            }
            length if length >= 0xc0 => {
                end.get_or_insert(at + 2);
                at = usize::from(length & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
            }
            length => {
                let label = message.get(at + 1..at + 1 + usize::from(length))?;
                name += &String::from_utf8_lossy(label);
                name.push('.');
                at += 1 + usize::from(length);
            }
        }
    }
    None
}

fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(address) => {
            let digits: String = address.octets().iter().rev().map(|b| format!("{:x}.{:x}.", b & 15, b >> 4)).collect();
            format!("{digits}ip6.arpa.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_in_the_order_of_ndots() {
        let resolver = Resolver { servers: Vec::new(), search: vec!["a.b".into(), "c".into()], ndots: 2 };
        let check = |name: &str, expected: &[&str]| assert_eq!(resolver.candidates(name), expected, "{name}");
        check("x", &["x.a.b", "x.c", "x"]);
        check("x.y", &["x.y.a.b", "x.y.c", "x.y"]);
        check("x.y.z", &["x.y.z", "x.y.z.a.b", "x.y.z.c"]);
        check("x.", &["x"]);
    }

    #[test]
    fn addresses_are_reversed_for_ptr() {
        let check = |address: &str, expected: &str| assert_eq!(reverse(address.parse().expect("address")), expected);
        check("10.96.0.1", "1.0.96.10.in-addr.arpa.");
        check("::1", &format!("1.{}ip6.arpa.", "0.".repeat(31)));
    }

    #[test]
    fn answers_are_decoded_with_compressed_names() {
        let mut message = encode("_p._tcp.s", 33).expect("encodes");
        message[7] = 1;
        message.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 5, 0, 10, 0, 1, 0, 2, 0x18, 0xeb, 1, b'h', 0xc0, 20]);
        let Ok(Answer::Records(records)) = decode(&message) else { panic!("not decoded") };
        assert_eq!(records[0].name, "_p._tcp.s.");
        assert_eq!(records[0].value, "1 2 6379 h.s.");
        message.pop();
        assert!(decode(&message).is_err());
    }
}
