//! The in-memory API server under the real kubectl: what the demo and its readers do.

use serde_json::json;
use testkit::apiserver::{Options, Server};
use testkit::kubectl::Kubectl;
use testkit::objects::traffic_split_crd;

const MANIFEST: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: envoy-xds, namespace: default}
data:
  rds.yaml: |
    resources: [] # a <b> & c
---
apiVersion: split.smi-spec.io/v1alpha2
kind: TrafficSplit
metadata: {name: podinfo, namespace: default}
spec:
  service: podinfo
  backends:
  - {service: one, weight: 90}
";

#[test]
fn kubectl_gets_applies_replaces_edits_and_deletes() {
    let server = Server::start(Options::default());
    let kubectl = Kubectl::new(&server);
    let text = |name: &str| server.get("ConfigMap", name).unwrap()["data"]["rds.yaml"].clone();
    let weight =
        || server.get("TrafficSplit", "podinfo").unwrap()["spec"]["backends"][0]["weight"].clone();
    let apply = ["apply", "--validate=false", "-f", "all.yaml"];

    kubectl.write(MANIFEST);
    assert_eq!(
        kubectl.run(&apply),
        "configmap/envoy-xds created\ntrafficsplit.split.smi-spec.io/podinfo created\n"
    );
    assert_eq!(text("envoy-xds"), json!("resources: [] # a <b> & c\n"));
    let version = server.version();
    assert_eq!(
        kubectl.run(&apply),
        "configmap/envoy-xds unchanged\ntrafficsplit.split.smi-spec.io/podinfo unchanged\n"
    );
    assert_eq!(server.version(), version);

    kubectl.write(&MANIFEST.replace("& c", "& d").replace("90", "10"));
    assert_eq!(
        kubectl.run(&apply),
        "configmap/envoy-xds configured\ntrafficsplit.split.smi-spec.io/podinfo configured\n"
    );
    assert_eq!(text("envoy-xds"), json!("resources: [] # a <b> & d\n"));
    assert_eq!(weight(), json!(10));

    kubectl.write(&MANIFEST.replace("& c", "& e").replace("90", "20"));
    kubectl.run(&["replace", "-f", "all.yaml"]);
    assert_eq!(text("envoy-xds"), json!("resources: [] # a <b> & e\n"));
    assert_eq!(weight(), json!(20));
    kubectl.run(&["edit", "trafficsplit", "podinfo"]);
    assert_eq!(weight(), json!(5));

    assert!(
        kubectl
            .run(&["get", "cm,ts"])
            .contains("configmap/envoy-xds")
    );
    let printed = kubectl.run(&[
        "get",
        "cm",
        "envoy-xds",
        "-o",
        "jsonpath={.data.rds\\.yaml}",
    ]);
    assert_eq!(printed, "resources: [] # a <b> & e\n");
    kubectl.run(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "-f",
        "all.yaml",
    ]);
    assert_eq!(weight(), json!(20));
    kubectl.run(&["delete", "-f", "all.yaml"]);
    assert_eq!(server.get("ConfigMap", "envoy-xds"), None);
    assert_eq!(server.get("TrafficSplit", "podinfo"), None);
}

#[test]
fn kubectl_applies_a_definition_and_then_its_kind() {
    let server = Server::start(Options {
        splits: Vec::new(),
        ..Options::default()
    });
    let kubectl = Kubectl::new(&server);
    kubectl.write(&traffic_split_crd(&["v1alpha1", "v1alpha2"]).to_string());
    kubectl.run(&["apply", "-f", "all.yaml"]);
    let crd = "crd/trafficsplits.split.smi-spec.io";
    kubectl.run(&["wait", "--for=condition=established", "--timeout=10s", crd]);
    kubectl.write(MANIFEST);
    kubectl.run(&["apply", "-f", "all.yaml"]);
    assert!(server.get("TrafficSplit", "podinfo").is_some());
}
