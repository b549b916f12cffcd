//! An answer while it arrives. Owns: reading it without waiting, a fair share at a time, and the
//! end of patience with it. Must not: know what the bytes mean.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::kube::client::{Body, Head};
use crate::net::lines::LineBuffer;
use crate::poll;

/// What one answer may deliver before the others have their turn.
const READ_BUDGET: usize = 256 << 10;

/// How far reading has come.
#[derive(Debug)]
pub enum Progress {
    /// All that has arrived is read: poll.
    Waiting,
    /// More may be there: read again before polling.
    More,
    /// The answer ended; for anything but a watch, this is all of it.
    Ended(Vec<u8>),
    /// The connection, or the answer, broke.
    Broken(io::Error),
}

/// One answer being read.
pub struct Response {
    /// Its HTTP status.
    pub status: u16,
    /// How long the server wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Bytes may be there that poll(2) cannot see: read first.
    pub readable: bool,
    /// When to give up; a watch is given up by its own rules.
    pub deadline: Option<Instant>,
    body: Body,
    lines: LineBuffer,
}

impl Response {
    /// Takes over an answer whose headers are there. `endless`: a watch's, which comes in lines.
    pub fn new(answer: Head, endless: bool, now: Instant) -> Response {
        let Head {
            status,
            retry_after,
            within,
            body,
        } = answer;
        let endless = endless && status == 200;
        Response {
            status,
            retry_after,
            readable: true,
            deadline: (!endless).then(|| now + within),
            body,
            lines: LineBuffer::default(),
        }
    }

    /// Whether something has arrived that is not read yet.
    pub fn has_input(&self) -> bool {
        self.readable || poll::is_readable(self)
    }

    /// Reads what has arrived; a watch's whole lines go to `lines`.
    pub fn read(&mut self, lines: &mut Vec<Vec<u8>>) -> Progress {
        let mut buffer = [0; 16 << 10];
        let mut left = READ_BUDGET;
        let progress = loop {
            match self.body.read(&mut buffer) {
                Ok(0) => break Progress::Ended(self.lines.take()),
                Ok(amount) => {
                    if self.lines.push(&buffer[..amount]).is_err() {
                        let what = "the answer holds an object of over 8 MiB";
                        break Progress::Broken(io::Error::new(io::ErrorKind::FileTooLarge, what));
                    }
                    if self.deadline.is_none() {
                        lines.extend(std::iter::from_fn(|| self.lines.next_line()));
                    }
                    left = left.saturating_sub(amount);
                    if left == 0 {
                        break Progress::More;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break Progress::Waiting,
                Err(e) => break Progress::Broken(e),
            }
        };
        self.readable = matches!(progress, Progress::More);
        progress
    }
}

impl AsFd for Response {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.body.as_fd()
    }
}
