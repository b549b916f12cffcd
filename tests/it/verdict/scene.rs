//! A world whose crossover asks its Envoy what it made of the files.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use testkit::clients::{Clients, STEADY};
use testkit::crossover::{Crossover, program};
use testkit::envoy::{Envoy, words};
use testkit::envoy_config::Watching;
use testkit::objects::config_map;
use testkit::until;
use testkit::world::{MAIN, REPLACED, Shape, World, version};

pub const TYPE: &str = "type.googleapis.com/envoy";

pub type Files = BTreeMap<String, String>;

/// A world in which everything runs, in the order in which it ends.
pub struct Scene {
    pub clients: Clients,
    pub envoy: Envoy,
    pub crossover: Crossover,
    pub world: World,
    pub admin: SocketAddr,
}

/// A port that nobody has.
pub fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is one");
    listener.local_addr().expect("it is bound")
}

pub fn object(files: &Files) -> Value {
    let files: Vec<(&str, &str)> = files.iter().map(|(k, t)| (&**k, &**t)).collect();
    config_map(REPLACED, &files)
}

/// An Envoy on a world's files, with this admin address.
#[track_caller]
pub fn envoy(world: &World, admin: SocketAddr, more: &str) -> Envoy {
    let dir = TempDir::new().expect("a directory can be made");
    let bootstrap = format!("{}{more}", world.shape.watching.bootstrap(world.dir()));
    let words = words(dir.path(), &bootstrap, admin, 2);
    // The directory of the bootstrap has to stay.
    let _kept = dir.keep();
    Envoy::with_arguments(&words[1..], admin)
}

/// A crossover that asks these Envoys.
#[track_caller]
pub fn crossover(world: &World, admins: &[SocketAddr], more: &[&str]) -> Crossover {
    let mut command = world.command(&program(), &["-envoy-drain-time", "2s"]);
    command.args(["-on-refusal", "restore"]);
    command.env("RUST_LOG", "debug");
    for admin in admins {
        command.args(["-envoy-admin", &format!("http://{admin}")]);
    }
    command.args(more);
    Crossover::spawn(command)
}

impl Scene {
    /// Starts it, and waits until Envoy has accepted the first set.
    #[track_caller]
    pub fn start(shape: Shape) -> Scene {
        Scene::with(shape, "", &[])
    }

    /// The same, with more in Envoy's bootstrap, and more flags.
    #[track_caller]
    pub fn with(shape: Shape, bootstrap: &str, flags: &[&str]) -> Scene {
        let world = World::start(shape);
        let admin = free_port();
        let crossover = crossover(&world, &[admin], flags);
        crossover.wait_for_line("INFO  published ");
        world.server.wait_for_watches(2);
        let envoy = envoy(&world, admin, bootstrap);
        crossover.wait_for_line(" accepted by Envoy ");
        let clients = Clients::start(envoy.listener(MAIN), STEADY);
        clients.wait_for_all(&version(0));
        Scene {
            clients,
            envoy,
            crossover,
            world,
            admin,
        }
    }

    pub fn count(&self, text: &str) -> usize {
        let lines = self.crossover.lines();
        lines.iter().filter(|line| line.contains(text)).count()
    }

    /// The accepted sets so far.
    pub fn accepted(&self) -> usize {
        self.count(" accepted by Envoy ")
    }

    #[track_caller]
    pub fn wait_for_accepted(&self, count: usize) {
        self.crossover.wait_for_lines(count, " accepted by Envoy ");
    }

    /// Replaces the ConfigMap by one that Envoy refuses. Returns how long it took until that was
    /// told.
    #[track_caller]
    pub fn refuse(&self, files: &Files) -> Duration {
        let before = self.count("refused by Envoy");
        let began = Instant::now();
        self.world.server.apply(object(files));
        self.crossover
            .wait_for_lines(before + 1, "refused by Envoy");
        began.elapsed()
    }

    /// Replaces the cluster and its route, and waits until clients see it.
    #[track_caller]
    pub fn replace(&self, number: u32) {
        self.world.replace(number);
        self.clients.wait_for_all(&version(number));
    }

    /// Waits until these files are on disk, but for clusters that are kept.
    #[track_caller]
    pub fn wait_for_disk(&self, files: &Files) {
        until("the accepted files", || {
            let stands = |name: &str, text: &str| {
                let found = fs::read_to_string(self.world.file(name)).unwrap_or_default();
                found == text || name == "cds.yaml" && ends_with(&found, text)
            };
            let all = files.iter().all(|(name, text)| stands(name, text));
            all.then_some(())
        });
    }

    #[track_caller]
    pub fn assert_flawless(&self) {
        let kinds = self.clients.tally().kinds();
        assert!(kinds.is_empty(), "{kinds:?}\n{:#?}", self.crossover.lines());
    }
}

/// Whether a union's own items are those of the target: kept ones come first.
fn ends_with(union: &str, target: &str) -> bool {
    let items = target.strip_prefix("resources:\n").unwrap_or(target);
    union.ends_with(items)
}

/// The files of a world with some text replaced.
#[track_caller]
pub fn with(mut files: Files, name: &str, from: &str, to: &str) -> Files {
    let text = files.get_mut(name).expect("it is there");
    assert!(text.contains(from), "{text}");
    *text = text.replacen(from, to, 1);
    files
}

pub fn more(mut files: Files, name: &str, text: &str) -> Files {
    files.entry(name.into()).or_default().push_str(text);
    files
}

/// A cluster of this type, with more in it.
pub fn cluster(name: &str, kind: &str, address: &str, port: u16, more: &str) -> String {
    format!(
        "- {{\"@type\": {TYPE}.config.cluster.v3.Cluster, name: {name}, type: {kind}, connect_timeout: 1s{more}, \
         load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: \
         {{socket_address: {{address: {address}, port_value: {port}}}}}}}}}]}}]}}}}\n"
    )
}

pub const PATH: Watching = Watching::PathOnly;
