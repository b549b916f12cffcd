//! A connection's bytes on their way out: passed on, or stopped after so many bytes of a body.

use super::faults::Then;
use super::serve::Command;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio_rustls::server::TlsStream;

/// A stream over TCP, with TLS or without.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Returns the socket below.
    fn socket(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Stream for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Stops a connection within the next answer.
pub struct Limit {
    /// Bytes of the body that may still go.
    pub body_bytes: usize,
    /// The way in which the connection goes on then.
    pub then: Then,
    /// The answer's head has gone.
    pub in_body: bool,
}

/// Shared by a connection and the answers on it.
pub type SharedLimit = Arc<Mutex<Option<Limit>>>;

/// Counts what is written, and stops at the limit.
pub struct Metered<S> {
    /// The stream itself.
    pub inner: S,
    /// `None`: everything goes.
    pub limit: SharedLimit,
    /// Tells the connection to close when the limit is reached.
    pub commands: UnboundedSender<Command>,
}

impl Limit {
    /// Returns how many of these bytes may go.
    fn allowed(&self, bytes: &[u8]) -> usize {
        let body_at = if self.in_body {
            0
        } else {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
            end.map_or(bytes.len(), |end| end + 4)
        };
        bytes.len().min(body_at.saturating_add(self.body_bytes))
    }

    /// Counts bytes that went. Returns true if none may follow.
    fn went(&mut self, bytes: &[u8], count: usize) -> bool {
        let head = bytes[..count]
            .windows(4)
            .position(|four| four == b"\r\n\r\n");
        let of_body = match (self.in_body, head) {
            (true, _) => count,
            (false, Some(end)) => count - (end + 4),
            (false, None) => return false,
        };
        self.in_body = true;
        self.body_bytes -= of_body;
        self.body_bytes == 0
    }
}

impl<S: Stream> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let shared = self.limit.clone();
        let mut limit = shared.lock().expect("nobody panics with it");
        let Some(limit) = limit.as_mut() else {
            return Pin::new(&mut self.inner).poll_write(context, bytes);
        };
        let allowed = limit.allowed(bytes);
        if allowed == 0 {
            return Poll::Pending; // A command ends it, or the client.
        }
        let written = Pin::new(&mut self.inner).poll_write(context, &bytes[..allowed]);
        if let Poll::Ready(Ok(count)) = written
            && limit.went(bytes, count)
        {
            let command = match limit.then {
                Then::Stall => return written,
                Then::Close => Command::Close,
                Then::Reset => Command::Reset,
            };
            let _ = self.commands.send(command);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S: Stream> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}
