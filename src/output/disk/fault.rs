//! Makes calls fail on demand. Only tests demand it: elsewhere a [`Fault`] holds nothing, and
//! asking it compiles to nothing.

#[cfg(not(test))]
pub use never::Fault;
#[cfg(test)]
pub use scripted::{Fault, How};

#[cfg(not(test))]
mod never {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    #[derive(Debug, Default)]
    pub struct Fault;

    impl Fault {
        pub fn pass(&self, _verb: &'static str, _path: &Path) -> io::Result<()> {
            Ok(())
        }

        pub fn tear(&self, _file: &File, _bytes: &[u8]) {}
    }
}

#[cfg(test)]
mod scripted {
    use std::cell::{Cell, RefCell};
    use std::fs::File;
    use std::io::{self, Write};
    use std::path::{Path, PathBuf};
    use std::rc::Rc;

    const EIO: i32 = 5;
    const EXDEV: i32 = 18;
    /// The calls that move a directory; some file systems lack the first, some both.
    const MOVES: [&str; 2] = ["exchange", "move"];

    /// A script that the disk and its test share.
    pub type Fault = Rc<Script>;

    /// The calls that fail.
    #[derive(Clone, Copy, Debug, Default)]
    pub enum How {
        #[default]
        Never,
        /// Nothing happens from this call on.
        Kill(u64),
        /// This call alone fails.
        Once(u64, i32),
        /// Nothing happens from the first call of this verb on.
        KillAt(&'static str),
        /// Each call of this verb fails.
        Each(&'static str, i32),
    }

    /// Counts and records the calls, and makes them fail.
    #[derive(Debug, Default)]
    pub struct Script {
        pub calls: Cell<u64>,
        how: Cell<How>,
        /// The number of [`MOVES`] that are not there.
        pub lacks: Cell<usize>,
        pub log: RefCell<Vec<(&'static str, PathBuf)>>,
    }

    impl Script {
        /// Counts a call, before it is made, and returns the error that it is to fail with.
        pub fn pass(&self, verb: &'static str, path: &Path) -> io::Result<()> {
            self.calls.set(self.calls.get() + 1);
            if matches!(self.how.get(), How::KillAt(which) if which == verb) {
                self.how.set(How::Kill(self.calls.get()));
            }
            let errno = match self.how.get() {
                How::Kill(at) if self.calls.get() >= at => EIO,
                How::Once(at, errno) if self.calls.get() == at => errno,
                How::Each(which, errno) if which == verb => errno,
                _ if MOVES[..self.lacks.get()].contains(&verb) => EXDEV,
                _ => {
                    self.log.borrow_mut().push((verb, path.to_owned()));
                    return Ok(());
                }
            };
            Err(io::Error::from_raw_os_error(errno))
        }

        /// Writes a part of what a write would that is to be killed: it may have come so far.
        pub fn tear(&self, mut file: &File, bytes: &[u8]) {
            if matches!(self.how.get(), How::Kill(at) if self.calls.get() + 1 == at) {
                let _ = file.write(&bytes[..bytes.len() / 2]);
            }
        }

        pub fn arm(&self, how: How) {
            self.calls.set(0);
            self.log.borrow_mut().clear();
            self.how.set(how);
        }

        /// Returns whether the call that was to fail was reached.
        pub fn hit(&self) -> bool {
            match self.how.get() {
                How::Kill(at) | How::Once(at, _) => self.calls.get() >= at,
                How::Never | How::KillAt(_) | How::Each(..) => false,
            }
        }
    }
}
