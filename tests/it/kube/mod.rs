//! The API server as a client sees it: requests, watches, connections and trust.

pub mod addresses;
pub mod checks;
#[allow(clippy::duplicate_mod)]
#[path = "checks.rs"]
pub mod checks_old;
pub mod connecting;
pub mod credentials;
pub mod http_limits;
pub mod listwatch;
#[allow(clippy::duplicate_mod)] // On the wire format of older releases.
#[path = "listwatch.rs"]
pub mod listwatch_old;
pub mod names;
pub mod network;
pub mod outages;
pub mod pages;
pub mod recorded;
pub mod trust;
pub mod wire;
