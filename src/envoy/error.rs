//! The reasons why Envoy's admin port has not answered.

use std::fmt;
use std::io;
use std::time::Duration;

use rustix::io::Errno;

/// The reason why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminError {
    /// Nobody is there, or it went before it had answered.
    Away(String),
    /// Somebody is there, who did not answer in time.
    NoAnswer(Duration),
    /// The answer has another status than 200.
    Status(u16),
    /// The answer is longer than what was asked for can be.
    TooLong,
    /// The answer is not HTTP.
    Malformed(String),
    /// A signal came first.
    Interrupted,
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminError::Away(why) => f.write_str(why),
            AdminError::NoAnswer(within) => write!(f, "no answer in {} ms", within.as_millis()),
            AdminError::Status(status) => write!(f, "the answer is {status}"),
            AdminError::TooLong => f.write_str("the answer is too long"),
            AdminError::Malformed(why) => write!(f, "the answer is not HTTP: {why}"),
            AdminError::Interrupted => f.write_str("interrupted by a signal"),
        }
    }
}

impl std::error::Error for AdminError {}

/// Makes the error of a system call on a connection.
pub fn away(errno: Errno) -> AdminError {
    AdminError::Away(io::Error::from(errno).to_string())
}
