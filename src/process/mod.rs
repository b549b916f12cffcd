//! The process we are, and the one we start.

pub mod child;
pub mod signals;
