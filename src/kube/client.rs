//! Requests to the API server. Owns: which headers go out, and how long an answer's headers may
//! take. Must not: know why a request is made, or read more of an answer than that.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::http::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE};
use ureq::http::{HeaderValue, Request, Response};

use crate::backoff::Patience;
use crate::error::{Error, Target};
use crate::kube::auth::{Roots, TlsConfig, TokenFile};
use crate::kube::object::Projection;
use crate::net;
use crate::net::connections::Connections;
use crate::net::response::{Head, unreadable};
use crate::net::wait::is_interrupted;
use crate::process::signals::Signals;

/// The time from the start of a request to its answer's headers, with connecting and handshake. A
/// slow server gets longer.
const HEADERS_WITHIN: Duration = Duration::from_secs(5);
/// A body that ends (any but a watch's) must be there within this; longer, too, of a slow server.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// The bytes for a header's name, for its end and for the end of the head.
const HEADER_NAME: usize = 64;

/// Returns the media type in which an answer should come.
fn accept(projection: Projection) -> HeaderValue {
    HeaderValue::from_static(match projection {
        Projection::Full => "application/json",
        Projection::MetadataOnly => {
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        }
    })
}

/// The method of a request, with its body.
#[derive(Clone, Copy, Debug)]
pub enum Method<'a> {
    /// Reads an object or a list.
    Get,
    /// Creates an object from this body.
    Post(&'a [u8]),
    /// Replaces an object by this body.
    Put(&'a [u8]),
}

/// A request to the API server.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The method, with the body.
    pub method: Method<'a>,
    /// The name of the request in errors.
    pub target: &'a Target,
    /// The path, with its query.
    pub path: &'a str,
    /// The part of the objects that the answer should hold.
    pub projection: Projection,
}

/// The client of the one API server.
pub struct Client {
    agent: Agent,
    connections: Arc<Connections>,
    apiserver: String,
    patience: Patience,
    token: Option<TokenFile>,
    /// `None` for http.
    trust: Option<TlsConfig>,
}

impl Client {
    /// Makes a client: reads the token and the CA file, and starts the first connection. It sends
    /// no request yet.
    pub fn new(
        apiserver: &str,
        token_file: Option<&Path>,
        roots: Roots,
        signals: Signals,
    ) -> Result<Client, Error> {
        let connections = Arc::new(Connections::new(signals));
        let mut trust = apiserver
            .starts_with("https:")
            .then(|| TlsConfig::new(roots));
        if let Some(config) = trust
            .as_mut()
            .map(TlsConfig::refresh)
            .transpose()?
            .flatten()
        {
            connections.set_tls(config);
        }
        if let Ok(uri) = apiserver.parse() {
            connections.start(&uri);
        }
        Ok(Client {
            agent: net::agent(&connections),
            connections,
            apiserver: apiserver.to_owned(),
            patience: Patience::default(),
            token: token_file.map(TokenFile::open).transpose()?,
            trust,
        })
    }

    /// Sends a request, and waits for its answer's headers: up to 5 s, or up to 30 s if the server
    /// has been slow and nothing else is to be done. A signal that ends the program ends the wait
    /// at once.
    pub fn ask(&mut self, call: &Call) -> Result<Head, Error> {
        let answer = self.send(call)?;
        // The token may have been rotated between our read and the server's check.
        if answer.status == 401 && self.token.is_some() {
            return self.send(call);
        }
        Ok(answer)
    }

    /// Counts an answer that took too long, so that the next one may take longer.
    pub fn late(&mut self, now: Instant) {
        self.patience.late(now);
    }

    /// Returns whether answers have been late.
    pub fn is_slow(&self, now: Instant) -> bool {
        self.patience.within(HEADERS_WITHIN, now) > HEADERS_WITHIN
    }

    /// Cuts a request's extra time short at `at`, when there is something else to do.
    pub fn return_by(&self, at: Option<Instant>) {
        self.connections.waiter.return_by(at);
    }

    fn send(&mut self, call: &Call) -> Result<Head, Error> {
        self.refresh_trust();
        let now = Instant::now();
        let longer = self.patience.within(HEADERS_WITHIN, now) - HEADERS_WITHIN;
        self.connections
            .waiter
            .set_deadline(now + HEADERS_WITHIN, longer);
        let mut result = self.try_send(call);
        let mut socket = self.connections.take_latest();
        // The server had closed it before it saw the request; it saw no request, so ask again.
        let reused = socket.as_ref().is_some_and(|socket| socket.is_reused());
        if matches!(result, Err(ureq::Error::Io(_))) && reused && !self.connections.waiter.is_late()
        {
            result = self.try_send(call);
            socket = self.connections.take_latest();
        }
        match (result, socket) {
            (Ok(response), Some(socket)) => {
                self.connections.worked(socket.address);
                socket.watch();
                let within = self.patience.within(BODY_WITHIN, Instant::now());
                Ok(Head::new(response, socket, within))
            }
            (result, socket) => {
                let error = result.err().unwrap_or(ureq::Error::ConnectionFailed);
                if let Some(socket) = socket
                    && !is_interrupted(&error)
                {
                    self.connections.failed(socket.address);
                }
                if matches!(&error, ureq::Error::Io(e) if e.kind() == io::ErrorKind::TimedOut) {
                    self.late(Instant::now());
                }
                Err(unanswered(call.target, error))
            }
        }
    }

    fn try_send(&mut self, call: &Call) -> Result<Response<ureq::Body>, ureq::Error> {
        let (verb, body) = match call.method {
            Method::Get => ("GET", None),
            Method::Post(body) => ("POST", Some(body)),
            Method::Put(body) => ("PUT", Some(body)),
        };
        let uri = format!("{}{}", self.apiserver, call.path);
        let mut request = Request::builder()
            .method(verb)
            .uri(uri)
            .header(ACCEPT, accept(call.projection));
        if call.projection == Projection::MetadataOnly {
            // No request follows a check for a while: its connection would only take memory.
            request = request.header(CONNECTION, "close");
        }
        if let Some(token) = &mut self.token {
            let header = HeaderValue::from_str(token.current().header());
            let mut header = header.map_err(ureq::http::Error::from)?;
            header.set_sensitive(true);
            self.connections.expect_header(header.len() + HEADER_NAME);
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

    /// Reads a changed CA file. While it is missing or unreadable, its last certificates stay
    /// trusted.
    fn refresh_trust(&mut self) {
        if let Some(Ok(Some(config))) = self.trust.as_mut().map(TlsConfig::refresh) {
            self.connections.set_tls(config);
        }
    }
}

/// Makes the error of a request without an answer. An answer that cannot be read is a different
/// error.
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
