//! The texts of a world's files.

use super::super::envoy_config::VERSION_HEADER;
use super::{Sort, WEIGHTS};
use std::fmt::Write;
use std::time::Duration;

/// Returns a cluster's name.
pub fn name(number: u32) -> String {
    format!("c{number}")
}

/// Returns the version in the answers of the route to a cluster.
pub fn version(number: u32) -> String {
    format!("v{number}")
}

pub(super) fn to(number: u32) -> String {
    format!("cluster: {}", name(number))
}

/// Returns a cluster with one endpoint, as an item of `cds.yaml`; `source`: where EDS has it from.
pub fn cluster(name: &str, sort: Sort, port: u16, source: &str) -> String {
    let kind = match sort {
        Sort::Static | Sort::Checked => "STATIC",
        Sort::Dns => "STRICT_DNS",
        Sort::Eds => "EDS",
    };
    let rest = match sort {
        Sort::Static => assignment(name, "127.0.0.1", port),
        Sort::Dns => {
            let assignment = assignment(name, "localhost", port);
            format!("  dns_lookup_family: V4_ONLY\n{assignment}")
        }
        Sort::Eds => format!("  eds_cluster_config: {{eds_config: {source}}}\n"),
        Sort::Checked => {
            let assignment = assignment(name, "127.0.0.1", port);
            format!("{HEALTH_CHECK}{assignment}")
        }
    };
    format!(
        "- \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: {name}
  type: {kind}
  connect_timeout: 1s
{rest}"
    )
}

const HEALTH_CHECK: &str = "  health_checks:
  - timeout: 1s
    interval: 5s
    unhealthy_threshold: 2
    healthy_threshold: 1
    http_health_check: {path: /health}
";

fn assignment(name: &str, host: &str, port: u16) -> String {
    let endpoint = endpoint(host, port);
    format!(
        "  load_assignment:
    cluster_name: {name}
    endpoints:
    - lb_endpoints:
      - endpoint: {endpoint}
"
    )
}

fn endpoint(host: &str, port: u16) -> String {
    format!("{{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}")
}

/// Returns a ClusterLoadAssignment of one endpoint, as a file.
pub fn endpoints(name: &str, port: u16) -> String {
    let endpoint = endpoint("127.0.0.1", port);
    format!(
        "resources:
- \"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: {name}
  endpoints:
  - lb_endpoints:
    - endpoint: {endpoint}
"
    )
}

/// Returns the part of a listener that takes its routes from a file.
pub fn routes_by(name: &str, source: &str) -> String {
    format!("rds: {{route_config_name: {name}, config_source: {source}}}")
}

/// Returns the same as a part of the listener.
pub fn inline_routes(action: &str, version: &str) -> String {
    let hosts = indented(10, &virtual_hosts(action, version));
    format!("route_config:\n{}", hosts.trim_end())
}

/// Returns a RouteConfiguration.
pub fn routes(name: &str, action: &str, version: &str) -> String {
    format!(
        "resources:
- \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: {name}
{}",
        indented(2, &virtual_hosts(action, version))
    )
}

fn virtual_hosts(action: &str, version: &str) -> String {
    format!(
        "response_headers_to_add: [{{header: {{key: {VERSION_HEADER}, value: \"{version}\"}}}}]
virtual_hosts:
- name: all
  domains: [\"*\"]
  routes:
  - match: {{prefix: /}}
    route: {{{action}}}
"
    )
}

pub(super) fn weights(number: u32) -> String {
    let weight = number % 101;
    let action = format!(
        "weighted_clusters: {{clusters: [{{name: always-a, weight: {weight}}}, {{name: always-b, \
         weight: {}}}]}}",
        100 - weight
    );
    let text = routes(WEIGHTS, &action, &version(number));
    // The length tells which it is. It differs by more than weights of another length do.
    format!("{text}#{:width$}\n", "", width = 8 * number as usize)
}

/// Returns a listener on any free port of a loopback address, as an item of `lds.yaml`. Each needs
/// another address: one that is new takes over the port of one of the same address that drains.
pub fn listener(name: &str, host: &str, routes: &str, held: Option<Duration>) -> String {
    let mut filters = String::new();
    if let Some(held) = held {
        let _ = write!(
            filters,
            "
        - name: envoy.filters.http.fault
          typed_config:
            \"@type\": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault
            delay: {{fixed_delay: {}s, percentage: {{numerator: 100}}}}",
            held.as_secs_f64()
        );
    }
    format!(
        "- \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener
  name: {name}
  address: {{socket_address: {{address: {host}, port_value: 0}}}}
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: {name}
        {routes}
        http_filters:{filters}
        - name: envoy.filters.http.router
          typed_config:
            \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"
    )
}

fn indented(by: usize, text: &str) -> String {
    let lines = text.lines().map(|line| format!("{:by$}{line}\n", ""));
    lines.collect()
}
