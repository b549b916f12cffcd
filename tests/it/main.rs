//! The program, and the kit that proves it, on real input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by a panic.

#[path = "../kit/mod.rs"]
mod kit;

mod absent;
mod apiserver;
mod canary;
mod chart;
mod chart_examples;
mod chart_refusals;
mod chart_run;
mod command;
mod command_line;
mod crash;
mod credentials;
mod demo;
mod disk;
mod documents;
mod dry_run;
mod environment;
mod envoy;
mod examples;
mod faults;
mod figures;
mod keep;
mod keys;
mod kubectl;
mod listwatch;
mod logging;
mod looks;
mod merged;
mod mirror;
mod network;
mod once;
mod probes;
mod process;
mod readme;
mod recorded;
mod refusals;
mod scale;
mod scene;
mod semantics;
mod setup;
mod signals;
mod splits;
mod steady;
mod tls;
mod traffic;
mod usage;
mod versions;
mod weights;
mod wire;
