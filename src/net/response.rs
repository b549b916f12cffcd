//! A response while it arrives. Owns: reading it without waiting, a fair share at a time, and its
//! deadline. Must not: know what the bytes mean.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::BodyReader;
use ureq::http::header::{DATE, RETRY_AFTER};
use ureq::http::{self, HeaderMap};

use super::lines::LineBuffer;
use super::socket::Socket;
use crate::poll;

/// The bytes that one response may deliver before the others have their turn.
const READ_BUDGET: usize = 256 << 10;
/// The longest Retry-After that is followed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// A response whose headers are there.
pub struct Head {
    pub status: u16,
    retry_after: Option<Duration>,
    /// The time that the body may take, unless it is a watch's.
    within: Duration,
    body: Body,
}

impl Head {
    /// Takes `answer` apart, which came through `socket`. Its body has to be there within `within`,
    /// unless it is a watch's.
    pub fn new(answer: http::Response<ureq::Body>, socket: Arc<Socket>, within: Duration) -> Head {
        let (head, body) = answer.into_parts();
        Head {
            status: head.status.as_u16(),
            retry_after: retry_after(&head.headers),
            within,
            body: Body {
                reader: body.into_reader(),
                socket,
            },
        }
    }
}

/// The body of a response, read as it arrives. Poll it only after a read has failed with
/// `WouldBlock`: decrypted bytes may wait where poll(2) cannot see them.
struct Body {
    reader: BodyReader<'static>,
    socket: Arc<Socket>,
}

impl Body {
    /// Reads bytes that have arrived; 0 at the end. Fails with `WouldBlock` if there are none yet,
    /// and with `InvalidData` if they are not HTTP.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
            match inner.and_then(unreadable) {
                Some(what) => io::Error::new(io::ErrorKind::InvalidData, what),
                None => error,
            }
        })
    }
}

impl AsFd for Body {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Returns what is wrong with a response's HTTP, if the error is about that.
pub fn unreadable(error: &ureq::Error) -> Option<String> {
    let what = match error {
        ureq::Error::Protocol(error) => error.to_string(),
        ureq::Error::LargeResponseHeader(..) => "its head is too large".to_owned(),
        _ => return None,
    };
    let limits = "128 headers, 16 KiB of head, 20 bytes of a chunk's size and extension";
    Some(format!(
        "the answer's HTTP cannot be read: {what} (the API server, or a proxy before it, is at \
         fault; the limits are {limits})"
    ))
}

/// Returns the time of a Retry-After. It is in seconds, or a date, which counts from the response's
/// own date, so that the local clock does not matter.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok();
    let date = |text| httpdate::parse_http_date(text).ok();
    let wish = text(RETRY_AFTER)?;
    let wait = match wish.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => date(wish)?.duration_since(date(text(DATE)?)?).ok()?,
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// The result of one read.
#[derive(Debug)]
pub enum Progress {
    /// Everything that has arrived is read: poll before the next read.
    Waiting,
    /// There may be more: read again before polling.
    More,
    /// The response is complete. Of a watch this is what follows its last line.
    Ended(Vec<u8>),
    /// The connection or the response broke.
    Broken(io::Error),
}

/// A response that is being read.
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The time for which the server asks for no further request.
    pub retry_after: Option<Duration>,
    /// Bytes may be there, some of which poll(2) cannot see: read before polling.
    pub readable: bool,
    /// The time at which the response is late; `None` for a watch, which ends by its own rules.
    pub deadline: Option<Instant>,
    body: Body,
    lines: LineBuffer,
}

impl Response {
    /// Reads on where the headers end, in a response that ends in time.
    pub fn whole(head: Head, now: Instant) -> Response {
        let Head {
            status,
            retry_after,
            within,
            body,
        } = head;
        Response {
            status,
            retry_after,
            readable: true,
            deadline: Some(now + within),
            body,
            lines: LineBuffer::default(),
        }
    }

    /// Reads on in the response to a watch, which comes in lines and is not bound to end. An error
    /// is a whole response, as any other.
    pub fn streamed(head: Head, now: Instant) -> Response {
        let response = Response::whole(head, now);
        Response {
            deadline: response.deadline.filter(|_| response.status != 200),
            ..response
        }
    }

    /// Returns whether something has arrived that is not read yet.
    pub fn has_input(&self) -> bool {
        self.readable || poll::is_readable(self)
    }

    /// Reads what has arrived. The whole lines of a watch go to `lines`.
    pub fn read(&mut self, lines: &mut Vec<Vec<u8>>) -> Progress {
        let mut buffer = [0; 16 << 10];
        let mut left = READ_BUDGET;
        let progress = loop {
            match self.body.read(&mut buffer) {
                Ok(0) => break Progress::Ended(self.lines.take()),
                Ok(amount) => {
                    if self.lines.push(&buffer[..amount]).is_err() {
                        let what = "an object in the answer is larger than 8 MiB";
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wish: &str, date: Option<&str>, want: Option<u64>) {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, wish.parse().unwrap());
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        assert_eq!(retry_after(&headers), want.map(Duration::from_secs));
    }

    #[test]
    fn the_server_s_wish_is_seconds_or_a_date_and_believed_for_five_minutes() {
        let now = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        check("0", None, Some(0));
        check("17", None, Some(17));
        check("86400", None, Some(300));
        check("Sun, 06 Nov 1994 08:50:07 GMT", now, Some(30));
        check("Sunday, 06-Nov-94 08:50:07 GMT", now, Some(30));
        check("Sun Nov  6 08:50:07 1994", now, Some(30));
        check("Sun, 06 Nov 1994 12:00:00 GMT", now, Some(300));
        check("Sun, 06 Nov 1994 08:00:00 GMT", now, None);
        check("Sun, 06 Nov 1994 08:50:07 GMT", None, None);
        for nonsense in ["", "-1", "1.5", "soon", "99999999999999999999"] {
            check(nonsense, now, None);
        }
    }
}
