//! The running Envoy, through its admin port.

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the loop does not go by it yet")
)]
pub mod acceptance;
pub mod address;
pub mod admin;
pub mod connect;
pub mod drain;
pub mod error;
pub mod reason;
pub mod stats;
pub mod verdict;
