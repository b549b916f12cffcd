//! The running Envoy, through its admin port.

pub mod acceptance;
pub mod address;
pub mod admin;
pub mod connect;
pub mod drain;
pub mod error;
pub mod reason;
pub mod stats;
pub mod verdict;
