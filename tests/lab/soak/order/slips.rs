//! Changes that are good YAML, and that Envoy refuses.

use super::model::Files;
use std::net::TcpListener;
use testkit::world::Sort;
use testkit::world::text::{cluster, inline_routes, listener};

/// In a comment of each file that has one.
pub const MARK: &str = "# slip";

/// The way in which a file becomes one that Envoy refuses.
enum Change {
    /// A cluster is added, with the first text replaced by the second.
    Cluster(&'static str, &'static str),
    /// A cluster is added whose file of authorities does not exist.
    NoAuthority,
    /// A cluster is added whose file of endpoints does not exist.
    NoEndpoints,
    /// In the routes, the first text is replaced by the second.
    Routes(&'static str, &'static str),
    /// A listener is added whose routes lead to this cluster.
    Listener(&'static str),
    /// A listener is added on a port that is taken.
    TakenPort,
    /// A listener is added, with the first text replaced by the second.
    ListenerText(&'static str, &'static str),
}

use Change::{Cluster, Listener, ListenerText, NoAuthority, NoEndpoints, Routes, TakenPort};

/// The slips, each with what is wrong in it.
const SLIPS: [(&str, Change); 11] = [
    (
        "cluster: a duration that is none",
        Cluster("connect_timeout: 1s", "connect_timeout: three"),
    ),
    (
        "cluster: a duration out of bounds",
        Cluster("connect_timeout: 1s", "connect_timeout: 0s"),
    ),
    (
        "cluster: an address that is none",
        Cluster("address: 127.0.0.1", "address: nowhere"),
    ),
    ("cluster: no file of authorities", NoAuthority),
    ("cluster: no file of endpoints", NoEndpoints),
    (
        "routes: a domain twice",
        Routes("[\"*\"]", "[\"*\", \"*\"]"),
    ),
    (
        "routes: a list for a text",
        Routes("{prefix: /}", "{prefix: [/]}"),
    ),
    (
        "routes: an unknown type",
        Routes("v3.RouteConfiguration", "v3.RouteConfigurations"),
    ),
    ("listener: an unknown cluster", Listener("nowhere")),
    ("listener: a port that is taken", TakenPort),
    (
        "listener: a list for a text",
        ListenerText("stat_prefix: slip", "stat_prefix: [slip]"),
    ),
];

/// The number of kinds.
pub const KINDS: usize = SLIPS.len();

/// A port that is taken, and the place where files of endpoints would be.
pub struct Slips {
    taken: TcpListener,
    /// A `ConfigSource` with a file that does not exist.
    nowhere: String,
}

impl Slips {
    pub fn new(nowhere: String) -> Slips {
        let taken = TcpListener::bind("127.0.2.2:0").expect("a port is free");
        Slips { taken, nowhere }
    }

    /// Makes one of this kind. Returns what is wrong.
    pub fn make(&self, kind: usize, files: &mut Files) -> &'static str {
        let taken = self.taken.local_addr().expect("it is bound").port();
        let (what, change) = &SLIPS[kind];
        match change {
            Cluster(from, to) => {
                let text = cluster("slip", Sort::Static, 9, "").replacen(from, to, 1);
                append(files, "cds.yaml", &text);
            }
            NoAuthority => {
                let text = cluster("slip", Sort::Static, 9, "") + NO_AUTHORITY;
                append(files, "cds.yaml", &text);
            }
            NoEndpoints => {
                let text = cluster("slip", Sort::Eds, 9, &self.nowhere);
                append(files, "cds.yaml", &text);
            }
            Routes(from, to) => change_routes(files, from, to),
            Listener(to) => append(files, "lds.yaml", &new_listener(0, to)),
            TakenPort => append(files, "lds.yaml", &new_listener(taken, "secured")),
            ListenerText(from, to) => {
                let text = new_listener(0, "secured").replace(from, to);
                append(files, "lds.yaml", &text);
            }
        }
        what
    }
}

fn new_listener(port: u16, to: &str) -> String {
    let routes = inline_routes(&format!("cluster: {to}"), "none");
    let text = listener("slip", "127.0.2.2", &routes, None);
    text.replace("port_value: 0", &format!("port_value: {port}"))
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
