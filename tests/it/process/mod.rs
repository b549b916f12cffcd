//! The process: its signals, its command, and its probes.

pub mod command;
pub mod linger;
pub mod probes;
pub mod signals;
pub mod tty;
