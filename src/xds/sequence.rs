//! A change in an order in which Envoy can take it. Owns: what a file is, and which clusters it
//! has; a file with clusters that vanish put before its own. Must not: do I/O or log, or read a
//! clock.
//!
//! Envoy reads each file by itself. So a new cluster must have been read before a route leads to
//! it, and one that vanishes must stay until none does. For that it is kept in its file's text:
//!
//! 1. `kind` tells what a file holds, by its resources' types.
//! 2. `clusters` reads the clusters of a file, each with a line that says the same.
//! 3. `union` puts such lines into a text, and proves that it says the same but for them.
//! 4. `mention` finds files that a cluster must stay for.
//!
//! `flow` writes the lines, `resources` and `facts` read what is common to all of these.

mod changes;
mod clusters;
mod declined;
mod facts;
mod flow;
mod kind;
mod mention;
mod resources;
mod union;

pub use changes::{Changes, Difference, Former, Outline, Vanished};
pub use clusters::{Cluster, clusters_of};
pub use declined::Declined;
pub use kind::{Kind, kind_of, resources_of};
pub use mention::mentions;
pub use union::{Union, union};

#[cfg(test)]
mod tests;
