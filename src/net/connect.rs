//! A connection from its first packet to its last handshake message. Owns: socket options, and what
//! server and operator hear where TLS fails. Must not: choose an address.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use rustls::ClientConnection;

use super::tls::describe;
use super::wait::Waiter;

/// The quiet time after which a connection is probed, then every `KEEPALIVE_EVERY`.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// The time after which a connection is dead whose peer acknowledges nothing.
const UNACKNOWLEDGED: Duration = Duration::from_secs(25);

/// A connection that has been started.
#[derive(Debug)]
pub struct Connecting(Connection);

/// A connection that is ready for a request.
#[derive(Debug)]
pub struct Connection {
    pub address: SocketAddr,
    /// It never blocks.
    pub stream: TcpStream,
    /// `None` for http.
    pub tls: Option<Box<ClientConnection>>,
}

impl Connecting {
    /// Goes as far as possible without waiting.
    pub fn start(
        address: &SocketAddr,
        mut tls: Option<Box<ClientConnection>>,
    ) -> io::Result<Connecting> {
        let family = if address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        match net::connect(&socket, address) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let stream = TcpStream::from(socket);
        if let Some(tls) = &mut tls {
            // Where that is too early, or fails, the handshake goes on from there.
            let _ = tls.write_tls(&mut &stream);
        }
        Ok(Connecting(Connection {
            address: *address,
            stream,
            tls,
        }))
    }

    /// Waits until the connection is ready for a request.
    pub fn finish(self, waiter: &Waiter) -> io::Result<Connection> {
        let Connecting(mut connection) = self;
        let stream = &connection.stream;
        waiter.wait(stream, PollFlags::OUT)?;
        sockopt::socket_error(stream)??;
        // Where a sandbox lacks one of them, consistency checks still find a dead connection.
        let _ = sockopt::set_tcp_nodelay(stream, true);
        let _ = sockopt::set_socket_keepalive(stream, true);
        let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_AFTER);
        let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE_EVERY);
        let _ = sockopt::set_tcp_keepcnt(stream, 2);
        let _ = sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED.as_millis() as u32);
        if let Some(tls) = &mut connection.tls {
            handshake(waiter, stream, tls)?;
        }
        Ok(connection)
    }
}

impl Connection {
    /// Adds TLS to a connection that has carried nothing yet.
    pub fn secure(&mut self, mut tls: Box<ClientConnection>, waiter: &Waiter) -> io::Result<()> {
        handshake(waiter, &self.stream, &mut tls)?;
        self.tls = Some(tls);
        Ok(())
    }
}

fn handshake(
    waiter: &Waiter,
    mut stream: &TcpStream,
    tls: &mut ClientConnection,
) -> io::Result<()> {
    while tls.is_handshaking() || tls.wants_write() {
        if tls.wants_write() {
            waiter.retry_when_ready(stream, PollFlags::OUT, || tls.write_tls(&mut stream))?;
        } else if waiter.retry_when_ready(stream, PollFlags::IN, || tls.read_tls(&mut stream))? == 0
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        } else if let Err(error) = tls.process_new_packets() {
            // Tell the server why, as far as that goes without waiting.
            let _ = tls.write_tls(&mut stream);
            return Err(io::Error::new(io::ErrorKind::InvalidData, describe(error)));
        }
    }
    Ok(())
}
