//! Tells one file, and one state of it, from another.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::Fs;
use crate::error::Error;

/// A file, whatever its name: its device and number.
pub type Inode = (u64, u64);

/// A state of a file: which one it is, how long, and when it was written last. Links share it.
pub type Stamp = (Inode, u64, (i64, i64));

/// A stamp, with the time when anything about the file was changed last, links to it included.
pub type FullStamp = (Stamp, (i64, i64));

/// Returns which file it is.
pub fn inode_of(found: &Metadata) -> Inode {
    (found.dev(), found.ino())
}

/// Returns what a write would change.
pub fn stamp_of(found: &Metadata) -> Stamp {
    let written = (found.mtime(), found.mtime_nsec());
    (inode_of(found), found.len(), written)
}

/// Returns what a write, or a change of anything else about the file, would change.
pub fn full_stamp_of(found: &Metadata) -> FullStamp {
    (stamp_of(found), (found.ctime(), found.ctime_nsec()))
}

/// Returns how long ago it was written last; zero if the clock was set back since. An earlier run
/// may have written it, perhaps before the machine started: only the wall clock can tell.
pub fn age_of(found: &Metadata) -> Duration {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from);
    let (secs, nanos) = (found.mtime(), found.mtime_nsec());
    let written = u64::try_from(secs).ok().zip(u32::try_from(nanos).ok());
    let written = written.map_or(now, |(secs, nanos)| Duration::new(secs, nanos));
    now.saturating_sub(written)
}

impl Fs {
    /// Returns whether this very file is at `path`.
    pub fn is_same_file(&self, path: &Path, inode: Inode) -> Result<bool, Error> {
        let found = self.lstat(path)?;
        Ok(found.is_some_and(|found| inode_of(&found) == inode))
    }
}
