//! Values that YAML or Helm would change arrive as they are: numbers, durations, names that look
//! like something else. `helm test` is run, too.

use crate::chart::run::{ask, chart, wait_until_loaded};
use crate::chart::{MODES, mode};
use serde_json::{Map, Value, json};
use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use testkit::envoy;
use testkit::helm::{Job, Rendering, render, render_all};
use testkit::load::Tally;
use testkit::pod::{Pod, merge};
use testkit::until;

/// Texts that a reader of YAML 1.1, such as kubectl, or of YAML 1.2 takes for something else.
const ODD: [&str; 10] = [
    "no",
    "on",
    "off",
    "y",
    "n",
    "null",
    "123",
    "1e3",
    "0x1f",
    "2020-01-01",
];

/// The documents as kubectl reads them.
fn as_kubectl_reads(rendering: &Rendering) -> Vec<Value> {
    let texts: Vec<&str> = rendering
        .files
        .iter()
        .filter(|(name, _)| name.ends_with(".yaml"))
        .flat_map(|(_, text)| text.split("\n---\n"))
        .filter(|text| text.contains("kind:"))
        .collect();
    let answer = testkit::helm::ask(Map::from_iter([("parse".into(), json!(texts))]));
    answer["parsed"].as_array().unwrap().clone()
}

#[test]
fn a_name_that_looks_like_something_else_is_a_name_wherever_it_is_written() {
    let values = |name: &str| {
        let extra = json!({"name": name, "port": 5432});
        json!({
            "nameOverride": name, "fullnameOverride": name, "priorityClassName": name,
            "serviceAccount": {"name": name}, "extraPorts": [extra], "env": {name: name},
            "podLabels": {"a": name}, "podAnnotations": {"a": name}, "logLevel": "off",
            "serviceMonitor": {"enabled": true, "namespace": name},
            "crossover": {"publish": true, "configMaps": [name], "trafficSplits": [name]},
            "upstreams": {"u": {"smi": {"enabled": true}, "domains": [name], "backends": {"b": {"port": 1}}}},
        })
    };
    let jobs = ODD.into_iter().chain(["plain"]).map(|name| Job {
        release: name.into(),
        values: values(name),
        ..Job::default()
    });
    let jobs: Vec<Job> = jobs.collect();
    let mut all: Vec<Rendering> = render_all(&jobs).into_iter().map(Result::unwrap).collect();
    let want = as_kubectl_reads(&all.pop().unwrap());
    for (name, rendering) in ODD.into_iter().zip(&all) {
        for (found, want) in as_kubectl_reads(rendering).iter().zip(&want) {
            assert_same_kinds(name, "", found, want);
        }
    }
}

/// The same shape, and text where there is text.
#[track_caller]
fn assert_same_kinds(name: &str, at: &str, found: &Value, want: &Value) {
    match (found, want) {
        (Value::Object(found), Value::Object(want)) => {
            assert_eq!(found.len(), want.len(), "{name}: {at}");
            for (key, value) in want {
                let key = if found.contains_key(key) { key } else { name };
                assert!(found.contains_key(key), "{name}: {at} has no {key}");
                assert_same_kinds(name, &format!("{at}.{key}"), &found[key], value);
            }
        }
        (Value::Array(found), Value::Array(want)) => {
            assert_eq!(found.len(), want.len(), "{name}: {at}");
            for (found, want) in found.iter().zip(want) {
                assert_same_kinds(name, &format!("{at}[]"), found, want);
            }
        }
        _ => assert_eq!(
            found.is_string(),
            want.is_string(),
            "{name}: {at} is {found}"
        ),
    }
}

#[test]
fn envoy_and_crossover_run_with_names_that_look_like_something_else() {
    let backends = ["on", "123"];
    let pod = Pod::new(&backends);
    let mut values = merge(&pod.values(), &mode("classic"));
    values["logLevel"] = json!("off");
    values["upstreams"] = json!({"no": {"smi": {"enabled": true}, "backends": {}}});
    for name in backends {
        let backend = json!({"port": 9898, "cluster": pod.cluster(name)});
        values["upstreams"]["no"]["backends"][name] = backend;
    }
    let rendering = render(Job::of(values));
    pod.install(&rendering);
    let init = pod.crossover(&rendering, "crossover-init").finish();
    assert_eq!(init.code, Some(0), "{}", init.stderr);
    let envoy = pod.envoy(&rendering);
    wait_until_loaded(&envoy);
    let load = pod.load(200);
    load.wait_for("both", &Tally::default(), |tally| tally.answers.len() == 2);
    assert_eq!(load.tally().failures, Vec::<String>::new());
}

#[test]
fn a_number_among_variables_and_tags_keeps_its_digits() {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let text = "env: {A: 12345678, B: 1000000, C: -7, D: 0.5, E: true, F: \"0644\", G: 9007199254740991}\n\
                image: {tag: 1}\ncrossover: {image: {tag: 20261127}}\n";
    fs::write(file.path(), text).unwrap();
    let rendering = render(Job {
        files: vec![file.path().display().to_string()],
        set: vec!["env.H=87654321".into()],
        ..Job::default()
    });
    let container = rendering.container("envoy");
    let variables = container["env"].as_array().unwrap();
    let of = |name: &str| {
        let found = variables.iter().find(|it| it["name"] == name);
        found.unwrap()["value"].clone()
    };
    for (name, want) in [
        ("A", "12345678"),
        ("B", "1000000"),
        ("C", "-7"),
        ("D", "0.5"),
        ("E", "true"),
        ("F", "0644"),
        ("G", "9007199254740991"),
        ("H", "87654321"),
    ] {
        assert_eq!(of(name), want, "{name}");
    }
    assert_eq!(container["image"], "envoyproxy/envoy:1");
    assert_eq!(
        rendering.container("crossover")["image"],
        "crossover:20261127"
    );
}

#[test]
fn yaml_under_a_name_of_json_becomes_json_after_its_templates() {
    let routes = json!({"resources": [{"name": "{{ printf \"%s\" \"a\" }}", "n": 33554432, "t": "{{ 3 }}s"}]});
    let values =
        json!({"xds": {"rds.json": routes, "text.json": "{\"a\":  1}", "more.yaml": {"a": 1}}});
    let files = render(Job::of(values)).object("ConfigMap", "envoy-xds")["data"].clone();
    let read: Value = serde_json::from_str(files["rds.json"].as_str().unwrap()).unwrap();
    let want = json!({"resources": [{"name": "a", "n": 33554432, "t": "3s"}]});
    assert_eq!(read, want);
    assert_eq!(files["text.json"], "{\"a\":  1}");
    assert_eq!(files["more.yaml"], "a: 1\n");
}

/// Puts what is Envoy's wherever the values take it, one at a time.
fn everywhere(it: &Value) -> Vec<Value> {
    let backend = |more: Value| {
        let backend = merge(&json!({"port": 1}), &more);
        json!({"upstreams": {"a": {"backends": {"b": backend}}}})
    };
    let named = merge(&json!({"name": "a"}), it);
    vec![
        merge(
            &backend(json!({})),
            &json!({"upstreams": {"a": {"route": it}}}),
        ),
        backend(json!({"cluster": it})),
        backend(json!({"http2": {"enabled": true, "protocol_options": it}})),
        backend(json!({"typed_per_filter_config": {"a": it}})),
        json!({"clusters": [named]}),
        json!({"listener": {"httpConnectionManager": {"a": [it]}}}),
        json!({"listener": {"filterChain": {"a": [[it]]}}}),
        json!({"bootstrap": it}),
        json!({"xds": {"a.yaml": it}}),
    ]
}

#[test]
fn a_duration_without_its_unit_is_refused_with_the_cure_wherever_it_stands() {
    let wrong = [
        json!(3),
        json!(0.25),
        json!("3"),
        json!("250ms"),
        json!("1m"),
    ];
    let names = ["timeout", "idle_timeout", "idleTimeout"];
    let names = names.into_iter().zip(wrong.iter().cycle());
    let mut cases: Vec<Value> = names
        .flat_map(|(name, value)| everywhere(&json!({name: value})))
        .collect();
    let one = |it: Value| json!({"bootstrap": {"a": it}});
    cases.extend(
        wrong
            .iter()
            .map(|value| one(json!({"connect_timeout": value}))),
    );
    // Of each kind of name that Envoy's API has for one.
    for name in [
        "interval",
        "base_interval",
        "noTrafficHealthyInterval",
        "base_ejection_time",
        "maxEjectionTime",
        "max_ejection_time_jitter",
        "dns_refresh_rate",
        "dnsJitter",
        "ttl",
        "cleanup_interval",
        "max_stream_duration",
        "max_connection_duration",
        "update_merge_window",
        "slow_start_window",
        "drain_time",
        "fixed_delay",
        "fixedDelay",
        "grpc_timeout_header_max",
        "grpcTimeoutOffset",
        "initial_fetch_timeout",
        "parent_shutdown_time",
        "weight_update_period",
    ] {
        cases.push(one(json!({name: 3})));
    }
    let jobs: Vec<Job> = cases.iter().cloned().map(Job::of).collect();
    for (result, values) in render_all(&jobs).into_iter().zip(&cases) {
        let said = result
            .err()
            .unwrap_or_else(|| panic!("Helm takes {values}"));
        assert!(said.contains("such as \"3s\""), "{values}: {said}");
    }
}

#[test]
fn what_only_looks_like_a_duration_is_taken() {
    let rest = json!({
        // UInt32Value, of seconds; Percent; messages and switches.
        "tcp_keepalive": {"keepalive_time": 3, "keepalive_interval": 3},
        "connection_keepalive": {"interval": "30s", "interval_jitter": {"value": 15}},
        "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "1.000000001s"},
        "delay": {"fixed_delay": "0.1s"}, "hedge_on_per_try_timeout": true,
        "dns_failure_refresh_rate": {"base_interval": "5s", "max_interval": "-1s"},
        "rate": 3, "num_retries": 3, "keepalive_probes": 3,
        // Struct: anything may be in it.
        "metadata": {"filter_metadata": {"a": {"timeout": 3}}}, "json_format": {"duration": "%DURATION%"},
        "static_layer": {"a": {"timeout": 3}}, "typed_config": {"value": {"timeout": 3}},
    });
    let mut jobs: Vec<Job> = everywhere(&rest).into_iter().map(Job::of).collect();
    jobs.push(Job::of(
        json!({"xds": {"a.yaml": {"timeout": "{{ add 1 2 }}s"}}}),
    ));
    for (result, job) in render_all(&jobs).into_iter().zip(&jobs) {
        assert_eq!(result.err(), None, "{}", job.values);
    }
}

#[test]
fn an_admin_port_on_ipv6_is_found_by_every_container() {
    for mode_name in MODES {
        let pod = Pod::new(&["one", "two"]);
        // There is one ::1 for all tests.
        let free = TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap();
        let admin = json!({"admin": {"address": "::1", "port": free.port()}, "drainSeconds": 1});
        let rendering = chart(&pod, [1, 1], &merge(&mode(mode_name), &admin));
        pod.install(&rendering);
        if mode_name == "embedded" {
            let both = pod.crossover(&rendering, "envoy");
            assert_eq!(ask(&pod, "podinfo", "/").0, 200);
            both.signal(rustix::process::Signal::TERM);
            let finished = both.finish();
            assert_eq!(finished.code, Some(0), "{}", finished.stderr);
            assert!(!finished.stderr.contains("WARN"), "{}", finished.stderr);
            continue;
        }
        let container = if mode_name == "native" {
            "crossover"
        } else {
            "crossover-init"
        };
        let _crossover = pod.crossover(&rendering, container);
        until("the files", || pod.file("rds.yaml").exists().then_some(()));
        let envoy = pod.envoy(&rendering);
        assert_eq!(envoy.get("/ready"), "LIVE\n");
        assert_eq!(ask(&pod, "podinfo", "/").0, 200);
        let mut hook = pod.hook(&rendering).stdin(Stdio::null()).spawn().unwrap();
        let status = until("the hook to end", || hook.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

/// The pod of `helm test`, as a process, with the Service at the pod's address.
struct Asker(Child);

impl Asker {
    fn start(pod: &Pod, rendering: &Rendering) -> Asker {
        let container = rendering.object("Pod", "envoy-test")["spec"]["containers"][0].clone();
        assert_eq!(container["command"], json!(["envoy"]));
        assert_eq!(container["image"], rendering.container("envoy")["image"]);
        let here = format!("address: \"{}\"", pod.address);
        let arguments = container["args"].as_array().unwrap().iter();
        let arguments = arguments.map(|text| {
            let text = text.as_str().unwrap();
            // As many of these run on this machine at once.
            let sockets = format!("@{}-envoy-test", pod.address);
            text.replace("address: \"envoy\"", &here)
                .replace("@envoy-test", &sockets)
        });
        let mut command = Command::new(envoy::program());
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        Asker(command.spawn().unwrap())
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn helm_test_asks_once_through_the_service_and_ends_well() {
    let pod = Pod::new(&["one", "two"]);
    let hosts =
        json!({"upstreams": {"podinfo": {"domains": ["*.example.com"], "prefix": "/api/"}}});
    let rendering = chart(&pod, [1, 1], &merge(&mode("classic"), &hosts));
    pod.install(&rendering);
    // Before Envoy answers, it says what is wrong, and goes on to ask.
    let mut asker = Asker::start(&pod, &rendering);
    let mut log = std::io::BufReader::new(asker.0.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut log, &mut line).unwrap();
    let wrong = "GET /api/ of host test.example.com, through the Service: 503";
    assert!(line.contains(wrong), "{line}");
    assert_eq!(asker.0.try_wait().unwrap(), None);
    let init = pod.crossover(&rendering, "crossover-init").finish();
    assert_eq!(init.code, Some(0), "{}", init.stderr);
    let envoy = pod.envoy(&rendering);
    let status = until("the test to end", || asker.0.try_wait().unwrap());
    assert!(status.success(), "{status}");
    let asked = envoy.stat("http.http.downstream_rq_total");
    let served = envoy.stat("http.http.downstream_rq_2xx");
    assert_eq!((asked, served), (1, 1));
    let pod = &rendering.object("Pod", "envoy-test")["spec"];
    // What never ends well ends badly.
    assert_eq!(pod["activeDeadlineSeconds"], json!(60));
    assert_eq!(pod["restartPolicy"], "Never");
}
