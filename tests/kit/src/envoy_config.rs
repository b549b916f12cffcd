//! Envoy's files as the tests and the demo publish them: a listener, clusters, and routes with a
//! weight for each backend. Every text carries a version: Envoy shows it as `version_text`, the
//! routes also as a response header.

use super::objects::config_map;
use serde_json::Value;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

/// The ConfigMap that holds the files.
pub const CONFIG_MAP: &str = "envoy-xds";
/// The name of the listener, of its statistics, of the routes and of their virtual host.
pub const SERVICE: &str = "podinfo";
/// The response header that tells by which routes a request was answered.
pub const VERSION_HEADER: &str = "x-version";
/// The prefixes of Envoy's counters for the routes, the clusters and the listeners.
pub const STATS: [&str; 3] = [
    "http.podinfo.rds.podinfo",
    "cluster_manager.cds",
    "listener_manager.lds",
];

/// The way in which an Envoy learns of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watching {
    /// `path_config_source` with nothing but a path.
    PathOnly,
    /// `watched_directory` is `DIR/current`.
    Current,
    /// `watched_directory` is DIR, the volume's root.
    Root,
}

impl Watching {
    /// Returns a `ConfigSource` for a file of an output directory, on one line.
    pub fn source(self, dir: &Path, file: &str) -> String {
        let current = dir.join("current");
        let watched = match self {
            Watching::PathOnly => String::new(),
            Watching::Current => format!(", watched_directory: {{path: {}}}", current.display()),
            Watching::Root => format!(", watched_directory: {{path: {}}}", dir.display()),
        };
        let path = current.join(file);
        format!(
            "{{resource_api_version: V3, path_config_source: {{path: {}{watched}}}}}",
            path.display()
        )
    }

    /// Returns a bootstrap that takes listeners and clusters from an output directory.
    pub fn bootstrap(self, dir: &Path) -> String {
        format!(
            "\
node: {{id: envoy, cluster: envoy}}
dynamic_resources:
  cds_config: {}
  lds_config: {}
",
            self.source(dir, "cds.yaml"),
            self.source(dir, "lds.yaml")
        )
    }
}

/// Returns `lds.yaml`: one listener on a free port, its routes in `rds.yaml`.
pub fn listeners(version: &str, dir: &Path, watching: Watching) -> String {
    let routes = watching.source(dir, "rds.yaml");
    format!(
        "\
version_info: \"{version}\"
resources:
- \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener
  name: {SERVICE}
  address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: {SERVICE}
        rds:
          route_config_name: {SERVICE}
          config_source: {routes}
        http_filters:
        - name: envoy.filters.http.router
          typed_config:
            \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"
    )
}

/// Returns `cds.yaml`: a cluster for each backend.
pub fn clusters(version: &str, backends: &[(&str, SocketAddr)]) -> String {
    let mut text = format!("version_info: \"{version}\"\nresources:\n");
    for (name, address) in backends {
        let (ip, port) = (address.ip(), address.port());
        let _ = write!(
            text,
            "\
- \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: {name}
  connect_timeout: 1s
  load_assignment:
    cluster_name: {name}
    endpoints:
    - lb_endpoints:
      - endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}
"
        );
    }
    text
}

/// Returns `rds.yaml`: everything goes to the backends by these weights.
pub fn routes(version: &str, weights: &[(&str, u32)]) -> String {
    let mut text = format!(
        "\
version_info: \"{version}\"
resources:
- \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: {SERVICE}
  response_headers_to_add: [{{header: {{key: {VERSION_HEADER}, value: \"{version}\"}}}}]
  virtual_hosts:
  - name: {SERVICE}
    domains: [\"*\"]
    routes:
    - match: {{prefix: /}}
      route:
        weighted_clusters:
          clusters:
"
    );
    for (name, weight) in weights {
        let _ = writeln!(text, "          - {{name: {name}, weight: {weight}}}");
    }
    text
}

/// Returns the ConfigMap with these three files.
pub fn set(listeners: &str, clusters: &str, routes: &str) -> Value {
    config_map(
        CONFIG_MAP,
        &[
            ("lds.yaml", listeners),
            ("cds.yaml", clusters),
            ("rds.yaml", routes),
        ],
    )
}

/// Returns an `rds.yaml` of a realistic shape, `bytes` long: virtual hosts with routes by prefix,
/// each with two weighted clusters, comments between. `seed` is in every weight, so that two differ
/// all over.
pub fn large_routes(bytes: usize, seed: u32) -> String {
    let mut text = format!(
        "\
version_info: \"{seed}\"
resources:
- \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: {SERVICE}
  virtual_hosts:
"
    );
    let mut count = 0;
    while text.len() < bytes {
        let weight = (count + seed) % 101;
        let _ = write!(
            text,
            "  \
  # Team {team}, service {count}: ask before you change the weights.
  - name: service-{count}
    domains: [\"service-{count}\", \"service-{count}.default.svc.cluster.local\"]
    routes:
    - match: {{prefix: /api/v{team}}}
      route:
        timeout: 15s
        retry_policy: {{retry_on: \"5xx,reset,connect-failure\", num_retries: 3}}
        weighted_clusters:
          clusters:
          - name: service-{count}-primary
            weight: {weight}
          - name: service-{count}-canary
            weight: {other}
    - match: {{prefix: /}}
      route: {{cluster: service-{count}-primary}}
",
            team = count % 7,
            other = 100 - weight
        );
        count += 1;
    }
    // Cut to length where a comment may stand.
    let end = text[..bytes].rfind("  # Team").unwrap_or(bytes);
    text.truncate(end);
    while text.len() < bytes {
        text.push('#');
    }
    text
}
