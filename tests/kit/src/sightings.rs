//! When a file of an output directory changed, told by its length. Nothing here opens the file:
//! whoever reads it is taken for Envoy.

use super::stopwatch::{self, Stopwatch};
use super::{PATIENCE, nap};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use std::fs;
use std::io::PipeWriter;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A file that is watched until this is dropped.
pub struct Sightings {
    path: PathBuf,
    seen: Receiver<(Instant, u64)>,
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Sightings {
    /// Watches `DIR/current/FILE`; `current` must be there.
    pub fn watch(dir: &Path, file: &str) -> Sightings {
        let current = dir.join("current");
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let events = inotify::init(flags).expect("inotify is there");
        inotify::add_watch(&events, &current, inotify::WatchFlags::MOVED_TO)
            .expect("current is there");
        let (stopped, stop) = std::io::pipe().expect("a pipe can be made");
        let (found, seen) = channel();
        let path = current.join(file);
        let mine = path.clone();
        let thread = stopwatch::spawn(move || {
            loop {
                let mut fds = [
                    PollFd::new(&events, PollFlags::IN),
                    PollFd::new(&stopped, PollFlags::IN),
                ];
                let _ = poll(&mut fds, None);
                if !fds[1].revents().is_empty() {
                    return;
                }
                drain(&events);
                report(&mine, &found);
            }
        });
        Sightings {
            path,
            seen,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Makes a change, which returns the length that the file is to have, and waits until it has;
    /// returns how long that took, without the time that a busy machine has added.
    #[track_caller]
    pub fn time(&self, change: impl FnOnce() -> usize) -> Duration {
        let (began, watch) = (Instant::now(), Stopwatch::start());
        let seen = self.wait_for(change());
        (seen - began).saturating_sub(watch.held_up())
    }

    /// Waits until the file has this length; returns when it was seen.
    #[track_caller]
    pub fn wait_for(&self, length: usize) -> Instant {
        let found = self.within(PATIENCE, length);
        found.unwrap_or_else(|| panic!("waited for {}, {length} bytes", self.path.display()))
    }

    /// The same where it may not come within that time.
    pub fn within(&self, time: Duration, length: usize) -> Option<Instant> {
        let deadline = Instant::now() + time;
        while let Some(nap) = nap(deadline) {
            match self.seen.recv_timeout(nap) {
                Ok((at, seen)) if seen == length as u64 => return Some(at),
                Ok(_) | Err(_) => {}
            }
        }
        None
    }
}

impl Drop for Sightings {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn drain(events: &impl std::os::fd::AsFd) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(events, &mut buffer);
    while reader.next().is_ok() {}
}

fn report(path: &Path, found: &Sender<(Instant, u64)>) {
    let at = Instant::now();
    if let Ok(metadata) = fs::metadata(path) {
        let _ = found.send((at, metadata.len()));
    }
}
