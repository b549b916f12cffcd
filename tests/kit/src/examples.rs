//! The files of `example/`: where they stand, what they say, and the ConfigMap of them fitted to
//! this machine.

use super::testbed::BACKENDS;
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The ConfigMap that Envoy runs on.
pub const CONFIG_MAP: &str = "envoy-xds.configmap.yaml";
/// The definition of TrafficSplits.
pub const DEFINITION: &str = "trafficsplit.crd.yaml";
/// TrafficSplits, and the weights of [`BACKENDS`] in them.
pub const SPLITS: [(&str, [u32; 2]); 5] = [
    ("podinfo-v0.trafficsplit.yaml", [100, 0]),
    ("podinfo-v1.trafficsplit.yaml", [75, 25]),
    ("podinfo-v2.trafficsplit.yaml", [50, 50]),
    ("podinfo-v3.trafficsplit.yaml", [25, 75]),
    ("podinfo-v4.trafficsplit.yaml", [0, 100]),
];

/// Returns the path of a file.
pub fn path(name: &str) -> PathBuf {
    super::root().join("example").join(name)
}

/// Returns a file as kubectl would send it.
#[track_caller]
pub fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("the file is there");
    serde_yaml::from_str(&text).expect("the file is YAML")
}

/// Returns the ConfigMap with what differs between a cluster and this machine replaced: the names
/// of the backends by their addresses, the listener's port by any free one, the output directory.
pub fn config_map(dir: &Path, backends: [SocketAddr; 2]) -> Value {
    let mut object = read(&path(CONFIG_MAP));
    let dir = dir.display().to_string();
    let mut replace = |key: &str, what: &str, with: &str| {
        let text = object["data"][key].as_str().expect("the key is there");
        assert!(text.contains(what), "{key} of {CONFIG_MAP} has no {what}");
        object["data"][key] = text.replace(what, with).into();
    };
    replace("lds.yaml", "/srv/runtime", &dir);
    let address = |address: &str, port: u16| format!("{{address: {address}, port_value: {port}}}");
    let (any, free) = (address("0.0.0.0", 10000), address("127.0.0.1", 0));
    replace("lds.yaml", &any, &free);
    replace("cds.yaml", "STRICT_DNS", "STATIC");
    for (name, at) in BACKENDS.into_iter().zip(backends) {
        let with = address(&at.ip().to_string(), at.port());
        replace("cds.yaml", &address(name, 9898), &with);
    }
    object
}

/// Returns the names and weights of the clusters of an `rds.yaml` with one route.
pub fn weights(routes: &[u8]) -> Option<Vec<(String, u64)>> {
    let routes: Value = serde_yaml::from_slice(routes).ok()?;
    let route = &routes["resources"][0]["virtual_hosts"][0]["routes"][0]["route"];
    let clusters = route["weighted_clusters"]["clusters"].as_array()?;
    clusters
        .iter()
        .map(|cluster| {
            let name = cluster["name"].as_str()?;
            Some((name.to_string(), cluster["weight"].as_u64()?))
        })
        .collect()
}
