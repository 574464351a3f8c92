//! HTTP exchanges that a blocking thread can drive, with access to all of a response.
//!
//! A [`Call`] sends a body piece by piece, receives the response meanwhile, and exposes its
//! trailers, in which Kubo reports errors that occur after the headers were sent.

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

use crate::backend::Attempt;
use crate::backend::runtime::{BlockingRuntime, Deadline, LazyClient, RunningTask, WaitError};

/// The number of body pieces that may wait to be sent.
const BODY_QUEUE: usize = 2;

/// The number of response events that may wait to be read.
const EVENT_QUEUE: usize = 8;

/// The name this program reports. Kubo treats its own name, and those of browsers, specially.
const USER_AGENT: &str = concat!("wal-cli/", env!("CARGO_PKG_VERSION"));

/// The time limits of all exchanges with a service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// The longest time until a connection is established.
    pub connect: Duration,
    /// The longest time without progress in either direction.
    pub idle: Duration,
    /// The longest time for a whole operation.
    pub total: Option<Duration>,
}

/// The credentials sent with each request.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// None, or those that the URL contains.
    None,
    /// A bearer token.
    Bearer(String),
    /// A user name and a password.
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

/// The reason why an exchange produced no complete response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallError {
    /// The attempt was cancelled.
    Cancelled,
    /// This machine cannot make calls now, so nothing was sent; the text says why, with a hint.
    NoNetwork(String),
    /// No connection was established, so nothing was sent.
    ConnectFailed(String),
    /// Some of the request may have been sent, and no complete response arrived.
    ConnectionLost(String),
    /// A limit was reached; the text says which one.
    TimedOut(String),
    /// The request cannot be built.
    InvalidRequest(String),
}

impl From<WaitError> for CallError {
    fn from(error: WaitError) -> CallError {
        match error {
            WaitError::Cancelled => CallError::Cancelled,
            WaitError::TimedOut(reason) => CallError::TimedOut(reason),
        }
    }
}

impl From<&reqwest::Error> for CallError {
    fn from(error: &reqwest::Error) -> CallError {
        let reason = innermost_cause(error);
        if error.is_connect() {
            CallError::ConnectFailed(reason)
        } else if error.is_builder() {
            CallError::InvalidRequest(reason)
        } else {
            CallError::ConnectionLost(reason)
        }
    }
}

/// The status and headers of a response.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub status: u16,
    pub headers: HeaderMap,
}

/// A client for the HTTP service at one URL.
pub(super) struct HttpClient {
    endpoint: String,
    credentials: Credentials,
    timeouts: Timeouts,
    client: LazyClient<Client>,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may contain a password.
        f.debug_struct("HttpClient").field("timeouts", &self.timeouts).finish_non_exhaustive()
    }
}

impl HttpClient {
    /// Returns a client; nothing is started before the first call.
    pub fn new(endpoint: String, credentials: Credentials, timeouts: Timeouts) -> HttpClient {
        HttpClient { endpoint, credentials, timeouts, client: LazyClient::new() }
    }

    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    fn client(&self) -> Result<(&BlockingRuntime, &Client), CallError> {
        self.client.get_or_start(|| self.start())
    }

    fn start(&self) -> Result<(BlockingRuntime, Client), CallError> {
        static PROVIDER: Once = Once::new();
        // Fails if the program that uses this library has installed one, which serves as well.
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let mut client = Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(self.timeouts.connect)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false);
        let url = self.url("", &[]).map_err(CallError::InvalidRequest)?;
        if url.scheme() == "http" {
            // A machine without certificates can still reach its own node.
            client = client.tls_certs_only([]);
        }
        if is_loopback(&url) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| {
            let reason = innermost_cause(&error);
            let hint = "check that the system's certificates (`ca-certificates`) are installed \
                        and readable";
            CallError::NoNetwork(format!("cannot create an HTTP client: {reason}; {hint}"))
        })?;
        let runtime = BlockingRuntime::start("http", 1).map_err(CallError::NoNetwork)?;
        Ok((runtime, client))
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Result<Url, String> {
        let text = format!("{}/{path}", self.endpoint.trim_end_matches('/'));
        let mut url = Url::parse(&text).map_err(|error| format!("invalid URL: {error}"))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// Starts a POST request. With a `body_type` its body follows by [`Call::send`].
    pub fn post<'a>(
        &'a self,
        attempt: &'a Attempt,
        deadline: Deadline,
        path: &str,
        query: &[(&str, &str)],
        body_type: Option<&str>,
    ) -> Result<Call<'a>, CallError> {
        let (runtime, client) = self.client()?;
        let url = self.url(path, query).map_err(CallError::InvalidRequest)?;
        let mut request = client.post(url);
        // These take precedence over credentials in the URL.
        match &self.credentials {
            Credentials::None => {}
            Credentials::Bearer(token) => request = request.bearer_auth(token),
            Credentials::Basic(user, password) => {
                request = request.basic_auth(user, Some(password))
            }
        }
        let mut body = None;
        if let Some(body_type) = body_type {
            let (sender, receiver) = mpsc::channel(BODY_QUEUE);
            request = request
                .header(CONTENT_TYPE, body_type)
                .body(reqwest::Body::wrap(ChannelBody { pieces: receiver, complete: false }));
            body = Some(sender);
        }
        let request =
            request.build().map_err(|error| CallError::InvalidRequest(innermost_cause(&error)))?;
        let (events, incoming) = mpsc::channel(EVENT_QUEUE);
        let exchange = runtime.spawn(exchange(client.clone(), request, events));
        Ok(Call {
            runtime,
            attempt,
            deadline,
            body,
            incoming,
            _exchange: exchange,
            head: None,
            unread: VecDeque::new(),
            end: None,
            progress_at: None,
        })
    }
}

/// Returns whether a URL names this machine, which no proxy can reach.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns the text of the innermost cause, which is the most specific one. The texts around it may
/// contain the URL, and that a password.
fn innermost_cause(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut text = None;
    while let Some(error) = cause {
        text = Some(error.to_string());
        cause = error.source();
    }
    text.unwrap_or_else(|| "the request failed".into())
}

/// A step in receiving a response.
#[derive(Debug)]
enum ResponseEvent {
    Head(ResponseHead),
    Data(Bytes),
    End(ResponseEnd),
}

#[derive(Debug, Clone)]
enum ResponseEnd {
    /// The response is complete; these are its trailers.
    Complete(HeaderMap),
    Failed(CallError),
}

async fn exchange(client: Client, request: reqwest::Request, events: mpsc::Sender<ResponseEvent>) {
    let end = match client.execute(request).await {
        Ok(response) => receive(response, &events).await,
        Err(error) => ResponseEnd::Failed(CallError::from(&error)),
    };
    // The receiver is closed if the call was dropped.
    drop(events.send(ResponseEvent::End(end)).await);
}

async fn receive(response: reqwest::Response, events: &mpsc::Sender<ResponseEvent>) -> ResponseEnd {
    let head =
        ResponseHead { status: response.status().as_u16(), headers: response.headers().clone() };
    let dropped = || ResponseEnd::Failed(CallError::Cancelled);
    if events.send(ResponseEvent::Head(head)).await.is_err() {
        return dropped();
    }
    let mut body = reqwest::Body::from(response);
    let mut trailers = HeaderMap::new();
    // Read frame by frame, because the simpler ways to read a body drop its trailers.
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return ResponseEnd::Failed(CallError::from(&error)),
        };
        match frame.into_data() {
            Ok(data) => {
                if events.send(ResponseEvent::Data(data)).await.is_err() {
                    return dropped();
                }
            }
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    ResponseEnd::Complete(trailers)
}

/// A request body whose pieces come from another thread. If the sender is dropped before the end,
/// the exchange is aborted, so that the server cannot take a part of the body for all of it.
struct ChannelBody {
    pieces: mpsc::Receiver<BodyPiece>,
    complete: bool,
}

enum BodyPiece {
    Data(Bytes),
    End,
}

impl http_body::Body for ChannelBody {
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
            Some(BodyPiece::Data(data)) => Some(Ok(Frame::data(data))),
            Some(BodyPiece::End) => {
                self.complete = true;
                None
            }
            None => Some(Err(std::io::Error::other("the request was aborted"))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.complete
    }
}

/// The state of a request body after a piece was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyState {
    /// The piece was accepted.
    Open,
    /// The server has responded already and reads no more of the body.
    Closed,
}

/// One exchange; dropping it aborts it at any point (see [`ChannelBody`]).
pub(super) struct Call<'a> {
    runtime: &'a BlockingRuntime,
    attempt: &'a Attempt,
    deadline: Deadline,
    body: Option<mpsc::Sender<BodyPiece>>,
    incoming: mpsc::Receiver<ResponseEvent>,
    _exchange: RunningTask<()>,
    head: Option<ResponseHead>,
    /// Data that arrived while the head was waited for.
    unread: VecDeque<Bytes>,
    end: Option<ResponseEnd>,
    /// The last progress, once the caller reports it by [`Call::record_progress`].
    progress_at: Option<Instant>,
}

impl Call<'_> {
    /// Sends a piece of the body. Data that arrives meanwhile goes to `on_data`: a server may stop
    /// reading until its own output has been read.
    pub fn send(
        &mut self,
        data: Bytes,
        on_data: &mut dyn FnMut(&[u8]),
    ) -> Result<BodyState, CallError> {
        self.send_piece(BodyPiece::Data(data), on_data)
    }

    /// Ends the body.
    pub fn finish_body(&mut self, on_data: &mut dyn FnMut(&[u8])) -> Result<(), CallError> {
        self.send_piece(BodyPiece::End, on_data)?;
        self.body = None;
        Ok(())
    }

    /// Records progress now. After the first call, data that arrives no longer counts as progress
    /// by itself.
    pub fn record_progress(&mut self) {
        self.progress_at = Some(Instant::now());
    }

    fn send_piece(
        &mut self,
        piece: BodyPiece,
        on_data: &mut dyn FnMut(&[u8]),
    ) -> Result<BodyState, CallError> {
        enum Step {
            Event(Option<ResponseEvent>),
            Sent,
            Closed,
        }
        let mut piece = Some(piece);
        loop {
            let failed = self.head.as_ref().is_some_and(|head| !(200..300).contains(&head.status));
            let Some(body) = self.body.as_ref().filter(|_| self.end.is_none() && !failed) else {
                return Ok(BodyState::Closed);
            };
            let incoming = &mut self.incoming;
            let step = async {
                tokio::select! {
                    biased;
                    event = incoming.recv() => Step::Event(event),
                    permit = body.reserve() => match (permit, piece.take()) {
                        (Ok(permit), Some(piece)) => {
                            permit.send(piece);
                            Step::Sent
                        }
                        _ => Step::Closed,
                    },
                }
            };
            match self.runtime.wait(self.attempt, self.deadline, self.progress_at, step)? {
                Step::Sent => return Ok(BodyState::Open),
                Step::Closed => self.body = None,
                Step::Event(event) => {
                    if let Some(data) = self.record_event(event) {
                        on_data(&data);
                    }
                }
            }
        }
    }

    /// Stores an event, and returns its data if it has any.
    fn record_event(&mut self, event: Option<ResponseEvent>) -> Option<Bytes> {
        match event {
            Some(ResponseEvent::Data(data)) => return Some(data),
            Some(ResponseEvent::Head(head)) => self.head = Some(head),
            Some(ResponseEvent::End(end)) => self.end = Some(end),
            None if self.end.is_none() => {
                let reason = "the exchange was aborted".into();
                self.end = Some(ResponseEnd::Failed(CallError::ConnectionLost(reason)));
            }
            None => {}
        }
        None
    }

    fn receive_event(&mut self) -> Result<Option<Bytes>, CallError> {
        let event = self.runtime.wait(
            self.attempt,
            self.deadline,
            self.progress_at,
            self.incoming.recv(),
        )?;
        Ok(self.record_event(event))
    }

    /// Waits for the status and headers of the response.
    pub fn head(&mut self) -> Result<&ResponseHead, CallError> {
        while self.head.is_none() {
            if let Some(ResponseEnd::Failed(error)) = &self.end {
                return Err(error.clone());
            }
            let data = self.receive_event()?;
            self.unread.extend(data);
        }
        // Always present here; returning it from the loop does not pass the borrow checker.
        self.head.as_ref().ok_or_else(|| CallError::ConnectionLost("no response arrived".into()))
    }

    /// Waits for the next chunk of the response; returns `None` once it is complete.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, CallError> {
        loop {
            if let Some(data) = self.unread.pop_front() {
                return Ok(Some(data));
            }
            match &self.end {
                Some(ResponseEnd::Complete(_)) => return Ok(None),
                Some(ResponseEnd::Failed(error)) => return Err(error.clone()),
                None => {}
            }
            if let Some(data) = self.receive_event()? {
                return Ok(Some(data));
            }
        }
    }

    /// Returns a trailer of a complete response.
    pub fn trailer(&self, name: &str) -> Option<String> {
        let Some(ResponseEnd::Complete(trailers)) = &self.end else { return None };
        Some(String::from_utf8_lossy(trailers.get(name)?.as_bytes()).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(endpoint: &str) -> HttpClient {
        let second = Duration::from_secs(1);
        let timeouts = Timeouts { connect: second, idle: second, total: None };
        HttpClient::new(endpoint.into(), Credentials::None, timeouts)
    }

    #[test]
    fn a_wrong_address_is_reported_as_such() {
        let client = service("http://host:port/");
        assert!(matches!(client.client(), Err(CallError::InvalidRequest(_))));
    }

    #[test]
    fn only_addresses_of_this_machine_bypass_the_proxy() {
        for (url, expected) in [
            ("http://localhost:5001", true),
            ("http://127.0.0.1:5001/api/v0", true),
            ("http://127.8.0.1", true),
            ("http://[::1]:5001", true),
            ("https://localhost.example", false),
            ("http://192.168.0.1:5001", false),
            ("http://[2001:db8::1]", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}
