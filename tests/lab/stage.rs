//! Everything that runs in the demo, and the changes that are made to it.

use crate::writer::{Applying, Writer};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use testkit::apiserver::{Options, Server};
use testkit::backend::Backend;
use testkit::crossover::{Crossover, command};
use testkit::envoy::{Envoy, free_admin};
use testkit::envoy_config::{CONFIG_MAP, SERVICE, STATS, Watching};
use testkit::examples::{self, DEFINITION, SPLITS};
use testkit::file_watch::FileWatch;
use testkit::load::Load;
use testkit::objects::{http_route, http_route_crd, traffic_split};
use testkit::testbed::BACKENDS;
use testkit::until;

pub const REQUESTS_PER_SECOND: u32 = 500;
/// The services that Flagger makes of `podinfo`.
const FLAGGERS: [&str; 2] = ["podinfo-primary", "podinfo-canary"];
/// A backend, and the one that takes its place.
pub const REPLACED: [&str; 2] = [FLAGGERS[0], "podinfo-next"];
/// The backend that has all of the traffic then, and the one that a slip keeps from its part.
pub const SLIPPED: [&str; 2] = [REPLACED[1], FLAGGERS[1]];
/// The weights without it.
const PUT_RIGHT: [u32; 2] = [10, 90];
/// Envoy's --drain-time-s.
const DRAIN_SECONDS: u32 = 1;

/// What happens, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The weights that the ConfigMap has change; TrafficSplits are not known here yet.
    ConfigMap,
    /// The TrafficSplits of `example/` are applied.
    Splits,
    /// A TrafficSplit is stepped as Flagger steps it.
    Flagger,
    /// An HTTPRoute takes over from the TrafficSplit, and is stepped as Flagger steps it.
    HttpRoute,
}

impl Part {
    pub const ALL: [Part; 4] = [
        Part::ConfigMap,
        Part::Splits,
        Part::Flagger,
        Part::HttpRoute,
    ];

    pub fn backends(self) -> [&'static str; 2] {
        match self {
            Part::ConfigMap | Part::Splits => BACKENDS,
            Part::Flagger | Part::HttpRoute => FLAGGERS,
        }
    }

    /// The weights, step by step. Two in a row are never the same.
    pub fn steps(self) -> Vec<[u32; 2]> {
        match self {
            Part::ConfigMap => vec![[50, 50], [80, 20]],
            Part::Splits => SPLITS.map(|(_, weights)| weights).into(),
            // Its analysis ends at 50; then the primary is what the canary was.
            Part::Flagger => {
                let up = (0..=5).map(|step| [100 - 10 * step, 10 * step]);
                up.chain([[100, 0]]).collect()
            }
            // The TrafficSplit has left the first of them.
            Part::HttpRoute => Part::Flagger.steps().split_off(1),
        }
    }
}

/// Everything that runs, in the order in which it ends.
pub struct Stage {
    pub arrivals: FileWatch,
    pub load: Load,
    pub envoy: Envoy,
    pub crossover: Crossover,
    pub writer: Writer,
    pub server: Server,
    /// Of [`BACKENDS`], of Flagger's services, and the one that comes later.
    backends: Vec<Backend>,
    /// The ConfigMap of `example/`, for this machine.
    config_map: Value,
    pub dir: TempDir,
}

impl Stage {
    /// Everything but the load waits for the one before it.
    pub fn start() -> Stage {
        let dir = tempfile::Builder::new().prefix("crossover-").tempdir();
        let dir = dir.expect("a directory can be made");
        let server = Server::start(Options {
            splits: Vec::new(),
            ..Options::default()
        });
        let all = BACKENDS.into_iter().chain(FLAGGERS).chain([REPLACED[1]]);
        let backends: Vec<Backend> = all.map(Backend::start).collect();
        let config_map = config_map(&dir, &backends);
        let writer = Writer::new(&server);
        writer.apply(&writer.write(&config_map)).finish();
        let admin = free_admin();
        let crossover = follow(&server, &dir, admin);
        crossover.wait_for_line("INFO  published ");
        server.wait_for_watches(1);
        let bootstrap = Watching::PathOnly.bootstrap(dir.path());
        let envoy = Envoy::start_at(admin, &bootstrap, DRAIN_SECONDS);
        Stage {
            arrivals: FileWatch::watch(dir.path(), "rds.yaml"),
            load: Load::start(&address(&envoy), REQUESTS_PER_SECOND),
            envoy,
            crossover,
            writer,
            server,
            backends,
            config_map,
            dir,
        }
    }

    /// Where Envoy takes requests.
    pub fn url(&self) -> String {
        address(&self.envoy)
    }

    /// Makes a part possible.
    pub fn prepare(&self, part: Part) {
        match part {
            Part::ConfigMap | Part::Flagger => {}
            Part::Splits => {
                self.writer.apply(&examples::path(DEFINITION)).finish();
                // It is asked for every -sync-interval while there is none.
                self.server.wait_for_watches(2);
            }
            Part::HttpRoute => {
                let definition = http_route_crd(&["v1", "v1beta1"]);
                self.writer.apply(&self.writer.write(&definition)).finish();
                self.server.wait_for_watches(3);
                // With the weights that the TrafficSplit has, which nothing else shows.
                let loaded = self.loaded();
                self.writer.put(route([100, 0])).finish();
                self.crossover.wait_for_line("HTTPRoute is valid now");
                // What Flagger leaves of the other provider, and 30 of 100 go by no more.
                self.writer.put(split([70, 30])).finish();
                self.crossover
                    .wait_for_line("HTTPRoute default/podinfo comes first");
                assert_eq!(loaded, self.loaded(), "a weight has moved");
            }
        }
    }

    /// Takes a step of a part; returns when the cluster was told, and who may still be busy.
    pub fn change(&self, part: Part, step: usize) -> (Instant, Applying) {
        let weights = part.steps()[step];
        if (part, step) == (Part::Flagger, 1) {
            self.writer.put(split(part.steps()[0]));
        }
        let before = self.server.count_requests(|_| true);
        let applying = match (part, step) {
            (Part::Splits, step) => {
                let (file, _) = SPLITS[step];
                self.writer.apply(&examples::path(file))
            }
            (Part::ConfigMap, _) | (Part::Flagger, 0) => {
                let object = self.config_map(part.backends(), weights);
                self.writer.apply(&self.writer.write(&object))
            }
            (Part::Flagger, _) => self.writer.put(split(weights)),
            (Part::HttpRoute, _) => self.writer.put(route(weights)),
        };
        (self.told(before), applying)
    }

    /// Waits for a change after so many requests; returns when the cluster was told.
    fn told(&self, before: usize) -> Instant {
        let told = self.server.wait_for_request("the change", |request| {
            // The mirror is written by crossover.
            let ours = !request.user_agent.starts_with("crossover");
            request.number > before && request.is_write() && ours
        });
        told.at
    }

    /// Takes away what sets weights: from now on the ConfigMap's own count.
    pub fn without_weights(&self) {
        for kind in ["TrafficSplit", "HTTPRoute"] {
            if self.server.get(kind, SERVICE).is_some() {
                self.server.delete(kind, SERVICE);
            }
        }
    }

    /// Applies the ConfigMap with another backend in the place of one, its cluster and the route to
    /// it at once.
    pub fn replace(&self) -> Applying {
        let (_, applying) = self.apply_replaced([100, 0], |routes| routes);
        applying
    }

    /// Applies a weight that is a word: good YAML, and nothing that Envoy takes.
    pub fn slip(&self) -> (Instant, Applying) {
        self.apply_replaced(PUT_RIGHT, |routes| {
            routes.replace("weight: 90", "weight: ninety")
        })
    }

    /// Applies the same as a number.
    pub fn put_right(&self) -> (Instant, Applying) {
        self.apply_replaced(PUT_RIGHT, |routes| routes)
    }

    /// Applies the ConfigMap with the other backend and these weights, and its routes edited.
    fn apply_replaced(
        &self,
        weights: [u32; 2],
        edit: impl Fn(String) -> String,
    ) -> (Instant, Applying) {
        let [old, new] = REPLACED;
        let ports = [2, 4].map(|at| format!("port_value: {}", self.backends[at].address().port()));
        let mut object = self.config_map(FLAGGERS, weights);
        for file in ["cds.yaml", "rds.yaml"] {
            let text = object["data"][file].as_str().unwrap_or_default();
            let text = text.replace(old, new).replace(&ports[0], &ports[1]);
            object["data"][file] = edit(text).into();
        }
        let before = self.server.count_requests(|_| true);
        let applying = self.writer.apply(&self.writer.write(&object));
        (self.told(before), applying)
    }

    /// The ConfigMap with routes to these backends.
    fn config_map(&self, backends: [&str; 2], weights: [u32; 2]) -> Value {
        let mut object = self.config_map.clone();
        let mut routes = object["data"]["rds.yaml"]
            .as_str()
            .unwrap_or_default()
            .to_string();
        for i in 0..2 {
            routes = routes
                .replacen("weight: 50", &format!("weight: {}", weights[i]), 1)
                .replace(BACKENDS[i], backends[i]);
        }
        object["data"]["rds.yaml"] = routes.into();
        object
    }

    /// How often Envoy has loaded routes.
    pub fn loaded(&self) -> u64 {
        let name = format!("{}.update_success", STATS[0]);
        let text = self.envoy.get(&format!("/stats?filter=^{name}$"));
        let count = text.rsplit_once(": ").map(|(_, count)| count.trim());
        count
            .and_then(|count| count.parse().ok())
            .unwrap_or_default()
    }

    /// Waits until the cluster shows what is on disk; returns how many files that is.
    pub fn mirrored(&self) -> usize {
        let current = self.dir.path().join("current");
        let same = |files: &serde_json::Map<String, Value>| {
            files.iter().all(|(name, text)| {
                fs::read_to_string(current.join(name)).is_ok_and(|file| *text == file)
            })
        };
        until("the mirror to be what is on disk", || {
            let mirror = self.server.get("ConfigMap", &mirror())?;
            let files = mirror["data"].as_object()?;
            same(files).then_some(files.len())
        })
    }
}

/// What shows the result in the cluster.
pub fn mirror() -> String {
    format!("{CONFIG_MAP}-gen")
}

/// Far less than a look is worth, so that the first TrafficSplit is met soon.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

fn follow(server: &Server, dir: &TempDir, admin: SocketAddr) -> Crossover {
    let interval = format!("{}s", SYNC_INTERVAL.as_secs());
    let mut command = command(&["-apiserver", &server.url(), "-namespace", "default"]);
    command
        .args(["-watch", "-sync-interval", &interval])
        .args(["-configmap", CONFIG_MAP, "-trafficsplit", SERVICE])
        .args(["-httproute", SERVICE, "-on-refusal", "restore"])
        .args(["-envoy-admin", &format!("http://{admin}")])
        .arg("-output-dir")
        .arg(dir.path());
    Crossover::spawn(command)
}

/// The ConfigMap of `example/`, for this machine, with clusters for Flagger's services too.
fn config_map(dir: &TempDir, backends: &[Backend]) -> Value {
    let of = |pair: usize| [pair, pair + 1].map(|at| backends[at].address());
    let mut object = examples::config_map(dir.path(), of(0));
    let other = examples::config_map(dir.path(), of(2));
    let [mut clusters, mut others] = [&object, &other].map(|object| {
        let text = object["data"]["cds.yaml"].as_str().unwrap_or_default();
        text.to_string()
    });
    for (name, flaggers) in BACKENDS.into_iter().zip(FLAGGERS) {
        others = others.replace(name, flaggers);
    }
    clusters += others.strip_prefix("resources:\n").unwrap_or_default();
    object["data"]["cds.yaml"] = clusters.into();
    object
}

/// Where an Envoy takes requests.
pub fn address(envoy: &Envoy) -> String {
    format!("http://{}/", envoy.listener(SERVICE))
}

/// As Flagger writes it: the canary first.
fn split(weights: [u32; 2]) -> Value {
    let [primary, canary] = FLAGGERS;
    let weights = weights.map(u64::from);
    let backends = [(canary, weights[1]), (primary, weights[0])];
    traffic_split(SERVICE, SERVICE, &backends)
}

/// As Flagger writes it: the primary first.
fn route(weights: [u32; 2]) -> Value {
    let backend = |name: &str, weight: u32| json!({"group": "", "kind": "Service", "name": name, "port": 9898, "weight": weight});
    let [primary, canary] = FLAGGERS;
    let backends = [backend(primary, weights[0]), backend(canary, weights[1])];
    http_route(
        SERVICE,
        json!([{
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": backends,
        }]),
    )
}
