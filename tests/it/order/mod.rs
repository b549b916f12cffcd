//! Clusters and routes that are replaced together, beside a real Envoy.

pub mod inline;
pub mod kept;
pub mod replaced;
pub mod slow;
pub mod union;
