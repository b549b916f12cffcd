//! The program, and the kit that proves it, on real input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by a panic.

mod app;
mod chart;
mod cli;
mod envoy;
mod kit;
mod kube;
mod order;
mod output;
mod process;
mod verdict;
mod weights;
