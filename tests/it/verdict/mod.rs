//! Envoy's verdicts: what a real Envoy refuses is taken back, and what it takes stays.

pub mod cold;
pub mod good;
pub mod kinds;
pub mod renamed;
pub mod restarts;
pub mod scene;
pub mod stuck;
pub mod unknown;
