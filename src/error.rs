//! The errors of all modules, their texts for the operator, and the exit codes they lead to.

use std::path::PathBuf;
use std::time::Duration;
use std::{error, fmt, io};

use crate::snapshot::ObjectName;

/// A failed operation. Display says what failed and what the operator can do about it. It never
/// includes `source()`; [`Chain`] adds that.
#[allow(missing_docs, reason = "the names of the other fields say it")]
#[derive(Debug)]
pub enum Error {
    /// The command line or the environment is wrong; exit 2.
    Usage(String),
    /// A file that the program was told to use cannot be used.
    File {
        /// The file's role: "token file", "CA file".
        what: &'static str,
        path: PathBuf,
        /// An instruction to the operator.
        hint: &'static str,
        source: io::Error,
    },
    /// A system call or a library failed that is expected to work always.
    System {
        /// The attempt, as a verb and an object: "wait for input".
        what: &'static str,
        source: io::Error,
    },
    /// The API server could not be reached, or did not answer as HTTP.
    Request {
        target: Box<Target>,
        source: Box<dyn error::Error + Send + Sync>,
    },
    /// The API server answered with an error.
    Status {
        target: Box<Target>,
        /// The HTTP status, or the code of the Status object in a watch.
        code: u16,
        /// The message of the Status object, or the beginning of another body.
        message: String,
        /// An instruction to the operator; may be empty.
        hint: String,
        /// The delay that the server asked for before the next request.
        retry_after: Option<Duration>,
    },
    /// The API server's answer could not be read as what was asked for.
    Answer {
        target: Box<Target>,
        /// The fault, as a sentence: what was expected, and what was found.
        what: String,
    },
    /// A named object does not exist.
    Missing { target: Box<Target> },
    /// A ConfigMap is invalid, and no earlier valid state of it can be published instead.
    Refused {
        object: ObjectName,
        /// The findings, one for each invalid file.
        why: String,
    },
    /// An operation on the output directory failed.
    Disk {
        /// The attempt, as a verb: "create", "rename", "sync".
        verb: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The command cannot be started; exit 126, or 127 if it was not found.
    Command {
        /// The first word of the command.
        name: String,
        source: io::Error,
    },
    /// Another crossover has locked the output directory.
    Held {
        /// The lock file.
        path: PathBuf,
    },
}

/// The operation that a request asks for.
#[allow(missing_docs, reason = "the other names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    List,
    Watch,
    Get,
    Create,
    Update,
    /// Asks which versions of an API group are served.
    Discover,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Get => "get",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Discover => "find the version of",
        })
    }
}

/// The operation and the objects of a request, as errors and logs cite them.
#[allow(missing_docs, reason = "the names of the other fields say it")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub verb: Verb,
    /// The resource's plural name: "configmaps".
    pub resource: &'static str,
    /// The API group; empty for the core group.
    pub group: &'static str,
    pub namespace: String,
    /// The object's name; `None` stands for all objects of the namespace.
    pub name: Option<String>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target {
            verb,
            resource,
            namespace,
            name,
            ..
        } = self;
        match name {
            Some(name) => write!(f, "{verb} {resource} {namespace}/{name}"),
            None => write!(f, "{verb} {resource} in namespace {namespace}"),
        }
    }
}

/// The class of an error, on which control flow depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line or the environment is wrong; exit 2.
    Usage,
    /// A retry cannot succeed.
    Fatal,
    /// The API server is not reachable or overloaded; a later retry may succeed.
    Transient,
    /// The API server does not accept the token (401).
    Unauthorized,
    /// The token's account may not do this (403).
    Forbidden,
    /// The object, or its resource, does not exist (404).
    NotFound,
    /// The resourceVersion is too old (410).
    Gone,
    /// The object is invalid, or the answer about it cannot be used.
    Bad,
    /// The output directory cannot be written.
    Disk,
    /// The output directory is locked by another crossover.
    Held,
}

impl Error {
    /// Returns the class of the error.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Usage(_) => Kind::Usage,
            Error::File { .. } | Error::System { .. } | Error::Command { .. } => Kind::Fatal,
            Error::Request { .. } => Kind::Transient,
            Error::Status { code, .. } => match code {
                401 => Kind::Unauthorized,
                403 => Kind::Forbidden,
                404 => Kind::NotFound,
                410 => Kind::Gone,
                429 | 500..=599 => Kind::Transient,
                _ => Kind::Bad,
            },
            Error::Missing { .. } => Kind::NotFound,
            Error::Answer { .. } | Error::Refused { .. } => Kind::Bad,
            Error::Disk { .. } => Kind::Disk,
            Error::Held { .. } => Kind::Held,
        }
    }

    /// Returns the delay that the server asked for before the next request, if it did.
    pub fn retry_after(&self) -> Option<Duration> {
        if let Error::Status { retry_after, .. } = self {
            *retry_after
        } else {
            None
        }
    }

    /// Returns 2 for a usage error and 1 for any other; for a command that cannot be started 126 or
    /// 127, as shells do.
    pub fn exit_code(&self) -> u8 {
        if let Error::Command { source, .. } = self {
            let missing = source.kind() == io::ErrorKind::NotFound;
            return if missing { 127 } else { 126 };
        }
        if self.kind() == Kind::Usage { 2 } else { 1 }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(what) => f.write_str(what),
            Error::File {
                what, path, hint, ..
            } => {
                write!(f, "failed to read {what} {} ({hint})", path.display())
            }
            Error::System { what, .. } => write!(f, "failed to {what}"),
            Error::Request { target, .. } => write!(f, "failed to {target}"),
            Error::Status {
                target,
                code,
                message,
                hint,
                ..
            } => {
                write!(
                    f,
                    "failed to {target}: the API server answered {code}: {message}"
                )?;
                if hint.is_empty() {
                    return Ok(());
                }
                write!(f, " ({hint})")
            }
            Error::Answer { target, what } => write!(f, "failed to {target}: {what}"),
            Error::Missing { target } => write!(
                f,
                "failed to {target}: it does not exist (create it, or correct the name or -namespace)"
            ),
            Error::Refused { object, why } => write!(f, "invalid ConfigMap {object}: {why}"),
            Error::Disk { verb, path, .. } => write!(f, "failed to {verb} {}", path.display()),
            Error::Command { name, .. } => write!(f, "failed to start {name}"),
            Error::Held { path } => write!(
                f,
                "{} is locked by another crossover (stop it, or use a different -output-dir)",
                path.display()
            ),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Error::File { source, .. }
            | Error::System { source, .. }
            | Error::Command { source, .. }
            | Error::Disk { source, .. } => Some(source),
            Error::Request { source, .. } => Some(&**source),
            Error::Usage(_)
            | Error::Status { .. }
            | Error::Answer { .. }
            | Error::Missing { .. }
            | Error::Refused { .. }
            | Error::Held { .. } => None,
        }
    }
}

/// An error and all its causes on one line, for the log.
pub struct Chain<'a>(pub &'a dyn error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
