//! A connection from its first packet to its last handshake message. Owns: socket options, and who is
//! told what where TLS fails. Must not: choose an address, or wait but where its caller does.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use rustls::ClientConnection;

use super::tls::in_words;
use super::transport::Shared;

/// A connection on which nothing moves is probed after this, then every `KEEPALIVE_EVERY`.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// A connection whose peer acknowledges nothing for this long is dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(25);

/// A connection, or one on its way.
#[derive(Debug)]
pub struct Connection {
    /// Where it goes.
    pub address: SocketAddr,
    /// It never blocks.
    pub stream: TcpStream,
    /// `None`: in the clear.
    pub tls: Option<Box<ClientConnection>>,
}

impl Connection {
    /// Goes as far as it goes without waiting.
    pub fn begin(
        address: &SocketAddr,
        mut tls: Option<Box<ClientConnection>>,
    ) -> io::Result<Connection> {
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
        Ok(Connection {
            address: *address,
            stream,
            tls,
        })
    }

    /// Waits until it is ready for a request.
    pub fn finish(self, shared: &Shared) -> io::Result<Connection> {
        let stream = &self.stream;
        shared.wait(stream, PollFlags::OUT)?;
        sockopt::socket_error(stream)??;
        // Where a sandbox lacks one of them, looks still find a dead connection.
        let _ = sockopt::set_tcp_nodelay(stream, true);
        let _ = sockopt::set_socket_keepalive(stream, true);
        let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_AFTER);
        let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE_EVERY);
        let _ = sockopt::set_tcp_keepcnt(stream, 2);
        let _ = sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED.as_millis() as u32);
        self.secure(shared)
    }

    /// The same, where somebody has answered already.
    pub fn secure(mut self, shared: &Shared) -> io::Result<Connection> {
        if let Some(tls) = &mut self.tls {
            handshake(shared, &self.stream, tls)?;
        }
        Ok(self)
    }
}

fn handshake(
    shared: &Shared,
    mut stream: &TcpStream,
    tls: &mut ClientConnection,
) -> io::Result<()> {
    while tls.is_handshaking() || tls.wants_write() {
        if tls.wants_write() {
            shared.insist(stream, PollFlags::OUT, || tls.write_tls(&mut stream))?;
        } else if shared.insist(stream, PollFlags::IN, || tls.read_tls(&mut stream))? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        } else if let Err(error) = tls.process_new_packets() {
            // Tell the server why, as far as that goes without waiting.
            let _ = tls.write_tls(&mut stream);
            return Err(io::Error::new(io::ErrorKind::InvalidData, in_words(error)));
        }
    }
    Ok(())
}
