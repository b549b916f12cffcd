//! The state that a client and its connections share. Owns: what the next connection is made from,
//! and which one the last request went out on.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use ureq::http::Uri;

use super::addresses::Addresses;
use super::connect::Connecting;
use super::socket::Socket;
use super::wait::{Waiter, lock};
use crate::process::signals::Signals;

/// The connections to one server, past and to come.
#[derive(Debug)]
pub struct Connections {
    pub waiter: Waiter,
    /// The connection that the last request went out on.
    pub(super) latest: Mutex<Option<Arc<Socket>>>,
    pub(super) addresses: Mutex<Addresses>,
    /// The next connection, if it has been started already.
    pub(super) started: Mutex<Option<Connecting>>,
    tls: Mutex<Option<Arc<ClientConfig>>>,
    /// The length of a request's longest header. Each is written whole, so a connection's buffer
    /// has to hold it.
    longest_header: AtomicUsize,
}

impl Connections {
    /// Makes the shared state without connecting yet.
    pub fn new(signals: Signals) -> Connections {
        Connections {
            waiter: Waiter::new(signals),
            latest: Mutex::default(),
            addresses: Mutex::default(),
            started: Mutex::default(),
            tls: Mutex::default(),
            longest_header: AtomicUsize::new(0),
        }
    }

    /// Announces that the next request has a header of this length.
    pub fn expect_header(&self, length: usize) {
        self.longest_header.store(length, Relaxed);
    }

    pub(super) fn longest_header(&self) -> usize {
        self.longest_header.load(Relaxed)
    }

    /// Makes the next connection trust what `config` trusts.
    pub fn set_tls(&self, config: Arc<ClientConfig>) {
        *lock(&self.tls) = Some(config);
    }

    /// Starts the connection to `uri` that the first request will take, if that needs no look-up:
    /// the server works on it meanwhile. Errors are ignored here; the request will report them.
    pub fn start(&self, uri: &Uri) {
        let port = uri.port_u16().unwrap_or(if is_tls(uri) { 443 } else { 80 });
        if let Ok(ip) = host(uri).parse()
            && let Ok(tls) = self.tls_to(uri)
            && let Ok(connecting) = Connecting::start(&SocketAddr::new(ip, port), tls)
        {
            *lock(&self.started) = Some(connecting);
        }
    }

    /// Returns a client for a TLS connection to `uri`, if that is https.
    pub(super) fn tls_to(&self, uri: &Uri) -> io::Result<Option<Box<ClientConnection>>> {
        if !is_tls(uri) {
            return Ok(None);
        }
        let name = ServerName::try_from(host(uri).to_owned()).map_err(io::Error::other)?;
        let config = lock(&self.tls).clone();
        let config = config.ok_or_else(|| io::Error::other("TLS is not set up"))?;
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(Some(Box::new(connection)))
    }

    /// Takes the connection that the last request went out on, if it was sent at all.
    pub fn take_latest(&self) -> Option<Arc<Socket>> {
        lock(&self.latest).take()
    }

    /// Notes that an answer's headers have come from this address.
    pub fn worked(&self, address: SocketAddr) {
        lock(&self.addresses).worked(address);
    }

    /// Notes that a request to this address has failed, and not because a signal interrupted it.
    pub fn failed(&self, address: SocketAddr) {
        lock(&self.addresses).failed(address);
    }
}

fn is_tls(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// Returns the host without the brackets of an IPv6 address.
fn host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']')
}
