//! Calls over HTTP, for backends that are services.
//!
//! A [`Call`] waits for what an exchange brings, and shows all of an answer: its trailers too.

use std::collections::VecDeque;
use std::error::Error as _;
use std::fmt;
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Url};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Attempt;
use super::network::{Engine, Spell, Task, Threads, Unfinished};

/// Pieces of a body that wait to be sent, at most.
const QUEUE: usize = 2;

/// What to say who we are. Kubo treats names like its own, and those of browsers, specially.
const USER_AGENT: &str = concat!("wal-cli/", env!("CARGO_PKG_VERSION"));

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A connection, until it stands.
    pub connect: Duration,
    /// An exchange, with nothing moving either way.
    pub idle: Duration,
    /// An operation as a whole.
    pub total: Option<Duration>,
}

/// What tells a service who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing, or what the address holds.
    None,
    /// A bearer token.
    Bearer(String),
    /// A user and a password.
    Basic(String, String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::None => "None",
            Credentials::Bearer(_) => "Bearer(…)",
            Credentials::Basic(..) => "Basic(…)",
        })
    }
}

/// Why an exchange brought no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The attempt was cancelled.
    Stopped,
    /// This machine can make no calls now, so nothing was sent; the text says why, and what to do.
    NoNetwork(String),
    /// No connection came about, so nothing was sent.
    NoConnection(String),
    /// Something was sent, or may have been, and no whole answer came; the text says how it ended.
    BrokenOff(String),
    /// A limit was reached; the text says which one.
    TimedOut(String),
    /// The request cannot even be made.
    Unusable(String),
}

impl From<Unfinished> for Trouble {
    fn from(unfinished: Unfinished) -> Trouble {
        match unfinished {
            Unfinished::Stopped => Trouble::Stopped,
            Unfinished::TimedOut(what) => Trouble::TimedOut(what),
        }
    }
}

/// The beginning of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub status: u16,
    pub headers: HeaderMap,
}

/// A service at one address.
pub(super) struct Http {
    endpoint: String,
    credentials: Credentials,
    limits: Limits,
    engine: Engine<Client>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An address may hold a password.
        f.debug_struct("Http").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Http {
    /// A service; nothing is started yet.
    pub fn new(endpoint: String, credentials: Credentials, limits: Limits) -> Http {
        Http { endpoint, credentials, limits, engine: Engine::new() }
    }

    /// How long things may take.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    fn engine(&self) -> Result<(&Threads, &Client), Trouble> {
        self.engine.started(|| self.start())
    }

    fn start(&self) -> Result<(Threads, Client), Trouble> {
        static PROVIDER: Once = Once::new();
        // Fails where the program around us has already chosen one, which is as good.
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let mut client = Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(self.limits.connect)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false);
        let url = self.url("", &[]).map_err(Trouble::Unusable)?;
        if url.scheme() == "http" {
            // A machine without any certificates can still talk to its own node.
            client = client.tls_certs_only([]);
        }
        if is_this_machine(&url) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| {
            let said = text_of(&error);
            let advice = "see that the system's certificates (`ca-certificates`) are installed, and may be read";
            Trouble::NoNetwork(format!("no client could be made: {said}; {advice}"))
        })?;
        let threads = Threads::start("http", 1).map_err(Trouble::NoNetwork)?;
        Ok((threads, client))
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Result<Url, String> {
        let text = format!("{}/{path}", self.endpoint.trim_end_matches('/'));
        let mut url = Url::parse(&text).map_err(|error| format!("the address is none: {error}"))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// Begins an exchange: a POST, whose body of this type follows by [`Call::send`]; without a type it has none.
    pub fn post<'a>(
        &'a self,
        attempt: &'a Attempt,
        limits: Spell,
        path: &str,
        query: &[(&str, &str)],
        body_type: Option<&str>,
    ) -> Result<Call<'a>, Trouble> {
        let (threads, client) = self.engine()?;
        let url = self.url(path, query).map_err(Trouble::Unusable)?;
        let mut request = client.post(url);
        // The address itself may bring a user and a password; what was set on its own goes before them.
        match &self.credentials {
            Credentials::None => {}
            Credentials::Bearer(token) => request = request.bearer_auth(token),
            Credentials::Basic(user, password) => {
                request = request.basic_auth(user, Some(password))
            }
        }
        let mut body = None;
        if let Some(body_type) = body_type {
            let (sender, receiver) = mpsc::channel(QUEUE);
            request = request
                .header(CONTENT_TYPE, body_type)
                .body(reqwest::Body::wrap(Streamed { pieces: receiver, complete: false }));
            body = Some(sender);
        }
        let request = request.build().map_err(|error| Trouble::Unusable(text_of(&error)))?;
        let (events, incoming) = mpsc::channel(8);
        let task = threads.spawn(exchange(client.clone(), request, events));
        Ok(Call {
            threads,
            attempt,
            limits,
            body,
            incoming,
            _task: task,
            head: None,
            early: VecDeque::new(),
            end: None,
            moved_at: None,
        })
    }
}

/// Whether an address is on this machine: no proxy leads there.
fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What is wrong: the last cause, which says most. No layer above it names the address then, which may hold a password.
fn text_of(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut text = None;
    while let Some(error) = cause {
        text = Some(error.to_string());
        cause = error.source();
    }
    text.unwrap_or_else(|| "the request failed".into())
}

fn trouble_of(error: &reqwest::Error) -> Trouble {
    if error.is_connect() {
        Trouble::NoConnection(text_of(error))
    } else if error.is_builder() {
        Trouble::Unusable(text_of(error))
    } else {
        Trouble::BrokenOff(text_of(error))
    }
}

/// What an exchange brings.
#[derive(Debug)]
enum Event {
    Head(Head),
    Data(Bytes),
    End(End),
}

/// How an exchange ended.
#[derive(Debug, Clone)]
enum End {
    /// Cleanly, with these trailers.
    Whole(HeaderMap),
    Trouble(Trouble),
}

async fn exchange(client: Client, request: reqwest::Request, events: mpsc::Sender<Event>) {
    let end = match client.execute(request).await {
        Ok(response) => receive(response, &events).await,
        Err(error) => End::Trouble(trouble_of(&error)),
    };
    // Nobody listens to what was given up.
    drop(events.send(Event::End(end)).await);
}

async fn receive(response: reqwest::Response, events: &mpsc::Sender<Event>) -> End {
    let head = Head { status: response.status().as_u16(), headers: response.headers().clone() };
    let given_up = || End::Trouble(Trouble::Stopped);
    if events.send(Event::Head(head)).await.is_err() {
        return given_up();
    }
    let mut body = reqwest::Body::from(response);
    let mut trailers = HeaderMap::new();
    // Frame by frame: the easier ways to read a body drop its trailers.
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return End::Trouble(trouble_of(&error)),
        };
        match frame.into_data() {
            Ok(data) => {
                if events.send(Event::Data(data)).await.is_err() {
                    return given_up();
                }
            }
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    End::Whole(trailers)
}

/// A body whose pieces come from a thread. One that is given up before its end breaks the exchange off: the other side
/// must not take what there is of it for all.
struct Streamed {
    pieces: mpsc::Receiver<Piece>,
    complete: bool,
}

enum Piece {
    Data(Bytes),
    End,
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.complete {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.pieces.poll_recv(context)) {
            Some(Piece::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Piece::End) => {
                self.complete = true;
                None
            }
            None => Some(Err(std::io::Error::other("given up"))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.complete
    }
}

/// One exchange under way; dropping it breaks it off, wherever it is: a body that has not ended fails (see [`Streamed`]).
pub(super) struct Call<'a> {
    threads: &'a Threads,
    attempt: &'a Attempt,
    limits: Spell,
    body: Option<mpsc::Sender<Piece>>,
    incoming: mpsc::Receiver<Event>,
    _task: Task<()>,
    head: Option<Head>,
    /// What came while something else was waited for.
    early: VecDeque<Bytes>,
    end: Option<End>,
    /// When something last moved, where that is told and not seen.
    moved_at: Option<Instant>,
}

impl Call<'_> {
    /// Sends a piece of the body. False: the answer is already there, and no more of it is wanted.
    ///
    /// What comes meanwhile goes to `answer`: the other side may not listen to us before it is heard.
    pub fn send(&mut self, data: Bytes, answer: &mut dyn FnMut(&[u8])) -> Result<bool, Trouble> {
        self.push(Piece::Data(data), answer)
    }

    /// Ends the body.
    pub fn finish_body(&mut self, answer: &mut dyn FnMut(&[u8])) -> Result<(), Trouble> {
        self.push(Piece::End, answer)?;
        self.body = None;
        Ok(())
    }

    /// Tells that something moves: from the first time on, what comes does not count as movement by itself.
    pub fn moved(&mut self) {
        self.moved_at = Some(Instant::now());
    }

    fn push(&mut self, piece: Piece, answer: &mut dyn FnMut(&[u8])) -> Result<bool, Trouble> {
        enum Next {
            Event(Option<Event>),
            Sent,
            Unwanted,
        }
        let mut piece = Some(piece);
        loop {
            let refused = self.head.as_ref().is_some_and(|head| !(200..300).contains(&head.status));
            let Some(body) = self.body.as_ref().filter(|_| self.end.is_none() && !refused) else {
                return Ok(false);
            };
            let incoming = &mut self.incoming;
            let step = async {
                tokio::select! {
                    biased;
                    event = incoming.recv() => Next::Event(event),
                    room = body.reserve() => match (room, piece.take()) {
                        (Ok(room), Some(piece)) => {
                            room.send(piece);
                            Next::Sent
                        }
                        _ => Next::Unwanted,
                    },
                }
            };
            match self.threads.wait(self.attempt, self.limits, self.moved_at, step)? {
                Next::Sent => return Ok(true),
                Next::Unwanted => self.body = None,
                Next::Event(event) => {
                    if let Some(data) = self.note(event) {
                        answer(&data);
                    }
                }
            }
        }
    }

    /// Keeps what an event says; the data in it comes back.
    fn note(&mut self, event: Option<Event>) -> Option<Bytes> {
        match event {
            Some(Event::Data(data)) => return Some(data),
            Some(Event::Head(head)) => self.head = Some(head),
            Some(Event::End(end)) => self.end = Some(end),
            None if self.end.is_none() => {
                self.end =
                    Some(End::Trouble(Trouble::BrokenOff("the exchange was given up".into())));
            }
            None => {}
        }
        None
    }

    fn listen(&mut self) -> Result<Option<Bytes>, Trouble> {
        let event =
            self.threads.wait(self.attempt, self.limits, self.moved_at, self.incoming.recv())?;
        Ok(self.note(event))
    }

    /// The beginning of the answer.
    pub fn head(&mut self) -> Result<&Head, Trouble> {
        while self.head.is_none() {
            if let Some(End::Trouble(trouble)) = &self.end {
                return Err(trouble.clone());
            }
            let data = self.listen()?;
            self.early.extend(data);
        }
        // Just seen; spelled so for the borrow checker.
        self.head.as_ref().ok_or_else(|| Trouble::BrokenOff("no answer came".into()))
    }

    /// The next piece of the answer; none: it is whole.
    pub fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            if let Some(data) = self.early.pop_front() {
                return Ok(Some(data));
            }
            match &self.end {
                Some(End::Whole(_)) => return Ok(None),
                Some(End::Trouble(trouble)) => return Err(trouble.clone()),
                None => {}
            }
            if let Some(data) = self.listen()? {
                return Ok(Some(data));
            }
        }
    }

    /// A trailer of an answer that is whole.
    pub fn trailer(&self, name: &str) -> Option<String> {
        let Some(End::Whole(trailers)) = &self.end else { return None };
        Some(String::from_utf8_lossy(trailers.get(name)?.as_bytes()).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(endpoint: &str) -> Http {
        let limits =
            Limits { connect: Duration::from_secs(1), idle: Duration::from_secs(1), total: None };
        Http::new(endpoint.into(), Credentials::None, limits)
    }

    #[test]
    fn a_wrong_address_is_told_as_such() {
        assert!(matches!(service("http://host:port/").engine(), Err(Trouble::Unusable(_))));
    }
}
