//! The cases of `tests/data/route` that say what the real Envoy makes of them (`envoy.json`: the
//! weighted clusters of every route, as the ConfigMap has them and as they should become), each
//! offered to it before and after.

use serde::Deserialize;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use testkit::envoy::{Judge, Offered, Verdict};
use testkit::until;

/// The clusters of one route, each by its name, or the header that names it, with its weight.
type Clusters = Vec<(String, u64)>;

#[derive(Deserialize)]
struct Said {
    /// The clusters, or `None` if Envoy refuses the text.
    before: Option<Vec<Clusters>>,
    after: Vec<Clusters>,
}

/// Finds the weighted clusters in the order of Envoy's dump, which sorts maps by key.
fn weighted(dump: &Value, found: &mut Vec<Clusters>) {
    if let Some(clusters) = dump["weighted_clusters"]["clusters"].as_array() {
        let cluster = |cluster: &Value| {
            let name = cluster["name"]
                .as_str()
                .or(cluster["cluster_header"].as_str());
            (
                name.unwrap_or_default().to_owned(),
                cluster["weight"].as_u64().unwrap_or_default(),
            )
        };
        found.push(clusters.iter().map(cluster).collect());
    }
    let inner: Vec<&Value> = match dump {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    };
    inner.into_iter().for_each(|inner| weighted(inner, found));
}

#[track_caller]
fn offer(judge: &Judge, file: &Path, want: Option<&[Clusters]>) {
    let text = fs::read_to_string(file).unwrap();
    let text = text
        .replacen("name: local\n", "name: local_route\n", 1)
        .replacen("\"name\":\"local\"", "\"name\":\"local_route\"", 1);
    let is_json = file
        .extension()
        .is_some_and(|extension| extension == "json");
    let (offered, resource) = match (text.contains("v3.Listener\n"), is_json) {
        (true, _) => (Offered::Listeners, "dynamic_listeners"),
        (false, true) => (Offered::RoutesJson, "dynamic_route_configs"),
        (false, false) => (Offered::Routes, "dynamic_route_configs"),
    };
    let verdict = judge.offer(offered, text.as_bytes());
    let Some(want) = want else {
        assert_ne!(verdict, Verdict::Loaded, "{}", file.display());
        return;
    };
    assert_eq!(verdict, Verdict::Loaded, "{}", file.display());
    until(
        &format!("Envoy to have {want:?} of {}", file.display()),
        || {
            let mut dump = judge
                .envoy()
                .json(&format!("/config_dump?resource={resource}"));
            let configs = dump["configs"].as_array_mut()?;
            // A listener that was replaced drains for a while.
            configs
                .iter_mut()
                .for_each(|config| drop(config["draining_state"].take()));
            if offered != Offered::Listeners {
                // The other one is of the other file.
                configs.sort_by_cached_key(|config| {
                    let at = config["last_updated"].as_str().unwrap_or_default();
                    at.trim_end_matches('Z').to_owned()
                });
                configs.drain(..configs.len().saturating_sub(1));
            }
            let mut found = Vec::new();
            weighted(&dump, &mut found);
            println!("{found:?}");
            (found == want).then_some(())
        },
    );
}

#[test]
fn envoy_has_the_weights_of_the_configmap_before_and_of_the_split_after() {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/route");
    let judge = Judge::start();
    let mut count = 0;
    for case in fs::read_dir(data).unwrap() {
        let case = case.unwrap().path();
        let Ok(said) = fs::read(case.join("envoy.json")) else {
            continue;
        };
        let said: Said = serde_json::from_slice(&said).unwrap();
        let (before, after) = (said.before.as_deref(), Some(&said.after[..]));
        assert_ne!(before, after, "{}", case.display());
        let extension = match case.join("config.json").exists() {
            true => "json",
            false => "yaml",
        };
        for (name, want) in [("config", before), ("want", after)] {
            offer(&judge, &case.join(format!("{name}.{extension}")), want);
        }
        count += 1;
    }
    assert!(count > 5, "{count}");
}

/// Envoy ignores case in domains, so a split's service is found without regard to case, too.
#[test]
fn envoy_compares_domains_without_case() {
    let judge = Judge::start();
    let routes = |domains: &str| {
        let text = fs::read_to_string(
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("tests/data/route/list_of_one/config.yaml"),
        );
        let text = text.unwrap().replace("domains: podinfo", domains);
        let text = text.replace("name: local\n", "name: local_route\n");
        judge.offer(Offered::Routes, text.as_bytes())
    };
    assert_eq!(routes("domains: [PODINFO, \"podinfo:*\"]"), Verdict::Loaded);
    let Verdict::Refused(log) = routes("domains: [PODINFO, podinfo]") else {
        panic!("Envoy tells PODINFO from podinfo");
    };
    assert!(log.contains("Duplicate entry of domain podinfo"), "{log}");
}
