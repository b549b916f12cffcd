//! The rendered pod's rights, and its exposure to Kubernetes: Pod Security "restricted", the Role,
//! the token, the probes and the ports.

use crate::chart::{MATRIX, MODES, items, mode};
use serde_json::{Value, json};
use testkit::helm::{Job, render};
use testkit::pod::merge;

#[test]
fn every_container_is_as_pod_security_restricted_asks() {
    for rendering in MATRIX.iter() {
        let objects = rendering.objects();
        let of = |kind: &str| objects.iter().find(|it| it["kind"] == kind).unwrap();
        for pod in [
            &of("Deployment")["spec"]["template"]["spec"],
            &of("Pod")["spec"],
        ] {
            assert_restricted(pod);
        }
    }
}

fn assert_restricted(pod: &Value) {
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

#[test]
fn on_openshift_no_container_asks_for_a_user_or_a_group() {
    for mode_name in MODES {
        let values = merge(
            &mode(mode_name),
            &json!({"openshift": true, "securityContext": {"fsGroup": 1}}),
        );
        let rendering = render(Job::of(values));
        let text: String = rendering.files.values().cloned().collect();
        for id in ["runAsUser", "runAsGroup", "fsGroup"] {
            assert!(!text.contains(id), "{mode_name} {id}");
        }
        assert_restricted(&rendering.pod());
        assert_restricted(&rendering.object("Pod", "envoy-test")["spec"]);
    }
}

#[test]
fn a_node_may_be_scaled_down_with_the_files_that_crossover_can_write_again() {
    let evict = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
    let of = |values: Value| {
        let deployment = render(Job::of(values)).object("Deployment", "envoy");
        deployment["spec"]["template"]["metadata"]["annotations"].clone()
    };
    assert_eq!(of(json!({}))[evict], "xds");
    let own = of(json!({"podAnnotations": {evict: "xds,cache", "a": "b"}}));
    assert_eq!((&own[evict], &own["a"]), (&json!("xds,cache"), &json!("b")));
    // It names every volume that an autoscaler would keep the node for.
    for mode_name in MODES {
        let volumes = items(&render(Job::of(mode(mode_name))).pod()["volumes"]);
        let local = volumes
            .iter()
            .filter(|it| !it["emptyDir"].is_null() || !it["hostPath"].is_null());
        let names: Vec<_> = local.map(|it| it["name"].clone()).collect();
        assert_eq!(names, ["xds"]);
    }
    let socket = json!({"admin": {"socket": "/run/envoy/admin.sock"}});
    assert_eq!(of(socket)[evict], "xds,admin");
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
    let jobs = [json!({}), split.clone(), merge(&split, &publish)].map(Job::of);
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
    assert_eq!(unnamed(&mirrored), Vec::<Value>::new());
    let update = json!({
        "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["envoy-xds-gen"],
        "verbs": ["get", "update"],
    });
    assert_eq!((mirrored.len(), writes(&mirrored)), (3, 2));
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
                assert_eq!(startup.is_null(), mode_name != "native");
                // No container waits for this one.
                let readiness = &container["readinessProbe"];
                assert_eq!(readiness["exec"]["command"][1], "-accepted");
                let numbers = ["periodSeconds", "timeoutSeconds", "failureThreshold"];
                let numbers = numbers.map(|name| readiness[name].as_u64());
                assert_eq!(numbers, [5, 10, 6].map(Some));
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
fn every_port_that_is_asked_for_is_one_that_the_container_has() {
    for rendering in MATRIX.iter() {
        let objects = rendering.objects();
        let of = |kind: &'static str| objects.iter().filter(move |it| it["kind"] == kind);
        let pod = &of("Deployment").next().unwrap()["spec"]["template"];
        let test = of("Pod").next().unwrap()["metadata"]["labels"].clone();
        let containers = items(&pod["spec"]["containers"]);
        let ports: Vec<Value> = containers
            .iter()
            .flat_map(|it| items(&it["ports"]))
            .collect();
        let has = |name: &Value| ports.iter().any(|port| port["name"] == *name);
        for service in of("Service") {
            let labels = pod["metadata"]["labels"].as_object().unwrap();
            let wanted = service["spec"]["selector"].as_object().unwrap();
            assert!(
                wanted
                    .iter()
                    .all(|(key, value)| labels.get(key) == Some(value))
            );
            // Who asks in `helm test` is not who answers.
            assert!(
                wanted
                    .iter()
                    .any(|(key, value)| test.get(key) != Some(value))
            );
            assert!(
                items(&service["spec"]["ports"])
                    .iter()
                    .all(|it| has(&it["targetPort"]))
            );
        }
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let envoy = containers.iter().find(|it| it["name"] == "envoy").unwrap();
            let port = &envoy[probe]["httpGet"]["port"];
            let asks_crossover = envoy[probe]["exec"]["command"][1] == "-accepted";
            assert!(
                asks_crossover && probe == "startupProbe" || has(port),
                "{probe}"
            );
        }
        for monitor in of("ServiceMonitor") {
            let wanted = monitor["spec"]["selector"]["matchLabels"]
                .as_object()
                .unwrap();
            let selected = of("Service").filter(|it| {
                let labels = it["metadata"]["labels"].as_object().unwrap();
                wanted
                    .iter()
                    .all(|(key, value)| labels.get(key) == Some(value))
            });
            let selected: Vec<&Value> = selected.collect();
            assert_eq!(selected.len(), 1);
            let port = &selected[0]["spec"]["ports"][0]["name"];
            assert_eq!(monitor["spec"]["endpoints"][0]["port"], *port);
        }
    }
}
