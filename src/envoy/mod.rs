//! The running Envoy, through its admin port.

pub mod admin;
