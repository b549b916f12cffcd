//! Makes the system calls of the output directory, one method each, so that a test can cut any of
//! them. Owns:
//! flags, and the error that names call and path. Must not: know the layout, or retry.

mod contents;
mod fault;
mod modes;
mod stamp;
mod watch;

use std::cell::Cell;
use std::fs::{self, File, Metadata, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags, fcntl_lock, renameat_with};
use rustix::io::Errno;

use crate::error::Error;
pub use contents::hash_of;
pub use fault::Fault;
#[cfg(test)]
pub use fault::How;
pub use modes::is_world_readable;
use modes::{DIRECTORY, FILE, explained};
pub use stamp::{FullStamp, Inode, Stamp, age_of, full_stamp_of, inode_of, stamp_of};

/// The disk as it is or, in tests, one that fails on demand.
#[derive(Debug, Default)]
pub struct Fs {
    /// The output directory's group, if it may write there. What has the same group, as setgid or
    /// an fsGroup makes it, is for the group to write too: the next crossover may have another uid.
    pub group: Cell<Option<u32>>,
    /// Decides which calls fail; outside tests it holds nothing.
    pub fault: Fault,
}

/// Returns the error of one call.
#[cold]
pub fn failed(verb: &'static str, path: &Path, source: io::Error) -> Error {
    let source = match source.kind() {
        ErrorKind::PermissionDenied => explained(path, source),
        _ => source,
    };
    let path = path.to_owned();
    Error::Disk { verb, path, source }
}

/// Returns what kind of failure of the disk `error` is.
pub fn reason(error: &Error) -> Option<ErrorKind> {
    if let Error::Disk { source, .. } = error {
        Some(source.kind())
    } else {
        None
    }
}

/// Returns whether the file system lacks such a rename: overlayfs does not move a directory of an
/// image layer (EXDEV), NFS and FUSE exchange nothing (EINVAL and others).
pub fn is_unsupported(error: &Error) -> bool {
    use ErrorKind::{CrossesDevices, InvalidInput, Unsupported};
    matches!(
        reason(error),
        Some(CrossesDevices | InvalidInput | Unsupported)
    )
}

/// Returns `None` if there is no such entry: that is an answer, not a failure.
fn found<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match reason(&error) {
            Some(ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            _ => Err(error),
        },
    }
}

impl Fs {
    /// Makes one system call; tests count it here, and cut it.
    fn call<T>(
        &self,
        verb: &'static str,
        path: &Path,
        call: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, Error> {
        let result = self.fault.pass(verb, path).and_then(|()| call());
        result.map_err(|source| failed(verb, path, source))
    }

    /// Looks at what stands at `path` itself; links are not followed.
    pub fn lstat(&self, path: &Path) -> Result<Option<Metadata>, Error> {
        found(self.call("look at", path, || fs::symlink_metadata(path)))
    }

    /// Looks at what `path` leads to through links. Returns `None` if they lead nowhere, or round
    /// in a circle.
    pub fn stat_followed(&self, path: &Path) -> Result<Option<Metadata>, Error> {
        match found(self.call("look at", path, || fs::metadata(path))) {
            Err(Error::Disk { source, .. })
                if source.raw_os_error() == Some(Errno::LOOP.raw_os_error()) =>
            {
                Ok(None)
            }
            result => result,
        }
    }

    /// Looks at `file`, wherever it stands by now.
    pub fn stat(&self, file: &File, path: &Path) -> Result<Metadata, Error> {
        self.call("look at", path, || file.metadata())
    }

    /// Reads the target of a link. Returns `None` for anything else.
    pub fn read_link(&self, path: &Path) -> Result<Option<PathBuf>, Error> {
        match found(self.call("read link", path, || fs::read_link(path))) {
            Err(error) if reason(&error) == Some(ErrorKind::InvalidInput) => Ok(None),
            result => result,
        }
    }

    /// Lists the names in a directory that are UTF-8, as all of ours are. Returns `None` if there
    /// is no directory.
    pub fn list(&self, path: &Path) -> Result<Option<Vec<String>>, Error> {
        found(self.call("list", path, || {
            let mut names = Vec::new();
            for entry in fs::read_dir(path)? {
                names.extend(entry?.file_name().into_string());
            }
            Ok(names)
        }))
    }

    /// Makes a directory with our mode, whatever the umask or a default ACL. It must not exist.
    pub fn create_dir(&self, path: &Path) -> Result<(), Error> {
        self.call("create", path, || {
            rustix::fs::mkdir(path, Mode::from_raw_mode(DIRECTORY)).map_err(io::Error::from)
        })?;
        match self.lstat(path)?.and_then(|found| self.amended(&found)) {
            Some(mode) => self.set_mode(path, mode),
            None => Ok(()),
        }
    }

    /// Changes the mode of a directory.
    pub fn set_mode(&self, path: &Path, mode: Permissions) -> Result<(), Error> {
        self.call("set the mode of", path, || fs::set_permissions(path, mode))
    }

    /// Makes a file with our mode, as for a directory, and returns which one it is. It must not
    /// exist, not even as a link.
    pub fn create(&self, path: &Path) -> Result<(File, Inode), Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = self.open_with("create", path, flags)?;
        let found = self.stat(&file, path)?;
        if let Some(mode) = self.amended(&found) {
            self.call("set the mode of", path, || file.set_permissions(mode))?;
        }
        Ok((file, inode_of(&found)))
    }

    /// Opens what stands at `path` for reading. It does not follow a link, and never waits.
    pub fn open(&self, path: &Path) -> Result<File, Error> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        self.open_with("open", path, flags)
    }

    /// Opens what stands at `path` to write over it. It does not follow a link, and never waits.
    pub fn open_over(&self, path: &Path) -> Result<File, Error> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        self.open_with("open", path, flags)
    }

    /// Opens a regular file for reading, through links. Returns `None` if they do not lead to one.
    pub fn follow(&self, path: &Path) -> Result<Option<File>, Error> {
        // To open a socket is an error.
        let is_file = |found: &Metadata| found.is_file();
        if !self.stat_followed(path)?.as_ref().is_some_and(is_file) {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        found(self.open_with("open", path, flags))
    }

    /// Takes the lock at `path` until the file is dropped. Fails with `Error::Held` if another has
    /// it.
    pub fn lock(&self, path: &Path) -> Result<File, Error> {
        // Reading is enough for a lock, so one that another uid made serves too.
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = self.open_with("open", path, flags | OFlags::CLOEXEC)?;
        if let Some(mode) = self.amended(&self.stat(&file, path)?) {
            // Where another uid made it, that did the same.
            let _ = self.call("set the mode of", path, || file.set_permissions(mode));
        }
        let taken = self.call("lock", path, || match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        })?;
        let path = path.to_owned();
        if taken {
            Ok(file)
        } else {
            Err(Error::Held { path })
        }
    }

    // rustix, because std has neither O_NOFOLLOW nor O_NONBLOCK, and musl's open(2) is two calls.
    fn open_with(&self, verb: &'static str, path: &Path, flags: OFlags) -> Result<File, Error> {
        self.call(verb, path, || {
            let file = rustix::fs::open(path, flags, Mode::from_raw_mode(FILE))?;
            Ok(File::from(file))
        })
    }

    /// Reads the next piece of a file. Returns 0 at its end.
    pub fn read(&self, mut file: &File, path: &Path, into: &mut [u8]) -> Result<usize, Error> {
        self.call("read", path, || {
            loop {
                match file.read(into) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    result => return result,
                }
            }
        })
    }

    /// Writes all of `bytes`.
    pub fn write(&self, mut file: &File, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.fault.tear(file, bytes);
        self.call("write", path, || file.write_all(bytes))
    }

    /// Takes a record lock on all of `file`, until any descriptor of it is closed. Returns which
    /// file it is.
    pub fn lock_record(&self, file: &File, path: &Path) -> Result<Inode, Error> {
        self.call("lock", path, || {
            fcntl_lock(file, FlockOperation::NonBlockingLockExclusive)?;
            Ok(inode_of(&file.metadata()?))
        })
    }

    /// Writes all of `bytes` over those at the start of `file`.
    pub fn write_over(&self, file: &File, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.call("write", path, || file.write_all_at(bytes, 0))
    }

    /// Puts `file` on stable storage, where the file system knows such a thing.
    pub fn sync(&self, file: &File, path: &Path) -> Result<(), Error> {
        self.call("sync", path, || match file.sync_all() {
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
            result => result,
        })
    }

    /// Makes a symbolic link at `path` to `target`.
    pub fn symlink(&self, target: &str, path: &Path) -> Result<(), Error> {
        let link = || rustix::fs::symlink(target, path).map_err(io::Error::from);
        self.call("create", path, link)
    }

    /// Gives the file `from` a second name.
    pub fn link(&self, from: &Path, to: &Path) -> Result<(), Error> {
        self.call("link", to, || fs::hard_link(from, to))
    }

    /// Replaces `to` at once. Of directories only an empty one gives way.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        match self.call("replace", to, || fs::rename(from, to)) {
            Err(error) if reason(&error) == Some(ErrorKind::IsADirectory) => {
                self.remove_dir(to)?;
                self.call("replace", to, || fs::rename(from, to))
            }
            result => result,
        }
    }

    /// Gives each of two the other's name, at once.
    pub fn exchange(&self, a: &Path, b: &Path) -> Result<(), Error> {
        let swap = || renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE);
        self.call("exchange", b, || swap().map_err(io::Error::from))
    }

    /// Gives a directory another name, where nothing stands.
    pub fn move_dir(&self, from: &Path, to: &Path) -> Result<(), Error> {
        self.call("move", from, || fs::rename(from, to))
    }

    /// Removes a file or link, if there is one.
    pub fn unlink(&self, path: &Path) -> Result<(), Error> {
        found(self.call("remove", path, || fs::remove_file(path))).map(drop)
    }

    /// Removes an empty directory, if there is one.
    pub fn remove_dir(&self, path: &Path) -> Result<(), Error> {
        match self.call("remove", path, || fs::remove_dir(path)) {
            Err(error) if reason(&error) == Some(ErrorKind::NotFound) => Ok(()),
            result => result,
        }
    }

    /// Removes whatever stands at `path`; links are not followed.
    pub fn remove_all(&self, path: &Path) -> Result<(), Error> {
        match self.call("remove", path, || fs::remove_file(path)) {
            Err(error) if reason(&error) == Some(ErrorKind::IsADirectory) => {}
            result => return found(result).map(drop),
        }
        found(self.call("remove", path, || fs::remove_dir_all(path))).map(drop)
    }
}
