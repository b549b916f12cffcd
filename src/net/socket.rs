//! A connection's socket, as the transport inside ureq and the loop that polls it share it.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// A socket that never blocks.
#[derive(Debug)]
pub struct Socket {
    pub address: SocketAddr,
    pub(super) stream: TcpStream,
    watched: AtomicBool,
    requests: AtomicU32,
}

impl Socket {
    /// Makes a socket on which `requests` have been sent already.
    pub(super) fn new(address: SocketAddr, stream: TcpStream, requests: u32) -> Socket {
        Socket {
            address,
            stream,
            watched: false.into(),
            requests: requests.into(),
        }
    }

    /// Makes the loop wait for input from now on, not the transport.
    pub fn watch(&self) {
        self.watched.store(true, Relaxed);
    }

    /// Returns whether the loop waits for input.
    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Relaxed)
    }

    /// Counts a request, for whose answer's headers the transport waits.
    pub(super) fn begin_request(&self) {
        self.watched.store(false, Relaxed);
        self.requests.fetch_add(1, Relaxed);
    }

    /// Returns whether it has carried more than one request.
    pub fn is_reused(&self) -> bool {
        self.requests.load(Relaxed) > 1
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
