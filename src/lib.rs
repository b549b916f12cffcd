//! Keeps Envoy's xDS files in step with Kubernetes ConfigMaps.
//!
//! One thread, one loop, one way through:
//!
//! ```text
//! apiserver --bytes--> lines --events--> list-watch --> observed (what the cluster says)
//!    --> reconcile --> desired {file name -> bytes} --> publish: stage, one commit, poke --> Envoy
//! ```
//!
//! - [`app`]: the loop, which owns all state; [`cli`]: the command line.
//! - [`source`]: what the cluster says of ConfigMaps and TrafficSplits; [`kube`]: the API server's
//!   client, list-watches among it; [`net`]: connections, TLS, responses.
//! - [`xds`]: Envoy's configuration as text, pure; [`output`]: the directory, the mirror, a dry run;
//!   [`envoy`]: the admin port; [`process`]: signals and the command.
//! - [`snapshot`], [`poll`], [`backoff`], [`error`], [`logging`]: what all of these stand on.
//!
//! What holds always: one thread; every wait but that for a name look-up is a poll(2) that includes
//! signals and the next deadline, so that a command gets its signals whatever else is going on; Envoy
//! sees whole sets only; a secret never reaches a log.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

/// Like `collect`, which for a map or set would sort first: 5 KB of code for each type of them.
fn gather<T, C: Default + Extend<T>>(items: impl IntoIterator<Item = T>) -> C {
    let mut gathered = C::default();
    gathered.extend(items);
    gathered
}

pub mod app;
pub mod backoff;
pub mod cli;
pub mod envoy;
pub mod error;
pub mod kube;
pub mod logging;
pub mod net;
pub mod output;
pub mod poll;
pub mod process;
pub mod snapshot;
pub mod source;
pub mod xds;
