//! These checks must hold for foreign bytes, whatever they are, at the three places where they come
//! in. The fuzz targets (`tests/fuzz`) look for bytes for which they do not; those that were found
//! are checked again by the tests.

pub mod edits;
pub mod framing;
pub mod observation;
pub mod oracle;

use base64::Engine;
use crossover::testing::{Backend, FileName, HostWeights, ObjectName, Refused, merge};

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

compare_with_oracle!();

/// Returns splits that fit the seeds.
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
