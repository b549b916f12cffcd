//! Tests of the kit itself, and of the lab.

pub mod apiserver;
pub mod bench;
pub mod demo;
pub mod faults;
pub mod kubectl;
pub mod process;
pub mod semantics;
pub mod tls;
pub mod traffic;
