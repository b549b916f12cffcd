//! The world of the tests of order: an Envoy whose clusters and routes are replaced together, again
//! and again. A world is made of how routes are found, of what sort its clusters are, and of how
//! Envoy learns of changes.

mod running;
pub mod text;

#[allow(unused_imports)] // The tests and the lab each use a part.
pub use running::{Outcome, Running, bytes_on_disk, knows, refused};
pub use text::{name, routes, version};

use super::apiserver::{Options, Server};
use super::backend::Backend;
use super::crossover::command_of;
use super::envoy::Envoy;
use super::envoy_config::Watching;
use super::objects::config_map;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use text::{inline_routes, listener, to, weights};

/// The ConfigMap with the clusters, the listeners and the routes that are replaced.
pub const REPLACED: &str = "world";
/// The ConfigMap with routes whose weights change and whose clusters stay; also the name of these
/// routes and of their listener.
pub const WEIGHTS: &str = "weights";
/// The listener whose routes are replaced, and its routes.
pub const MAIN: &str = "main";
/// The time for which Envoy lets connections of a changed listener go on.
pub const DRAIN: Duration = Duration::from_secs(2);
/// The flag by which crossover knows this time.
const DRAIN_FLAG: &str = "-envoy-drain-time";

/// The place from which the listener has its routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// The routes are in a file of their own.
    Rds,
    /// They are in the listener.
    Inline,
}

/// The way in which the clusters that are replaced find their endpoints.
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

/// The configuration of a world.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub routing: Routing,
    pub sort: Sort,
    pub watching: Watching,
    /// The time for which a filter holds each request once its route is chosen.
    pub held: Option<Duration>,
}

impl Shape {
    /// Returns the world of most users: RDS.
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

/// An API server, backends and a directory: all but crossover, Envoy and the clients.
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

    /// Returns the output directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the path `DIR/current/FILE`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir().join("current").join(name)
    }

    /// Returns the files with the one cluster of this number and the route to it.
    pub fn files(&self, number: u32) -> BTreeMap<String, String> {
        self.files_of(number..=number, number)
    }

    /// Returns the files with these clusters and the route to one.
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
                let endpoints = text::endpoints(&name(number), self.port(number));
                files.insert(format!("eds{number}.yaml"), endpoints);
            }
        }
        for (number, name) in (0..).zip(["always-a", "always-b"]) {
            all += &text::cluster(name, Sort::Static, self.port(number), "");
        }
        files.insert("cds.yaml".into(), all);
        files.insert("lds.yaml".into(), self.listeners(route));
        if self.shape.routing == Routing::Rds {
            files.insert("rds.yaml".into(), routes(MAIN, &to(route), &version(route)));
        }
        files
    }

    /// Returns the ConfigMap with the one cluster of this number and the route to it.
    pub fn set(&self, number: u32) -> Value {
        object(REPLACED, &self.files(number))
    }

    /// Returns the ConfigMap whose routes have the weights of this number. No two numbers' files
    /// are of the same length.
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
        let source = self.source(&format!("eds{number}.yaml"));
        text::cluster(&name(number), self.shape.sort, self.port(number), &source)
    }

    /// Of the backend that a cluster of this number has.
    fn port(&self, number: u32) -> u16 {
        self.backends[number as usize % 2].address().port()
    }

    fn source(&self, file: &str) -> String {
        self.shape.watching.source(self.dir(), file)
    }

    fn listeners(&self, number: u32) -> String {
        let by = |name: &str, file: &str| text::routes_by(name, &self.source(file));
        let main = match self.shape.routing {
            Routing::Rds => by(MAIN, "rds.yaml"),
            Routing::Inline => inline_routes(&to(number), &version(number)),
        };
        let mut text = String::from("resources:\n");
        text += &listener(MAIN, "127.0.0.1", &main, self.shape.held);
        text += &listener(WEIGHTS, "127.0.0.2", &by(WEIGHTS, "weights.yaml"), None);
        text
    }

    /// Returns a crossover that follows both ConfigMaps, and looks at nothing by itself.
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

fn object(name: &str, files: &BTreeMap<String, String>) -> Value {
    let files = files
        .iter()
        .map(|(key, text)| (key.as_str(), text.as_str()));
    config_map(name, &files.collect::<Vec<_>>())
}
