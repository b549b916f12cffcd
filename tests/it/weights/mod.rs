//! Weights: TrafficSplits and HTTPRoutes merged into files, and the mirror that shows them.

pub mod absent;
pub mod cluster_domain;
pub mod first;
pub mod http_route_life;
pub mod http_routes;
pub mod judged;
pub mod merged;
pub mod mirror;
pub mod refusals;
pub mod splits;
pub mod unserved;
pub mod versions;
