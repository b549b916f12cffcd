//! The testbed of the end-to-end tests, the demo and the bench: an API server with one ConfigMap of
//! Envoy's files, two backends, and the directory that crossover and Envoy share.

use super::apiserver::{Options, Server};
use super::backend::Backend;
use super::crossover::Crossover;
use super::envoy::Envoy;
use super::envoy_config::{self, CONFIG_MAP, SERVICE, Watching};
use super::load::Load;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The backends: clusters in `cds.yaml`, and what each of them answers.
pub const BACKENDS: [&str; 2] = ["bold-olm-podinfo", "eerie-octopus-podinfo"];

/// An API server, two backends and a directory: all but crossover and Envoy, which come and go.
pub struct Testbed {
    /// The API server that has the ConfigMap.
    pub server: Server,
    /// The way in which its Envoys learn of changes.
    pub watching: Watching,
    backends: Vec<Backend>,
    dir: TempDir,
}

impl Testbed {
    /// Starts the server and the backends. There is no ConfigMap yet.
    pub fn start(watching: Watching) -> Testbed {
        let dir = tempfile::Builder::new().prefix("crossover-").tempdir();
        Testbed {
            server: Server::start(Options::default()),
            watching,
            backends: BACKENDS.map(Backend::start).into(),
            dir: dir.expect("a directory can be made"),
        }
    }

    /// Returns the output directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the path `DIR/current/FILE`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir().join("current").join(name)
    }

    /// Returns the address on which a backend listens.
    pub fn address(&self, backend: usize) -> SocketAddr {
        self.backends[backend].address()
    }

    /// Returns `lds.yaml`.
    pub fn listeners(&self, version: &str) -> String {
        envoy_config::listeners(version, self.dir(), self.watching)
    }

    /// Returns `cds.yaml`.
    pub fn clusters(&self, version: &str) -> String {
        let addresses = self.backends.iter().map(Backend::address);
        let all: Vec<_> = BACKENDS.into_iter().zip(addresses).collect();
        envoy_config::clusters(version, &all)
    }

    /// Returns the ConfigMap with routes of this version and weights. Its other files are always
    /// the same.
    pub fn config_map(&self, version: &str, weights: [u32; 2]) -> Value {
        let weights: Vec<_> = BACKENDS.into_iter().zip(weights).collect();
        let routes = envoy_config::routes(version, &weights);
        envoy_config::set(&self.listeners("first"), &self.clusters("first"), &routes)
    }

    /// Changes the routes in the cluster; returns the resourceVersion.
    #[track_caller]
    pub fn shift(&self, version: &str, weights: [u32; 2]) -> String {
        self.server.apply(self.config_map(version, weights))
    }

    /// Returns the arguments of a crossover that follows the ConfigMap, and makes no checks by
    /// itself.
    pub fn arguments(&self) -> Vec<String> {
        let dir = self.dir().to_string_lossy().into_owned();
        let mut all = vec![
            "-apiserver".into(),
            self.server.url(),
            "-output-dir".into(),
            dir,
        ];
        let rest = "-namespace default -watch -sync-interval 1h -configmap";
        all.extend(rest.split(' ').map(String::from));
        all.push(CONFIG_MAP.into());
        all
    }

    /// Starts crossover, the only one, and waits until it follows the ConfigMap: what there was to
    /// publish is published.
    #[track_caller]
    pub fn crossover(&self) -> Crossover {
        self.server.wait_for_watches(0);
        let arguments = self.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let crossover = Crossover::start(&arguments);
        self.server.wait_for_watches(1);
        crossover
    }

    /// Starts an Envoy on the output directory.
    #[track_caller]
    pub fn envoy(&self) -> Envoy {
        Envoy::start(&self.watching.bootstrap(self.dir()))
    }

    /// Returns the address at which an Envoy takes requests.
    #[track_caller]
    pub fn url(&self, envoy: &Envoy) -> String {
        format!("http://{}/", envoy.listener(SERVICE))
    }

    /// Starts a load through an Envoy, of so many requests a second.
    #[track_caller]
    pub fn load(&self, envoy: &Envoy, per_second: u32) -> Load {
        Load::start(&self.url(envoy), per_second)
    }
}
