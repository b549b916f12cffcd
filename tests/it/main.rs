//! The program, and the kit that proves it, on real input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by a panic.

#[path = "../kit/mod.rs"]
mod kit;

mod apiserver;
mod demo;
mod envoy;
mod faults;
mod figures;
mod kubectl;
mod process;
mod semantics;
mod steady;
mod tls;
mod traffic;
