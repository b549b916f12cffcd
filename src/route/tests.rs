//! Every case under `tests/data/route`: `config.*` with `split.json` (one TrafficSplit or a list)
//! becomes `want.*` with the warnings of `warnings.txt`, or is refused as `refused.txt` says.

#![allow(clippy::unwrap_used)]

mod properties;

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::*;
use crate::resource::ObjectName;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/route");

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    spec: Spec,
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
fn splits(json: &str) -> (Vec<Split>, Vec<String>) {
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
        match Split::new(name.clone(), &spec) {
            Ok(split) => splits.push(split),
            Err(why) => warnings.push(format!("split {name} is not applied: {why}")),
        }
    }
    (splits, warnings)
}

#[track_caller]
fn check(case: &Path) -> Result<(), String> {
    let read = |file: &str| fs::read_to_string(case.join(file)).ok();
    let (extension, config) = ["yaml", "json", "txt"]
        .iter()
        .find_map(|e| Some((e, read(&format!("config.{e}"))?)))
        .unwrap();
    let name = FileName::new(&format!("config.{extension}")).unwrap();
    let (all, mut warnings) = splits(&read("split.json").unwrap());
    let all: Vec<&Split> = all.iter().collect();
    let (splits, later) = first_for_each_service(&all);
    for (loser, winner) in later {
        let (loser, winner) = (&all[loser].name, &all[winner].name);
        warnings.push(format!(
            "split {loser} is not applied: split {winner} is for the same service"
        ));
    }

    let want = read(&format!("want.{extension}"));
    let merged = match (merge(&name, &config, &splits), read("refused.txt")) {
        (Ok(merged), None) => merged,
        (Err(refused), Some(want)) if refused.to_string() == want.trim_end() => return Ok(()),
        (found, want) => return Err(format!("want refused {want:?}, found {found:?}")),
    };
    let found = merged.text.clone().unwrap_or(config.clone());
    if Some(&found) != want.as_ref() {
        return Err(format!("want:\n{}\nfound:\n{found}", want.unwrap()));
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
    let again = merge(&name, &found, &splits).map(|merged| merged.text);
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
