//! The seeds of the fuzz targets, made from the tests' own data. What the targets check is in
//! `tests/fuzz_checks`, as the cases that were found are checked again by a test of the program.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data");

/// Writes the seeds of `target` into the corpus directory that the command line names first, if it
/// names one.
pub fn seed(target: &str) {
    let corpus = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let Some(corpus) = corpus.map(PathBuf::from).filter(|path| path.is_dir()) else {
        return;
    };
    let seeds = match target {
        "framing" => framing(),
        "observation" => observation(),
        _ => edits(),
    };
    for (number, seed) in seeds.into_iter().enumerate() {
        fs::write(corpus.join(format!("seed-{number:04}")), seed).expect("the corpus is writable");
    }
}

/// Every recorded answer, as each kind of request could get it, whole and in pieces.
fn framing() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for answer in recordings() {
        for flags in 0..4 {
            for (first, apart) in [(0_u16, 0), (500, 97)] {
                let mut seed = vec![flags];
                seed.extend(first.to_le_bytes());
                seed.push(apart);
                seed.extend(&answer);
                seeds.push(seed);
            }
        }
    }
    seeds
}

/// Every recorded object, list and event; every text as a ConfigMap; every split in a list.
fn observation() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for answer in recordings() {
        let lines = answer.split(|byte| *byte == b'\n');
        seeds.extend(
            lines
                .filter(|line| line.starts_with(b"{"))
                .map(<[u8]>::to_vec),
        );
    }
    let metadata = json!({"name": "a", "uid": "u", "resourceVersion": "7"});
    for (splits, name, text) in route_cases() {
        let object = json!({"kind": "ConfigMap", "metadata": metadata, "data": {name: text}});
        seeds.push(
            json!({"type": "ADDED", "object": object})
                .to_string()
                .into_bytes(),
        );
        let list = json!({
            "kind": "TrafficSplitList", "metadata": {"resourceVersion": "7"},
            "items": splits.as_array().expect("a list").iter().map(|split| {
                let mut split = split.clone();
                split["metadata"]["resourceVersion"] = "6".into();
                split
            }).collect::<Vec<_>>(),
        });
        seeds.push(list.to_string().into_bytes());
    }
    for path in files("httproute") {
        let text = fs::read_to_string(path.join("objects.json")).expect("objects");
        let mut objects: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        for object in &mut objects {
            object["metadata"]["resourceVersion"] = "6".into();
            seeds.push(
                json!({"type": "ADDED", "object": object})
                    .to_string()
                    .into_bytes(),
            );
        }
        let metadata = json!({"resourceVersion": "7"});
        let list = json!({"kind": "HTTPRouteList", "metadata": metadata, "items": objects});
        seeds.push(list.to_string().into_bytes());
    }
    for path in files("document") {
        let bytes = fs::read(&path).expect("a readable file");
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a plain name");
        let object = match String::from_utf8(bytes) {
            Ok(text) => json!({"kind": "ConfigMap", "metadata": metadata, "data": {name: text}}),
            Err(e) => {
                let text = fuzz_checks::base64(e.as_bytes());
                json!({"kind": "ConfigMap", "metadata": metadata, "binaryData": {name: text}})
            }
        };
        seeds.push(
            json!({"type": "MODIFIED", "object": object})
                .to_string()
                .into_bytes(),
        );
    }
    seeds
}

/// Every merge, and every text that a real Envoy has been asked about, each under each name that it
/// could be read by.
fn edits() -> Vec<Vec<u8>> {
    let merges = route_cases().into_iter();
    let merges = merges.map(|(splits, _, text)| format!("{splits}\n{text}").into_bytes());
    let documents = files("document").into_iter();
    let documents = documents.map(|path| fs::read(path).expect("a readable file"));
    let texts: Vec<Vec<u8>> = merges.chain(documents).collect();
    let named = |text: &Vec<u8>| {
        let numbers = 0..fuzz_checks::edits::NAMES.len() as u8;
        let named = numbers.map(|number| [&[number], text.as_slice()].concat());
        named.collect::<Vec<_>>()
    };
    texts.iter().flat_map(named).collect()
}

/// The answers of a real API server, byte for byte.
fn recordings() -> Vec<Vec<u8>> {
    let answer = |path: &PathBuf| {
        let file = fs::read(path).expect("a readable file");
        let head = file.windows(2).position(|pair| pair == b"\n\n");
        file[head.expect("an empty line behind the request") + 2..].to_vec()
    };
    let all = files("kube").into_iter().chain(files("kube/old"));
    all.filter(|path| path.is_file())
        .map(|path| answer(&path))
        .collect()
}

/// Splits, name and text of every merge.
fn route_cases() -> Vec<(Value, String, String)> {
    let case = |directory: &PathBuf| {
        let splits = fs::read_to_string(directory.join("split.json")).expect("splits");
        let splits = match serde_json::from_str(&splits).expect("JSON") {
            Value::Array(splits) => Value::Array(splits),
            split => Value::Array(vec![split]),
        };
        let extensions = ["yaml", "json", "txt", "YAML", "pb_text"];
        let (name, text) = extensions
            .map(|extension| format!("config.{extension}"))
            .into_iter()
            .find_map(|name| Some((name.clone(), fs::read_to_string(directory.join(name)).ok()?)))
            .expect("a config");
        (splits, name, text)
    };
    files("route").iter().map(case).collect()
}

fn files(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(DATA).join(directory)).expect("the tests' data");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}
