//! Everything that can go wrong, what to tell the operator about it, and the exit code it ends in.

use std::path::PathBuf;
use std::time::Duration;
use std::{error, fmt, io};

use crate::snapshot::ObjectName;

/// A failed operation. Display says what failed and, where the operator can do something, what;
/// it never repeats `source()`.
#[derive(Debug)]
pub enum Error {
    /// The command line or the environment is wrong; exit 2.
    Usage(String),
    /// A file that the program was told to use cannot be used.
    File {
        /// What the file is for: "token file", "CA file".
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What the operator can do.
        hint: &'static str,
        /// Why it cannot be used.
        source: io::Error,
    },
    /// The system refused something that always works.
    System {
        /// What was tried, as a verb and an object: "wait for input".
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The API server could not be reached, or did not answer as HTTP.
    Request {
        /// Of what was asked.
        target: Box<Target>,
        /// Why there is no answer.
        source: Box<dyn error::Error + Send + Sync>,
    },
    /// The API server answered with an error.
    Status {
        /// Of what was asked.
        target: Box<Target>,
        /// The HTTP status or the Status object's code.
        code: u16,
        /// What the server says.
        message: String,
        /// What the operator can do; may be empty.
        hint: String,
        /// How long the server wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The API server answered with something that is not what was asked for.
    Answer {
        /// Of what was asked.
        target: Box<Target>,
        /// What is wrong with it.
        what: String,
    },
    /// A named object does not exist.
    Missing {
        /// The object.
        target: Box<Target>,
    },
    /// A ConfigMap cannot be published, and nothing stands in for it.
    Refused {
        /// The ConfigMap.
        object: ObjectName,
        /// Why.
        why: String,
    },
    /// An operation on the output directory failed.
    Disk {
        /// What was tried, as a verb: "create", "rename", "sync".
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The command cannot be started; exit 126, or 127 where there is none of that name.
    Command {
        /// Its first word.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// Another crossover holds the output directory.
    Held {
        /// The lock file.
        path: PathBuf,
    },
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// List objects.
    List,
    /// Watch objects.
    Watch,
    /// Read one object.
    Get,
    /// Write a new object.
    Create,
    /// Replace an object.
    Update,
    /// Find out which versions of its group are served.
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

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What is asked for.
    pub verb: Verb,
    /// The plural resource: "configmaps".
    pub resource: &'static str,
    /// The API group, empty for the core one.
    pub group: &'static str,
    /// Whose.
    pub namespace: String,
    /// The object's name; `None`: all of them.
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
            None => write!(f, "{verb} {resource} of namespace {namespace}"),
        }
    }
}

/// What the loop branches on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The user's to correct; exit 2.
    Usage,
    /// Trying again cannot help.
    Fatal,
    /// The API server is away or overloaded; trying again later helps.
    Transient,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 410: the resourceVersion is too old.
    Gone,
    /// The object, or the answer about it, is of no use.
    Bad,
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

    /// How long the server wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        if let Error::Status { retry_after, .. } = self {
            *retry_after
        } else {
            None
        }
    }

    /// 1 failed, 2 usage; as shells have it, 126 and 127 for a command.
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
                write!(f, "failed to read the {what} {} ({hint})", path.display())
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
                    "failed to {target}: the API server answers {code}: {message}"
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
            Error::Refused { object, why } => write!(f, "refused ConfigMap {object}: {why}"),
            Error::Disk { verb, path, .. } => write!(f, "failed to {verb} {}", path.display()),
            Error::Command { name, .. } => write!(f, "failed to start {name}"),
            Error::Held { path } => write!(
                f,
                "another crossover holds {} (stop it, or give this one another -output-dir)",
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
