//! A pod of `example/kubernetes/` in an engine: what a kubelet would make of its containers. What
//! this does not know of a container it refuses to run.

use crate::cluster::{ACCOUNT, Cluster, RUNTIME, mount};
use crate::engine::Container;
use crate::images::{CROSSOVER, EMBEDDED, ENVOY, root};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use testkit::apiserver::access::Rule;
use testkit::objects::traffic_split;
use testkit::testbed::BACKENDS;

/// A manifest in a cluster.
pub struct Pod<'a> {
    cluster: &'a Cluster,
    objects: Vec<Value>,
    /// The emptyDir that the containers share.
    volume: PathBuf,
    bootstrap: PathBuf,
}

impl<'a> Pod<'a> {
    /// Reads a manifest and gives the cluster its Role and its bootstrap; there are no files for
    /// Envoy yet.
    #[track_caller]
    pub fn install(cluster: &'a Cluster, name: &str) -> Pod<'a> {
        let path = root().join("example/kubernetes").join(name);
        let text = fs::read_to_string(&path).expect("the manifest is there");
        let documents = serde_yaml::Deserializer::from_str(&text);
        let objects = documents
            .map(|d| Value::deserialize(d).expect("YAML"))
            .collect();
        let pod = Pod {
            cluster,
            objects,
            volume: cluster.empty_dir(),
            bootstrap: cluster.volume("bootstrap", 0, 0o755),
        };
        cluster.allow(Rule::of_role(&pod.object("Role", "envoy")));
        let bootstrap = pod.object("ConfigMap", "envoy-bootstrap");
        for (file, text) in bootstrap["data"].as_object().unwrap() {
            fs::write(pod.bootstrap.join(file), text.as_str().unwrap()).unwrap();
        }
        pod
    }

    /// Puts Envoy's files into the cluster. Of them only the backends differ from the manifest's:
    /// there is no DNS here that knows Services.
    #[track_caller]
    pub fn publish(&self) {
        let mut map = self.object("ConfigMap", "envoy-xds");
        map["metadata"]["namespace"] = json!("default");
        let text = map["data"]["cds.yaml"].as_str().unwrap();
        let mut clusters: Value = serde_yaml::from_str(text).unwrap();
        for cluster in clusters["resources"].as_array_mut().unwrap() {
            let at = BACKENDS
                .iter()
                .position(|name| cluster["name"] == *name)
                .unwrap();
            let address = self.cluster.backend(at);
            assert_eq!(cluster["type"], "STRICT_DNS");
            cluster["type"] = json!("STATIC");
            let endpoint =
                "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
            *cluster.pointer_mut(endpoint).unwrap() =
                json!({"address": address.ip().to_string(), "port_value": address.port()});
        }
        map["data"]["cds.yaml"] = json!(clusters.to_string());
        self.cluster.server.apply(map);
    }

    /// Creates or changes the TrafficSplit that the manifests name.
    #[track_caller]
    pub fn split(&self, [one, other]: [u64; 2]) {
        let backends = [(BACKENDS[0], one), (BACKENDS[1], other)];
        let split = traffic_split("podinfo", "podinfo", &backends);
        self.cluster.server.apply(split);
    }

    /// An object of the manifest.
    #[track_caller]
    fn object(&self, kind: &str, name: &str) -> Value {
        let mut all = self.objects.iter();
        let found = all.find(|o| o["kind"] == kind && o["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind} {name}")).clone()
    }

    fn spec(&self) -> Value {
        self.object("Deployment", "envoy")["spec"]["template"]["spec"].clone()
    }

    /// One of the containers, as it is written.
    #[track_caller]
    pub fn container(&self, name: &str) -> Value {
        let spec = self.spec();
        let lists = ["initContainers", "containers"].map(|list| spec[list].as_array().cloned());
        let mut all = lists.into_iter().flatten().flatten();
        all.find(|container| container["name"] == name)
            .unwrap_or_else(|| panic!("no {name}"))
    }

    /// Starts one of the containers.
    #[track_caller]
    pub fn start(&self, name: &str) -> Container {
        let container = self.container(name);
        let image = match container["image"].as_str().unwrap() {
            image if image.starts_with("crossover:") => *CROSSOVER,
            image if image.starts_with("envoyproxy/envoy:") => *ENVOY,
            image if image.starts_with("envoy-crossover:") => *EMBEDDED,
            other => panic!("which image is {other}?"),
        };
        let mut options = self.cluster.network_options();
        options.extend(security(
            &self.spec()["securityContext"],
            &container["securityContext"],
        ));
        if let Some(memory) = container["resources"]["limits"]["memory"].as_str() {
            options.push(format!("--memory={}", memory.replace("Mi", "m")));
        }
        options.extend(environment(&container).iter().map(|v| format!("--env={v}")));
        options.extend(self.mounts(&container));
        let mut words = texts(&container["command"]);
        if !words.is_empty() {
            options.push(format!("--entrypoint={}", words.remove(0)));
        }
        words.extend(texts(&container["args"]));
        let words: Vec<String> = words
            .iter()
            .map(|w| w.replace("$(POD_NAME)", "envoy-0"))
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Container::start(name, &options, image, &words)
    }

    fn mounts(&self, container: &Value) -> Vec<String> {
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        let mounts = mounts.map(|volume| {
            let at = volume["mountPath"].as_str().unwrap();
            let (from, usual) = match volume["name"].as_str().unwrap() {
                "xds" => (self.volume.clone(), RUNTIME),
                "token" => (self.cluster.account(), ACCOUNT),
                "bootstrap" => (self.bootstrap.clone(), "/etc/envoy"),
                other => panic!("which volume is {other}?"),
            };
            assert_eq!(at, usual);
            mount(
                &from,
                at,
                if volume["readOnly"] == true {
                    "ro"
                } else {
                    "rw"
                },
            )
        });
        mounts.collect()
    }
}

/// What the "restricted" Pod Security standard asks for, as options.
fn security(pod: &Value, container: &Value) -> Vec<String> {
    assert_eq!(pod["runAsNonRoot"], true);
    assert_eq!(pod["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["readOnlyRootFilesystem"], true);
    let mut options = vec![
        format!("--user={}:{}", pod["runAsUser"], pod["runAsGroup"]),
        "--security-opt=no-new-privileges".into(),
        "--read-only".into(),
    ];
    let dropped = texts(&container["capabilities"]["drop"]);
    assert_eq!(dropped, ["ALL"]);
    options.extend(dropped.iter().map(|name| format!("--cap-drop={name}")));
    options
}

/// A container's variables, and those that a kubelet adds.
fn environment(container: &Value) -> Vec<String> {
    let api = [
        "KUBERNETES_SERVICE_HOST=kubernetes",
        "KUBERNETES_SERVICE_PORT=443",
    ];
    let mut all = api.map(String::from).to_vec();
    for variable in container["env"].as_array().into_iter().flatten() {
        let name = variable["name"].as_str().unwrap();
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            None => variable["value"].as_str().unwrap(),
            Some("metadata.namespace") => "default",
            Some("metadata.name") => "envoy-0",
            Some(other) => panic!("what is {other}?"),
        };
        all.push(format!("{name}={value}"));
    }
    all
}

/// A list of texts; none where there is no list.
pub fn texts(list: &Value) -> Vec<String> {
    let all = list.as_array().into_iter().flatten();
    all.map(|text| text.as_str().expect("a text").to_string())
        .collect()
}
