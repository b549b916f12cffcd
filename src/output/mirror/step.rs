//! The progress of a look at a mirror.

use std::mem;

use crate::kube::api::Mirrored;
use crate::net::response::Response;

/// The step of a look that is under way.
pub enum Step {
    Idle,
    /// The mirror is being read.
    Reading(Response),
    /// The mirror was read; `None` if it does not exist.
    Read(Option<Mirrored>),
    /// A write was refused; the reason is being read.
    Refused(Response),
}

impl Step {
    /// Returns the response under way.
    pub fn response(&self) -> Option<&Response> {
        match self {
            Step::Reading(response) | Step::Refused(response) => Some(response),
            Step::Idle | Step::Read(_) => None,
        }
    }

    /// Returns the response under way, to be marked as readable.
    pub fn response_mut(&mut self) -> Option<&mut Response> {
        match self {
            Step::Reading(response) | Step::Refused(response) => Some(response),
            Step::Idle | Step::Read(_) => None,
        }
    }

    /// Takes the step, and leaves none.
    pub fn take(&mut self) -> Step {
        mem::replace(self, Step::Idle)
    }
}
