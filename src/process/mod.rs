//! This process's signals, and the child that it starts.

pub mod child;
pub mod signals;
