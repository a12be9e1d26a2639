//! The HTTP/1.1 echo server and a GET client. One request a connection: what is tested is the way to the Pod, and a new
//! connection takes it anew each time. No TLS, no chunked requests.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::{Options, Outcome, dns, net, process};

/// A body larger than this is cut: the server echoes, it does not store.
const LARGEST_BODY: u64 = 1 << 20;
const ROUTES: &str = "/hostname /clientip /env /headers /healthz /set-health?status=N /exit?code=N /sleep?ms=N \
                      /shell?cmd=… /dns?type=&name= /get?url= /read?file= /write?file=&text=; others echo the request";

static HEALTH: AtomicU16 = AtomicU16::new(200);

struct Request {
    line: String,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    client: String,
    server: String,
}

pub fn serve(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["http", "tcp", "udp"], &[])?;
    let port = |name: &str| options.get(name).map(|text| text.parse().map_err(|_| format!("{text} is no port")));
    let http = port("http").transpose()?.unwrap_or(8080);
    process::end_at_sigterm();
    let listener = TcpListener::bind(("0.0.0.0", http)).map_err(|error| format!("TCP port {http}: {error}"))?;
    port("tcp").transpose()?.map(net::serve_tcp).transpose()?;
    port("udp").transpose()?.map(net::serve_udp).transpose()?;
    println!("serving HTTP on port {http}; {ROUTES}");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || answer(stream));
    }
    Ok(0)
}

pub fn get(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["timeout"], &[])?;
    let (status, body) = fetch(options.first("URL")?, options.timeout()?)?;
    print!("{}", String::from_utf8_lossy(&body));
    if status < 400 { Ok(0) } else { Err(format!("status {status}")) }
}

fn fetch(url: &str, timeout: Duration) -> Result<(u16, Vec<u8>), String> {
    let rest = url.strip_prefix("http://").ok_or("only http:// URLs")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let target = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut stream = net::connect(&target, timeout)?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: testtool\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(|error| error.to_string())?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("the answer has no end of headers")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or("the answer has no status")?;
    Ok((status, answer[end + 4..].to_vec()))
}

fn answer(stream: TcpStream) {
    let Some(request) = read(&stream) else { return };
    let (status, body) = respond(&request);
    println!("{} {} {status}", request.client, request.line);
    let reason = if status < 400 { "OK" } else { "Error" };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // A client that has gone away needs no answer.
    let _ = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(body.as_bytes()));
    if request.path == "/exit" {
        let code = parameter(&request, "code").and_then(|text| text.parse().ok()).unwrap_or(0);
        std::process::exit(code);
    }
}

fn respond(request: &Request) -> (u16, String) {
    let given = |name| parameter(request, name).unwrap_or_default();
    let outcome = match request.path.as_str() {
        "/hostname" => Ok(format!("{}\n", net::hostname())),
        "/clientip" => Ok(format!("{}\n", request.client.rsplit_once(':').map_or("", |(ip, _)| ip))),
        "/env" => Ok(std::env::vars().map(|(name, value)| format!("{name}={value}\n")).collect()),
        "/headers" => Ok(headers(request)),
        "/healthz" => return (HEALTH.load(Ordering::Relaxed), String::from("health\n")),
        "/set-health" => given("status").parse().map_err(|_| "status is no number".into()).map(|status| {
            HEALTH.store(status, Ordering::Relaxed);
            String::from("set\n")
        }),
        "/exit" => Ok(String::from("exiting\n")),
        "/sleep" => given("ms").parse().map_err(|_| "ms is no number".into()).map(|time| {
            std::thread::sleep(Duration::from_millis(time));
            String::from("slept\n")
        }),
        "/shell" => shell(given("cmd")),
        "/dns" => dns::addresses(given("name")).map(|all| all.iter().map(|address| format!("{address}\n")).collect()),
        "/get" => {
            fetch(given("url"), Duration::from_secs(5)).map(|(_, body)| String::from_utf8_lossy(&body).into_owned())
        }
        "/read" => std::fs::read_to_string(given("file")).map_err(|error| error.to_string()),
        "/write" => {
            std::fs::write(given("file"), given("text")).map(|()| "written\n".into()).map_err(|e| e.to_string())
        }
        _ => Ok(echo(request)),
    };
    outcome.map_or_else(|error| (500, format!("{error}\n")), |body| (200, body))
}

fn echo(request: &Request) -> String {
    let start =
        format!("{}\n{}\nclient {}\nserver {}\n", net::hostname(), request.line, request.client, request.server);
    format!("{start}{}\n{}", headers(request), String::from_utf8_lossy(&request.body))
}

fn headers(request: &Request) -> String {
    request.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}

/// Runs the words of `command`; through a shell only where the image has one.
fn shell(command: &str) -> Result<String, String> {
    let mut words = command.split_whitespace();
    let mut process = match std::path::Path::new("/bin/sh").exists() {
        true => std::process::Command::new("/bin/sh"),
        false => std::process::Command::new(words.next().ok_or("cmd is empty")?),
    };
    match process.get_program() == "/bin/sh" {
        true => process.args(["-c", command]),
        false => process.args(words),
    };
    let output = process.output().map_err(|error| error.to_string())?;
    let text = [output.stdout, output.stderr].concat();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&text).into_owned())
    } else {
        Err(format!("{}\n{}", String::from_utf8_lossy(&text), output.status))
    }
}

fn parameter<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let line = lines.first()?.clone();
    let target = line.split(' ').nth(1)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let split = |pair: &str| pair.split_once('=').map(|(key, value)| (unescape(key), unescape(value)));
    let headers: Vec<(String, String)> =
        lines[1..].iter().filter_map(|line| line.split_once(": ").map(|(k, v)| (k.to_owned(), v.to_owned()))).collect();
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: u64 = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    reader.take(length.min(LARGEST_BODY)).read_to_end(&mut body).ok()?;
    Some(Request {
        path: path.to_owned(),
        query: query.split('&').filter_map(split).collect(),
        headers,
        body,
        client: stream.peer_addr().ok()?.to_string(),
        server: stream.local_addr().ok()?.to_string(),
        line,
    })
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        (rest, bytes) = match (first, code) {
            (b'%', Some(code)) => (&tail[2..], [bytes, vec![code]].concat()),
            (b'+', _) => (tail, [bytes, vec![b' ']].concat()),
            (other, _) => (tail, [bytes, vec![*other]].concat()),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn query_values_are_unescaped() {
        let check = |text: &str, expected: &str| assert_eq!(unescape(text), expected);
        check("a+b%20c", "a b c");
        check("100%", "100%");
        check("%zz%41", "%zzA");
    }
}
