//! Everything that an Envoy is told, and the good ways in which it changes.

use proptest::prelude::RngExt;
use proptest::test_runner::TestRng;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use testkit::backend::Backend;
use testkit::envoy::Envoy;
use testkit::envoy_config::Watching;
use testkit::objects::config_map;
use testkit::world::text::{cluster, endpoints, inline_routes, listener, routes_by};
use testkit::world::{DRAIN, Sort, name, routes, version};

/// By name.
pub type Files = BTreeMap<String, String>;

/// The ConfigMap.
pub const MAP: &str = "order";
/// The listener whose routes are in a file.
pub const MAIN: &str = "main";
/// The listener with its own routes.
pub const INLINE: &str = "inline";
const BACKENDS: [&str; 3] = ["a", "b", "c"];

struct Cluster {
    number: u32,
    sort: Sort,
    backend: usize,
    /// Of a field that nothing depends on.
    timeout: u32,
}

/// Where a listener leads: two clusters and the weight of the first.
struct Route {
    clusters: [u32; 2],
    weight: u32,
    version: u32,
}

/// What stands in the ConfigMap.
pub struct Model {
    clusters: Vec<Cluster>,
    /// Of [`MAIN`] and [`INLINE`].
    routes: [Route; 2],
    /// The file of the main listener's routes has this number, and so has its name.
    routes_file: u32,
    /// Listeners without load.
    others: Vec<u32>,
    secret: u32,
    runtime: u32,
    /// The next number of whatever is new.
    next: u32,
    backends: [Backend; 3],
    /// The certificates that the secret can be.
    certificates: [String; 2],
    dir: PathBuf,
    watching: Watching,
}

impl Model {
    pub fn start(dir: &Path, watching: Watching) -> Model {
        let route = |clusters| Route {
            clusters,
            weight: 50,
            version: 0,
        };
        let mut model = Model {
            clusters: Vec::new(),
            routes: [route([0, 1]), route([2, 3])],
            routes_file: 0,
            others: Vec::new(),
            secret: 0,
            runtime: 0,
            next: 0,
            backends: BACKENDS.map(Backend::start),
            certificates: ["one.test", "other.test"].map(certificate),
            dir: dir.to_path_buf(),
            watching,
        };
        for sort in [Sort::Static, Sort::Dns, Sort::Eds, Sort::Checked] {
            model.add(sort, 0);
        }
        model
    }

    /// What each listener's answers say once this is in effect.
    pub fn versions(&self) -> [String; 2] {
        self.routes.each_ref().map(|route| version(route.version))
    }

    fn add(&mut self, sort: Sort, backend: usize) -> u32 {
        let number = self.next;
        self.next += 1;
        self.clusters.push(Cluster {
            number,
            sort,
            backend,
            timeout: 1,
        });
        number
    }

    fn add_any(&mut self, rng: &mut TestRng) -> u32 {
        let sorts = [Sort::Static, Sort::Dns, Sort::Eds, Sort::Checked];
        let sort = sorts[rng.random_range(0..sorts.len())];
        self.add(sort, rng.random_range(0..BACKENDS.len()))
    }

    fn is_used(&self, number: u32) -> bool {
        self.routes
            .iter()
            .any(|route| route.clusters.contains(&number))
    }

    /// One change; returns of what kind it is.
    pub fn change(&mut self, rng: &mut TestRng) -> &'static str {
        let which = rng.random_range(0..2_usize);
        match rng.random_range(0..16) {
            0..=4 => {
                // A cluster that nothing else uses is replaced with its route.
                let place = rng.random_range(0..2_usize);
                let old = self.routes[which].clusters[place];
                let new = self.add_any(rng);
                self.routes[which].clusters[place] = new;
                if !self.is_used(old) {
                    self.clusters.retain(|cluster| cluster.number != old);
                }
                self.mark(which);
                "clusters replaced"
            }
            5 => {
                self.add_any(rng);
                "clusters added"
            }
            6 => {
                let used = [0, 1].map(|at| self.routes[at].clusters).concat();
                let spare = |cluster: &Cluster| !used.contains(&cluster.number);
                if let Some(at) = self.clusters.iter().position(spare) {
                    self.clusters.remove(at);
                }
                "unused clusters removed"
            }
            7 => {
                let at = rng.random_range(0..self.clusters.len());
                self.clusters[at].timeout += 1;
                "clusters changed"
            }
            8 => {
                let at = rng.random_range(0..self.clusters.len());
                self.clusters[at].backend = rng.random_range(0..BACKENDS.len());
                "endpoints changed"
            }
            9..=11 => {
                self.routes[which].weight = rng.random_range(0..=100);
                self.mark(which);
                "weights changed"
            }
            12 => {
                self.routes_file = self.next;
                self.next += 1;
                self.mark(0);
                "files of routes renamed"
            }
            13 if self.others.len() < 4 => {
                let last = self.others.last().copied().unwrap_or(0);
                self.others.push(last % 250 + 1);
                "listeners added"
            }
            13 => {
                self.others.remove(0);
                "listeners removed"
            }
            14 => {
                self.secret += 1;
                "secrets changed"
            }
            _ => {
                self.runtime += 1;
                "runtimes changed"
            }
        }
    }

    /// The answers of a listener tell that its routes changed.
    fn mark(&mut self, which: usize) {
        self.routes[which].version += 1;
    }

    fn action(&self, which: usize) -> String {
        let Route {
            clusters, weight, ..
        } = &self.routes[which];
        let [one, other] = clusters.map(name);
        let rest = 100 - weight;
        format!(
            "weighted_clusters: {{clusters: [{{name: {one}, weight: {weight}}}, \
             {{name: {other}, weight: {rest}}}]}}"
        )
    }

    /// The files.
    pub fn files(&self) -> Files {
        let mut files = Files::new();
        let source = |file: &str| self.watching.source(&self.dir, file);
        let mut clusters = String::from("resources:\n");
        for Cluster {
            number,
            sort,
            backend,
            timeout,
        } in &self.clusters
        {
            let port = self.backends[*backend].address().port();
            let file = format!("eds{number}.yaml");
            let text = cluster(&name(*number), *sort, port, &source(&file));
            let timeout = format!("connect_timeout: {timeout}s");
            clusters += &text.replace("connect_timeout: 1s", &timeout);
            if *sort == Sort::Eds {
                files.insert(file, endpoints(&name(*number), port));
            }
        }
        clusters += &secured(&source("sds.yaml"));
        files.insert("cds.yaml".into(), clusters);
        let [main, inline] = self.versions();
        let (file, set) = (
            format!("rds{}.yaml", self.routes_file),
            format!("r{}", self.routes_file),
        );
        let mut listeners = String::from("resources:\n");
        listeners += &listener(MAIN, "127.0.0.1", &routes_by(&set, &source(&file)), None);
        let action = self.action(1);
        listeners += &listener(INLINE, "127.0.0.2", &inline_routes(&action, &inline), None);
        for number in &self.others {
            let to = format!("cluster: {}", name(self.routes[0].clusters[0]));
            let (name, routes) = (format!("other{number}"), inline_routes(&to, "none"));
            listeners += &listener(&name, &format!("127.0.1.{number}"), &routes, None);
        }
        files.insert("lds.yaml".into(), listeners);
        files.insert(file, routes(&set, &self.action(0), &main));
        let certificate = &self.certificates[self.secret as usize % 2];
        files.insert("sds.yaml".into(), secret(certificate));
        files.insert("runtime.yaml".into(), runtime(self.runtime));
        files
    }

    /// An Envoy that is told all of it, asked at this address.
    #[track_caller]
    pub fn envoy(&self, admin: SocketAddr) -> Envoy {
        let runtime = self.watching.source(&self.dir, "runtime.yaml");
        let layers = format!(
            "layered_runtime: {{layers: [{{name: order, rtds_layer: {{name: order, rtds_config: {runtime}}}}}]}}\n"
        );
        let bootstrap = self.watching.bootstrap(&self.dir);
        let bootstrap = format!("{bootstrap}{layers}");
        Envoy::start_at(admin, &bootstrap, DRAIN.as_secs() as u32)
    }
}

/// The ConfigMap with these files.
pub fn object(files: &Files) -> Value {
    let files = files.iter().map(|(k, t)| (k.as_str(), t.as_str()));
    config_map(MAP, &files.collect::<Vec<_>>())
}

fn certificate(name: &str) -> String {
    let made = rcgen::generate_simple_self_signed([name.to_string()]);
    made.expect("a certificate can be made").cert.pem()
}

/// A cluster without load, whose authorities are in a secret.
fn secured(source: &str) -> String {
    let text = cluster("secured", Sort::Static, 9, "");
    format!(
        "{text}  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
      common_tls_context:
        validation_context_sds_secret_config: {{name: order, sds_config: {source}}}
"
    )
}

fn secret(certificate: &str) -> String {
    let certificate = Value::from(certificate);
    format!(
        "resources:
- \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: order
  validation_context: {{trusted_ca: {{inline_string: {certificate}}}}}
"
    )
}

fn runtime(number: u32) -> String {
    format!(
        "resources:
- \"@type\": type.googleapis.com/envoy.service.runtime.v3.Runtime
  name: order
  layer: {{order.number: {number}}}
"
    )
}
