//! The world of the tests of order: an Envoy whose clusters and routes are replaced together, again
//! and again. A world is made of how routes are found, of what sort its clusters are, and of how
//! Envoy learns of changes.

use super::apiserver::{Options, Server};
use super::backend::Backend;
use super::clients::{Clients, Rate, STEADY};
use super::crossover::{Crossover, command_of, program};
use super::envoy::Envoy;
use super::objects::config_map;
use super::xds::{VERSION_HEADER, Watching};
use serde_json::Value;
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{collections::BTreeMap, fs};
use tempfile::TempDir;

/// The ConfigMap with the clusters, the listeners and the routes that are replaced.
pub const REPLACED: &str = "world";
/// The ConfigMap with routes whose weights change and whose clusters stay; also the name of these
/// routes and of their listener.
pub const WEIGHTS: &str = "weights";
/// The listener whose routes are replaced, and its routes.
pub const MAIN: &str = "main";
/// How long Envoy lets connections of a changed listener go on.
pub const DRAIN: Duration = Duration::from_secs(2);
/// The flag that tells crossover of it.
const DRAIN_FLAG: &str = "-drain-time";

/// Where the listener has its routes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// Of a file of their own.
    Rds,
    /// They are in the listener.
    Inline,
}

/// How the clusters that are replaced find their endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Static,
    /// STRICT_DNS, by a name of the hosts file.
    Dns,
    /// EDS, each in a file of its own that comes and goes with its cluster.
    Eds,
    /// Static, with health checks.
    Checked,
}

/// What a world is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub routing: Routing,
    pub sort: Sort,
    pub watching: Watching,
    /// How long a filter holds each request once its route is chosen.
    pub held: Option<Duration>,
}

impl Shape {
    /// The world of most users: RDS.
    pub fn rds(sort: Sort, watching: Watching) -> Shape {
        Shape {
            routing: Routing::Rds,
            sort,
            watching,
            held: None,
        }
    }

    /// Routes within the listener.
    pub fn inline(watching: Watching) -> Shape {
        Shape {
            routing: Routing::Inline,
            ..Shape::rds(Sort::Static, watching)
        }
    }
}

/// Everything but crossover, Envoy and the clients.
pub struct World {
    pub server: Server,
    pub shape: Shape,
    backends: [Backend; 2],
    dir: TempDir,
}

impl World {
    /// Starts it with cluster 0 and a route to it.
    pub fn start(shape: Shape) -> World {
        let dir = tempfile::Builder::new().prefix("crossover-").tempdir();
        let world = World {
            server: Server::start(Options::default()),
            shape,
            backends: ["a", "b"].map(Backend::start),
            dir: dir.expect("a directory can be made"),
        };
        world.server.create(world.set(0));
        world.server.create(world.weights(0));
        world
    }

    /// The output directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `DIR/current/FILE`
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir().join("current").join(name)
    }

    /// The files with the one cluster of this number and the route to it.
    pub fn files(&self, number: u32) -> BTreeMap<String, String> {
        self.files_of(number..=number, number)
    }

    /// The files with these clusters and the route to one.
    pub fn files_of(
        &self,
        clusters: impl IntoIterator<Item = u32>,
        route: u32,
    ) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        let mut all = String::from("resources:\n");
        for number in clusters {
            all += &self.cluster(number);
            if self.shape.sort == Sort::Eds {
                files.insert(format!("eds{number}.yaml"), self.endpoints(number));
            }
        }
        for (at, name) in ["always-a", "always-b"].into_iter().enumerate() {
            all += &cluster(name, "STATIC", &self.assignment(name, at, "127.0.0.1"));
        }
        files.insert("cds.yaml".into(), all);
        files.insert("lds.yaml".into(), self.listeners(route));
        if self.shape.routing == Routing::Rds {
            files.insert("rds.yaml".into(), routes(MAIN, &to(route), &version(route)));
        }
        files
    }

    /// The ConfigMap with the one cluster of this number and the route to it.
    pub fn set(&self, number: u32) -> Value {
        object(REPLACED, &self.files(number))
    }

    /// The ConfigMap whose routes have the weights of this number. No two numbers' files are of the
    /// same length.
    pub fn weights(&self, number: u32) -> Value {
        let files = [("weights.yaml".to_string(), weights(number))];
        object(WEIGHTS, &files.into())
    }

    /// Replaces the cluster and its route; returns the resourceVersion.
    pub fn replace(&self, number: u32) -> String {
        self.server.apply(self.set(number))
    }

    /// Changes the weights; returns how long the file is then.
    pub fn weigh(&self, number: u32) -> usize {
        self.server.apply(self.weights(number));
        weights(number).len()
    }

    fn cluster(&self, number: u32) -> String {
        let (name, at) = (name(number), number as usize % 2);
        match self.shape.sort {
            Sort::Static => cluster(&name, "STATIC", &self.assignment(&name, at, "127.0.0.1")),
            Sort::Dns => {
                let family = "  dns_lookup_family: V4_ONLY\n";
                let assignment = self.assignment(&name, at, "localhost");
                cluster(&name, "STRICT_DNS", &format!("{family}{assignment}"))
            }
            Sort::Eds => {
                let source = self.source(&format!("eds{number}.yaml"));
                let config = format!("  eds_cluster_config: {{eds_config: {source}}}\n");
                cluster(&name, "EDS", &config)
            }
            Sort::Checked => {
                let check = "  health_checks:
  - timeout: 1s
    interval: 5s
    unhealthy_threshold: 2
    healthy_threshold: 1
    http_health_check: {path: /health}
";
                let assignment = self.assignment(&name, at, "127.0.0.1");
                cluster(&name, "STATIC", &format!("{check}{assignment}"))
            }
        }
    }

    fn assignment(&self, name: &str, backend: usize, host: &str) -> String {
        let endpoint = self.endpoint(backend, host);
        format!(
            "  load_assignment:
    cluster_name: {name}
    endpoints:
    - lb_endpoints:
      - endpoint: {endpoint}
"
        )
    }

    fn endpoint(&self, backend: usize, host: &str) -> String {
        let port = self.backends[backend].address().port();
        format!("{{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}")
    }

    fn endpoints(&self, number: u32) -> String {
        let endpoint = self.endpoint(number as usize % 2, "127.0.0.1");
        format!(
            "resources:
- \"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: {}
  endpoints:
  - lb_endpoints:
    - endpoint: {endpoint}
",
            name(number)
        )
    }

    fn source(&self, file: &str) -> String {
        self.shape.watching.source(self.dir(), file)
    }

    fn listeners(&self, number: u32) -> String {
        let by = |name: &str, file: &str| {
            let source = self.source(file);
            format!("rds: {{route_config_name: {name}, config_source: {source}}}")
        };
        let main = match self.shape.routing {
            Routing::Rds => by(MAIN, "rds.yaml"),
            Routing::Inline => {
                let hosts = virtual_hosts(&to(number), &version(number));
                format!("route_config:\n{}", indented(10, &hosts))
            }
        };
        let mut text = String::from("resources:\n");
        text += &listener(MAIN, &main, self.shape.held);
        text += &listener(WEIGHTS, &by(WEIGHTS, "weights.yaml"), None);
        text
    }

    /// A crossover that follows both ConfigMaps, and looks at nothing by itself.
    pub fn command(&self, program: &Path, more: &[&str]) -> Command {
        let url = self.server.url();
        let mut command = command_of(program, &["-apiserver", &url, "-namespace", "default"]);
        command.args(["-watch", "-sync-interval", "1h", "-output-dir"]);
        command.arg(self.dir());
        command.args(["-configmap", REPLACED, "-configmap", WEIGHTS]);
        command.args(more);
        command
    }

    /// Starts an Envoy on the output directory.
    #[track_caller]
    pub fn envoy(&self) -> Envoy {
        let bootstrap = self.shape.watching.bootstrap(self.dir());
        Envoy::start_draining(&bootstrap, DRAIN.as_secs() as u32)
    }
}

/// A world in which everything runs, in the order in which it ends.
pub struct Running {
    pub clients: Clients,
    pub envoy: Envoy,
    pub crossover: Crossover,
    pub world: World,
    /// The number of the cluster.
    pub number: u32,
}

/// What became of some replacements.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Requests that were answered with a 200 meanwhile.
    pub ok: u64,
    /// The others, by what came instead.
    pub failed: BTreeMap<String, usize>,
    /// Replacements that no client saw within [`LOST_AFTER`].
    pub lost: usize,
    /// Updates that Envoy has refused.
    pub refused: u64,
}

/// A replacement that no client sees for so long is lost.
pub const LOST_AFTER: Duration = Duration::from_secs(4);

impl Outcome {
    /// Every request was answered, every replacement taken.
    #[track_caller]
    pub fn assert_flawless(&self) {
        let is = self.failed.is_empty() && self.lost == 0 && self.refused == 0;
        assert!(is && self.ok > 0, "{self:?}");
    }

    /// How many requests failed.
    pub fn failures(&self) -> usize {
        self.failed.values().sum()
    }
}

impl Running {
    /// Starts it with the program under test.
    #[track_caller]
    pub fn start(shape: Shape) -> Running {
        Running::with(shape, &program(), STEADY)
    }

    /// Starts it with another program, or other clients.
    #[track_caller]
    pub fn with(shape: Shape, program: &Path, rate: Rate) -> Running {
        let world = World::start(shape);
        let seconds = format!("{}s", DRAIN.as_secs());
        let drain = [DRAIN_FLAG, &seconds];
        let more: &[&str] = if knows(program, DRAIN_FLAG) {
            &drain
        } else {
            &[]
        };
        let crossover = Crossover::spawn(world.command(program, more));
        crossover.wait_for_line("INFO  published ");
        world.server.wait_for_watches(2);
        let envoy = world.envoy();
        let clients = Clients::start(envoy.listener(MAIN), rate);
        clients.wait_for_all(&version(0));
        Running {
            clients,
            envoy,
            crossover,
            world,
            number: 0,
        }
    }

    /// Ends crossover, by force, and starts another one; waits until it follows.
    #[track_caller]
    pub fn restart(&mut self, command: Command) {
        self.crossover.kill();
        self.world.server.wait_for_watches(0);
        self.crossover = Crossover::spawn(command);
        self.world.server.wait_for_watches(2);
    }

    /// Replaces the cluster and its route so many times, the next one when the last one is seen in
    /// an answer and this time has passed.
    pub fn replace(&mut self, times: u32, pause: Duration) -> Outcome {
        let (before, refused) = (self.clients.tally(), self.refused());
        let mut lost = 0;
        for _ in 0..times {
            self.number += 1;
            self.world.replace(self.number);
            let version = version(self.number);
            let seen = self
                .clients
                .holds_within(LOST_AFTER, |tally| tally.versions.contains_key(&version));
            lost += usize::from(!seen);
            std::thread::sleep(pause);
        }
        let mut outcome = self.since(&before);
        outcome.lost = lost;
        outcome.refused = self.refused() - refused;
        outcome
    }

    /// What was answered since an earlier tally.
    pub fn since(&self, before: &super::clients::Tally) -> Outcome {
        let mut tally = self.clients.tally();
        tally.failures.drain(..before.failures.len());
        Outcome {
            ok: tally.ok() - before.ok(),
            failed: tally.kinds(),
            ..Outcome::default()
        }
    }

    /// How many updates Envoy has refused so far.
    pub fn refused(&self) -> u64 {
        refused(&self.envoy)
    }
}

/// How many updates an Envoy has refused so far, of whatever sort.
pub fn refused(envoy: &Envoy) -> u64 {
    let stats = envoy.get("/stats?usedonly&filter=update_(rejected|failure)$");
    let counts = stats.lines().filter_map(|line| line.rsplit_once(": "));
    counts
        .filter_map(|(_, count)| count.parse::<u64>().ok())
        .sum()
}

/// Whether a program has this flag.
pub fn knows(program: &Path, flag: &str) -> bool {
    let told = command_of(program, &["-h"]).output();
    let told = told.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let told = [told.stdout, told.stderr].concat();
    String::from_utf8_lossy(&told).contains(&format!("{flag} "))
}

/// The bytes of the files of an output directory, each inode once.
pub fn bytes_on_disk(dir: &Path) -> u64 {
    fn visit(dir: &Path, found: &mut BTreeMap<u64, u64>) {
        // What is collected meanwhile is no longer there.
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => visit(&entry.path(), found),
                Ok(metadata) if metadata.is_file() => {
                    found.insert(metadata.ino(), metadata.len());
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    let mut found = BTreeMap::new();
    visit(dir, &mut found);
    found.values().sum()
}

/// A cluster's name.
pub fn name(number: u32) -> String {
    format!("c{number}")
}

/// What answers by the route to a cluster say.
pub fn version(number: u32) -> String {
    format!("v{number}")
}

fn to(number: u32) -> String {
    format!("cluster: {}", name(number))
}

fn object(name: &str, files: &BTreeMap<String, String>) -> Value {
    let files = files
        .iter()
        .map(|(key, text)| (key.as_str(), text.as_str()));
    config_map(name, &files.collect::<Vec<_>>())
}

fn cluster(name: &str, sort: &str, rest: &str) -> String {
    format!(
        "- \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: {name}
  type: {sort}
  connect_timeout: 1s
{rest}"
    )
}

/// A RouteConfiguration.
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

fn weights(number: u32) -> String {
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

fn listener(name: &str, routes: &str, held: Option<Duration>) -> String {
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
  address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
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
