//! Watches who reads files: that Envoy has closed a file after reading it is its acknowledgement.
//! Owns: inotify(7), and what is known of the watched files, so that nobody here has to read them.
//!
//! The watch is on inodes. A file that is linked into a later set is still watched there; any other
//! reader counts as well.

use std::fs::Metadata;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{self, ReadFlags, Reader};

use super::disk::{Fs, Inode, Stamp, inode_of, stamp_of};
use crate::error::Error;
use crate::snapshot::{Bytes, FileName};
use crate::sorted::SortedSet;

/// Enough for all files of an ordinary step: an event has 16 bytes.
const BUFFER: usize = 1 << 10;

/// The files whose readers are watched. The 128 instances that a user may have are shared by all
/// pods of a node with that uid, so it lasts no longer than a step.
#[derive(Debug)]
pub struct Reads {
    inotify: OwnedFd,
    files: Vec<Watched>,
}

/// A watched file, as it was written.
#[derive(Debug)]
struct Watched {
    inode: Inode,
    watch: i32,
    name: FileName,
    bytes: Bytes,
    stamp: Stamp,
}

/// A watched file, as it is known without opening it.
pub enum Recalled<'a> {
    /// It has this content.
    Content(&'a Bytes),
    /// Somebody has written to it.
    Edited,
}

impl Reads {
    /// Opens an empty watch on files in `dir`.
    pub fn open(disk: &Fs, dir: &Path) -> Result<Reads, Error> {
        let inotify = disk.inotify(dir)?;
        Ok(Reads {
            inotify,
            files: Vec::new(),
        })
    }

    /// Watches the file at `path`, which was written with that content.
    pub fn add(
        &mut self,
        disk: &Fs,
        path: &Path,
        name: &FileName,
        bytes: &Bytes,
    ) -> Result<(), Error> {
        let Some(found) = disk.lstat(path)? else {
            return Ok(());
        };
        let inode = inode_of(&found);
        let watched = Watched {
            inode,
            watch: disk.watch_reads(&self.inotify, path)?,
            name: name.clone(),
            bytes: bytes.clone(),
            stamp: stamp_of(&found),
        };
        self.files.retain(|known| known.inode != inode);
        self.files.push(watched);
        Ok(())
    }

    /// Keeps only the files that `is_kept` says.
    pub fn retain(&mut self, is_kept: impl Fn(Inode) -> bool) {
        self.files.retain(|watched| {
            let kept = is_kept(watched.inode);
            if !kept {
                // It is gone already if the file was read or removed.
                let _ = inotify::remove_watch(&self.inotify, watched.watch);
            }
            kept
        });
    }

    /// Returns whether no file is left to watch.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Takes the names of the files that somebody has read since the last call.
    pub fn take(&mut self) -> SortedSet<FileName> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut read = SortedSet::new();
        // It ends where nothing is left to read.
        while let Ok(event) = reader.next() {
            let closed = event.events().contains(ReadFlags::CLOSE_NOWRITE);
            let watch = event.wd();
            let watched = self.files.iter().find(|watched| watched.watch == watch);
            read.extend(
                watched
                    .filter(|_| closed)
                    .map(|watched| watched.name.clone()),
            );
        }
        read
    }

    /// Returns what is known of the file that is `found` on disk, if it is watched: it must not be
    /// opened then.
    pub fn recall(&self, found: &Metadata) -> Option<Recalled<'_>> {
        let inode = inode_of(found);
        let mut files = self.files.iter();
        let Watched { bytes, stamp, .. } = files.find(|watched| watched.inode == inode)?;
        Some(match *stamp == stamp_of(found) {
            true => Recalled::Content(bytes),
            false => Recalled::Edited,
        })
    }
}

impl AsFd for Reads {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
