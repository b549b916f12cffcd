//! The documents are true of the chart: the values' table is the values, the plain manifests and
//! the package are the chart's, and every Helm renders the same.

use crate::chart::MODES;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};
use testkit::examples;
use testkit::helm::{self, Job, Rendering, VERSIONS, ask, documents, render};
use testkit::pages;

const CHART_README: &str = include_str!("../../../charts/envoy/README.md");

#[test]
fn helm_3_and_helm_4_render_what_the_library_renders() {
    let files = [
        "values.flagger.yaml",
        "values.gateway.yaml",
        "values.router.yaml",
    ];
    for file in files {
        let mut want = render(Job::example(file)).objects();
        want.sort_by_key(Value::to_string);
        for version in VERSIONS {
            let output = helm::program(version)
                .args(["template", "envoy", "charts/envoy", "-f"])
                .arg(examples::path(file))
                .output()
                .expect("Helm can be run");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "Helm {version}: {said}");
            let mut all = documents(&String::from_utf8_lossy(&output.stdout));
            all.sort_by_key(Value::to_string);
            assert_eq!(all, want, "Helm {version}, {file}");
        }
    }
}

#[test]
fn equal_sources_give_an_equal_package() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::TempDir::new().unwrap();
    let package = |name: &str, time: u64| {
        let chart = dir.path().join(name).join("envoy");
        fs::create_dir_all(chart.parent().unwrap()).unwrap();
        let mut copy = Command::new("cp");
        copy.arg("-r")
            .arg("charts/envoy")
            .arg(&chart)
            .current_dir(root);
        assert!(copy.status().unwrap().success());
        let values = fs::File::options()
            .write(true)
            .open(chart.join("values.yaml"));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(time);
        values.unwrap().set_modified(time).unwrap();
        let output = Command::new(root.join(".venv/bin/python"))
            .args(["tests/kit/helm.py", "package"])
            .args([&chart, chart.parent().unwrap()])
            .current_dir(root)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        fs::read(String::from_utf8(output.stdout).unwrap().trim()).unwrap()
    };
    let (one, other) = (
        package("one", 1_000_000_000),
        package("other", 1_100_000_000),
    );
    assert!(
        !one.is_empty() && one == other,
        "two packages of one chart differ"
    );
}

#[test]
fn the_plain_manifests_are_the_charts() {
    for mode in MODES {
        let path = examples::path(&format!("kubernetes/{mode}.yaml"));
        let text = fs::read_to_string(&path).unwrap();
        let mut values = json!({
            "crossover": {"mode": mode}, "upstreams": {"podinfo": {"smi": {"enabled": true}}},
        });
        if mode == "embedded" {
            values["image"] = json!({"repository": "envoy-crossover", "tag": "latest"});
        }
        let mut want = render(Job::example("values.upstreams.yaml").with(values)).objects();
        // In the order in which kubectl may apply it: no pod waits for what its account may do.
        want.retain(|object| object["metadata"]["annotations"]["helm.sh/hook"].is_null());
        let kinds: Vec<String> = documents(&text)
            .iter()
            .map(|it| it["kind"].to_string())
            .collect();
        let at = |kind: &str| kinds.iter().position(|it| it.contains(kind)).unwrap();
        let before = [
            "\"ServiceAccount",
            "\"Role\"",
            "\"RoleBinding",
            "\"ConfigMap",
            "\"Service\"",
        ];
        assert!(
            before.iter().all(|kind| at(kind) < at("\"Deployment")),
            "{kinds:?}"
        );
        for object in &mut want {
            let labels = object["metadata"]["labels"].as_object_mut().unwrap();
            assert!(labels.remove("app.kubernetes.io/managed-by").is_some());
            assert!(labels.remove("helm.sh/chart").is_some());
        }
        let mut found = documents(&text);
        found.sort_by_key(Value::to_string);
        want.sort_by_key(Value::to_string);
        assert!(
            found == want,
            "example/kubernetes/{mode}.yaml is old; run: make manifests"
        );
        assert!(text.starts_with("# "), "{mode}");
    }
}

/// The rows of the values' table: name, default, meaning.
fn table() -> Vec<[String; 3]> {
    let rows = CHART_README.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| {
        let mut cells = row
            .trim_matches('|')
            .splitn(3, " | ")
            .map(|cell| cell.trim().to_string());
        let mut next = || cells.next().unwrap_or_else(|| panic!("{row}"));
        [next(), next(), next()]
    });
    cells.collect()
}

#[test]
fn every_value_is_in_the_table_with_its_default_and_a_description() {
    let defaults = ask(Map::new())["defaults"].clone();
    let mut undocumented = defaults.clone();
    for [name, default, meaning] in table() {
        let name = name.trim_matches('`');
        let default: Value = serde_json::from_str(default.trim_matches('`')).unwrap();
        let pointer = format!("/{}", name.replace('.', "/"));
        assert_eq!(defaults.pointer(&pointer), Some(&default), "{name}");
        assert!(meaning.len() > 3, "{name}");
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = undocumented
            .pointer_mut(parent)
            .and_then(Value::as_object_mut)
            .unwrap();
        parent.remove(key);
    }
    fn is_empty(value: &Value) -> bool {
        value
            .as_object()
            .is_some_and(|map| map.values().all(is_empty))
    }
    assert!(is_empty(&undocumented), "not in the table: {undocumented}");
}

#[test]
fn the_schema_knows_every_value_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = fs::read_to_string(root.join("charts/envoy/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let defaults = ask(Map::new())["defaults"].clone();
    let names = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let mut known = names(&schema["properties"]);
    let gone = json!({"$ref": "#/definitions/gone"});
    known.retain(|name| schema["properties"][name] != gone && name != "global");
    assert_eq!(known, names(&defaults));
}

#[test]
fn the_charts_readme_shows_values_that_helm_takes() {
    let blocks = pages::blocks(CHART_README, "yaml");
    assert_eq!(blocks.len(), 2);
    let rendered: Vec<Rendering> = blocks
        .iter()
        .map(|block| render(Job::of(serde_yaml::from_str(block).unwrap())))
        .collect();
    let file = |rendering: &Rendering, name: &str| -> Value {
        let data = rendering.object("ConfigMap", "envoy-xds")["data"].clone();
        serde_yaml::from_str(data[name].as_str().unwrap()).unwrap()
    };
    let host = &file(&rendered[0], "rds.yaml")["resources"][0]["virtual_hosts"][0];
    assert_eq!(host["domains"], json!(["podinfo.example"]));
    assert_eq!(host["routes"][0]["route"]["timeout"], "3s");
    let listeners = file(&rendered[1], "lds.yaml")["resources"].clone();
    let names: Vec<_> = listeners
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].clone())
        .collect();
    assert_eq!(names, ["http", "more"]);
}
