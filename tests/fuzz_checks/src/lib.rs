//! These checks must hold for foreign bytes, whatever they are, at the three places where they come
//! in. The fuzz targets (`tests/fuzz`) look for bytes for which they do not; those that were found
//! are checked again by the tests.

pub mod edits;
pub mod framing;
pub mod observation;
pub mod oracle;

use base64::Engine;
use crossover::testing::{Backend, FileName, HostWeights, ObjectName, Refused, merge};
use oracle::{DOMAIN, Split};

/// Stands for a ConfigMap's value: no error text may cite it.
pub const SECRET: &str = "hunter2";

/// Encodes bytes as in `binaryData`.
pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn name(text: &str) -> ObjectName {
    ObjectName {
        namespace: "test".to_owned(),
        name: text.to_owned(),
    }
}

/// Merges, and panics where the result is not what the oracle says. Returns whether weights
/// changed.
fn compare(file: &str, text: &str, splits: &[&HostWeights]) -> Result<bool, Refused> {
    let name = FileName::new(file).expect("the name of a file");
    let known: Vec<Split> = splits.iter().map(|split| known(split)).collect();
    oracle::compare(file, text, &known, |text| {
        let merged = merge(&name, text, splits, DOMAIN)?;
        match merged.left_out.into_iter().next() {
            Some(left_out) => Err(left_out.why),
            None => Ok(merged.text),
        }
    })
}

/// Returns what the oracle knows of a split.
fn known(split: &HostWeights) -> Split {
    let backends = split.rules[0].backends.iter();
    Split {
        namespace: split.source.name.namespace.clone(),
        service: split.hosts[0].name.clone(),
        backends: backends.map(|b| (b.service.clone(), b.weight)).collect(),
    }
}

/// Those that fit the seeds.
fn usual_splits() -> Vec<HostWeights> {
    let split = |service: &str, backends: [(&str, u64); 2]| {
        let backends = backends.map(|(service, weight)| Backend::bare(service.to_owned(), weight));
        HostWeights::of_split(name(service), service.to_owned(), backends.into())
    };
    vec![
        split("podinfo", [("podinfo-primary", 60), ("podinfo-canary", 40)]),
        split("web", [("web.a", 7), ("podinfo-canary", 0)]),
    ]
}
