//! Watches on files that say when somebody has closed one after reading it.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::Fs;
use crate::error::Error;

impl Fs {
    /// Opens an inotify(7) instance, for files in `dir`.
    pub fn inotify(&self, dir: &Path) -> Result<OwnedFd, Error> {
        self.call("watch", dir, || {
            let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
            inotify::init(flags).map_err(Into::into)
        })
    }

    /// Watches for the first reader of the file at `path`: another one would only wake us.
    pub fn watch_reads(&self, inotify: &OwnedFd, path: &Path) -> Result<i32, Error> {
        self.call("watch", path, || {
            let flags = WatchFlags::CLOSE_NOWRITE | WatchFlags::DONT_FOLLOW | WatchFlags::ONESHOT;
            inotify::add_watch(inotify, path, flags).map_err(Into::into)
        })
    }
}
