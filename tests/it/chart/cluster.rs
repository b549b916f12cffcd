//! The chart installed by Helm's own programs, 3 and 4, in a cluster that holds what others have
//! put there: what is the release's, what is left alone, and what goes.

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use testkit::apiserver::{Options, Server};
use testkit::examples::{self, DEFINITION};
use testkit::helm::{self, Job, VERSIONS, ask, render};
use testkit::kubectl::Kubectl;
use testkit::objects::config_map;
use testkit::until;

const CRD: &str = "CustomResourceDefinition";
const SPLITS: &str = "trafficsplits.split.smi-spec.io";
const CREATE: &str = "--set=crd.create=true";
/// The arguments for the mirror of the release `envoy`.
const PUBLISH: [&str; 3] = [
    "--set=crossover.publish=true",
    "--set=upstreams.podinfo.smi.enabled=true",
    "--set=upstreams.podinfo.backends.podinfo.port=9898",
];
const MIRROR: &str = "envoy-xds-gen";

/// A cluster without TrafficSplits, and a Helm of one version.
struct Cluster {
    server: Server,
    version: &'static str,
    home: TempDir,
}

impl Cluster {
    fn of_each_helm() -> impl Iterator<Item = Cluster> {
        VERSIONS.into_iter().map(|version| Cluster {
            server: Server::start(Options {
                splits: Vec::new(),
                ..Options::default()
            }),
            version,
            home: TempDir::new().unwrap(),
        })
    }

    /// Runs Helm. Returns its output, or the error with which it refuses.
    fn helm(&self, arguments: &[&str]) -> Result<String, String> {
        let output = helm::program(self.version)
            .args(["--kube-apiserver", &self.server.url()])
            .args(arguments)
            .env("HOME", self.home.path())
            // As the server speaks of Secrets nowhere.
            .env("HELM_DRIVER", "configmap")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// Installs a release, or upgrades it.
    fn try_install(&self, release: &str, flags: &[&str]) -> Result<String, String> {
        let mut all = vec!["upgrade", "--install", release, "charts/envoy"];
        all.push("--disable-openapi-validation");
        all.extend(flags);
        self.helm(&all)
    }

    #[track_caller]
    fn install(&self, release: &str, flags: &[&str]) {
        if let Err(said) = self.try_install(release, flags) {
            panic!("Helm {}, {release} {flags:?}: {said}", self.version);
        }
    }

    #[track_caller]
    fn uninstall(&self, release: &str) {
        self.helm(&["uninstall", release]).unwrap();
    }

    fn definition(&self) -> Value {
        let found = self.server.get(CRD, SPLITS);
        found.unwrap_or_else(|| panic!("Helm {}: no definition", self.version))
    }

    fn mirror(&self) -> Option<Value> {
        self.server.get("ConfigMap", MIRROR)
    }
}

#[test]
fn a_definition_that_somebody_else_made_is_left_as_it_is() {
    for cluster in Cluster::of_each_helm() {
        let theirs = examples::read(&examples::path(DEFINITION));
        cluster.server.create(theirs);
        let before = cluster.definition();
        cluster.install("envoy", &[CREATE]);
        cluster.install("envoy", &[CREATE, "--set=replicaCount=3"]);
        assert_eq!(cluster.definition(), before, "Helm {}", cluster.version);
        cluster.uninstall("envoy");
        assert_eq!(cluster.definition(), before, "Helm {}", cluster.version);
    }
}

#[test]
fn a_second_release_leaves_the_first_ones_definition_also_when_it_goes() {
    for cluster in Cluster::of_each_helm() {
        cluster.install("envoy", &[CREATE]);
        let before = cluster.definition();
        let annotations = &before["metadata"]["annotations"];
        assert_eq!(annotations["meta.helm.sh/release-name"], "envoy");
        cluster.install("second", &[CREATE, "--namespace=other"]);
        cluster.install("second", &[CREATE, "--namespace=other"]);
        cluster.install("third", &[CREATE]);
        assert_eq!(cluster.definition(), before, "Helm {}", cluster.version);
        cluster.uninstall("third");
        // The first one goes on to manage it, leaves it behind, and finds it again.
        cluster.install("envoy", &[CREATE]);
        cluster.uninstall("envoy");
        let uid = |definition: &Value| definition["metadata"]["uid"].clone();
        assert_eq!(uid(&cluster.definition()), uid(&before));
        cluster.install("envoy", &[CREATE]);
        assert_eq!(uid(&cluster.definition()), uid(&before));
    }
}

#[test]
fn a_definition_that_the_release_made_stays_after_another_has_replaced_it() {
    for cluster in Cluster::of_each_helm() {
        cluster.install("envoy", &[CREATE]);
        // Nothing is left on it by which Helm, or anybody, could know whose it is, or that it
        // stays.
        let mut bare = cluster.definition();
        let metadata = bare["metadata"].as_object_mut().unwrap();
        metadata.remove("annotations");
        metadata.remove("labels");
        cluster.server.replace(bare.clone());
        cluster.install("envoy", &[CREATE, "--set=replicaCount=3"]);
        let uid = &bare["metadata"]["uid"];
        assert_eq!(cluster.definition()["metadata"]["uid"], *uid);
        cluster.install("envoy", &[CREATE]);
        assert_eq!(cluster.definition()["metadata"]["uid"], *uid);
    }
}

#[test]
fn the_mirror_is_made_for_crossover_to_write_and_goes_with_publish() {
    for cluster in Cluster::of_each_helm() {
        let because = format!("Helm {}", cluster.version);
        cluster.install("envoy", &PUBLISH);
        let mut mirror = cluster.mirror().expect(&because);
        assert_eq!(mirror["data"], Value::Null);
        let annotation = &mirror["metadata"]["annotations"]["crossover/mirror"];
        assert_eq!(annotation, "true");
        // What crossover writes stays, whatever is upgraded.
        mirror["data"] = json!({"rds.yaml": "a: 1\n"});
        cluster.server.replace(mirror.clone());
        let mut more = PUBLISH.to_vec();
        more.push("--set=upstreams.podinfo.backends.other.port=9898");
        cluster.install("envoy", &more);
        let after = cluster.mirror().expect(&because);
        assert_eq!(after["data"], mirror["data"], "{because}");
        assert_eq!(after["metadata"]["uid"], mirror["metadata"]["uid"]);
        more[0] = "--set=crossover.publish=false";
        cluster.install("envoy", &more);
        assert_eq!(cluster.mirror(), None, "{because}");
        let role = cluster.server.get("Role", "envoy").unwrap().to_string();
        assert!(!role.contains(MIRROR), "{role}");
        cluster.install("envoy", &PUBLISH);
        cluster.uninstall("envoy");
        assert_eq!(cluster.mirror(), None, "{because}");
    }
}

#[test]
fn a_mirror_that_is_there_already_is_left_as_it_is() {
    for cluster in Cluster::of_each_helm() {
        // As crossover made it under an earlier chart, or the Go program did.
        cluster
            .server
            .create(config_map(MIRROR, &[("rds.yaml", "a: 1\n")]));
        let before = cluster.mirror();
        cluster.install("envoy", &PUBLISH);
        cluster.install("envoy", &PUBLISH);
        cluster.uninstall("envoy");
        assert_eq!(cluster.mirror(), before, "Helm {}", cluster.version);
    }
}

#[test]
fn without_a_cluster_to_ask_all_of_it_is_rendered_and_kept_by_helm_and_by_argo_cd() {
    let values = json!({
        "crd": {"create": true}, "crossover": {"publish": true, "configMaps": ["more"]},
        "upstreams": {"podinfo": {"smi": {"enabled": true}, "backends": {"podinfo": {"port": 1}}}},
    });
    let rendering = render(Job::of(values));
    let annotations = rendering.object(CRD, SPLITS)["metadata"]["annotations"].clone();
    let want = json!({
        "helm.sh/resource-policy": "keep",
        "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
    });
    assert_eq!(annotations, want);
    for name in [MIRROR, "more-gen"] {
        let mirror = rendering.object("ConfigMap", name);
        // What no template names, nobody who applies it takes away.
        assert!(mirror.get("data").is_none() && mirror.get("binaryData").is_none());
    }
}

#[test]
fn helm_4_takes_back_by_force_what_kubectl_edit_has_changed() {
    for cluster in Cluster::of_each_helm() {
        cluster.install("envoy", &[]);
        let kubectl = Kubectl::new(&cluster.server);
        let patch = "--patch={\"spec\":{\"replicas\":7}}";
        kubectl.run(&["patch", "deployment", "envoy", "--type=merge", patch]);
        let replicas =
            || cluster.server.get("Deployment", "envoy").unwrap()["spec"]["replicas"].clone();
        let refused = cluster.try_install("envoy", &["--set=replicaCount=3"]);
        if cluster.version == "4" {
            let said = refused.unwrap_err();
            assert!(said.contains("conflict"), "{said}");
            assert_eq!(replicas(), json!(7));
            cluster.install("envoy", &["--set=replicaCount=3", "--force-conflicts"]);
        }
        assert_eq!(replicas(), json!(3));
    }
}

#[test]
fn helm_test_starts_its_pod_and_says_how_it_ended() {
    let name = "envoy-test";
    for cluster in Cluster::of_each_helm() {
        cluster.install("envoy", &[]);
        assert_eq!(cluster.server.get("Pod", name), None);
        for (phase, ends_well) in [("Failed", false), ("Succeeded", true)] {
            let result = std::thread::scope(|scope| {
                let test = scope.spawn(|| cluster.helm(&["test", "envoy", "--timeout=1m"]));
                // The part of a kubelet.
                until("the pod, made anew", || {
                    let mut pod = cluster.server.get("Pod", name)?;
                    if !pod["status"].is_null() {
                        return None;
                    }
                    pod["status"] = json!({"phase": phase});
                    cluster.server.replace(pod);
                    Some(())
                });
                test.join().unwrap()
            });
            assert_eq!(
                result.is_ok(),
                ends_well,
                "Helm {}: {result:?}",
                cluster.version
            );
            // One that has failed stays, for its log.
            let stays = cluster.server.get("Pod", name).is_some();
            assert_eq!(stays, !ends_well, "Helm {}", cluster.version);
        }
    }
}

#[test]
fn only_native_mode_needs_kubernetes_1_29_and_each_mode_says_what_it_needs() {
    for version in VERSIONS {
        let template = |kubernetes: &str, mode: &str| {
            let output = helm::program(version)
                .args([
                    "template",
                    "envoy",
                    "charts/envoy",
                    "--kube-version",
                    kubernetes,
                ])
                .args(["--set", &format!("crossover.mode={mode}")])
                .args(["--set", "image.repository=both"])
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success().then_some(()).ok_or(said)
        };
        let said = template("v1.28.15-gke.1", "native").unwrap_err();
        for part in [
            "native needs Kubernetes 1.29",
            "v1.28.15-gke.1",
            "crossover.mode to classic, which needs 1.21",
        ] {
            assert!(said.contains(part), "Helm {version}: no {part:?} in {said}");
        }
        for taken in [
            ("v1.29.0-eks-1", "native"),
            ("1.21.0", "classic"),
            ("1.21.14", "embedded"),
        ] {
            assert_eq!(template(taken.0, taken.1), Ok(()), "Helm {version}");
        }
        for mode in ["classic", "embedded"] {
            let said = template("1.20.15", mode).unwrap_err();
            assert!(said.contains(">=1.21.0"), "Helm {version}: {said}");
        }
    }
}

#[test]
fn what_is_not_native_is_valid_on_older_kubernetes_too() {
    let modes = ["classic", "embedded"].map(|mode| {
        let image = json!({"repository": "both"});
        render(Job::of(
            json!({"crossover": {"mode": mode}, "image": image, "crd": {"create": true}}),
        ))
    });
    let all: Vec<Value> = modes.iter().flat_map(|it| it.objects()).collect();
    // The oldest of which there are schemas.
    let request = [
        ("validate".into(), json!(all)),
        ("since".into(), json!("1.25")),
    ];
    let validated = ask(Map::from_iter(request))["validated"].clone();
    assert_eq!(validated["wrong"], json!([]));
    assert_eq!(validated["versions"][0], "1.25");
}
