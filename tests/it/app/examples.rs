//! The files of `example/`: each is what docs/traffic-splits.md says, and does what it says.

use serde_json::{Value, json};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use tempfile::TempDir;
use testkit::apiserver::{Options, Server};
use testkit::crossover::{Crossover, command};
use testkit::envoy::Envoy;
use testkit::envoy_config::{self, SERVICE, STATS};
use testkit::examples::{self, CONFIG_MAP, DEFINITION, SPLITS};
use testkit::kubectl::Kubectl;
use testkit::pages;
use testkit::testbed::BACKENDS;
use testkit::until_file;

const PAGE: &str = include_str!("../../../docs/traffic-splits.md");
const DEPLOYING: &str = include_str!("../../../docs/deploying.md");
const VERSIONS: [&str; 4] = ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"];

/// The examples that the chart's tests run, and those of the containers.
const OTHERS: [&str; 12] = [
    "embedded.Dockerfile",
    "envoy.metrictemplates.yaml",
    "kubernetes",
    "podinfo.canary.yaml",
    "podinfo.rollout.yaml",
    "values.canary.yaml",
    "values.flagger.yaml",
    "values.gateway.yaml",
    "values.router.yaml",
    "values.services.yaml",
    "values.upstreams.yaml",
    "values.yaml",
];

/// An API server without TrafficSplits, and kubectl.
struct Cluster {
    server: Server,
    kubectl: Kubectl,
}

impl Cluster {
    fn start() -> Cluster {
        let server = Server::start(Options {
            splits: Vec::new(),
            ..Options::default()
        });
        let kubectl = Kubectl::new(&server);
        Cluster { server, kubectl }
    }

    #[track_caller]
    fn apply(&self, file: &str) -> String {
        let path = examples::path(file);
        let path = path.to_string_lossy();
        self.kubectl
            .run(&["apply", "--validate=false", "-f", &path])
    }
}

#[test]
fn every_split_gives_the_file_the_weights_that_its_name_stands_for() {
    let commands = pages::commands(PAGE, "## Try it");
    let mut files = commands.iter().map(|command| {
        let file = command.strip_prefix("kubectl apply -f example/");
        file.unwrap_or_else(|| panic!("{command}"))
    });
    let mut next = || files.next().expect("the page applies every file");
    let cluster = Cluster::start();
    assert_eq!(
        cluster.apply(next()),
        "customresourcedefinition.apiextensions.k8s.io/trafficsplits.split.smi-spec.io created\n"
    );
    assert_eq!(cluster.apply(next()), "configmap/envoy-xds created\n");
    let dir = TempDir::new().unwrap();
    let url = cluster.server.url();
    let mut program = command(&["-apiserver", &url, "-namespace", "default", "-watch"]);
    program
        .args([
            "-configmap",
            envoy_config::CONFIG_MAP,
            "-trafficsplit",
            SERVICE,
        ])
        .arg("-output-dir")
        .arg(dir.path());
    let _crossover = Crossover::spawn(program);
    let file = dir.path().join("current/rds.yaml");
    let own = cluster
        .server
        .get("ConfigMap", envoy_config::CONFIG_MAP)
        .unwrap();
    let own = own["data"]["rds.yaml"].as_str().unwrap().to_string();
    until_file(&file, |bytes| bytes == own.as_bytes());

    for (split, weights) in SPLITS {
        let applied = next();
        assert_eq!(applied, split);
        cluster.apply(applied);
        let mut want = own.clone();
        for (name, weight) in BACKENDS.into_iter().zip(weights) {
            let was = format!("- name: {name}\n            weight: 50\n");
            assert!(own.contains(&was), "{own}");
            want = want.replace(&was, &was.replace("50", &weight.to_string()));
        }
        // Every other byte is the ConfigMap's.
        until_file(&file, |bytes| bytes == want.as_bytes());
    }
    assert_eq!(files.next(), None);
}

#[test]
fn every_file_says_in_its_first_line_what_it_is_for() {
    let first = |name: &str| {
        let text = fs::read_to_string(examples::path(name)).unwrap();
        text.lines().next().unwrap_or_default().to_string()
    };
    for (name, [bold_olm, eerie_octopus]) in SPLITS {
        let want = format!("# {bold_olm}% bold-olm, {eerie_octopus}% eerie-octopus.");
        assert_eq!(first(name), want);
        let backends = [(BACKENDS[1], eerie_octopus), (BACKENDS[0], bold_olm)];
        let backends =
            backends.map(|(service, weight)| json!({"service": service, "weight": weight}));
        let split = examples::read(&examples::path(name));
        assert_eq!(
            split["spec"],
            json!({"service": SERVICE, "backends": backends})
        );
        let applied = format!(
            "# {bold_olm}% bold-olm, {eerie_octopus}% eerie-octopus\n$ kubectl apply -f example/{name}\n"
        );
        assert!(PAGE.contains(&applied), "the page has no {applied}");
    }
    for name in [CONFIG_MAP, DEFINITION] {
        assert!(first(name).starts_with("# "), "{name}");
        assert!(PAGE.contains(&format!("example/{name}")), "{name}");
    }
    let names = fs::read_dir(examples::path(""))
        .unwrap()
        .map(|it| it.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    let own =
        |name: &&String| name.ends_with(".trafficsplit.yaml") || !OTHERS.contains(&name.as_str());
    let own = names.iter().filter(own).count();
    assert_eq!(own, SPLITS.len() + 2, "a file is not tested: {names:?}");
}

#[test]
fn the_definition_serves_four_versions_and_stores_the_one_that_loses_nothing() {
    let definition = examples::read(&examples::path(DEFINITION));
    let versions = definition["spec"]["versions"].as_array().unwrap();
    let names: Vec<_> = versions
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, VERSIONS);
    for version in versions {
        let name = version["name"].as_str().unwrap();
        assert_eq!(version["served"], json!(true));
        assert_eq!(version["storage"], json!(name == "v1alpha4"), "{name}");
        let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        let weight = &spec["backends"]["items"]["properties"]["weight"];
        if name == "v1alpha1" {
            assert_eq!(weight["x-kubernetes-int-or-string"], json!(true));
        } else {
            assert_eq!(weight["type"], json!("number"), "{name}");
        }
        let has_matches = spec["matches"] != Value::Null;
        assert_eq!(has_matches, name >= "v1alpha3", "{name}");
    }
}

#[test]
fn kubectl_reads_a_split_back_in_every_version_of_the_definition() {
    let cluster = Cluster::start();
    cluster.apply(DEFINITION);
    cluster.apply(SPLITS[1].0);
    for version in VERSIONS {
        let resource = format!("trafficsplits.{version}.split.smi-spec.io");
        let printed = cluster
            .kubectl
            .run(&["get", &resource, SERVICE, "-o", "json"]);
        let split: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(
            split["apiVersion"],
            json!(format!("split.smi-spec.io/{version}"))
        );
        assert_eq!(split["spec"]["backends"][1]["weight"], json!(75));
    }
}

#[test]
fn envoy_loads_every_file_of_the_configmap_by_each_bootstrap_of_the_page() {
    let section = pages::section(DEPLOYING, "## Point Envoy at the files");
    let bootstraps = pages::blocks(section, "yaml");
    assert_eq!(bootstraps.len(), 2);
    for bootstrap in bootstraps {
        load_by(bootstrap);
    }
}

#[track_caller]
fn load_by(bootstrap: &str) {
    let dir = TempDir::new().unwrap();
    let current = dir.path().join("current");
    fs::create_dir(&current).unwrap();
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let object = examples::config_map(dir.path(), [nowhere; 2]);
    for (name, text) in object["data"].as_object().unwrap() {
        fs::write(current.join(name), text.as_str().unwrap()).unwrap();
    }
    let bootstrap = bootstrap.replace("/srv/runtime", dir.path().to_str().unwrap());
    let envoy = Envoy::start(&format!(
        "node: {{id: envoy, cluster: envoy}}\n{bootstrap}\n"
    ));
    envoy.listener(SERVICE);
    for name in STATS {
        envoy.wait_for_stat(&format!("{name}.update_success"), "1");
        assert_eq!(envoy.stat(&format!("{name}.update_rejected")), 0, "{name}");
    }
}
