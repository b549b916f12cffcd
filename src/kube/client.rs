//! Requests to the API server. Owns: the agent, which headers go out, and how long an answer's
//! headers may take. Must not: know why a request is made, or read more of an answer than asked.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, DATE, RETRY_AFTER};
use ureq::http::{HeaderMap, HeaderValue, Request, Response};
use ureq::{Agent, BodyReader};

use crate::backoff::Patience;
use crate::error::{Error, Target};
use crate::kube::auth::{Roots, TlsConfig, TokenFile};
use crate::net::transport::{CachingResolver, PollConnector, Shared, Socket};
use crate::process::signals::Signals;
use crate::snapshot::Projection;

/// From the start of a request to its answer's headers, connecting and handshaking included; of a
/// slow server the headers may take longer.
const HEADERS_WITHIN: Duration = Duration::from_secs(5);
/// A body that ends (any but a watch's) must be there within this; longer, too, of a slow server.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// A connection waits this long for its next request: a watch follows its list at once, and an
/// older one may have been closed on the other side meanwhile.
const REUSE_WITHIN: Duration = Duration::from_secs(1);
/// The largest TLS record; a bigger buffer would only cost memory, once for each watch.
const INPUT_BUFFER: usize = 16 << 10;
/// More where the token needs it: a header is written whole.
const OUTPUT_BUFFER: usize = 4 << 10;
/// Room for a header's name, and for what ends it and the head.
const HEADER_NAME: usize = 64;
/// The server's word on being left alone is believed up to here.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

fn accept(extent: Projection) -> HeaderValue {
    HeaderValue::from_static(match extent {
        Projection::Full => "application/json",
        Projection::MetadataOnly => {
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        }
    })
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub enum Method<'a> {
    /// Read.
    Get,
    /// Create this.
    Post(&'a [u8]),
    /// Replace by this.
    Put(&'a [u8]),
}

/// Makes requests over our own connections.
pub fn agent(shared: &Arc<Shared>) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .max_idle_connections(1)
        .max_idle_connections_per_host(1)
        .max_idle_age(REUSE_WITHIN)
        .input_buffer_size(INPUT_BUFFER)
        .output_buffer_size(OUTPUT_BUFFER)
        .user_agent(concat!("crossover/", env!("CARGO_PKG_VERSION")))
        .build();
    let connector = PollConnector(shared.clone());
    let resolver = CachingResolver(shared.clone());
    Agent::with_parts(config, connector, resolver)
}

/// The one API server that we talk to.
pub struct Client {
    agent: Agent,
    shared: Arc<Shared>,
    apiserver: String,
    patience: Patience,
    token: Option<TokenFile>,
    /// `None` for http.
    trust: Option<TlsConfig>,
}

/// An answer whose headers are there.
pub struct Head {
    /// The HTTP status.
    pub status: u16,
    /// How long the server wants to be left alone.
    pub retry_after: Option<Duration>,
    /// How long the rest may take, unless it is a watch's.
    pub within: Duration,
    /// The rest of it.
    pub body: Body,
}

/// An answer's body, read as it arrives. Poll it only after a read said `WouldBlock`: decrypted
/// bytes may wait where poll(2) cannot see them.
pub struct Body {
    reader: BodyReader<'static>,
    socket: Arc<Socket>,
}

impl Client {
    /// No request is made yet, but token and CA file are read, and the first connection is begun.
    pub fn new(
        apiserver: &str,
        token_file: Option<&Path>,
        roots: Roots,
        signals: Signals,
    ) -> Result<Client, Error> {
        let shared = Arc::new(Shared::new(signals));
        let mut trust = apiserver
            .starts_with("https:")
            .then(|| TlsConfig::new(roots));
        if let Some(config) = trust
            .as_mut()
            .map(TlsConfig::refresh)
            .transpose()?
            .flatten()
        {
            shared.set_tls(config);
        }
        if let Ok(uri) = apiserver.parse() {
            shared.begin(&uri);
        }
        Ok(Client {
            agent: agent(&shared),
            shared,
            apiserver: apiserver.to_owned(),
            patience: Patience::default(),
            token: token_file.map(TokenFile::open).transpose()?,
            trust,
        })
    }

    /// Sends a request for `path` (with its query). Takes up to 5 s; up to 30 s where the server has
    /// been slow, and nothing else is to be done. A signal that ends the program ends it at once.
    pub fn ask(
        &mut self,
        method: Method,
        target: &Target,
        path: &str,
        extent: Projection,
    ) -> Result<Head, Error> {
        let answer = self.send(method, target, path, extent)?;
        // The token may have been rotated between our read and the server's check.
        if answer.status == 401 && self.token.is_some() {
            return self.send(method, target, path, extent);
        }
        Ok(answer)
    }

    /// An answer took too long: the next one may take longer.
    pub fn late(&mut self, now: Instant) {
        self.patience.late(now);
    }

    /// Whether answers have been late.
    pub fn is_slow(&self, now: Instant) -> bool {
        self.patience.within(HEADERS_WITHIN, now) > HEADERS_WITHIN
    }

    /// What is to be done by then cuts a request short that takes longer than usual.
    pub fn return_by(&self, at: Option<Instant>) {
        self.shared.return_by(at);
    }

    /// Whether a signal calls us away: requests fail from then on.
    pub fn is_stopped(&self) -> bool {
        self.shared.is_stopped()
    }

    fn send(
        &mut self,
        method: Method,
        target: &Target,
        path: &str,
        extent: Projection,
    ) -> Result<Head, Error> {
        self.refresh_trust();
        let now = Instant::now();
        let longer = self.patience.within(HEADERS_WITHIN, now) - HEADERS_WITHIN;
        self.shared.set_deadline(now + HEADERS_WITHIN, longer);
        let mut result = self.try_send(method, path, extent);
        let mut socket = self.shared.take_latest();
        // The server had closed it before it saw the request; it saw no request, so ask again.
        let reused = socket.as_ref().is_some_and(|socket| socket.is_reused());
        if matches!(result, Err(ureq::Error::Io(_))) && reused && !self.shared.is_late() {
            result = self.try_send(method, path, extent);
            socket = self.shared.take_latest();
        }
        match (result, socket) {
            (Ok(response), Some(socket)) => {
                self.shared.worked(&socket);
                socket.watch();
                let (head, body) = response.into_parts();
                Ok(Head {
                    status: head.status.as_u16(),
                    retry_after: retry_after(&head.headers),
                    within: self.patience.within(BODY_WITHIN, Instant::now()),
                    body: Body {
                        reader: body.into_reader(),
                        socket,
                    },
                })
            }
            (result, socket) => {
                if let Some(socket) = socket {
                    self.shared.failed(socket.address());
                }
                let error = result.err().unwrap_or(ureq::Error::ConnectionFailed);
                if matches!(&error, ureq::Error::Io(e) if e.kind() == io::ErrorKind::TimedOut) {
                    self.late(Instant::now());
                }
                Err(unanswered(target, error))
            }
        }
    }

    fn try_send(
        &mut self,
        method: Method,
        path: &str,
        extent: Projection,
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        let (verb, body) = match method {
            Method::Get => ("GET", None),
            Method::Post(body) => ("POST", Some(body)),
            Method::Put(body) => ("PUT", Some(body)),
        };
        let uri = format!("{}{path}", self.apiserver);
        let mut request = Request::builder()
            .method(verb)
            .uri(uri)
            .header(ACCEPT, accept(extent));
        if extent == Projection::MetadataOnly {
            // Nothing follows a look for a while: its connection would only take memory.
            request = request.header(CONNECTION, "close");
        }
        if let Some(token) = &mut self.token {
            let header = HeaderValue::from_str(token.current().header());
            let mut header = header.map_err(ureq::http::Error::from)?;
            header.set_sensitive(true);
            self.shared.expect_header(header.len() + HEADER_NAME);
            request = request.header(AUTHORIZATION, header);
        }
        match body {
            None => self.agent.run(request.body(())?),
            Some(body) => self.agent.run(
                request
                    .header(CONTENT_TYPE, "application/json")
                    .body(body)?,
            ),
        }
    }

    /// While the CA file is gone or unreadable, what it said last stays trusted.
    fn refresh_trust(&mut self) {
        if let Some(Ok(Some(config))) = self.trust.as_mut().map(TlsConfig::refresh) {
            self.shared.set_tls(config);
        }
    }
}

/// Why there is no answer. One that is there but cannot be read is another matter than none.
fn unanswered(target: &Target, error: ureq::Error) -> Error {
    let target = Box::new(target.clone());
    if let Some(what) = unreadable(&error) {
        return Error::Answer { target, what };
    }
    Error::Request {
        target,
        source: match error {
            ureq::Error::Io(error) => error.into(),
            error => error.into(),
        },
    }
}

/// What is wrong with an answer's HTTP, if it is that.
fn unreadable(error: &ureq::Error) -> Option<String> {
    let what = match error {
        ureq::Error::Protocol(error) => error.to_string(),
        ureq::Error::LargeResponseHeader(..) => "its head is too large".to_owned(),
        _ => return None,
    };
    let limits = "128 headers, 16 KiB of head, 20 bytes of a chunk's size and extension";
    Some(format!(
        "the answer's HTTP cannot be read: {what} (the API server, or a proxy before it, is at \
         fault; the limits are {limits})"
    ))
}

/// Seconds, or a date: that counts from the answer's own, so that no clock of ours matters.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok();
    let date = |text| httpdate::parse_http_date(text).ok();
    let wish = text(RETRY_AFTER)?;
    let wait = match wish.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => date(wish)?.duration_since(date(text(DATE)?)?).ok()?,
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

impl Body {
    /// Bytes that have arrived; 0 at the end; `WouldBlock` when there are none yet; `InvalidData`
    /// where they are not HTTP.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
            match inner.and_then(unreadable) {
                Some(what) => io::Error::new(io::ErrorKind::InvalidData, what),
                None => error,
            }
        })
    }
}

impl AsFd for Body {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wish: &str, date: Option<&str>, want: Option<u64>) {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, wish.parse().unwrap());
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        assert_eq!(retry_after(&headers), want.map(Duration::from_secs));
    }

    #[test]
    fn the_server_s_wish_is_seconds_or_a_date_and_believed_for_five_minutes() {
        let now = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        check("0", None, Some(0));
        check("17", None, Some(17));
        check("86400", None, Some(300));
        check("Sun, 06 Nov 1994 08:50:07 GMT", now, Some(30));
        check("Sunday, 06-Nov-94 08:50:07 GMT", now, Some(30));
        check("Sun Nov  6 08:50:07 1994", now, Some(30));
        check("Sun, 06 Nov 1994 12:00:00 GMT", now, Some(300));
        check("Sun, 06 Nov 1994 08:00:00 GMT", now, None);
        check("Sun, 06 Nov 1994 08:50:07 GMT", None, None);
        for nonsense in ["", "-1", "1.5", "soon", "99999999999999999999"] {
            check(nonsense, now, None);
        }
    }
}
