//! The sequence with a directory in memory.

mod drop;
mod history;
mod order;
mod waiting;
mod world;

use std::rc::Rc;

use super::*;
use crate::snapshot::{Bytes, ObjectName, Origin, ResourceVersion, Snapshot};
use crate::xds::sequence::{Difference, Outline};
use world::{World, shows};

const CDS: &str = "cds.yaml";
const RDS: &str = "rds.yaml";

fn name(text: &str) -> FileName {
    FileName::new(text).unwrap()
}

fn file(text: String) -> File {
    let object = ObjectName {
        namespace: "default".to_owned(),
        name: "envoy-xds".to_owned(),
    };
    File {
        bytes: Bytes::from(text.into_bytes()),
        origin: Rc::new(Origin {
            object,
            uid: String::new(),
            resource_version: ResourceVersion("1".to_owned()),
        }),
    }
}

fn cds(clusters: &[String]) -> File {
    let item = |name: &String| {
        format!("- '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster\n  name: {name}\n")
    };
    let items: Vec<String> = clusters.iter().map(item).collect();
    file(format!("resources:\n{}", items.concat()))
}

/// A route to each cluster; the weight is that of a split.
fn rds(clusters: &[String], weight: u32) -> File {
    let kind = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    let route = |name: &String| format!("    - route: {{cluster: {name}}} # weight {weight}\n");
    let routes: Vec<String> = clusters.iter().map(route).collect();
    let routes = routes.concat();
    file(format!(
        "resources:\n- '@type': {kind}\n  name: r\n  virtual_hosts:\n  - routes:\n{routes}"
    ))
}

fn lds(number: u32) -> File {
    let kind = "type.googleapis.com/envoy.config.listener.v3.Listener";
    file(format!(
        "resources:\n- '@type': {kind}\n  name: l{number}\n"
    ))
}

/// A listener whose inline routes lead to a cluster.
fn inline(cluster: &str) -> File {
    let kind = "type.googleapis.com/envoy.config.listener.v3.Listener";
    file(format!(
        "resources:\n- '@type': {kind}\n  name: l\n  inline: {{cluster: {cluster}}}\n"
    ))
}

fn names(all: &[&str]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

fn clusters_named(file: &File) -> SortedSet<String> {
    let text = String::from_utf8(file.bytes.to_vec()).unwrap();
    let after = |key: &str| -> Vec<String> {
        let end = ['\n', '}', ',', '"'];
        let parts = text
            .split(key)
            .skip(1)
            .map(|part| part.trim_start_matches('"'));
        let words = parts.filter_map(|part| part.split(end).next());
        words.map(str::to_owned).collect()
    };
    let keys = ["name: ", "\"name\": ", "cluster: "];
    let names = keys.into_iter().flat_map(after);
    names.filter(|name| name.starts_with('c')).collect()
}
