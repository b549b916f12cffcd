//! The running Envoy, as its admin port shows it.

pub mod admin;
