//! A proxy before a service that speaks HTTP, which does to one command what networks and overloaded services do.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

/// What is done to an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is passed on as it is.
    None,
    /// The request is not even read.
    HangBeforeReading,
    /// The request is read, and nothing comes of it.
    HangBeforeHead,
    /// The service does it; its answer stops in the middle.
    HangInBody,
    /// The service does it; its answer ends in the middle, with a reset.
    ResetInBody,
    /// The service does it; its answer ends in the middle, as if that were its end.
    Truncate,
    /// The service does it; nothing of its answer arrives.
    DropAnswer,
    /// This status, with `Retry-After: 7`, in place of the service's answer.
    Status(u16),
    /// A status of 200, with an error in its body, in place of the service's answer.
    ErrorInside,
    /// The service does it; an error comes after its answer.
    ErrorBehind,
    /// The service does it; in place of its answer comes a status of 500, with words that nobody knows.
    RefuseBehind,
    /// A status of 200, with something that no such service says.
    Nonsense,
    /// Lines without an end, which tell of no progress; the service hears nothing of it.
    StandStill,
    /// The service does it; before its answer come lines that count, for longer than nothing may move.
    Count,
    /// In the body of its answer, the second text stands in place of the first, which is as long.
    Other(&'static str, &'static str),
    /// The same in what is sent to it.
    OtherSent(&'static str, &'static str),
    /// The head of its answer has no checksum, and another etag.
    OtherEtag,
}

/// What a service's commands are called, and the words that it says no with.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// The command that a request with this head asks for.
    pub command: fn(&str) -> String,
    /// An error in the body of a status of 200.
    pub error_inside: &'static str,
    /// One that no release had before.
    pub refusal: &'static str,
}

/// The proxy; it ends with the test.
pub struct Proxy {
    address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    /// Which commands have which fault; `*`: all others.
    faults: BTreeMap<String, Fault>,
    /// What is done, once, before a command is passed on.
    first: BTreeMap<String, Box<dyn FnOnce() + Send>>,
    /// The last head of each command.
    heads: BTreeMap<String, String>,
}

impl Proxy {
    /// One before the service at this port.
    pub fn before(port: u16, service: Service) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, plan) =
            (listener.local_addr().unwrap(), Arc::new(Mutex::new(Plan::default())));
        let known = plan.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, plan) = (client.unwrap(), known.clone());
                // How an exchange ends is what the other side makes of it.
                std::thread::spawn(move || drop(exchange(&client, port, &plan, service)));
            }
        });
        Proxy { address, plan }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on this is done to a command, or to all (`*`).
    pub fn plan(&self, command: &str, fault: Fault) {
        self.plan.lock().unwrap().faults = BTreeMap::from([(command.to_owned(), fault)]);
    }

    /// Beside what is planned already, this is done to a command.
    pub fn also(&self, command: &str, fault: Fault) {
        self.plan.lock().unwrap().faults.insert(command.to_owned(), fault);
    }

    /// The next time that this command comes by, this happens before it is passed on.
    pub fn first(&self, command: &str, what: impl FnOnce() + Send + 'static) {
        self.plan.lock().unwrap().first.insert(command.to_owned(), Box::new(what));
    }

    /// The head of the last such command that came by.
    pub fn head(&self, command: &str) -> String {
        self.plan.lock().unwrap().heads[command].clone()
    }
}

/// A port at which connections do not come about: its queue is full, and nobody empties it.
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

/// What is kept open until the other side gives up.
fn hang(client: &TcpStream) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut rest = [0; 1024];
    let mut client = client;
    while client.read(&mut rest)? > 0 {}
    Ok(())
}

/// How often lines of progress come, and how many there are of them where they end.
const BEAT: Duration = Duration::from_millis(50);
const BEATS: usize = 30;

/// A line of progress as a chunk of an answer.
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
        // Nor are later bytes taken: the sender's window fills.
        std::thread::park_timeout(Duration::from_secs(20));
        return reset(client);
    }
    let canned = match fault {
        Fault::HangBeforeHead => Some(String::new()),
        Fault::StandStill => {
            Some("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned())
        }
        Fault::Status(status) => {
            let text = "it is too much\n";
            let length = text.len();
            Some(format!(
                "HTTP/1.1 {status} No\r\nRetry-After: 7\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}"
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
                    "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nConnection: close\r\n\
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
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
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

/// Passes a body on, however its length is told.
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
