//! What the cluster says, as far as it is trusted.

pub mod config_map;
pub mod smi;
pub mod traffic_splits;
