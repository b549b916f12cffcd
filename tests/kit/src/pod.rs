//! A pod of the chart on this machine: what a kubelet would make of its containers, with real
//! processes. The volumes are directories, and the addresses are the pod's own part of 127.0.0.0/8,
//! so that its ports can be those of every pod.

use super::apiserver::access::{Account, Rule};
use super::apiserver::{Options, Server, Tls};
use super::backend::Backend;
use super::crossover::{self, Crossover};
use super::envoy::{self, Envoy};
use super::helm::{RELEASE, Rendering};
use super::load::Load;
use serde_json::{Map, Value, json};
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use tempfile::TempDir;

/// The path at which the chart mounts the bootstrap.
const MOUNTED: &str = "/etc/envoy";
/// The token that the pod's service account has.
const TOKEN: &str = "the-pods-token";
/// The token of who may do everything: kubectl's.
pub const ADMIN: &str = "admin";

/// A cluster with a pod in it, whose containers come and go.
pub struct Pod {
    /// https; it knows the Role and nobody else.
    pub server: Server,
    /// The pod's own.
    pub address: String,
    backends: Vec<(String, Backend)>,
    dir: TempDir,
}

impl Pod {
    /// Starts a cluster with these Services, and nothing installed.
    pub fn new(services: &[&str]) -> Pod {
        static COUNT: AtomicU8 = AtomicU8::new(1);
        let dir = TempDir::new().expect("a directory can be made");
        fs::write(dir.path().join("token"), TOKEN).expect("the directory is ours");
        let tls = Some(Tls {
            dir: dir.path().into(),
            only_tls12: false,
        });
        let [high, low] = (std::process::id() as u16).to_be_bytes();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let backend = |name: &&str| (name.to_string(), Backend::start(name));
        Pod {
            server: Server::start(Options {
                tls,
                ..Options::default()
            }),
            // Neither 127.0.0.1, which others use, nor an address that ends in 0 or 255.
            address: format!("127.{}.{low}.{}", 128 | high, 1 + count % 254),
            backends: services.iter().map(backend).collect(),
            dir,
        }
    }

    /// Values that fit the chart to this machine: addresses, directories, who the API server is.
    pub fn values(&self) -> Value {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        json!({
            "listener": {"address": self.address},
            "admin": {"address": self.address},
            "status": {"address": self.address},
            "crossover": {
                "outputDir": path("xds"),
                "extraArgs": [
                    format!("-token-file={}", path("token")), format!("-ca-file={}", path("ca.crt")),
                ],
            },
        })
    }

    /// Returns the cluster of a backend of that name, with its address, as DNS is not available
    /// here.
    pub fn cluster(&self, service: &str) -> Value {
        let (_, backend) = self
            .backends
            .iter()
            .find(|(name, _)| name == service)
            .expect("it runs");
        static_cluster(
            &backend.address().ip().to_string(),
            backend.address().port(),
        )
    }

    /// Puts what is rendered into the cluster: its ConfigMaps, and its Role in place of all rules.
    #[track_caller]
    pub fn install(&self, rendering: &Rendering) {
        for mut object in rendering.objects() {
            object["metadata"]["namespace"] = json!("default");
            if object["kind"] == "ConfigMap" {
                self.server.apply(object);
            } else if object["kind"] == "Role" {
                let own = Account::service(TOKEN, RELEASE, Rule::of_role(&object));
                self.server.set_accounts(vec![own, Account::admin(ADMIN)]);
            }
        }
        let mounted = rendering.object("ConfigMap", "envoy-bootstrap");
        fs::create_dir_all(self.mount()).expect("the directory is ours");
        for (name, text) in mounted["data"].as_object().expect("it has files") {
            let text = text.as_str().expect("they are text");
            fs::write(self.mount().join(name), text).expect("the directory is ours");
        }
    }

    /// Starts a container of crossover's, as it is rendered.
    #[track_caller]
    pub fn crossover(&self, rendering: &Rendering, container: &str) -> Crossover {
        let container = rendering.container(container);
        assert_eq!(container["command"], json!(["crossover"]));
        let arguments = self.arguments(&container["args"]);
        self.start(&container, &arguments)
    }

    /// Starts a pod in native mode, as a kubelet does: the sidecar, its startupProbe until that is
    /// content, and only then Envoy.
    #[track_caller]
    pub fn start_native(&self, rendering: &Rendering) -> (Crossover, Envoy) {
        let sidecar = self.crossover(rendering, "crossover");
        let probe = &rendering.container("crossover")["startupProbe"]["exec"]["command"];
        super::until("the startupProbe to be content", || {
            let finished = self.exec(rendering, "crossover", probe);
            (finished.code == Some(0)).then_some(())
        });
        (sidecar, self.envoy(rendering))
    }

    /// Runs a command in a container of crossover's, as a probe does.
    pub fn exec(
        &self,
        rendering: &Rendering,
        container: &str,
        command: &Value,
    ) -> crossover::Finished {
        let arguments = self.arguments(command);
        assert_eq!(arguments[0], "crossover");
        self.start(&rendering.container(container), &arguments[1..])
            .finish()
    }

    fn start(&self, container: &Value, arguments: &[String]) -> Crossover {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = crossover::command(&arguments);
        command.envs(self.environment(container));
        // Where `envoy` is on the PATH, as in its image.
        let program = envoy::program();
        let path = program.parent().expect("it is in a directory");
        command.env(
            "PATH",
            format!(
                "{}:{}",
                path.display(),
                std::env::var("PATH").unwrap_or_default()
            ),
        );
        Crossover::spawn(command)
    }

    /// Starts Envoy's container, as it is rendered, and waits until it is ready.
    #[track_caller]
    pub fn envoy(&self, rendering: &Rendering) -> Envoy {
        let arguments = self.arguments(&rendering.container(RELEASE)["args"]);
        let mounted =
            rendering.object("ConfigMap", "envoy-bootstrap")["data"]["envoy.yaml"].clone();
        let bootstrap = mounted.as_str().expect("it is text");
        let bootstrap: Value = serde_yaml::from_str(bootstrap).expect("it is YAML");
        let admin = &bootstrap["admin"]["address"]["socket_address"];
        let ip = admin["address"]
            .as_str()
            .and_then(|it| it.parse::<IpAddr>().ok());
        let port = admin["port_value"]
            .as_u64()
            .and_then(|it| u16::try_from(it).ok());
        let admin = ip.zip(port).expect("its admin port is a socket");
        Envoy::with_arguments(&arguments, admin.into())
    }

    /// Returns the preStop hook of Envoy's container.
    #[track_caller]
    pub fn hook(&self, rendering: &Rendering) -> Command {
        let hook = &rendering.container(RELEASE)["lifecycle"]["preStop"]["exec"]["command"];
        let arguments = self.arguments(hook);
        assert_eq!(arguments[0], "envoy");
        let mut command = Command::new(envoy::program());
        command.args(&arguments[1..]);
        command
    }

    /// Starts a load on the pod's port.
    pub fn load(&self, per_second: u32) -> Load {
        Load::start(&format!("http://{}:10000/", self.address), per_second)
    }

    /// Returns a file that Envoy reads.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("xds/current").join(name)
    }

    /// Fails if anything was asked for that the Role does not allow.
    #[track_caller]
    pub fn assert_within_role(&self) {
        let mut requests = self.server.requests();
        requests.retain(|request| request.token.as_deref() != Some(ADMIN));
        let outside = requests
            .iter()
            .filter(|request| [401, 403].contains(&request.status));
        let outside: Vec<String> = outside.map(|request| request.line()).collect();
        assert_eq!(outside, Vec::<String>::new());
        assert!(!requests.is_empty(), "nothing was asked for at all");
    }

    /// Returns a path in the pod's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Takes the files away, as with a pod that goes.
    pub fn clear_volume(&self) {
        fs::remove_dir_all(self.path("xds")).expect("the directory is ours");
    }

    /// Returns the arguments of a container, as a kubelet passes them.
    pub fn arguments_of(&self, rendering: &Rendering, container: &str) -> Vec<String> {
        self.arguments(&rendering.container(container)["args"])
    }

    fn mount(&self) -> PathBuf {
        self.dir.path().join("bootstrap")
    }

    /// Returns arguments with `$(NAME)` expanded and the mount's path as it is here.
    fn arguments(&self, list: &Value) -> Vec<String> {
        let mount = self.mount().display().to_string();
        let list = list.as_array().expect("it is a list");
        let texts = list.iter().map(|text| text.as_str().expect("of texts"));
        texts
            .map(|text| {
                text.replace("$(POD_NAME)", "envoy-0")
                    .replace(MOUNTED, &mount)
            })
            .collect()
    }

    /// Returns a container's variables, and those that a kubelet adds.
    fn environment(&self, container: &Value) -> Vec<(String, String)> {
        let api = self.server.address();
        let mut all = vec![
            ("KUBERNETES_SERVICE_HOST".to_string(), api.ip().to_string()),
            (
                "KUBERNETES_SERVICE_PORT".to_string(),
                api.port().to_string(),
            ),
        ];
        for variable in container["env"].as_array().into_iter().flatten() {
            let field = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str();
            let value = match (variable["value"].as_str(), field) {
                (Some(value), None) => value,
                (None, Some("metadata.namespace")) => "default",
                (None, Some("metadata.name")) => "envoy-0",
                _ => panic!("what is {variable}?"),
            };
            let name = variable["name"].as_str().expect("it has a name");
            all.push((name.into(), value.into()));
        }
        all
    }
}

/// Returns what to merge into a cluster for an endpoint that needs no DNS.
pub fn static_cluster(ip: &str, port: u16) -> Value {
    let address = json!({"socket_address": {"address": ip, "port_value": port}});
    let endpoint = json!({"endpoint": {"address": address}});
    json!({
        "type": "STATIC",
        "load_assignment": {"endpoints": [{"lb_endpoints": [endpoint]}]},
    })
}

/// Values over values, as Helm merges them.
pub fn merge(under: &Value, over: &Value) -> Value {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            let mut merged: Map<String, Value> = under.clone();
            for (key, value) in over {
                let old = under.get(key).unwrap_or(&Value::Null);
                merged.insert(key.clone(), merge(old, value));
            }
            Value::Object(merged)
        }
        _ => over.clone(),
    }
}
