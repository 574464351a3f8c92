//! A proxy in front of an HTTP service, which injects the faults of networks and of overloaded
//! services into one command.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

/// A fault that is injected into an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The exchange is passed on unchanged.
    None,
    /// The request is not read.
    HangBeforeReading,
    /// The request is read and not answered.
    HangBeforeHead,
    /// The service executes it; its response stalls in the middle.
    HangInBody,
    /// The service executes it; its response ends in the middle with a reset.
    ResetInBody,
    /// The service executes it; its response ends in the middle as if it were complete.
    Truncate,
    /// The service executes it; its response is dropped.
    DropAnswer,
    /// This status, with `Retry-After: 7`, instead of the service's response.
    Status(u16),
    /// Status 200 with an error in the body, instead of the service's response.
    ErrorInside,
    /// The service executes it; an error follows its response.
    ErrorBehind,
    /// The service executes it; its response is replaced by status 500 with an unknown text.
    RefuseBehind,
    /// Status 200 with a body that no such service sends.
    Nonsense,
    /// Endless lines that report no progress; the service receives nothing.
    StandStill,
    /// The service executes it; lines that report progress precede its response, for longer than
    /// the idle timeout.
    Count,
    /// In the body of the response, the second text replaces the first one of equal length.
    Other(&'static str, &'static str),
    /// The same in the body of the request.
    OtherSent(&'static str, &'static str),
    /// The headers of the response have no checksum and another etag.
    OtherEtag,
}

/// The names of a service's commands, and the texts of its errors.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// Returns the command of a request with these headers.
    pub command: fn(&str) -> String,
    /// An error in the body of a response with status 200.
    pub error_inside: &'static str,
    /// An error with an unknown text.
    pub refusal: &'static str,
}

/// A proxy, which ends with the test.
pub struct Proxy {
    address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    /// The fault of each command; `*` is for all others.
    faults: BTreeMap<String, Fault>,
    /// Actions that run once, before a command is passed on.
    first: BTreeMap<String, Box<dyn FnOnce() + Send>>,
    /// The last headers of each command.
    heads: BTreeMap<String, String>,
}

impl Proxy {
    /// Returns a proxy in front of the service at this port.
    pub fn before(port: u16, service: Service) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, plan) =
            (listener.local_addr().unwrap(), Arc::new(Mutex::new(Plan::default())));
        let known = plan.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, plan) = (client.unwrap(), known.clone());
                // The client observes how the exchange ends.
                std::thread::spawn(move || drop(exchange(&client, port, &plan, service)));
            }
        });
        Proxy { address, plan }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Injects a fault into a command, or into all (`*`), and no other from now on.
    pub fn plan(&self, command: &str, fault: Fault) {
        self.plan.lock().unwrap().faults = BTreeMap::from([(command.to_owned(), fault)]);
    }

    /// Injects a fault into a command, in addition to those planned.
    pub fn also(&self, command: &str, fault: Fault) {
        self.plan.lock().unwrap().faults.insert(command.to_owned(), fault);
    }

    /// Runs an action before the next such command is passed on.
    pub fn first(&self, command: &str, what: impl FnOnce() + Send + 'static) {
        self.plan.lock().unwrap().first.insert(command.to_owned(), Box::new(what));
    }

    /// Returns the headers of the last such command.
    pub fn head(&self, command: &str) -> String {
        self.plan.lock().unwrap().heads[command].clone()
    }
}

/// A port that accepts no connections: its queue is full, and is never emptied.
pub struct Full {
    pub port: u16,
    _kept: (Socket, Vec<Socket>),
}

impl Full {
    pub fn new() -> Full {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap();
        let fill = |_| {
            let waiting = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            waiting.set_nonblocking(true).unwrap();
            drop(waiting.connect(&address));
            waiting
        };
        let port = address.as_socket().unwrap().port();
        Full { port, _kept: (socket, (0..4).map(fill).collect()) }
    }
}

/// Keeps a connection open until the client closes it.
fn hang(client: &TcpStream) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut rest = [0; 1024];
    let mut client = client;
    while client.read(&mut rest)? > 0 {}
    Ok(())
}

/// The interval of progress lines, and their number where they end.
const BEAT: Duration = Duration::from_millis(50);
const BEATS: usize = 30;

/// Sends a progress line as a chunk of a response.
fn beat(mut client: &TcpStream, line: &str) -> std::io::Result<()> {
    client.write_all(format!("{:x}\r\n{line}\n\r\n", line.len() + 1).as_bytes())?;
    std::thread::park_timeout(BEAT);
    Ok(())
}

fn reset(client: &TcpStream) -> std::io::Result<()> {
    SockRef::from(client).set_linger(Some(Duration::ZERO))
}

fn exchange(
    client: &TcpStream,
    port: u16,
    plan: &Mutex<Plan>,
    service: Service,
) -> std::io::Result<()> {
    let mut from_client = BufReader::new(client);
    let head = read_head(&mut from_client)?;
    let command = (service.command)(&head);
    let (fault, first) = {
        let mut plan = plan.lock().unwrap();
        plan.heads.insert(command.clone(), head.clone());
        let fault =
            *plan.faults.get(&command).or_else(|| plan.faults.get("*")).unwrap_or(&Fault::None);
        (fault, plan.first.remove(&command))
    };
    if let Some(first) = first {
        first();
    }
    if fault == Fault::HangBeforeReading {
        // Later bytes are not read either, so the sender's window fills.
        std::thread::park_timeout(Duration::from_secs(20));
        return reset(client);
    }
    let canned = match fault {
        Fault::HangBeforeHead => Some(String::new()),
        Fault::StandStill => Some(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                  Transfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
        ),
        Fault::Status(status) => {
            let text = "it is too much\n";
            let length = text.len();
            Some(format!(
                "HTTP/1.1 {status} No\r\nRetry-After: 7\r\nConnection: close\r\n\
                 Content-Length: {length}\r\n\r\n{text}"
            ))
        }
        Fault::ErrorInside => Some(whole(service.error_inside)),
        Fault::Nonsense => Some(whole("<html>Please log in</html>\n")),
        _ => None,
    };
    let mut there = match canned {
        Some(_) => None,
        None => Some(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?),
    };
    let mut sink = std::io::sink();
    let upstream: &mut dyn Write = match &mut there {
        Some(there) => there,
        None => &mut sink,
    };
    upstream.write_all(head.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes())?;
    match fault {
        Fault::OtherSent(from, to) => {
            let mut body = Vec::new();
            pass_body(&head, &mut from_client, &mut body)?;
            replace(&mut body, from, to);
            upstream.write_all(&body)?;
        }
        _ => pass_body(&head, &mut from_client, upstream)?,
    }
    let mut client = client;
    let mut answer = Vec::new();
    match (canned, there) {
        (Some(canned), _) if canned.is_empty() => return hang(client),
        (Some(canned), _) => answer = canned.into_bytes(),
        (None, Some(mut there)) => drop(there.read_to_end(&mut answer)?),
        (None, None) => return Err(ErrorKind::Other.into()),
    }
    let body =
        answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    // Of an empty body, all but its end.
    let middle = body + (answer.len() - body).saturating_sub(5) / 2;
    match fault {
        Fault::HangInBody => {
            client.write_all(&answer[..middle])?;
            hang(client)
        }
        Fault::ResetInBody => {
            client.write_all(&answer[..middle])?;
            // What was sent arrives before the reset does.
            std::thread::park_timeout(Duration::from_millis(20));
            reset(client)
        }
        Fault::Truncate => client.write_all(&answer[..middle]),
        Fault::StandStill => {
            client.write_all(&answer)?;
            loop {
                beat(client, "{\"Progress\":7,\"Bytes\":1000}")?;
            }
        }
        Fault::Count => {
            client.write_all(&answer[..body])?;
            for nth in 0..BEATS {
                beat(client, &format!("{{\"Progress\":{}}}", nth / 2))?;
            }
            client.write_all(&answer[body..])
        }
        Fault::RefuseBehind => {
            let text = service.refusal;
            let length = text.len();
            client.write_all(
                format!(
                    "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n\
                     Connection: close\r\n\
                     Content-Length: {length}\r\n\r\n{text}"
                )
                .as_bytes(),
            )
        }
        Fault::DropAnswer => Ok(()),
        Fault::ErrorBehind => {
            let end = answer.len() - 2;
            assert!(answer.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&answer));
            answer.truncate(end);
            answer.extend_from_slice(b"X-Stream-Error: it went wrong behind\r\n\r\n");
            client.write_all(&answer)
        }
        Fault::Other(from, to) => {
            replace(&mut answer[body..], from, to);
            client.write_all(&answer)
        }
        Fault::OtherEtag => {
            let head = String::from_utf8_lossy(&answer[..body]).to_lowercase();
            let etag = head.find("etag: \"").map_or(0, |at| at + 7);
            answer[etag] = if answer[etag] == b'0' { b'1' } else { b'0' };
            if let Some(at) = head.find("x-amz-checksum-crc32") {
                answer[at] = b'y';
            }
            client.write_all(&answer)
        }
        _ => client.write_all(&answer),
    }?;
    if matches!(fault, Fault::ResetInBody | Fault::HangInBody) {
        Ok(())
    } else {
        client.shutdown(Shutdown::Write)
    }
}

fn replace(bytes: &mut [u8], from: &str, to: &str) {
    if let Some(at) = bytes.windows(from.len()).position(|text| text == from.as_bytes()) {
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    }
}

fn whole(body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

fn read_head(from: &mut impl BufRead) -> std::io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

/// Passes a body on, with a content length or in chunks.
fn pass_body(head: &str, from: &mut impl BufRead, to: &mut dyn Write) -> std::io::Result<()> {
    let header = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
        line.and_then(|line| line.split(": ").nth(1)).map(str::to_owned)
    };
    if header("transfer-encoding").is_none() {
        let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        std::io::copy(&mut from.take(length), to)?;
        return Ok(());
    }
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        to.write_all(line.as_bytes())?;
        let length = u64::from_str_radix(line.trim(), 16).map_err(|_| ErrorKind::InvalidData)?;
        // The chunk's own end of line is part of it.
        let passed = std::io::copy(&mut from.take(length + 2), to)?;
        if length == 0 || passed < length + 2 {
            return Ok(());
        }
    }
}
