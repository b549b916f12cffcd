//! Bytes and time: connections, TLS, responses. Must not: know Kubernetes or Envoy.

mod addresses;
mod connect;
pub mod connections;
mod connector;
pub mod lines;
pub mod resolv_conf;
pub mod response;
mod socket;
pub mod tls;
mod transport;
pub mod wait;

use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;

use connections::Connections;
use connector::{CachingResolver, PollConnector};

/// The time that a connection waits for its next request. A watch follows its list at once, and an
/// older connection may have been closed by the server meanwhile.
const REUSE_WITHIN: Duration = Duration::from_secs(1);
/// The size of the largest TLS record. A bigger buffer would only cost memory, for each watch.
const INPUT_BUFFER: usize = 16 << 10;
/// The least size of an output buffer. It grows with the token, as each header is written whole.
const OUTPUT_BUFFER: usize = 4 << 10;

/// Makes an HTTP client whose waits are those of `connections.waiter`.
pub fn agent(connections: &Arc<Connections>) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .max_idle_connections(1)
        .max_idle_connections_per_host(1)
        .max_idle_age(REUSE_WITHIN)
        .input_buffer_size(INPUT_BUFFER)
        .output_buffer_size(OUTPUT_BUFFER)
        .user_agent(concat!("crossover/", env!("CARGO_PKG_VERSION")))
        .build();
    let connector = PollConnector(connections.clone());
    let resolver = CachingResolver(connections.clone());
    Agent::with_parts(config, connector, resolver)
}
