//! The slips of the part of refusals: what is good YAML, and refused by Envoy.

use super::model::Files;
use std::net::{SocketAddr, TcpListener};
use testkit::world::Sort;
use testkit::world::text::{cluster, inline_routes, listener};

/// How many kinds there are.
pub const KINDS: usize = 11;
/// In a comment of each file that has one.
pub const MARK: &str = "# slip";

/// What the slips need: a port that is taken, and where files of endpoints would be.
pub struct Slips {
    taken: TcpListener,
    /// A `ConfigSource` with a file that is not there.
    nowhere: String,
}

impl Slips {
    pub fn new(nowhere: String) -> Slips {
        let taken = TcpListener::bind("127.0.2.2:0").expect("a port is free");
        Slips { taken, nowhere }
    }

    fn taken(&self) -> SocketAddr {
        self.taken.local_addr().expect("it is bound")
    }

    /// Makes one; returns what is wrong.
    pub fn make(&self, kind: usize, files: &mut Files) -> &'static str {
        let more_clusters = |files: &mut Files, from: &str, to: &str| {
            let text = cluster("slip", Sort::Static, 9, "").replacen(from, to, 1);
            append(files, "cds.yaml", &text);
        };
        let more_listeners = |files: &mut Files, port: u16, to: &str| {
            let routes = inline_routes(&format!("cluster: {to}"), "none");
            let text = listener("slip", "127.0.2.2", &routes, None);
            let port = format!("port_value: {port}");
            append(files, "lds.yaml", &text.replace("port_value: 0", &port));
        };
        match kind {
            0 => {
                more_clusters(files, "connect_timeout: 1s", "connect_timeout: three");
                "cluster: a duration that is none"
            }
            1 => {
                more_clusters(files, "connect_timeout: 1s", "connect_timeout: 0s");
                "cluster: a duration out of bounds"
            }
            2 => {
                more_clusters(files, "address: 127.0.0.1", "address: nowhere");
                "cluster: an address that is none"
            }
            3 => {
                let text = cluster("slip", Sort::Static, 9, "") + NO_AUTHORITY;
                append(files, "cds.yaml", &text);
                "cluster: no file of authorities"
            }
            4 => {
                let text = cluster("slip", Sort::Eds, 9, &self.nowhere);
                append(files, "cds.yaml", &text);
                "cluster: no file of endpoints"
            }
            5 => {
                change_routes(files, "[\"*\"]", "[\"*\", \"*\"]");
                "routes: a domain twice"
            }
            6 => {
                change_routes(files, "{prefix: /}", "{prefix: [/]}");
                "routes: a list for a text"
            }
            7 => {
                change_routes(files, "v3.RouteConfiguration", "v3.RouteConfigurations");
                "routes: an unknown type"
            }
            8 => {
                more_listeners(files, 0, "nowhere");
                "listener: an unknown cluster"
            }
            9 => {
                more_listeners(files, self.taken().port(), "secured");
                "listener: a port that is taken"
            }
            _ => {
                more_listeners(files, 0, "secured");
                let text = files.entry("lds.yaml".into()).or_default();
                *text = text.replace("stat_prefix: slip", "stat_prefix: [slip]");
                "listener: a list for a text"
            }
        }
    }
}

const NO_AUTHORITY: &str = "  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
      common_tls_context:
        validation_context: {trusted_ca: {filename: /nowhere/ca.crt}}
";

fn append(files: &mut Files, name: &str, text: &str) {
    let file = files.entry(name.into()).or_default();
    *file += &format!("{text}{MARK}\n");
}

fn change_routes(files: &mut Files, from: &str, to: &str) {
    let mut all = files.iter_mut();
    let routes = all.find(|(name, _)| name.starts_with("rds"));
    let (_, text) = routes.expect("there are routes");
    assert!(text.contains(from), "{text}");
    *text = format!("{}{MARK}\n", text.replacen(from, to, 1));
}
