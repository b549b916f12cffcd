//! The program in real containers. `make test-container` runs this; it needs a Docker engine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by a panic.

mod cluster;
mod engine;
mod failures;
mod forms;
mod images;
mod locked_down;
mod manifest;
mod packages;
mod seed;
mod volumes;
