//! Everything that can go wrong, what to tell the operator about it, and the exit code it ends in.

use std::path::PathBuf;
use std::{error, fmt, io};

/// A failed operation. Display says what failed and, where the operator can do something, what;
/// it never repeats `source()`.
#[derive(Debug)]
pub enum Error {
    /// The command line or the environment is wrong; exit 2.
    Usage(String),
    /// An operation on the output directory failed.
    Disk {
        /// What was tried, as a verb: "create", "rename", "sync".
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another crossover holds the output directory.
    Held {
        /// The lock file.
        path: PathBuf,
    },
}

/// What the loop branches on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The user's to correct; exit 2.
    Usage,
    /// The output directory cannot be written.
    Disk,
    /// The output directory is another's.
    Held,
}

impl Error {
    /// The class that control flow depends on.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Usage(_) => Kind::Usage,
            Error::Disk { .. } => Kind::Disk,
            Error::Held { .. } => Kind::Held,
        }
    }

    /// 1 failed, 2 usage.
    pub fn exit_code(&self) -> u8 {
        match self.kind() {
            Kind::Usage => 2,
            Kind::Disk | Kind::Held => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(what) => f.write_str(what),
            Error::Disk { verb, path, .. } => write!(f, "failed to {verb} {}", path.display()),
            Error::Held { path } => {
                write!(
                    f,
                    "another crossover holds {}: stop it, or give this one another -output-dir",
                    path.display()
                )
            }
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Error::Disk { source, .. } => Some(source),
            Error::Usage(_) | Error::Held { .. } => None,
        }
    }
}
