//! Every case under `tests/data/route`: `config.*` with `split.json` (one TrafficSplit or a list)
//! becomes `want.*` (in the cluster of `domain.txt`, if any) with the warnings of `warnings.txt`,
//! but for the routes that are left out as
//! `left_out.txt` says (without `want.*`: nothing changes), or is refused as `refused.txt` says.

#![allow(clippy::unwrap_used)]

mod http_routes;
mod properties;

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::warning::Warning;
use super::*;
use crate::kube::object::TrafficSplitSpec;
use crate::snapshot::ObjectName;
use crate::source::traffic_split::to_weights;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/route");

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    spec: TrafficSplitSpec,
}

#[derive(Deserialize)]
struct Metadata {
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Objects {
    One(Object),
    Many(Vec<Object>),
}

/// Splits that can be applied, and a warning for each that cannot.
fn splits(json: &str) -> (Vec<HostWeights>, Vec<String>) {
    // Not by way of `untagged`, which would buffer the numbers.
    let objects = match json.trim_start().starts_with('[') {
        true => Objects::Many(serde_json::from_str(json).unwrap()),
        false => Objects::One(serde_json::from_str(json).unwrap()),
    };
    let objects = match objects {
        Objects::One(object) => vec![object],
        Objects::Many(objects) => objects,
    };
    let (mut splits, mut warnings) = (Vec::new(), Vec::new());
    for Object { metadata, spec } in objects {
        let Metadata { namespace, name } = metadata;
        let name = ObjectName { namespace, name };
        match to_weights(name.clone(), &spec) {
            Ok(split) => splits.push(split),
            Err(why) => warnings.push(format!("TrafficSplit {name} is not applied: {why}")),
        }
    }
    (splits, warnings)
}

#[track_caller]
fn check(case: &Path) -> Result<(), String> {
    let read = |file: &str| fs::read_to_string(case.join(file)).ok();
    let (extension, config) = ["yaml", "json", "txt", "YAML", "pb_text"]
        .iter()
        .find_map(|e| Some((e, read(&format!("config.{e}"))?)))
        .unwrap();
    let name = FileName::new(&format!("config.{extension}")).unwrap();
    let (all, mut warnings) = splits(&read("split.json").unwrap());
    let all: Vec<&HostWeights> = all.iter().collect();
    let domain = read("domain.txt").unwrap_or_default();
    let domain = domain.lines().next().unwrap_or("cluster.local");
    let (splits, later) = resolve_conflicts(&all, domain);
    for (loser, winner) in later {
        let (loser, winner) = (&all[loser].source, &all[winner].source);
        warnings.push(format!(
            "{loser} is not applied: {winner} is for the same service"
        ));
    }

    let left_out = read("left_out.txt").unwrap_or_default();
    let unchanged = || (!left_out.is_empty()).then(|| config.clone());
    let want = read(&format!("want.{extension}")).or_else(unchanged);
    let merged = match (merge(&name, &config, &splits, domain), read("refused.txt")) {
        (Ok(merged), None) => merged,
        (Err(refused), Some(want)) if refused.to_string() == want.trim_end() => return Ok(()),
        (found, want) => return Err(format!("want refused {want:?}, found {found:?}")),
    };
    let found = merged.text.clone().unwrap_or(config.clone());
    if Some(&found) != want.as_ref() {
        return Err(format!("want:\n{}\nfound:\n{found}", want.unwrap()));
    }
    let found_out: Vec<String> = merged
        .left_out
        .iter()
        .map(|out| out.why.to_string())
        .collect();
    if left_out.lines().ne(found_out.iter().map(String::as_str)) {
        return Err(format!("want left out:\n{left_out}\nfound: {found_out:#?}"));
    }
    if merged.text.is_some() == (found == config) {
        return Err("an unchanged text was copied".to_owned());
    }
    warnings.extend(merged.warnings.iter().map(Warning::to_string));
    for (split, applied) in splits.iter().zip(&merged.applied) {
        warnings.extend(applied.warnings(split).iter().map(Warning::to_string));
    }
    let want = read("warnings.txt").unwrap_or_default();
    if want.lines().ne(warnings.iter().map(String::as_str)) {
        return Err(format!("want warnings:\n{want}\nfound: {warnings:#?}"));
    }
    let again = merge(&name, &found, &splits, domain).map(|merged| merged.text);
    if again != Ok(None) {
        return Err(format!("merging again gives {again:?}"));
    }
    Ok(())
}

#[test]
fn every_case_becomes_what_is_wanted() {
    let mut wrong = Vec::new();
    let mut cases = 0;
    for case in fs::read_dir(DATA).unwrap() {
        let case = case.unwrap().path();
        cases += 1;
        if let Err(error) = check(&case) {
            wrong.push(format!("{}: {error}", case.display()));
        }
    }
    assert!(cases > 50);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Too much to read behind aliases spoils what stands there, and nothing else.
#[test]
fn beside_what_is_too_much_to_read_all_others_follow() {
    let host = |name: &str, routes: &str| {
        format!("  - {{name: {name}, domains: [podinfo.test], routes: {routes}}}\n")
    };
    let routes = |anchor: &str, [primary, canary]: [u64; 2]| {
        format!(
            "{anchor}[{{route: {{weighted_clusters: {{clusters: [\
             {{name: podinfo-primary, weight: {primary}}}, \
             {{name: podinfo-canary, weight: {canary}}}]}}}}}}]"
        )
    };
    let text = |weights| {
        let mut text = format!(
            "{}\nresources:\n- virtual_hosts:\n",
            "# more\n".repeat(160_000)
        );
        text += &host("first", &routes("", weights));
        text += &host("anchored", &routes("&r ", [100, 0]));
        for name in ["a", "b", "c", "d", "e"] {
            text += &host(name, "*r");
        }
        text + &host("last", &routes("", weights))
    };
    let split = fs::read_to_string(Path::new(DATA).join("refused_alias_weight/split.json"));
    let (splits, _) = splits(&split.unwrap());
    let merged = merge(
        &FileName::new("a.yaml").unwrap(),
        &text([100, 0]),
        &splits.iter().collect::<Vec<_>>(),
        "cluster.local",
    )
    .unwrap();
    assert!(merged.text == Some(text([75, 25])));
    let said: Vec<_> = merged
        .left_out
        .iter()
        .map(|out| (out.route, &*out.why.reason))
        .collect();
    let (behind, much) = (
        "the weight is behind an alias",
        "there is too much behind aliases",
    );
    assert_eq!(
        said[0],
        (Some(1), "the weight is part of what an alias repeats")
    );
    assert_eq!(said[1], (Some(2), behind));
    assert_eq!(said.last(), Some(&(None, much)));
    // As many as are known are known by their place.
    let known = weights(&FileName::new("a.yaml").unwrap(), &text([75, 25]));
    assert_eq!(known.last().unwrap().weights, Some(vec![75, 25]));
    assert_eq!(known[1].virtual_host, "anchored");
}
