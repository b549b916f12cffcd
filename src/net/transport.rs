//! The bytes under ureq: a socket that never blocks, with or without TLS. Must not: know what HTTP
//! or Kubernetes is.
//!
//! While a request is being made, every wait is the [`Waiter`](super::wait::Waiter)'s. Once its
//! answer has begun, the loop takes over: [`Socket::watch`] makes reads return `WouldBlock`, which
//! ureq hands through unchanged, and after which it can resume.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustix::event::PollFlags;
use rustls::ClientConnection;
use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};

use super::connections::Connections;
use super::socket::Socket;
use super::wait::lock;

/// One connection, as ureq sees it.
#[derive(Debug)]
pub struct PollTransport {
    connections: Arc<Connections>,
    socket: Arc<Socket>,
    tls: Option<Box<ClientConnection>>,
    /// The size of the output buffer, which has to hold each header whole.
    output: usize,
    buffers: LazyBuffers,
}

impl PollTransport {
    pub(super) fn new(
        connections: Arc<Connections>,
        socket: Arc<Socket>,
        tls: Option<Box<ClientConnection>>,
        config: &Config,
    ) -> PollTransport {
        let output = config
            .output_buffer_size()
            .max(connections.longest_header());
        PollTransport {
            connections,
            socket,
            tls,
            output,
            buffers: LazyBuffers::new(config.input_buffer_size(), output),
        }
    }
}

impl Transport for PollTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        self.socket.begin_request();
        *lock(&self.connections.latest) = Some(self.socket.clone());

        let waiter = &self.connections.waiter;
        waiter.mark_sent();
        let mut stream = &self.socket.stream;
        let mut output = &self.buffers.output()[..amount];
        while !output.is_empty() {
            let sent = match &mut self.tls {
                None => waiter.retry_when_ready(stream, PollFlags::OUT, || stream.write(output))?,
                Some(tls) => tls.writer().write(output)?,
            };
            output = &output[sent..];
            if let Some(tls) = &mut self.tls {
                while tls.wants_write() {
                    waiter
                        .retry_when_ready(stream, PollFlags::OUT, || tls.write_tls(&mut stream))?;
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
            // A body is consumed before the buffer is full.
            return Err(Error::LargeResponseHeader(unread, unread));
        }
        let read = || match &mut self.tls {
            None => (&*stream).read(buffer),
            Some(tls) => read_tls(stream, tls, buffer),
        };
        let amount = if self.socket.is_watched() {
            // The loop polls; WouldBlock goes up to it.
            read_uninterrupted(read)?
        } else {
            let waiter = &self.connections.waiter;
            waiter.retry_when_ready(stream, PollFlags::IN, read)?
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    /// Returns whether the next request may use the connection: it is open, holds no bytes that
    /// nobody asked for, and its buffer holds the longest header.
    fn is_open(&mut self) -> bool {
        let holds = self.output >= self.connections.longest_header();
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

/// Decrypts as much of what has arrived as fits. Fails with `WouldBlock` only when nothing is left
/// inside rustls.
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
