//! The sources of a snapshot: what the cluster said of each object, as far as it can be trusted.

pub mod config_map;
mod doubts;
pub mod http_route;
pub mod traffic_split;
pub mod weight_objects;
pub mod weight_store;
