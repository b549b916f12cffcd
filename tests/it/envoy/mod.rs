//! Crossover beside a real Envoy.

pub mod canary;
pub mod counters;

pub mod documents;
pub mod one_container;
pub mod steady;
pub mod updates;
