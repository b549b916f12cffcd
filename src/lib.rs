//! Keeps Envoy's xDS files in step with Kubernetes ConfigMaps.
//!
//! One thread, one loop, one way through:
//!
//! ```text
//! apiserver --bytes--> lines --events--> list-watch --> observed (what the cluster says)
//!    --> reconcile --> desired {file name -> bytes} --> publish: stage, one commit, poke --> Envoy
//! ```
#![forbid(unsafe_code)]

pub mod document;
pub mod error;
pub mod resource;
pub mod route;
