//! Values that the chart refuses: each with a word of what is wrong, where, and what to write.

use serde_json::{Value, json};
use testkit::helm::{Job, render_all};

/// Helm refuses each of these values, and its words hold all of those.
#[track_caller]
fn refuses(cases: &[(Value, &[&str])]) {
    let jobs: Vec<Job> = cases
        .iter()
        .map(|(values, _)| Job::of(values.clone()))
        .collect();
    for (result, (values, want)) in render_all(&jobs).into_iter().zip(cases) {
        let Err(said) = result else {
            panic!("Helm takes {values}");
        };
        for want in *want {
            assert!(said.contains(want), "{values}: no {want:?} in: {said}");
        }
    }
}

/// An upstream with one backend, and more.
fn upstream(more: Value) -> Value {
    let mut upstream = json!({"backends": {"podinfo": {"port": 9898}}});
    for (key, value) in more.as_object().unwrap() {
        upstream[key] = value.clone();
    }
    upstream
}

fn backend(more: Value) -> Value {
    let mut backend = json!({"port": 9898});
    for (key, value) in more.as_object().unwrap() {
        backend[key] = value.clone();
    }
    json!({"upstreams": {"podinfo": {"backends": {"one": backend}}}})
}

#[test]
fn a_misspelled_value_is_refused_with_its_name() {
    refuses(&[
        (json!({"replicas": 3}), &["'replicas' not allowed"]),
        (
            json!({"crossover": {"syncinterval": "1m"}}),
            &["/crossover'", "'syncinterval'"],
        ),
        (json!({"image": {"name": "a"}}), &["/image'", "'name'"]),
        (
            json!({"listener": {"ports": 1}}),
            &["/listener'", "'ports'"],
        ),
        (
            json!({"serviceMonitor": {"enable": true}}),
            &["/serviceMonitor'", "'enable'"],
        ),
        (
            backend(json!({"wieght": 3})),
            &["/upstreams/podinfo/backends/one'", "'wieght'"],
        ),
        (
            json!({"services": {"podinfo": upstream(json!({"domain": "a"}))}}),
            &["/services/podinfo'", "'domain'"],
        ),
        (
            json!({"upstreams": {"podinfo": upstream(json!({"smi": {"enable": true}}))}}),
            &["/upstreams/podinfo/smi'", "'enable'"],
        ),
    ]);
}

#[test]
fn a_value_of_a_wrong_kind_is_refused_with_its_place() {
    refuses(&[
        (backend(json!({"weight": -1})), &["/one/weight'"]),
        (backend(json!({"weight": "50"})), &["/one/weight'"]),
        (backend(json!({"weight": 0.5})), &["/one/weight'"]),
        (backend(json!({"port": 0})), &["/one/port'"]),
        (
            json!({"upstreams": {"podinfo": {"backends": {"a": {}}}}}),
            &["/podinfo/backends/a'", "port"],
        ),
        (
            json!({"upstreams": {"podinfo": {"backends": {}}}}),
            &["/podinfo/backends'"],
        ),
        (
            json!({"upstreams": {"Podinfo": upstream(json!({}))}}),
            &["Podinfo"],
        ),
        (
            json!({"crossover": {"mode": "sidecar"}}),
            &["/crossover/mode'", "'native'"],
        ),
        (
            json!({"crossover": {"syncInterval": "soon"}}),
            &["/crossover/syncInterval'"],
        ),
        (
            json!({"crossover": {"logLevel": "loud"}}),
            &["/crossover/logLevel'"],
        ),
        (
            json!({"crossover": {"syncInterval": 60}}),
            &["/crossover/syncInterval'", "such as \"90s\""],
        ),
        (
            json!({"serviceMonitor": {"interval": 15}}),
            &["/serviceMonitor/interval'", "such as \"15s\""],
        ),
        (
            json!({"image": {"tag": 1.4}}),
            &["/image/tag'", "in quotes"],
        ),
        (
            json!({"admin": {"address": "localhost"}}),
            &["/admin/address'"],
        ),
        (
            json!({"admin": {"socket": "@admin"}}),
            &["/admin/socket'", "such as \"/run/envoy/admin.sock\""],
        ),
        (
            json!({"admin": {"socket": "/admin.sock"}}),
            &["/admin/socket'", "in a directory of its own"],
        ),
        (
            json!({"crossover": {"onRefusal": "back"}}),
            &["/crossover/onRefusal'"],
        ),
        (
            json!({"listener": {"address": "[::]"}}),
            &["/listener/address'"],
        ),
        (json!({"drainSeconds": 0}), &["/drainSeconds'"]),
        (json!({"xds": {"a/b.yaml": ""}}), &["a/b.yaml"]),
    ]);
}

#[test]
fn what_yaml_has_changed_before_it_gets_here_is_refused_with_the_cure() {
    let quotes = "write such a name in quotes";
    let changed = |yaml: &str| serde_yaml::from_str::<Value>(yaml).unwrap();
    refuses(&[
        // Helm reads `no:` as false, and `on:` as true.
        (
            changed("upstreams: {\"false\": {backends: {a: {port: 1}}}}"),
            &["upstreams: a name is true or false", quotes],
        ),
        (
            changed("upstreams: {a: {backends: {\"true\": {port: 1}}}}"),
            &["backends of upstream a: a name is", quotes],
        ),
        (changed("env: {\"true\": a}"), &["env: a name is", quotes]),
        (changed("xds: {\"false\": a}"), &["xds: a name is", quotes]),
        (
            changed("env: {A: 12345678901234567890}"),
            &["env.A is a number that loses digits", "in quotes"],
        ),
        (
            changed("env: {A: -9007199254740993}"),
            &["env.A is a number that loses digits"],
        ),
    ]);
}

#[test]
fn a_value_that_is_gone_is_refused_with_its_new_name() {
    refuses(&[
        (
            json!({"xdsLoader": {"syncInterval": "30s"}}),
            &["xdsLoader is gone", "use crossover"],
        ),
        (
            json!({"apiserver": "https://kubernetes"}),
            &["apiserver is gone", "crossover.extraArgs"],
        ),
        (
            json!({"smi": {"apiVersions": {}}}),
            &["smi is gone", "upstreams.NAME.smi.enabled"],
        ),
        (
            json!({"command": ["sh"]}),
            &["command is gone", "extraArgs"],
        ),
        (json!({"args": ["-l"]}), &["args is gone", "use extraArgs"]),
        (
            json!({"argsTemplate": "- -l"}),
            &["argsTemplate is gone", "use extraArgs"],
        ),
        (
            json!({"initContainersTemplate": ""}),
            &["is gone", "use crossover.mode"],
        ),
        (
            json!({"sidecarContainersTemplate": ""}),
            &["is gone", "use crossover.mode"],
        ),
        (
            json!({"templates": {}}),
            &["templates is gone", "use bootstrap, and xds"],
        ),
        (
            json!({"files": {}}),
            &["files is gone", "use bootstrap, and xds"],
        ),
        (
            json!({"codecType": "auto"}),
            &["is gone", "listener.httpConnectionManager.codec_type"],
        ),
        (
            json!({"route": {"name": "a"}}),
            &["route is gone", "use xds"],
        ),
        (
            json!({"ports": {"n0": {}}}),
            &["ports is gone", "listener.port"],
        ),
        (
            json!({"service": {"ports": {}}}),
            &["service.ports is gone", "service.port and extraPorts"],
        ),
        (
            json!({"service": {"name": "a"}}),
            &["service.name is gone", "fullnameOverride"],
        ),
        (
            json!({"service": {"enabled": true}}),
            &["service.enabled is gone"],
        ),
        (
            json!({"rbac": {"pspEnabled": true}}),
            &["rbac.pspEnabled is gone", "securityContext"],
        ),
        (
            json!({"secretMounts": {}}),
            &["secretMounts is gone", "volumes and volumeMounts"],
        ),
        (json!({"livenessProbe": {}}), &["livenessProbe is gone"]),
        (json!({"readinessProbe": {}}), &["readinessProbe is gone"]),
        (json!({"prometheusRule": {}}), &["prometheusRule is gone"]),
        (
            json!({"terminationGracePeriodSeconds": 30}),
            &["is gone", "use drainSeconds"],
        ),
        (
            json!({"strategy": "type: Recreate"}),
            &["strategy is not a text any more"],
        ),
        (
            json!({"podDisruptionBudget": "a: 1"}),
            &["podDisruptionBudget is not a text any more"],
        ),
        (
            backend(json!({"per_filter_config": {}})),
            &["podinfo", "one", "typed_per_filter_config"],
        ),
        (
            backend(json!({"http2Options": {}})),
            &["podinfo", "one", "http2.protocol_options"],
        ),
    ]);
}

#[test]
fn upstreams_that_contradict_each_other_are_refused_by_name() {
    let two = |a: Value, b: Value| json!({"upstreams": {"a": upstream(a), "b": upstream(b)}});
    let x = || json!({"domains": ["x"]});
    let other = json!({"podinfo": {"port": 1}});
    let split = json!({"domains": ["x"], "prefix": "/b", "smi": {"enabled": true}});
    let third = upstream(json!({"domains": ["b"]}));
    let mut three = two(x(), split);
    three["upstreams"]["c"] = third.clone();
    let route = json!({"domains": ["x"], "prefix": "/b", "httpRoute": {"enabled": true}});
    let mut with_route = two(x(), route);
    with_route["upstreams"]["c"] = third;
    refuses(&[
        (
            two(json!({}), json!({})),
            &["each needs its domains; without are: a, b"],
        ),
        (
            two(x(), json!({})),
            &["each needs its domains; without are: b"],
        ),
        (
            two(x(), x()),
            &["upstreams a and b have the same domains and the same prefix"],
        ),
        (
            two(x(), json!({"domains": ["x", "y"]})),
            &["upstream b has the domain \"x\", as upstream a does"],
        ),
        (
            two(x(), json!({"domains": ["y"], "backends": other})),
            &["backend podinfo of upstream b is another one elsewhere"],
        ),
        (
            three,
            &["upstream b has smi.enabled, but its name is a domain of upstream c"],
        ),
        (
            with_route,
            &["upstream b has httpRoute.enabled, but its name is a domain of upstream c"],
        ),
        (
            two(x(), json!({"domains": ["y:8080"]})),
            &["upstream b: write the domain \"y:8080\" without its port"],
        ),
        (
            backend(json!({"weight": 0})),
            &["podinfo: the weights of its backends add up to 0"],
        ),
        (
            json!({"upstreams": {"a": upstream(json!({}))}, "services": {"b": upstream(json!({}))}}),
            &["upstreams and services are two names of one thing"],
        ),
    ]);
}

#[test]
fn what_cannot_run_is_refused_before_it_is_installed() {
    refuses(&[
        (
            json!({"crossover": {"mode": "embedded"}}),
            &[
                "an image that holds both envoy and crossover",
                "image.repository",
            ],
        ),
        (
            json!({"volumes": [{"name": "xds"}]}),
            &["a volume xds of its own"],
        ),
        (
            json!({"volumes": [{"name": "admin"}], "admin": {"socket": "/run/envoy/admin.sock"}}),
            &["a volume admin of its own"],
        ),
        (
            json!({"xds": {"rds.json": {"a": "b{{ printf \"%c c\" 58 }}"}}}),
            &["xds, rds.json: its templates leave no YAML"],
        ),
        (
            json!({"xds": {"rds.yaml": "{{ .Values.nothing.at.all }}"}}),
            &["nil pointer"],
        ),
    ]);
}
