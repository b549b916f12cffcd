//! `-ready` and `-live`: what a probe asks of the crossover that holds a directory. Owns: what
//! counts as ready and as alive. Must not: touch anything, or wait.

use std::path::Path;

use crate::error::Chain;
use crate::output::directory::heartbeat::{self, Beat};

/// What it is that is ready.
pub const READY: &str = "ready";

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Whether an Envoy can start on the directory.
    Ready,
    /// Whether the loop turns.
    Live,
}

/// Nothing where it is so, else the reason why it is not.
pub fn ask(probe: Probe, dir: &Path) -> Result<(), String> {
    let told = heartbeat::told(dir).map_err(|error| Chain(&error).to_string())?;
    let Some(Beat { age, limit, state }) = told else {
        return Err(format!("no crossover holds {}", dir.display()));
    };
    match probe {
        Probe::Ready if state == READY => Ok(()),
        Probe::Ready => Err(format!("not ready: {state}")),
        Probe::Live if age < limit => Ok(()),
        Probe::Live => Err(format!("not alive: its loop last turned {age:?} ago")),
    }
}
