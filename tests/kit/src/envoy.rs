//! The real Envoy, as a process: started on a bootstrap, asked over its admin port, ended. And a
//! judge: an Envoy that says of any number of texts whether it loads them.

use super::{stopwatch, until};
use serde_json::Value;
use std::env;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use ureq::Agent;

/// A running Envoy; it is killed when this is dropped, unless somebody else has started it.
pub struct Envoy {
    child: Option<Killed>,
    admin: SocketAddr,
    agent: Agent,
    dir: TempDir,
}

/// Envoy's program: `$ENVOY_PROGRAM`, or the one from the Python package that `make tools`
/// installs.
pub fn program() -> PathBuf {
    if let Some(program) = env::var_os("ENVOY_PROGRAM") {
        return program.into();
    }
    let venv = super::root().join(".venv/lib");
    let pythons = fs::read_dir(venv).into_iter().flatten().flatten();
    pythons
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .find(|program| program.exists())
        .expect("Envoy is missing; run: make tools")
}

/// Returns the words that start Envoy on a bootstrap without an `admin` part, which gets this
/// address.
pub fn words(dir: &Path, bootstrap: &str, admin: SocketAddr, drain_seconds: u32) -> Vec<String> {
    let config = dir.join("bootstrap.yaml");
    let (ip, port) = (admin.ip(), admin.port());
    let admin =
        format!("admin: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}");
    fs::write(&config, format!("{admin}\n{bootstrap}")).expect("the directory is ours");
    let drain = drain_seconds.to_string();
    let words = [
        "--config-path",
        path(&config),
        "--concurrency",
        "1",
        "--disable-hot-restart",
    ];
    let program = program();
    let words = [path(&program)].into_iter().chain(words);
    words
        .chain(["--drain-time-s", &drain])
        .map(String::from)
        .collect()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("no odd path")
}

/// Returns an address for an admin port that nobody has, nor gets by chance.
pub fn free_admin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.5:0").expect("a port is free");
    listener.local_addr().expect("it is bound")
}

impl Envoy {
    /// Waits for an Envoy that somebody else starts by [`words`], with this admin address.
    #[track_caller]
    pub fn attach(dir: TempDir, admin: SocketAddr) -> Envoy {
        Envoy::ready(None, dir, || Some(admin))
    }

    /// Starts Envoy on a bootstrap without an `admin` part (it gets one) and waits until it is
    /// ready.
    #[track_caller]
    pub fn start(bootstrap: &str) -> Envoy {
        Envoy::start_draining(bootstrap, 1)
    }

    /// Does the same, with so many seconds for connections of a listener that changed.
    #[track_caller]
    pub fn start_draining(bootstrap: &str, seconds: u32) -> Envoy {
        let dir = TempDir::new().expect("a directory can be made");
        let words = words(dir.path(), bootstrap, ([127, 0, 0, 1], 0).into(), seconds);
        let admin = dir.path().join("admin");
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.arg("--admin-address-path").arg(&admin);
        Envoy::run(command, dir, || {
            fs::read_to_string(&admin).ok()?.parse().ok()
        })
    }

    /// Does the same, with its admin port at this address, which the next one can have again.
    #[track_caller]
    pub fn start_at(admin: SocketAddr, bootstrap: &str, seconds: u32) -> Envoy {
        let dir = TempDir::new().expect("a directory can be made");
        let words = words(dir.path(), bootstrap, admin, seconds);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        Envoy::run(command, dir, || Some(admin))
    }

    /// Starts Envoy with these arguments, on a bootstrap whose admin port this is, and waits until
    /// it is ready.
    #[track_caller]
    pub fn with_arguments(arguments: &[String], admin: SocketAddr) -> Envoy {
        let dir = TempDir::new().expect("a directory can be made");
        let mut command = Command::new(program());
        command.args(arguments);
        Envoy::run(command, dir, || Some(admin))
    }

    #[track_caller]
    fn run(mut command: Command, dir: TempDir, admin: impl Fn() -> Option<SocketAddr>) -> Envoy {
        let log = File::create(dir.path().join("log")).expect("the directory is ours");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map(Killed)
            .expect("Envoy can be run");
        stopwatch::count_program(child.0.id());
        Envoy::ready(Some(child), dir, admin)
    }

    /// Waits for it; `admin` says where it can be asked, once that is known.
    #[track_caller]
    fn ready(child: Option<Killed>, dir: TempDir, admin: impl Fn() -> Option<SocketAddr>) -> Envoy {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .build();
        let mut envoy = Envoy {
            child,
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            agent: Agent::new_with_config(config),
            dir,
        };
        until("Envoy to be ready", || {
            let child = envoy.child.as_mut();
            let ended = child.and_then(|it| it.0.try_wait().expect("the process is ours"));
            if let Some(status) = ended {
                panic!("Envoy does not start: {status}\n{}", envoy.log());
            }
            envoy.admin = admin()?;
            envoy.try_get("/ready").filter(|text| text == "LIVE\n")
        });
        envoy
    }

    /// Returns the process's id.
    pub fn pid(&self) -> u32 {
        let child = self.child.as_ref().expect("it was started here");
        child.0.id()
    }

    /// Sends SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.child = None;
    }

    /// Returns the address of the admin interface.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Makes a GET on the admin port. Returns the body of the answer.
    #[track_caller]
    pub fn get(&self, path: &str) -> String {
        self.try_get(path)
            .unwrap_or_else(|| panic!("Envoy does not answer {path}: {}", self.log()))
    }

    fn try_get(&self, path: &str) -> Option<String> {
        let url = format!("http://{}{path}", self.admin);
        self.agent
            .get(&url)
            .call()
            .ok()?
            .body_mut()
            .read_to_string()
            .ok()
    }

    /// Returns the JSON of a path such as `/config_dump` or `/listeners?format=json`.
    #[track_caller]
    pub fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path)).expect("Envoy writes JSON")
    }

    /// Returns a counter or gauge; 0 where there is none of that name.
    #[track_caller]
    pub fn stat(&self, name: &str) -> u64 {
        let text = self.text_stat(name);
        text.parse().unwrap_or(0)
    }

    /// Returns a statistic as text, such as a `version_text`; empty where there is none of that
    /// name.
    #[track_caller]
    pub fn text_stat(&self, name: &str) -> String {
        let all = self.get("/stats");
        let value = all
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_default().trim_matches('"').to_string()
    }

    /// Waits until a statistic is this text.
    #[track_caller]
    pub fn wait_for_stat(&self, name: &str, want: &str) {
        until(&format!("{name} to be {want}"), || {
            (self.text_stat(name) == want).then_some(())
        });
    }

    /// Waits until a listener of this name is there; returns where it listens.
    #[track_caller]
    pub fn listener(&self, name: &str) -> SocketAddr {
        until(&format!("a listener {name}"), || {
            let all = self.json("/listeners?format=json");
            let all = all["listener_statuses"].as_array()?.clone();
            let found = all.iter().find(|listener| listener["name"] == *name)?;
            let address = &found["local_address"]["socket_address"];
            let (ip, port) = (
                address["address"].as_str()?,
                address["port_value"].as_u64()?,
            );
            format!("{ip}:{port}").parse().ok()
        })
    }

    /// Returns everything that it has logged.
    pub fn log(&self) -> String {
        // Envoy cites what it was given, be it text or not.
        let log = fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}

/// A process that does not outlive this, be it while it starts.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The kind of resource as which a text is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// RouteConfiguration named [`ROUTES`], in a `.yaml` file.
    Routes,
    /// The same, in a `.json` file.
    RoutesJson,
    /// Clusters, in a `.yaml` file.
    Clusters,
    /// Listeners, in a `.yaml` file.
    Listeners,
}

/// The name that a judge expects of a RouteConfiguration.
pub const ROUTES: &str = "local_route";

/// Envoy's verdict on a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `update_success`
    Loaded,
    /// `update_failure` (cannot be read) or `update_rejected` (cannot be meant): the log since.
    Refused(String),
}

/// An Envoy that is offered one text after the other.
pub struct Judge {
    envoy: Envoy,
    dir: TempDir,
}

impl Offered {
    const ALL: [Offered; 4] = [
        Offered::Routes,
        Offered::RoutesJson,
        Offered::Clusters,
        Offered::Listeners,
    ];

    fn file(self) -> &'static str {
        match self {
            Offered::Routes => "rds.yaml",
            Offered::RoutesJson => "rds.json",
            Offered::Clusters => "cds.yaml",
            Offered::Listeners => "lds.yaml",
        }
    }

    fn stats(self) -> String {
        match self {
            Offered::Routes => format!("http.yaml.rds.{ROUTES}"),
            Offered::RoutesJson => format!("http.json.rds.{ROUTES}"),
            Offered::Clusters => "cluster_manager.cds".into(),
            Offered::Listeners => "listener_manager.lds".into(),
        }
    }
}

impl Judge {
    /// Starts an Envoy whose every file is empty.
    pub fn start() -> Judge {
        let dir = TempDir::new().expect("a directory can be made");
        for offered in Offered::ALL {
            let empty = dir.path().join(offered.file());
            fs::write(empty, "{\"resources\": []}").expect("the directory is ours");
        }
        let envoy = Envoy::start(&judge_bootstrap(dir.path()));
        Judge { envoy, dir }
    }

    /// Offers a text and waits for what Envoy says.
    #[track_caller]
    pub fn offer(&self, as_what: Offered, text: &[u8]) -> Verdict {
        let stats = as_what.stats();
        let count = |name: &str| self.envoy.stat(&format!("{stats}.{name}"));
        let (succeeded, log) = (count("update_success"), self.envoy.log().len());
        let refused = || count("update_failure") + count("update_rejected");
        let before = refused();
        let staged = self.dir.path().join("staged");
        fs::write(&staged, text).expect("the directory is ours");
        fs::rename(&staged, self.dir.path().join(as_what.file())).expect("the directory is ours");
        until("Envoy to judge", || {
            if count("update_success") > succeeded {
                return Some(Verdict::Loaded);
            }
            (refused() > before).then(|| {
                let log = self.envoy.log().get(log..).unwrap_or_default().to_string();
                Verdict::Refused(log)
            })
        })
    }

    /// Returns the Envoy itself.
    pub fn envoy(&self) -> &Envoy {
        &self.envoy
    }
}

fn judge_bootstrap(dir: &Path) -> String {
    let source = |file: &str| {
        let path = dir.join(file);
        format!(
            "{{resource_api_version: V3, path_config_source: {{path: \"{}\"}}}}",
            path.display()
        )
    };
    let listener = |name: &str, routes: Offered| {
        let source = source(routes.file());
        format!(
            "
  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager\
             .v3.HttpConnectionManager
          stat_prefix: {name}
          rds: {{route_config_name: {ROUTES}, config_source: {source}}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
        )
    };
    format!(
        "
node: {{id: judge, cluster: judge}}
dynamic_resources:
  cds_config: {}
  lds_config: {}
static_resources:
  listeners:{}{}
",
        source(Offered::Clusters.file()),
        source(Offered::Listeners.file()),
        listener("yaml", Offered::Routes),
        listener("json", Offered::RoutesJson),
    )
}
