//! The log messages about a ConfigMap: each fault once, and once that it is over. Owns: the
//! messages.

use std::fmt::Display;
use std::time::Instant;

use crate::error::Error;
use crate::logging::WarnOnce;
use crate::snapshot::{ObjectName, ResourceVersion};

/// A pair of messages: if nothing of the ConfigMap is published, and if something is.
type Messages = [&'static str; 2];

const MISSING: Messages = [
    "ConfigMap not found; waiting for it to be created",
    "ConfigMap not found; keeping its published files",
];
const INVALID: Messages = [
    "ConfigMap is invalid; waiting for a valid version",
    "ConfigMap is invalid; keeping its published files",
];

/// The reports about one ConfigMap.
#[derive(Debug, Default)]
pub struct Reports {
    warned: WarnOnce,
    /// A warning that has not been given yet, and its error: the message depends on what stands on
    /// disk.
    owed: Option<(Messages, String)>,
}

impl Reports {
    /// Owes the warning that the ConfigMap does not exist.
    pub fn missing(&mut self, error: &Error) {
        self.owed = Some((MISSING, error.to_string()));
    }

    /// Owes the warning that its last state is invalid.
    pub fn invalid(&mut self, reasons: &str, at: &ResourceVersion) {
        self.owed = Some((INVALID, format!("{reasons} (resourceVersion {at})")));
    }

    /// Drops the warning that is owed, as there is a later state.
    pub fn withdraw(&mut self) {
        self.owed = None;
    }

    /// Gives the warning that is owed, if there is one.
    pub fn give(&mut self, object: &ObjectName, is_published: bool, now: Instant) {
        if let Some(([waiting, keeping], error)) = self.owed.take() {
            let message = if is_published { keeping } else { waiting };
            self.warned.warn(subject(object), message, &error, now);
        }
    }

    /// Gives the all-clear.
    pub fn valid(&mut self, object: &ObjectName, now: Instant) {
        let message = "ConfigMap is valid now";
        self.warned.clear(subject(object), message, now);
    }
}

fn subject(object: &ObjectName) -> (&'static str, &dyn Display) {
    ("configmap", object)
}
