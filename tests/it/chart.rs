//! What the chart renders, by real Helm: valid on every Kubernetes that it is for, locked down, and
//! changed by a weight in one place only.

use crate::kit::helm::{Job, Rendering, ask, render, render_all};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::LazyLock;

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
            "extraArgs": ["-trafficsplit-api-version=v1alpha2"],
        },
        "upstreams": {"podinfo": {"smi": {"enabled": true}, "backends": {"podinfo": {"port": 1}}}},
        "xds": {"extra.yaml": {"release": "{{ .Release.Name }}"}},
    })
}

/// The pods that every test of this file looks at.
static MATRIX: LazyLock<Vec<Rendering>> = LazyLock::new(|| {
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

fn items(value: &Value) -> Vec<Value> {
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
    assert_eq!(kinds.len(), 9, "{kinds:?}");
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
    for mode_name in MODES {
        let values = |weights| crate::kit::pod::merge(&mode(mode_name), &two_backends(weights));
        let [before, after] = [[100, 0], [3, 4]].map(|weights| render(Job::of(values(weights))));
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
        for file in ["lds.yaml", "cds.yaml"] {
            assert_eq!(was["data"][file], changed[0]["data"][file]);
        }
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
fn every_container_is_as_pod_security_restricted_asks() {
    for rendering in MATRIX.iter() {
        let deployments = rendering.objects();
        let deployment = deployments
            .iter()
            .find(|it| it["kind"] == "Deployment")
            .unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], json!(true));
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        for host in ["hostNetwork", "hostPID", "hostIPC"] {
            assert_eq!(pod[host], Value::Null);
        }
        let containers = [&pod["initContainers"], &pod["containers"]]
            .map(items)
            .concat();
        for container in containers {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], json!(false));
            assert_eq!(context["readOnlyRootFilesystem"], json!(true));
            assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
            let ports = items(&container["ports"]);
            assert!(ports.iter().all(|port| port["hostPort"] == Value::Null));
        }
        for volume in items(&pod["volumes"]) {
            let kinds = ["configMap", "emptyDir", "projected", "secret"];
            assert!(kinds.iter().any(|kind| !volume[kind].is_null()), "{volume}");
        }
    }
}

#[test]
fn envoy_cannot_write_its_files_and_does_not_see_the_token() {
    for mode_name in ["native", "classic"] {
        let rendering = render(Job::of(mode(mode_name)));
        assert_eq!(
            rendering.pod()["automountServiceAccountToken"],
            json!(false)
        );
        let mounts = items(&rendering.container("envoy")["volumeMounts"]);
        assert!(
            mounts.iter().all(|mount| mount["readOnly"] == json!(true)),
            "{mounts:?}"
        );
        assert!(
            mounts.iter().all(|mount| mount["name"] != "token"),
            "{mounts:?}"
        );
        let mounts = items(&rendering.container("crossover")["volumeMounts"]);
        assert!(
            mounts.iter().any(|mount| mount["name"] == "token"),
            "{mounts:?}"
        );
    }
}

#[test]
fn the_role_names_its_objects_and_only_the_mirror_is_written() {
    let split = json!({"upstreams": {"podinfo": {
        "smi": {"enabled": true}, "backends": {"podinfo": {"port": 1}},
    }}});
    let publish = json!({"crossover": {"publish": true}});
    let jobs = [
        json!({}),
        split.clone(),
        crate::kit::pod::merge(&split, &publish),
    ]
    .map(Job::of);
    let [plain, merged, mirrored] = jobs.map(|job| {
        let rendering = render(job);
        let objects = rendering.objects();
        assert!(objects.iter().all(|it| it["kind"] != "ClusterRole"));
        let role = rendering.object("Role", "envoy");
        let binding = rendering.object("RoleBinding", "envoy");
        assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
        assert_eq!(
            binding["subjects"][0]["name"],
            rendering.pod()["serviceAccountName"]
        );
        items(&role["rules"])
    });
    let unnamed = |rules: &[Value]| -> Vec<Value> {
        let unnamed = rules
            .iter()
            .filter(|rule| items(&rule["resourceNames"]).is_empty());
        unnamed.cloned().collect()
    };
    let writes = |rules: &[Value]| {
        let verbs = rules.iter().flat_map(|rule| items(&rule["verbs"]));
        verbs
            .filter(|verb| verb != "list" && verb != "watch")
            .count()
    };
    assert_eq!(
        (plain.len(), unnamed(&plain).len(), writes(&plain)),
        (1, 0, 0)
    );
    assert_eq!(
        (merged.len(), unnamed(&merged).len(), writes(&merged)),
        (2, 0, 0)
    );
    let create = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]});
    assert_eq!(unnamed(&mirrored), [create]);
    let update = json!({
        "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["envoy-xds-gen"],
        "verbs": ["get", "update"],
    });
    assert_eq!((mirrored.len(), writes(&mirrored)), (4, 3));
    assert!(mirrored.contains(&update));
}

#[test]
fn tls_is_always_verified() {
    for rendering in MATRIX.iter() {
        let all = rendering.files.values().cloned().collect::<String>();
        assert!(!all.contains("insecure"));
    }
}

#[test]
fn no_probe_gives_up_on_crossover_within_an_hour_of_no_api_server() {
    for mode_name in MODES {
        let rendering = render(Job::of(mode(mode_name)));
        let pod = rendering.pod();
        for container in [&pod["initContainers"], &pod["containers"]]
            .map(items)
            .concat()
        {
            let (name, liveness) = (&container["name"], &container["livenessProbe"]);
            let startup = &container["startupProbe"];
            if !startup.is_null() {
                assert_eq!(startup["periodSeconds"], json!(1), "{name}");
                assert!(startup["failureThreshold"].as_u64() >= Some(3600), "{name}");
            }
            if *name == "crossover" {
                // It says whether the loop turns, and never looks at the API server.
                assert_eq!(liveness["exec"]["command"][1], "-live");
                assert_eq!(container["readinessProbe"], Value::Null);
                assert_eq!(startup.is_null(), mode_name != "native");
            }
        }
    }
}

#[test]
fn a_native_sidecar_starts_before_envoy_and_ends_after_it() {
    let pod = render(Job::of(mode("native"))).pod();
    let sidecar = &pod["initContainers"][0];
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert_eq!(sidecar["startupProbe"]["exec"]["command"][1], "-ready");
    assert_eq!(items(&pod["containers"]).len(), 1);
    let pod = render(Job::of(mode("classic"))).pod();
    assert_eq!(pod["initContainers"][0]["args"][0], "-onetime");
    assert_eq!(pod["initContainers"][0]["restartPolicy"], Value::Null);
    assert_eq!(items(&pod["containers"]).len(), 2);
    let pod = render(Job::of(mode("embedded"))).pod();
    assert_eq!(pod["initContainers"], Value::Null);
    assert_eq!(items(&pod["containers"]).len(), 1);
}

#[test]
fn a_value_of_xds_is_templated_and_stands_in_for_the_charts_file() {
    let routes = "name: {{ include \"envoy.fullname\" . }}\nof: {{ .Values.listener.port }}\n";
    let values = json!({"xds": {"rds.yaml": routes, "more.json": "{}"}});
    let files = render(Job::of(values)).object("ConfigMap", "envoy-xds")["data"].clone();
    assert_eq!(files["rds.yaml"], "name: envoy\nof: 10000\n");
    assert_eq!(files["more.json"], "{}\n");
    assert!(
        files["lds.yaml"]
            .as_str()
            .unwrap()
            .contains("path: /srv/runtime/current/rds.yaml")
    );
}

#[test]
fn the_chart_brings_the_definition_of_example() {
    let rendering = render(Job::of(json!({"crd": {"create": true}})));
    let mut rendered = rendering.object(
        "CustomResourceDefinition",
        "trafficsplits.split.smi-spec.io",
    );
    let keep = rendered["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("annotations");
    assert_eq!(keep, Some(json!({"helm.sh/resource-policy": "keep"})));
    let own = crate::kit::examples::path(crate::kit::examples::DEFINITION);
    assert_eq!(rendered, crate::kit::examples::read(&own));
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
        bare.contains("It routes nothing yet: write your Services under upstreams"),
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
