//! Envoy's configuration as text. Pure: no files, network, clock or log.

pub mod content;
pub mod desired;
pub mod merge;
#[cfg(test)]
mod properties;
pub mod sequence;
pub mod validate;
pub mod weights;
pub mod yaml;
