//! The times at which a file of an output directory changed, as Envoy learns of it: by inotify on
//! `current/`, on a thread that does nothing else.

use super::stopwatch::{self, Stopwatch};
use super::{PATIENCE, nap};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use std::fs;
use std::io::PipeWriter;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The state of a file after a change, and the time at which it could be read.
struct Arrival<T> {
    at: Instant,
    state: T,
}

/// A file that is watched until this is dropped.
struct Watched<T> {
    path: PathBuf,
    arrived: Receiver<Arrival<T>>,
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Watched<T> {
    /// Watches `DIR/current/FILE`; `current` must be there. `read` returns the state of the file.
    fn start(dir: &Path, file: &str, read: fn(&Path) -> Option<T>) -> Watched<T> {
        let current = dir.join("current");
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let events = inotify::init(flags).expect("inotify is there");
        inotify::add_watch(&events, &current, inotify::WatchFlags::MOVED_TO)
            .expect("current is there");
        let (stopped, stop) = std::io::pipe().expect("a pipe can be made");
        let (found, arrived) = channel();
        let path = current.join(file);
        let (mine, name) = (path.clone(), file.to_string());
        let thread = stopwatch::spawn(move || {
            while has_changed(&events, &stopped) {
                if !renamed(&events).contains(&name) {
                    continue;
                }
                let at = Instant::now();
                if let Some(state) = read(&mine) {
                    let _ = found.send(Arrival { at, state });
                }
            }
        });
        Watched {
            path,
            arrived,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Waits until the file has such a state. Returns the time at which it could be read, or `None`
    /// if it has not come within `limit`.
    fn within(&self, limit: Duration, want: impl Fn(&T) -> bool) -> Option<Instant> {
        let deadline = Instant::now() + limit;
        while let Some(nap) = nap(deadline) {
            match self.arrived.recv_timeout(nap) {
                Ok(new) if want(&new.state) => return Some(new.at),
                Ok(_) | Err(_) => {}
            }
        }
        None
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits for a change in the directory. Returns false once the watch is to end.
fn has_changed(events: &OwnedFd, stopped: &impl AsFd) -> bool {
    let mut fds = [
        PollFd::new(events, PollFlags::IN),
        PollFd::new(stopped, PollFlags::IN),
    ];
    let _ = poll(&mut fds, None);
    fds[1].revents().is_empty()
}

/// Returns the files that were renamed into the directory.
fn renamed(events: &OwnedFd) -> Vec<String> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(events, &mut buffer);
    let mut names = Vec::new();
    while let Ok(event) = reader.next() {
        names.extend(event.file_name().map(|n| n.to_string_lossy().into_owned()));
    }
    names
}

/// A file whose content is read at each change.
pub struct FileWatch {
    file: Watched<Vec<u8>>,
    seen: Vec<Arrival<Vec<u8>>>,
}

impl FileWatch {
    /// Watches `DIR/current/FILE`; `current` must be there.
    pub fn watch(dir: &Path, file: &str) -> FileWatch {
        FileWatch {
            file: Watched::start(dir, file, |path| fs::read(path).ok()),
            seen: Vec::new(),
        }
    }

    /// Waits until the file has such content. Returns the time at which it could be read.
    #[track_caller]
    pub fn wait_for(&mut self, want: impl Fn(&[u8]) -> bool) -> Instant {
        let arrived = self.may_arrive(want);
        arrived.unwrap_or_else(|| panic!("waited for {} to change", self.file.path.display()))
    }

    /// Does the same for content that may never come: not every program follows every change.
    pub fn may_arrive(&mut self, want: impl Fn(&[u8]) -> bool) -> Option<Instant> {
        self.file.within(PATIENCE, |bytes| want(bytes))
    }

    /// Returns the first time since `since` at which the file had such content, if it has had it.
    pub fn first(&mut self, since: Instant, want: impl Fn(&[u8]) -> bool) -> Option<Instant> {
        self.seen.extend(self.file.arrived.try_iter());
        self.seen.retain(|seen| seen.at >= since);
        self.seen
            .iter()
            .find(|seen| want(&seen.state))
            .map(|seen| seen.at)
    }
}

/// A file whose length is read at each change. It is never opened, as crossover would take this for
/// Envoy.
pub struct LengthWatch(Watched<u64>);

impl LengthWatch {
    /// Watches `DIR/current/FILE`; `current` must be there.
    pub fn watch(dir: &Path, file: &str) -> LengthWatch {
        let length = |path: &Path| fs::metadata(path).ok().map(|found| found.len());
        LengthWatch(Watched::start(dir, file, length))
    }

    /// Makes a change, which returns the length that the file is to have, and waits until it has it.
    /// Returns how long that took, without the time that a busy machine has added.
    #[track_caller]
    pub fn time(&self, change: impl FnOnce() -> usize) -> Duration {
        let (began, watch) = (Instant::now(), Stopwatch::start());
        let seen = self.wait_for(change());
        (seen - began).saturating_sub(watch.held_up())
    }

    /// Waits until the file has this length. Returns the time at which it had it.
    #[track_caller]
    pub fn wait_for(&self, length: usize) -> Instant {
        let found = self.within(PATIENCE, length);
        found.unwrap_or_else(|| panic!("waited for {}, {length} bytes", self.0.path.display()))
    }

    /// Does the same for a length that may not come within that time.
    pub fn within(&self, limit: Duration, length: usize) -> Option<Instant> {
        self.0.within(limit, |seen| *seen == length as u64)
    }
}
