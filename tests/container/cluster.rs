//! The cluster that the containers live in: the kit's API server and backends, reached over a
//! container network by the names that Kubernetes gives them, a service account, volumes.

use crate::engine::{Container, Network};
use crate::images::{CROSSOVER, ENVOY};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use testkit::apiserver::access::{Account, Rule};
use testkit::apiserver::{Options, Server};
use testkit::backend::Backend;
use testkit::envoy_config::{self, CONFIG_MAP, Watching};
use testkit::load::{Load, Tally};
use testkit::proxy::Proxy;
use testkit::testbed::BACKENDS;
use testkit::{until, until_file};

/// Where the service account is in a container.
pub const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Where the output directory is in a container.
pub const RUNTIME: &str = "/srv/runtime";
/// The port that Envoy listens on in its container.
const PORT: u16 = 10000;
const TOKEN: &str = "TOKEN";

/// As a pod of the "restricted" Pod Security standard runs, with limits for the least machine.
pub const LOCKED: [&str; 11] = [
    "--read-only",
    "--user",
    "65532",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--memory",
    "12m",
    "--pids-limit",
    "2",
];

/// Follows the ConfigMap, and looks at nothing by itself.
pub const FOLLOW: [&str; 4] = ["-configmap", CONFIG_MAP, "-watch", "-sync-interval=1h"];

/// Everything but the containers.
pub struct Cluster {
    /// Where the ConfigMap is.
    pub server: Server,
    /// How containers come to it: as `https://kubernetes`.
    pub api: Proxy,
    network: Network,
    dir: TempDir,
    // What a container sends to the gateway goes to a backend.
    to_backends: [Proxy; 2],
    _backends: [Backend; 2],
}

impl Cluster {
    /// Starts it; there is no ConfigMap yet. The service account may read the ConfigMap and the
    /// TrafficSplit of the service, and nothing else.
    #[track_caller]
    pub fn start() -> Cluster {
        let dir = TempDir::new().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let account = dir.path().join("account");
        fs::create_dir(&account).unwrap();
        let server = Server::start(Options::tls(&account));
        fs::write(account.join("token"), TOKEN).unwrap();
        fs::write(account.join("namespace"), "default").unwrap();
        let network = Network::new();
        let at = |port| SocketAddr::from((network.gateway(), port));
        let backends = BACKENDS.map(Backend::start);
        let to_backends = [&backends[0], &backends[1]];
        let cluster = Cluster {
            api: Proxy::start_at(at(443), server.address()),
            to_backends: to_backends.map(|backend| Proxy::start_at(at(0), backend.address())),
            server,
            network,
            dir,
            _backends: backends,
        };
        cluster.allow(vec![
            Rule::new("", "configmaps", &["list", "watch"]).named(&[CONFIG_MAP]),
            Rule::new("split.smi-spec.io", "trafficsplits", &["list", "watch"]),
        ]);
        cluster
    }

    /// A directory of this machine with an owning group and a mode, for containers to mount.
    pub fn volume(&self, name: &str, group: u32, mode: u32) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir(&path).unwrap();
        chown(&path, None, Some(group)).expect("these tests set owners: run them as root");
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    /// An emptyDir, as the kubelet makes it.
    pub fn empty_dir(&self) -> PathBuf {
        self.volume("empty-dir", 0, 0o777)
    }

    /// What the service account may do from now on.
    pub fn allow(&self, rules: Vec<Rule>) {
        let account = Account::service(TOKEN, "envoy", rules);
        self.server.set_accounts(vec![account]);
    }

    /// The files of the service account.
    pub fn account(&self) -> PathBuf {
        self.dir.path().join("account")
    }

    /// Where containers find a backend.
    pub fn backend(&self, at: usize) -> SocketAddr {
        self.to_backends[at].address()
    }

    /// Options of a container in the cluster's network, where the API server has a name.
    pub fn network_options(&self) -> Vec<String> {
        let network = format!("--network={}", self.network.name());
        let host = format!("--add-host=kubernetes:{}", self.network.gateway());
        vec![network, host]
    }

    /// The same with the service account.
    pub fn options(&self, more: &[&str]) -> Vec<String> {
        let mut all = self.network_options();
        all.push(mount(&self.account(), ACCOUNT, "ro"));
        all.extend(more.iter().map(|option| option.to_string()));
        all
    }

    /// The same, locked down, with a volume for the output.
    pub fn locked(&self, volume: &Path) -> Vec<String> {
        let mut all = self.options(&LOCKED);
        all.push(mount(volume, RUNTIME, "rw"));
        all
    }

    /// A container of the program, locked down.
    #[track_caller]
    pub fn crossover(&self, volume: &Path, arguments: &[&str]) -> Container {
        Container::start("crossover", &self.locked(volume), *CROSSOVER, arguments)
    }

    /// An Envoy under another uid, which reads the volume and cannot write it.
    #[track_caller]
    pub fn envoy(&self, volume: &Path) -> Container {
        let mut options = self.options(&["--read-only", "--cap-drop=ALL", "--user=101:101"]);
        options.push(mount(volume, RUNTIME, "ro"));
        options.push(self.bootstrap());
        Container::start("envoy", &options, *ENVOY, &ENVOY_ARGUMENTS)
    }

    /// Mounts what Envoy starts with.
    pub fn bootstrap(&self) -> String {
        let path = self.dir.path().join("envoy.yaml");
        let admin = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}";
        let rest = Watching::PathOnly.bootstrap(Path::new(RUNTIME));
        fs::write(&path, format!("{admin}\n{rest}")).unwrap();
        mount(&path, "/etc/envoy/envoy.yaml", "ro")
    }

    /// The ConfigMap with routes of this version and weights.
    pub fn config_map(&self, version: &str, weights: [u32; 2]) -> Value {
        let to = |at: usize| (BACKENDS[at], self.backend(at));
        let listeners = envoy_config::listeners("first", Path::new(RUNTIME), Watching::PathOnly);
        let any = format!("{{address: 0.0.0.0, port_value: {PORT}}}");
        let free = "{address: 127.0.0.1, port_value: 0}";
        assert!(listeners.contains(free), "{listeners}");
        let weights: Vec<_> = BACKENDS.into_iter().zip(weights).collect();
        envoy_config::set(
            &listeners.replace(free, &any),
            &envoy_config::clusters("first", &[to(0), to(1)]),
            &envoy_config::routes(version, &weights),
        )
    }

    /// Changes the routes in the cluster.
    #[track_caller]
    pub fn shift(&self, version: &str, weights: [u32; 2]) {
        self.server.apply(self.config_map(version, weights));
    }
}

/// What Envoy is started with in a container.
pub const ENVOY_ARGUMENTS: [&str; 7] = [
    "--config-path",
    "/etc/envoy/envoy.yaml",
    "--concurrency",
    "1",
    "--disable-hot-restart",
    "--drain-time-s",
    "1",
];

/// An option that mounts a path of this machine.
pub fn mount(from: &Path, to: &str, access: &str) -> String {
    format!("--volume={}:{to}:{access}", from.display())
}

/// Waits until a volume's routes are of this version.
#[track_caller]
pub fn until_published(volume: &Path, version: &str) {
    let text = format!("version_info: \"{version}\"\n");
    until_file(&volume.join("current/rds.yaml"), |bytes| {
        bytes.starts_with(text.as_bytes())
    });
}

/// A load through the Envoy of a container that takes requests.
#[track_caller]
pub fn load(envoy: &Container) -> Load {
    let address = SocketAddr::from((envoy.address(), PORT));
    until("Envoy to listen", || {
        std::net::TcpStream::connect(address).ok()
    });
    Load::start(&format!("http://{address}/"), 200)
}

/// Waits for answers of one backend to one version of the routes.
#[track_caller]
pub fn wait_for_answers(load: &Load, version: &str, backend: &str) {
    let what = format!("{backend} to answer by {version}");
    load.wait_for(&what, &Tally::default(), |tally| {
        let answers = tally.versions.get(version).map(|v| &v.answers);
        answers.is_some_and(|answers| answers.contains_key(backend))
    });
}

/// Waits until only one backend answers.
#[track_caller]
pub fn until_all_from(load: &Load, backend: &str) {
    until(&format!("nobody but {backend} to answer"), || {
        let before = load.tally();
        let new = load.wait_for("20 answers", &before, |tally| tally.total() >= 20);
        (new.answers.len() == 1 && new.answers.contains_key(backend)).then_some(())
    });
}

/// No request of a load has failed.
#[track_caller]
pub fn assert_no_failure(load: &Load) {
    assert_eq!(load.tally().failures, Vec::<String>::new());
}
