use super::*;
use crate::snapshot::{Bytes, FileName};

const OLD: &str = "resources:
- \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: one
  type: STATIC
  connect_timeout: 1.5s
- \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: two
  type: STRICT_DNS
";

#[test]
fn keeps_a_cluster() {
    let name = FileName::new("cds.yaml").unwrap();
    let olds = clusters_of(&name, OLD.as_bytes()).unwrap();
    let line = olds[0].line.clone().unwrap();
    assert_eq!(
        &*line,
        "{\"@type\": \"type.googleapis.com/envoy.config.cluster.v3.Cluster\", \"name\": \"one\", \
         \"type\": \"STATIC\", \"connect_timeout\": 1.5s}"
    );
    let at = OLD.find('-').unwrap();
    let second = OLD.rfind("- ").unwrap();
    let target: Bytes = [&OLD[..at], &OLD[second..]].concat().into_bytes().into();
    let union = union(&name, &target, &[&line]).unwrap();
    assert_eq!(clusters_of(&name, &union.bytes).unwrap(), olds);
}

#[test]
fn tells_kinds_by_types() {
    let kind = |name: &str, text: &str| kind_of(&FileName::new(name).unwrap(), text.as_bytes());
    let of = |of_type: &str| {
        let text =
            format!("resources:\n- \"@type\": type.googleapis.com/envoy.{of_type}\n  name: x\n");
        (
            kind("x.yaml", &text),
            kind("x.yaml", &text.replace('-', "#")),
        )
    };
    assert_eq!(kind("cds.yaml", OLD), Kind::Clusters);
    let listener = of("config.listener.v3.Listener");
    assert_eq!(listener, (Kind::Listeners, Kind::Untyped));
    let routes = of("config.route.v3.VirtualHost");
    assert_eq!(routes, (Kind::Routes, Kind::Untyped));
}

#[test]
fn finds_names() {
    let name = FileName::new("rds.yaml").unwrap();
    let names = ["one", "two", "three"];
    assert_eq!(mentions(&name, OLD.as_bytes(), &names), ["one", "two"]);
    let all = resources_of(&name, OLD.as_bytes());
    let want = ["one", "two"].map(|name| (Kind::Clusters, name.to_owned()));
    assert_eq!(all, want);
}
