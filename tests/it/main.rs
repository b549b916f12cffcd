//! The program, and the kit that proves it, on real input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by a panic.

#[path = "../kit/mod.rs"]
mod kit;

mod apiserver;
mod crash;
mod envoy;
mod faults;
mod kubectl;
mod listwatch;
mod looks;
mod process;
mod recorded;
mod scale;
mod scene;
mod signals;
mod tls;
mod wire;
