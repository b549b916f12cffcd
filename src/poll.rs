//! Waits on descriptors: the only poll(2) of the program. Owns: the terms in which the loop hears
//! what came of a turn.

use std::io;
use std::ops::BitOrAssign;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The answer to whether something has changed, so that there may be something new to publish.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Nothing has.
    No,
    /// Something has.
    Yes,
}

/// The number of requests that went out.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    Nothing,
    One,
}

impl Changed {
    /// Returns [`Changed::Yes`] if `has_changed`.
    pub fn when(has_changed: bool) -> Changed {
        match has_changed {
            true => Changed::Yes,
            false => Changed::No,
        }
    }
}

impl BitOrAssign for Changed {
    fn bitor_assign(&mut self, other: Changed) {
        if other == Changed::Yes {
            *self = Changed::Yes;
        }
    }
}

/// Waits until one of `fds` is ready or `deadline` has passed. Without a deadline it waits for as
/// long as it takes.
pub fn wait(fds: &mut [PollFd], deadline: Option<Instant>) -> io::Result<()> {
    loop {
        let left = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
        match poll(fds, left.as_ref()) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Returns whether a read would find something now, be it the end or an error.
pub fn is_readable(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
}

/// Converts a duration; one too long for poll(2) becomes the longest that it takes.
fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_wait_ends_with_input_or_at_its_deadline() {
        let (mut writer, reader) = UnixStream::pair().unwrap();
        let mut fds = [PollFd::new(&reader, PollFlags::IN)];
        let deadline = Instant::now() + Duration::from_millis(20);
        wait(&mut fds, Some(deadline)).unwrap();
        assert!(Instant::now() >= deadline);
        assert!(fds[0].revents().is_empty() && !is_readable(&reader));
        // A deadline that has passed is one look.
        wait(&mut fds, Some(deadline)).unwrap();
        assert!(fds[0].revents().is_empty());

        writer.write_all(b"x").unwrap();
        wait(&mut fds, None).unwrap();
        assert_eq!(fds[0].revents(), PollFlags::IN);
        assert!(is_readable(&reader));
    }
}
