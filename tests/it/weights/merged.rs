//! The texts that merging is proven with (`tests/data/route`), each loaded by the real Envoy once:
//! what it says it took has the weights that stand in the text.

use serde::Deserialize;
use serde_json::Value;
use std::fs;
use std::path::Path;
use testkit::envoy::{Judge, Offered, ROUTES, Verdict};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/route");

/// Envoy has an `api_listener` in its bootstrap only, and does not show any other.
const UNSHOWN: &str = "api_listener";
/// Texts that Envoy refuses before the merge, too: they are not routes or not YAML, or leave a
/// route without any weight.
const REFUSED: [&str; 7] = [
    "json_escapes",
    "left_out_beside_others",
    "list_shaped_route",
    "missing_weight_alias_name",
    "odd_shapes",
    "unreadable_other_names",
    "unreadable_untouched",
];
/// The clusters to which the listeners' routes lead.
const CLUSTERS: &str = "\
resources:
- {\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: podinfo-primary}
- {\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: podinfo-canary}
";

/// The clusters of each route with weights, with their weights.
type Weights = Vec<Vec<(String, u64)>>;

fn number(value: &Value) -> u64 {
    match value {
        Value::Object(wrapped) => wrapped.get("value").map_or(0, number),
        Value::String(text) => text.parse().unwrap(),
        value => value.as_f64().unwrap() as u64,
    }
}

/// Returns the items of a list, and of lists in it. A value that is not a list counts as a list of
/// one.
fn all_of(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().flat_map(all_of).collect(),
        other => vec![other],
    }
}

/// All weights in a value, in order.
fn weights(value: &Value, found: &mut Weights) {
    match value {
        Value::Object(fields) => {
            // A listener that was replaced drains for a while.
            for (key, inner) in fields.iter().filter(|(key, _)| *key != "draining_state") {
                match (key.as_str(), inner.get("clusters")) {
                    ("weighted_clusters" | "weightedClusters", Some(clusters)) => {
                        let named = |c: &Value, field| c[field].as_str().unwrap_or("").to_owned();
                        let name = |c: &Value| named(c, "name") + &named(c, "cluster_header");
                        let pair = |c: &Value| (name(c), c.get("weight").map_or(0, number));
                        found.push(all_of(clusters).into_iter().map(pair).collect());
                    }
                    _ => weights(inner, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| weights(item, found)),
        _ => {}
    }
}

fn sorted(value: &Value) -> Weights {
    let mut found = Weights::new();
    weights(value, &mut found);
    found.sort();
    // An alias may repeat them where Envoy keeps nothing.
    found.dedup();
    found
}

/// Checks a case. The error says what is wrong with it.
fn check(judge: &Judge, text: &str, file: &Path) -> Result<(), String> {
    let is_json = file.extension().is_some_and(|e| e == "json");
    let offered = match (is_json, text.contains("config.listener.v3.Listener")) {
        (_, true) => Offered::Listeners,
        (true, false) => Offered::RoutesJson,
        (false, false) => Offered::Routes,
    };
    // The judge's listeners wait for routes of its own name.
    let text = match text.contains(ROUTES) {
        true => text.to_owned(),
        false => text
            .replacen("local", ROUTES, 1)
            .replace("name: local\n", "name: local_route\n"),
    };
    if let Verdict::Refused(log) = judge.offer(offered, text.as_bytes()) {
        return Err(format!("refused: {log}"));
    }
    // Envoy reads the first document.
    let is_plain = |c: &char| match c {
        '\n' | '\r' | '\t' => true,
        '\u{fffe}' | '\u{ffff}' => false,
        c => !c.is_control(),
    };
    let plain: String = text
        .trim_start_matches('\u{feff}')
        .chars()
        .filter(is_plain)
        .collect();
    let first = serde_yaml::Deserializer::from_str(&plain).next();
    let first = Value::deserialize(first.unwrap()).map_err(|e| e.to_string())?;
    let dump = judge.envoy().json("/config_dump");
    let (kind, field) = match offered {
        Offered::Listeners => (".ListenersConfigDump", "dynamic_listeners"),
        _ => (".RoutesConfigDump", "dynamic_route_configs"),
    };
    let all = dump["configs"].as_array().unwrap();
    let is_it = |dump: &&Value| dump["@type"].as_str().unwrap().ends_with(kind);
    let taken = all
        .iter()
        .find(is_it)
        .map_or(&Value::Null, |dump| &dump[field]);
    // Of the two files of routes, one is from an earlier case.
    let taken: Vec<Weights> = match offered {
        Offered::Listeners => vec![sorted(taken)],
        _ => taken.as_array().into_iter().flatten().map(sorted).collect(),
    };
    let want = sorted(&first);
    match taken.contains(&want) {
        true => Ok(()),
        false => Err(format!("want {want:?}, found {taken:?}")),
    }
}

#[test]
fn envoy_takes_every_merged_text_and_shows_its_weights() {
    let judge = Judge::start();
    assert_eq!(
        judge.offer(Offered::Clusters, CLUSTERS.as_bytes()),
        Verdict::Loaded
    );
    let (mut wrong, mut count) = (Vec::new(), 0);
    let mut cases: Vec<_> = fs::read_dir(DATA)
        .unwrap()
        .map(|case| case.unwrap().path())
        .collect();
    cases.sort();
    for case in cases {
        let wanted = ["want.yaml", "want.json"].map(|name| case.join(name));
        let Some(file) = wanted.iter().find(|file| file.exists()) else {
            continue;
        };
        // What Envoy makes of it is recorded there: it reads otherwise than a parser of YAML.
        if case.join("envoy.json").exists() {
            continue;
        }
        count += 1;
        let text = fs::read_to_string(file).unwrap();
        let case_name = case.file_name().unwrap().to_str().unwrap();
        if REFUSED.contains(&case_name) {
            let template = file.with_file_name(
                file.file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .replace("want", "config"),
            );
            let template = fs::read_to_string(template).unwrap();
            match check(&judge, &template, file) {
                Err(error) if error.starts_with("refused: ") => {}
                other => wrong.push(format!("{case_name} is not refused: {other:?}")),
            }
            continue;
        }
        if let Err(error) = check(&judge, &text, file)
            && !(case_name == UNSHOWN && error.ends_with("found [[]]"))
        {
            let error: String = error.chars().take(400).collect();
            wrong.push(format!("{case_name}: {error}"));
        }
    }
    assert!(count > 50);
    assert!(
        wrong.is_empty(),
        "{count} cases, of them {}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
