//! Connections to Envoy's admin port, made without waiting. Owns: the sockets' options.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use super::address::{Address, Remote};
use super::error::{AdminError, away};
use crate::process::signals::Signals;

/// Starts a connection to the last of these that can be, and drops it and those that cannot.
pub fn connect_any(remotes: &mut Vec<Remote>) -> Result<OwnedFd, AdminError> {
    let mut error = AdminError::Away("it has no address".into());
    while let Some(remote) = remotes.pop() {
        match connect(&remote) {
            Ok(socket) => return Ok(socket),
            // A socket with a full queue.
            Err(Errno::AGAIN) => error = AdminError::NoAnswer(Duration::ZERO),
            Err(errno) => error = away(errno),
        }
    }
    Err(error)
}

fn connect(remote: &Remote) -> rustix::io::Result<OwnedFd> {
    let family = match remote {
        Remote::Ip(address) if address.is_ipv4() => AddressFamily::INET,
        Remote::Ip(_) => AddressFamily::INET6,
        Remote::Path(_) => AddressFamily::UNIX,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    let result = match remote {
        Remote::Ip(address) => net::connect(&socket, address),
        Remote::Path(path) => net::connect(&socket, &SocketAddrUnix::new(path)?),
    };
    match result {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

/// Returns whether a connection that has been started is made.
pub fn is_connected(socket: &OwnedFd) -> rustix::io::Result<bool> {
    sockopt::socket_error(socket)??;
    match net::getpeername(socket) {
        Ok(_) => Ok(true),
        Err(Errno::NOTCONN) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// A connection that carries nothing: its end says that Envoy went.
#[derive(Debug)]
pub struct IdleConnection(OwnedFd);

impl IdleConnection {
    /// Starts a connection to the first place that can be reached.
    pub fn start(
        address: &mut Address,
        signals: &Signals,
        now: Instant,
    ) -> Result<IdleConnection, AdminError> {
        let mut remotes = address.remotes(signals, now)?.to_vec();
        remotes.reverse();
        connect_any(&mut remotes).map(IdleConnection)
    }

    /// Returns whether it has ended, or could not be made. It is to be polled for input.
    pub fn has_ended(&self) -> bool {
        let mut byte = [0; 1];
        match net::recv(&self.0, &mut byte[..], RecvFlags::empty()) {
            // Also where it is still being made.
            Err(Errno::AGAIN | Errno::INTR) => false,
            Ok(_) | Err(_) => true,
        }
    }
}

impl AsFd for IdleConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
