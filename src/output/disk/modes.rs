//! Decides who may read and write what we make, and says what to do if that does not suffice. Owns:
//! modes.

use std::fs::{self, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::Access;

use super::{Fs, reason};
use crate::error::Error;

/// The modes of directories and files: Envoy may run under another uid, and lists and watches the
/// former and reads the latter.
pub const DIRECTORY: u32 = 0o755;
pub const FILE: u32 = 0o644;
/// The right of a group to write.
const GROUP: u32 = 0o020;
/// The bit of a directory in which only its owner and that of an entry may replace the entry.
const STICKY: u32 = 0o1000;

/// Returns whether everybody can read the file, or list and enter the directory. More does no harm:
/// a pod's fsGroup adds bits to whole volumes.
pub fn is_world_readable(found: &Metadata) -> bool {
    found.mode() & needed(found) == needed(found)
}

fn needed(found: &Metadata) -> u32 {
    if found.is_dir() { DIRECTORY } else { FILE }
}

/// Adds to an error who made what may not be touched, and what to do about it, if it was another
/// uid.
pub fn explained(path: &Path, source: io::Error) -> io::Error {
    let me = rustix::process::geteuid().as_raw();
    let above = path.parent().unwrap_or(path);
    let Ok(around) = fs::symlink_metadata(above) else {
        return source;
    };
    let sticky = around.mode() & STICKY != 0;
    let entry = fs::symlink_metadata(path).ok();
    let entry = entry.filter(|_| sticky || rustix::fs::access(above, Access::WRITE_OK).is_ok());
    let (blamed, found) = match entry.filter(|found| found.uid() != me) {
        Some(found) => (path, found),
        None => (above, around),
    };
    let (uid, gid, mode) = (found.uid(), found.gid(), found.mode() & 0o7777);
    if uid == me {
        return source;
    }
    let cure = match sticky && blamed == path {
        true => "one runAsUser, or take the sticky bit from its directory",
        false => "one runAsUser, or the pod an fsGroup",
    };
    let name = blamed.display();
    io::Error::new(
        source.kind(),
        format!(
            "{source}: uid {uid} made {name} (mode {mode:04o}, group {gid}), and this is uid {me}: give both {cure}"
        ),
    )
}

impl Fs {
    /// Notes whether the group of `dir` may write there.
    pub fn share(&self, dir: &Path) -> Result<(), Error> {
        let found = self.stat_followed(dir)?;
        let shared = found.filter(|found| found.mode() & GROUP != 0);
        self.group.set(shared.map(|found| found.gid()));
        Ok(())
    }

    /// Returns the mode that something of ours should have, if it has another.
    pub fn amended(&self, found: &Metadata) -> Option<Permissions> {
        let shared = self.group.get() == Some(found.gid());
        let wanted = needed(found) | if shared { GROUP } else { 0 };
        let mode = found.mode() & 0o7777;
        (mode & wanted != wanted).then(|| Permissions::from_mode(mode | wanted))
    }

    /// Makes `path` and what is missing above it; what exists is not ours to change.
    pub fn ensure_dirs(&self, path: &Path) -> Result<(), Error> {
        if path.as_os_str().is_empty() {
            return self.share(Path::new("."));
        }
        if self.lstat(path)?.is_some() {
            return self.share(path);
        }
        if let Some(above) = path.parent() {
            self.ensure_dirs(above)?;
        }
        self.ensure_dir(path).map(drop)
    }

    /// Makes `path` a directory that everybody can enter. Returns whether it was not one.
    pub fn ensure_dir(&self, path: &Path) -> Result<bool, Error> {
        match self.lstat(path)? {
            Some(found) if found.is_dir() => {
                return match self.amended(&found).map(|mode| self.set_mode(path, mode)) {
                    None => Ok(false),
                    // Another uid made it, before a group was to write there.
                    Some(Err(_)) if is_world_readable(&found) => Ok(false),
                    Some(result) => result.map(|()| true),
                };
            }
            Some(_) => self.unlink(path)?,
            None => {}
        }
        match self.create_dir(path) {
            // Two of us start at once; the lock decides.
            Err(error) if reason(&error) == Some(ErrorKind::AlreadyExists) => Ok(true),
            result => result.map(|()| true),
        }
    }
}
