//! The bytes under ureq: a socket that never blocks, with or without TLS. Owns: which connection is
//! taken, and how long any of it may take. Must not: know what HTTP or Kubernetes is.
//!
//! While a request is being made, every wait is a poll(2) on the socket and for signals, up to the
//! request's deadline. Once its answer has begun, the loop takes over: [`Socket::watch`] makes
//! reads return `WouldBlock`, which ureq hands through unchanged, and after which it can resume.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use super::addresses::Addresses;
use super::connect::Connection;
use crate::poll;
use crate::process::signals::Signals;

/// One connection's socket, shared by the transport inside ureq and the loop that polls it.
#[derive(Debug)]
pub struct Socket {
    address: SocketAddr,
    stream: TcpStream,
    watched: AtomicBool,
    requests: AtomicU32,
}

impl Socket {
    /// From now on the loop waits for input, not the transport.
    pub fn watch(&self) {
        self.watched.store(true, Relaxed);
    }

    /// Where it goes.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it has carried more than one request.
    pub fn is_reused(&self) -> bool {
        self.requests.load(Relaxed) > 1
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// What the client and its connections share. There is one thread; the locks are there because
/// ureq's traits ask for `Sync`.
#[derive(Debug)]
pub struct Shared {
    signals: Signals,
    /// When the request that is being made must have its answer's headers.
    deadline: Mutex<Instant>,
    /// How much longer it may take once the request is out, while nothing else is to be done; and
    /// when something is.
    longer: Mutex<(Duration, Option<Instant>)>,
    sent: AtomicBool,
    /// All connections, the open ones among them.
    sockets: Mutex<Vec<Weak<Socket>>>,
    /// The connection that the last request went out on.
    latest: Mutex<Option<Arc<Socket>>>,
    /// For the next connection.
    tls: Mutex<Option<Arc<ClientConfig>>>,
    /// The next connection, if it is begun already.
    begun: Mutex<Option<Connection>>,
    addresses: Mutex<Addresses>,
    /// What the next connection holds of a request at least, as each header is written whole.
    longest_header: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Nothing connected, no TLS yet.
    pub fn new(signals: Signals) -> Shared {
        Shared {
            signals,
            deadline: Mutex::new(Instant::now()),
            longer: Mutex::default(),
            sent: false.into(),
            sockets: Mutex::default(),
            latest: Mutex::default(),
            tls: Mutex::default(),
            begun: Mutex::default(),
            addresses: Mutex::default(),
            longest_header: AtomicUsize::new(0),
        }
    }

    /// The request that comes next has a header of this length.
    pub fn expect_header(&self, length: usize) {
        self.longest_header.store(length, Relaxed);
    }

    /// The next connection trusts what `config` trusts.
    pub fn set_tls(&self, config: Arc<ClientConfig>) {
        *lock(&self.tls) = Some(config);
    }

    /// Begins the connection to `uri` that the next request will take, if that needs no look-up: the
    /// server works on it while we do something else. What fails here fails there again.
    pub fn begin(&self, uri: &Uri) {
        let port = uri.port_u16().unwrap_or(if is_tls(uri) { 443 } else { 80 });
        if let Ok(ip) = host(uri).parse()
            && let Ok(tls) = self.tls_to(uri)
            && let Ok(connection) = Connection::begin(&SocketAddr::new(ip, port), tls)
        {
            *lock(&self.begun) = Some(connection);
        }
    }

    /// A client for a TLS connection to `uri`, if it asks for that.
    fn tls_to(&self, uri: &Uri) -> io::Result<Option<Box<ClientConnection>>> {
        if !is_tls(uri) {
            return Ok(None);
        }
        let name = ServerName::try_from(host(uri).to_owned()).map_err(io::Error::other)?;
        let config = lock(&self.tls).clone();
        let config = config.ok_or_else(|| io::Error::other("TLS is not set up"))?;
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(Some(Box::new(connection)))
    }

    /// The request that comes next must have its answer's headers by then, or so much longer after
    /// it is out if nothing else is to be done.
    pub fn set_deadline(&self, deadline: Instant, longer: Duration) {
        *lock(&self.deadline) = deadline;
        lock(&self.longer).0 = longer;
        self.sent.store(false, Relaxed);
    }

    /// Something else is to be done by then.
    pub fn return_by(&self, at: Option<Instant>) {
        lock(&self.longer).1 = at;
    }

    /// The connections that the loop waits for.
    fn watched(&self) -> Vec<Arc<Socket>> {
        let sockets = lock(&self.sockets);
        let open = sockets.iter().filter_map(Weak::upgrade);
        open.filter(|socket| socket.watched.load(Relaxed)).collect()
    }

    /// Whether the time for that is over.
    pub fn is_late(&self) -> bool {
        Instant::now() >= *lock(&self.deadline)
    }

    /// The connection that the last request went out on, if one was made at all.
    pub fn take_latest(&self) -> Option<Arc<Socket>> {
        lock(&self.latest).take()
    }

    /// An answer's headers have come by this connection.
    pub fn worked(&self, socket: &Socket) {
        lock(&self.addresses).worked(socket.address);
    }

    /// No connection that is of use can be had there.
    pub fn failed(&self, address: SocketAddr) {
        // Where a signal has cut it short, nobody knows.
        if !self.is_stopped() {
            lock(&self.addresses).failed(address);
        }
    }

    /// Whether a signal calls us away.
    pub fn is_stopped(&self) -> bool {
        self.signals.dispatch().is_some()
    }

    /// Waits until `socket` is ready, the deadline has passed or a signal calls us away.
    pub(super) fn wait(&self, socket: impl AsFd, flags: PollFlags) -> io::Result<()> {
        let usual = *lock(&self.deadline);
        let (longer, other) = *lock(&self.longer);
        let deadline = match self.sent.load(Relaxed) {
            true => (usual + longer).min(other.map_or(usual + longer, |at| at.max(usual))),
            false => usual,
        };
        loop {
            let now = Instant::now();
            let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
            if now >= deadline {
                return Err(late());
            }
            // Past the usual time nothing that has arrived waits for this answer.
            let watched = match now >= usual {
                true => self.watched(),
                false => Vec::new(),
            };
            let until = if now < usual { usual } else { deadline };
            let until = self.signals.deadline().map_or(until, |at| at.min(until));
            let mut fds = vec![
                PollFd::new(&socket, flags),
                PollFd::new(&*self.signals.waiting, PollFlags::IN),
            ];
            fds.extend(
                watched
                    .iter()
                    .map(|open| PollFd::new(&**open, PollFlags::IN)),
            );
            poll::wait(&mut fds, Some(until))?;
            let ready = !fds[0].revents().is_empty();
            let news = fds[2..].iter().any(|fd| !fd.revents().is_empty());
            if self.is_stopped() {
                return Err(io::Error::other("a signal calls the program away"));
            }
            if ready {
                return Ok(());
            }
            if news {
                return Err(late());
            }
        }
    }

    /// Runs `operation` until it is done, waiting whenever it would block.
    pub(super) fn insist<T>(
        &self,
        socket: &TcpStream,
        flags: PollFlags,
        mut operation: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match operation() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait(socket, flags)?,
                result => return result,
            }
        }
    }
}

fn is_tls(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// Without the brackets of an IPv6 address.
fn host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Looks a name up only when no known address works: the call cannot be interrupted.
#[derive(Debug)]
pub struct CachingResolver(pub Arc<Shared>);

impl Resolver for CachingResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let mut known = lock(&self.0.addresses);
        if !known.are_good() {
            let began = Instant::now();
            let look_up = || DefaultResolver::default().resolve(uri, config, timeout);
            let found = self.0.signals.run_blocking(look_up);
            // The request's time is the server's.
            *lock(&self.0.deadline) += began.elapsed();
            match found {
                Ok(found) => known.found(&found),
                // Names may be gone for longer than the server is.
                Err(_) if !known.in_order().is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        let mut addresses = self.empty();
        let known = known.in_order().iter();
        known.for_each(|address| addresses.push(*address));
        Ok(addresses)
    }
}

/// Makes connections for ureq.
#[derive(Debug)]
pub struct PollConnector(pub Arc<Shared>);

impl Connector<()> for PollConnector {
    type Out = PollTransport;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<PollTransport>, Error> {
        let shared = &self.0;
        let begun = lock(&shared.begun).take();
        let begun = begun.and_then(|begun| begun.finish(shared).ok());
        // The server may have closed it since, as it may close one that has carried a request.
        let requests = u32::from(begun.is_some());
        let connection = match begun {
            Some(finished) => finished,
            None => connect_any(shared, details)?,
        };
        let Connection {
            address,
            stream,
            tls,
        } = connection;
        let config = details.config;
        let header = shared.longest_header.load(Relaxed);
        let output = config.output_buffer_size().max(header);
        let socket = Arc::new(Socket {
            address,
            stream,
            watched: false.into(),
            requests: requests.into(),
        });
        let mut sockets = lock(&shared.sockets);
        sockets.retain(|socket| socket.strong_count() > 0);
        sockets.push(Arc::downgrade(&socket));
        Ok(Some(PollTransport {
            shared: shared.clone(),
            socket,
            tls,
            output,
            buffers: LazyBuffers::new(config.input_buffer_size(), output),
        }))
    }
}

/// The first address with which a connection comes about, handshake and all. Each but the last gets
/// its share of the time that is left, so that a dead one does not cost the others theirs.
fn connect_any(shared: &Shared, details: &ConnectionDetails) -> Result<Connection, Error> {
    let deadline = *lock(&shared.deadline);
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (tried, address) in details.addrs.iter().enumerate() {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let share = left / (details.addrs.len() - tried) as u32;
        *lock(&shared.deadline) = now + share;
        let result = connect(shared, address, details.uri);
        *lock(&shared.deadline) = deadline;
        let error = match result {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        if !left.is_zero() {
            shared.failed(*address);
        }
        // What was too slow for its share may do with more time: that counts for the next try.
        if failure.kind() != io::ErrorKind::TimedOut {
            failure = match details.addrs.len() {
                1 => error,
                _ => io::Error::new(error.kind(), format!("{address}: {error}")),
            };
        }
    }
    Err(failure.into())
}

fn connect(shared: &Shared, address: &SocketAddr, uri: &Uri) -> io::Result<Connection> {
    let mut connection = Connection::begin(address, None)?.finish(shared)?;
    connection.tls = shared.tls_to(uri)?;
    connection.secure(shared)
}

/// One connection, as ureq sees it.
#[derive(Debug)]
pub struct PollTransport {
    shared: Arc<Shared>,
    socket: Arc<Socket>,
    tls: Option<Box<ClientConnection>>,
    /// How long a header may be.
    output: usize,
    buffers: LazyBuffers,
}

impl Transport for PollTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        // A pooled connection's last answer may have been watched; this request's is not yet.
        self.socket.watched.store(false, Relaxed);
        self.socket.requests.fetch_add(1, Relaxed);
        *lock(&self.shared.latest) = Some(self.socket.clone());

        self.shared.sent.store(true, Relaxed);
        let mut stream = &self.socket.stream;
        let mut output = &self.buffers.output()[..amount];
        while !output.is_empty() {
            let sent = match &mut self.tls {
                None => self
                    .shared
                    .insist(stream, PollFlags::OUT, || stream.write(output))?,
                Some(tls) => tls.writer().write(output)?,
            };
            output = &output[sent..];
            if let Some(tls) = &mut self.tls {
                while tls.wants_write() {
                    self.shared
                        .insist(stream, PollFlags::OUT, || tls.write_tls(&mut stream))?;
                }
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let stream = &self.socket.stream;
        let unread = self.buffers.input().len();
        let buffer = self.buffers.input_append_buf();
        if buffer.is_empty() {
            // Of a body something can be used before the buffer is full.
            return Err(Error::LargeResponseHeader(unread, unread));
        }
        let read = || match &mut self.tls {
            None => (&*stream).read(buffer),
            Some(tls) => read_tls(stream, tls, buffer),
        };
        let amount = if self.socket.watched.load(Relaxed) {
            // The loop polls; WouldBlock goes up to it.
            read_uninterrupted(read)?
        } else {
            self.shared.insist(stream, PollFlags::IN, read)?
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    /// Open and quiet: bytes that nobody asked for make a connection unfit for the next request, as
    /// does a header that it cannot hold.
    fn is_open(&mut self) -> bool {
        let holds = self.output >= self.shared.longest_header.load(Relaxed);
        let peeked = self.socket.stream.peek(&mut [0]);
        holds && peeked.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
    }

    fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

fn read_uninterrupted(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Decrypts what has arrived, as much as fits; `WouldBlock` only when nothing is left inside rustls.
fn read_tls(
    mut stream: &TcpStream,
    tls: &mut ClientConnection,
    buffer: &mut [u8],
) -> io::Result<usize> {
    loop {
        match tls.reader().read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
        tls.read_tls(&mut stream)?;
        tls.process_new_packets()
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    }
}
