//! Keeps Envoy's xDS files in step with Kubernetes ConfigMaps.
//!
//! One thread, one loop, one way through:
//!
//! ```text
//! apiserver --bytes--> lines --events--> list-watch --> observed (what the cluster says)
//!    --> reconcile --> desired {file name -> bytes} --> publish: stage, one commit, poke --> Envoy
//! ```
//!
//! - Pure core, without files, network, clock or log: [`resource`], [`watch`], [`backoff`],
//!   [`document`], [`route`], [`reconcile`], [`manifest`].
//! - Edges, one outside thing each: [`args`], [`kube`], [`publish`], [`signal`], [`command`],
//!   [`admin`], [`logging`]; [`probe`] asks what [`publish`] has left.
//! - On top: [`run`] (the loop, which owns all state) with its parts [`follow`], [`server`] and
//!   [`output`]; [`error`].
//!
//! What holds always: one thread; every wait is a poll(2) that includes signals and the next
//! deadline, so that a command gets its signals whatever is going on; Envoy sees whole sets only; a
//! secret never reaches a log.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

/// Like `collect`, which for a map or set would sort first: 5 KB of code for each type of them.
fn gather<T, C: Default + Extend<T>>(items: impl IntoIterator<Item = T>) -> C {
    let mut gathered = C::default();
    gathered.extend(items);
    gathered
}

pub mod admin;
pub mod args;
pub mod backoff;
pub mod command;
pub mod decode;
pub mod discovery;
pub mod document;
pub mod error;
pub mod follow;
pub mod kube;
pub mod logging;
pub mod manifest;
pub mod merge;
pub mod mirror;
pub mod output;
pub mod probe;
pub mod publish;
pub mod reconcile;
pub mod resource;
pub mod route;
pub mod run;
pub mod server;
pub mod signal;
pub mod smi;
pub mod source;
pub mod splits;
pub mod watch;
