//! Bytes and time: connections, TLS, responses. Must not: know Kubernetes or Envoy.

pub mod addresses;
pub mod connect;
pub mod lines;
pub mod resolv_conf;
pub mod response;
pub mod tls;
pub mod transport;
