//! The times at which a file of an output directory changed, as Envoy learns of it: by inotify on
//! `current/`, on a thread that does nothing else.

use super::{PATIENCE, nap};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use std::fs;
use std::io::PipeWriter;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// The content of a file after a change, and the time at which it could be read.
struct Arrival {
    at: Instant,
    bytes: Vec<u8>,
}

/// A file that is watched until this is dropped.
pub struct FileWatch {
    path: PathBuf,
    arrived: Receiver<Arrival>,
    seen: Vec<Arrival>,
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl FileWatch {
    /// Watches `DIR/current/FILE`; `current` must be there.
    pub fn watch(dir: &Path, file: &str) -> FileWatch {
        let current = dir.join("current");
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let events = inotify::init(flags).expect("inotify is there");
        inotify::add_watch(&events, &current, inotify::WatchFlags::MOVED_TO)
            .expect("current is there");
        let (stopped, stop) = std::io::pipe().expect("a pipe can be made");
        let (found, arrived) = channel();
        let path = current.join(file);
        let (mine, name) = (path.clone(), file.to_string());
        let thread = thread::spawn(move || {
            let mut fds = [
                PollFd::new(&events, PollFlags::IN),
                PollFd::new(&stopped, PollFlags::IN),
            ];
            loop {
                let _ = poll(&mut fds, None);
                if !fds[1].revents().is_empty() {
                    return;
                }
                if names(&events).contains(&name) {
                    report(&mine, &found);
                }
            }
        });
        FileWatch {
            path,
            arrived,
            seen: Vec::new(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Waits until the file holds such content; returns when it could be read.
    #[track_caller]
    pub fn wait_for(&mut self, want: impl Fn(&[u8]) -> bool) -> Instant {
        let arrived = self.may_arrive(want);
        arrived.unwrap_or_else(|| panic!("waited for {} to change", self.path.display()))
    }

    /// The same where it may never come: not every program follows every change.
    pub fn may_arrive(&mut self, want: impl Fn(&[u8]) -> bool) -> Option<Instant> {
        let deadline = Instant::now() + PATIENCE;
        while let Some(nap) = nap(deadline) {
            match self.arrived.recv_timeout(nap) {
                Ok(new) if want(&new.bytes) => return Some(new.at),
                Ok(_) | Err(_) => {}
            }
        }
        None
    }

    /// Returns when the file first held such content, from some moment on, if it has by now.
    pub fn first(&mut self, since: Instant, want: impl Fn(&[u8]) -> bool) -> Option<Instant> {
        self.seen.extend(self.arrived.try_iter());
        self.seen.retain(|seen| seen.at >= since);
        self.seen
            .iter()
            .find(|seen| want(&seen.bytes))
            .map(|seen| seen.at)
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The files that were renamed into the directory.
fn names(events: &impl std::os::fd::AsFd) -> Vec<String> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(events, &mut buffer);
    let mut names = Vec::new();
    while let Ok(event) = reader.next() {
        names.extend(event.file_name().map(|n| n.to_string_lossy().into_owned()));
    }
    names
}

fn report(path: &Path, found: &Sender<Arrival>) {
    let at = Instant::now();
    if let Ok(bytes) = fs::read(path) {
        let _ = found.send(Arrival { at, bytes });
    }
}
