//! The waits of a request that is being made. Each is a poll(2) on its socket and for signals, up
//! to the request's deadline.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::socket::Socket;
use crate::poll;
use crate::process::signals::Signals;

/// The error of a wait that a signal has ended: the request says nothing about its server.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted by a signal")
    }
}

impl Error for Interrupted {}

/// Returns whether an [`Interrupted`] is the error or among its causes.
pub fn is_interrupted(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // An io::Error's source is not what it wraps, but the source of that.
        let inner = error.downcast_ref().and_then(io::Error::get_ref);
        if inner.is_some_and(|inner| inner.is::<Interrupted>()) {
            return true;
        }
        cause = match error.downcast_ref() {
            Some(ureq::Error::Io(error)) => Some(error),
            _ => error.source(),
        };
    }
    false
}

/// Waits for sockets on behalf of requests.
///
/// There is one thread; the locks are there because ureq's traits ask for `Sync`.
#[derive(Debug)]
pub struct Waiter {
    signals: Signals,
    limit: Mutex<Limit>,
    /// All connections, the closed ones until the next is made.
    sockets: Mutex<Vec<Weak<Socket>>>,
}

/// The time limits of the request that is being made.
#[derive(Clone, Copy, Debug)]
struct Limit {
    deadline: Instant,
    /// The time beyond the deadline that a request has which is sent, while there is nothing else
    /// to do.
    extra: Duration,
    /// The time at which the loop has something else to do.
    return_by: Option<Instant>,
    sent: bool,
}

impl Limit {
    fn end(&self) -> Instant {
        if !self.sent {
            return self.deadline;
        }
        let end = self.deadline + self.extra;
        self.return_by
            .map_or(end, |at| end.min(at.max(self.deadline)))
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

impl Waiter {
    pub(super) fn new(signals: Signals) -> Waiter {
        Waiter {
            signals,
            limit: Mutex::new(Limit {
                deadline: Instant::now(),
                extra: Duration::ZERO,
                return_by: None,
                sent: false,
            }),
            sockets: Mutex::default(),
        }
    }

    /// Gives the next request until `deadline` for its answer's headers; once it is sent, `extra`
    /// beyond that, while there is nothing else to do.
    pub fn set_deadline(&self, deadline: Instant, extra: Duration) {
        let mut limit = lock(&self.limit);
        (limit.deadline, limit.extra, limit.sent) = (deadline, extra, false);
    }

    /// Cuts a request's extra time short at `at`, when there is something else to do.
    pub fn return_by(&self, at: Option<Instant>) {
        lock(&self.limit).return_by = at;
    }

    /// Returns whether the deadline has passed.
    pub fn is_late(&self) -> bool {
        Instant::now() >= self.deadline()
    }

    pub(super) fn deadline(&self) -> Instant {
        lock(&self.limit).deadline
    }

    pub(super) fn replace_deadline(&self, deadline: Instant) {
        lock(&self.limit).deadline = deadline;
    }

    pub(super) fn mark_sent(&self) {
        lock(&self.limit).sent = true;
    }

    /// Includes `socket` in the waits beyond a deadline, while the loop would wait for it.
    pub(super) fn add(&self, socket: &Arc<Socket>) {
        let mut sockets = lock(&self.sockets);
        sockets.retain(|socket| socket.strong_count() > 0);
        sockets.push(Arc::downgrade(socket));
    }

    fn watched(&self) -> Vec<Arc<Socket>> {
        let sockets = lock(&self.sockets);
        let open = sockets.iter().filter_map(Weak::upgrade);
        open.filter(|socket| socket.is_watched()).collect()
    }

    /// Fails if a signal has come that ends the wait.
    pub(super) fn check_signals(&self) -> io::Result<()> {
        match self.signals.dispatch() {
            None => Ok(()),
            // It stays until the loop asks for it.
            Some(_) => Err(io::Error::other(Interrupted)),
        }
    }

    /// Runs a call that cannot be interrupted. The time that it takes is not the request's.
    pub(super) fn run_blocking<T>(&self, call: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = self.signals.run_blocking(call);
        lock(&self.limit).deadline += began.elapsed();
        result
    }

    /// Waits until `socket` is ready. Fails at the deadline and when a signal ends the wait; beyond
    /// the deadline, in a request's extra time, also when there is input for the loop.
    pub(super) fn wait(&self, socket: impl AsFd, flags: PollFlags) -> io::Result<()> {
        let limit = *lock(&self.limit);
        let end = limit.end();
        loop {
            let now = Instant::now();
            if now >= end {
                return Err(timed_out());
            }
            let (until, watched) = if now < limit.deadline {
                (limit.deadline, Vec::new())
            } else {
                (end, self.watched())
            };
            let until = self.signals.deadline().map_or(until, |at| at.min(until));
            let mut fds = vec![
                PollFd::new(&socket, flags),
                PollFd::new(&self.signals, PollFlags::IN),
            ];
            let inputs = watched.iter();
            fds.extend(inputs.map(|socket| PollFd::new(&**socket, PollFlags::IN)));
            poll::wait(&mut fds, Some(until))?;
            let is_ready = |fd: &PollFd| !fd.revents().is_empty();
            let (ready, input) = (is_ready(&fds[0]), fds[2..].iter().any(is_ready));
            self.check_signals()?;
            if ready {
                return Ok(());
            }
            if input {
                return Err(timed_out());
            }
        }
    }

    /// Runs `operation` until it does not block, and waits for `socket` whenever it would.
    pub(super) fn retry_when_ready<T>(
        &self,
        socket: impl AsFd,
        flags: PollFlags,
        mut operation: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match operation() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait(&socket, flags)?,
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use nix::sys::signal::{self, raise};

    use super::*;
    use crate::error::Error;

    #[test]
    fn a_signal_ends_a_wait_and_is_found_among_the_causes_of_a_failed_request() {
        // The signal is blocked in this thread alone, and sent to it alone.
        let waiter = Waiter::new(Signals::install(false, None).unwrap());
        waiter.set_deadline(Instant::now() + Duration::from_secs(60), Duration::ZERO);
        let (quiet, _other) = UnixStream::pair().unwrap();
        raise(signal::SIGTERM).unwrap();
        let error = waiter.wait(&quiet, PollFlags::IN).unwrap_err();
        assert!(is_interrupted(&error), "{error:?}");
        let error = ureq::Error::from(error);
        assert!(is_interrupted(&error), "{error:?}");
        let error = request(error.into_io());
        assert!(is_interrupted(&error), "{error:?}");

        waiter.set_deadline(Instant::now(), Duration::ZERO);
        let late = waiter.wait(&quiet, PollFlags::IN).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert!(!is_interrupted(&request(late)));
    }

    fn request(source: io::Error) -> Error {
        let what = "make a request";
        Error::System { what, source }
    }

    #[test]
    fn extra_time_begins_once_a_request_is_sent_and_ends_when_there_is_something_else_to_do() {
        let deadline = Instant::now();
        let second = Duration::from_secs(1);
        let end = |sent, return_by| {
            let limit = Limit {
                deadline,
                extra: 10 * second,
                return_by,
                sent,
            };
            limit.end() - deadline
        };
        assert_eq!(end(false, None), Duration::ZERO);
        assert_eq!(end(true, None), 10 * second);
        assert_eq!(end(true, Some(deadline + 3 * second)), 3 * second);
        assert_eq!(end(true, Some(deadline + 30 * second)), 10 * second);
        assert_eq!(end(true, Some(deadline - second)), Duration::ZERO);
    }
}
