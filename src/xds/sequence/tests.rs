//! Every case under `tests/data/union`: the clusters of `old.*` that `new.*` does not have are put
//! into it, which gives `want.*`, or is declined as `declined.txt` says.

mod properties;

use std::fs;
use std::path::Path;

use super::*;
use crate::snapshot::{Bytes, FileName};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/union");

fn file_name(name: &str) -> FileName {
    FileName::new(name).unwrap()
}

/// Returns `new` with the clusters of `old` that it does not have.
fn unite(name: &FileName, old: &[u8], new: &Bytes) -> Result<Union, Declined> {
    let olds = clusters_of(name, old)?;
    let news = clusters_of(name, new)?;
    let vanish = |old: &&Cluster| news.iter().all(|new| new.name != old.name);
    let lines: Result<Vec<_>, _> = olds
        .iter()
        .filter(vanish)
        .map(|old| old.line.clone())
        .collect();
    let lines = lines?;
    let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
    let union = union(name, new, &lines)?;
    let (from, to) = (union.inserted.start as usize, union.inserted.end as usize);
    assert_eq!([&union.bytes[..from], &union.bytes[to..]].concat(), **new);
    let olds = olds.iter().filter(vanish);
    let all: Vec<_> = olds.chain(&news).map(told).collect();
    let united = clusters_of(name, &union.bytes).unwrap();
    assert_eq!(united.iter().map(told).collect::<Vec<_>>(), all);
    Ok(union)
}

/// All that a cluster says; a reason has a line of the file.
fn told(cluster: &Cluster) -> (&str, u64, bool, Option<&str>) {
    let line = cluster.line.as_deref().ok();
    (&cluster.name, cluster.hash, cluster.warms, line)
}

#[track_caller]
fn check(case: &Path) {
    let read = |name: &str| fs::read(case.join(name)).ok();
    let (extension, old) = ["yaml", "json", "pb_text"]
        .into_iter()
        .find_map(|extension| Some((extension, read(&format!("old.{extension}"))?)))
        .unwrap();
    let new = read(&format!("new.{extension}")).unwrap().into();
    let got = unite(&file_name(&format!("cds.{extension}")), &old, &new);
    let got = got.map(|union| union.bytes.to_vec());
    match read("declined.txt") {
        Some(why) => {
            let why = String::from_utf8(why).unwrap();
            assert_eq!(got, Err(Declined(why.trim_end().to_owned())));
        }
        None => {
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            let want = read(&format!("want.{extension}")).unwrap();
            assert_eq!(got.map(text), Ok(text(want)));
        }
    }
}

#[test]
fn puts_what_vanishes_before_what_is_there() {
    let mut count = 0;
    for case in fs::read_dir(DATA).unwrap() {
        let case = case.unwrap().path();
        println!("{}", case.display());
        check(&case);
        count += 1;
    }
    assert!(count > 70, "{count}");
}

#[track_caller]
fn check_kind(name: &str, text: &str, want: Kind) {
    assert_eq!(kind_of(&file_name(name), text.as_bytes()), want, "{text}");
}

/// A file of one resource, with this type and `more` fields.
fn resource(of_type: &str, more: &str) -> String {
    format!("resources:\n- \"@type\": type.googleapis.com/envoy.{of_type}\n  name: x\n{more}")
}

#[test]
fn tells_each_kind_by_its_types() {
    for (of_type, want) in [
        ("config.cluster.v3.Cluster", Kind::Clusters),
        ("config.endpoint.v3.ClusterLoadAssignment", Kind::Endpoints),
        ("config.endpoint.v3.LbEndpoint", Kind::Endpoints),
        ("extensions.transport_sockets.tls.v3.Secret", Kind::Secrets),
        ("service.runtime.v3.Runtime", Kind::Runtime),
        ("config.listener.v3.Listener", Kind::Listeners),
        ("config.route.v3.RouteConfiguration", Kind::Routes),
        ("config.route.v3.ScopedRouteConfiguration", Kind::Routes),
        ("config.route.v3.VirtualHost", Kind::Routes),
        ("config.core.v3.TypedExtensionConfig", Kind::Routes),
        ("config.route.v3.RouteConfigurations", Kind::Untyped),
    ] {
        let text = resource(of_type, "");
        let json =
            format!(r#"{{"resources": [{{"@type" : "type.googleapis.com\/envoy.{of_type}"}}]}}"#);
        check_kind("whatever.yaml", &text, want);
        check_kind("whatever.json", &json, want);
        check_kind("whatever", &json, want);
        check_kind("whatever.yaml", &text.replace('\n', "\r"), want);
        check_kind("whatever.yaml", &text.replace("\"@type\"", "'@type'"), want);
        check_kind("whatever.yaml", &text.replace("@type", "\\x40type"), want);
        for before in [
            ": &t ",
            ":\n    ",
            ": >-\n    ",
            ": a ",
            ": type.googleapis.com/ ",
        ] {
            let text = text.replace(": type.g", &format!("{before}type.g"));
            check_kind("whatever.yaml", &text, want);
        }
        check_kind("whatever.yaml", &text.replace("- \"", "  \""), want);
        check_kind("whatever.pb_text", &text, want);
        let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(kind_of(&file_name("whatever.yaml"), &wide), want);
    }
}

#[test]
fn takes_no_other_type_in_a_text_for_that_of_its_resources() {
    let (cluster, listener, route) = (
        "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "type.googleapis.com/envoy.config.listener.v3.Listener",
        "config.route.v3.RouteConfiguration",
    );
    let routes = resource(route, "");
    for before in [
        format!("# \"@type\": {cluster}\n"),
        format!("# \"@type\": {listener}\n"),
        format!("!ignore note: |\n  \"@type\": {cluster}\n"),
        format!("!ignore note: {{\"@type\": {cluster}}}\n"),
    ] {
        check_kind("rds.yaml", &format!("{before}{routes}"), Kind::Routes);
    }
    let nested = format!("  typed_per_filter_config: {{x: {{\"@type\": {cluster}}}}}\n");
    check_kind("rds.yaml", &resource(route, &nested), Kind::Routes);
    let wrapped = resource(
        "service.discovery.v3.Resource",
        "  resource:\n    \"@type\": ",
    );
    check_kind("a.yaml", &format!("{wrapped}{cluster}\n"), Kind::Clusters);
    check_kind("a.yaml", &format!("{wrapped}{listener}\n"), Kind::Listeners);
    check_kind(
        "a.yaml",
        &format!("# \"@type\": {listener}\na: b\n"),
        Kind::Untyped,
    );
    check_kind("a.yaml", "limit: 5\nuser@type: x\n", Kind::Untyped);
    check_kind(
        "a.sh",
        &format!("echo '{{\"@type\": \"{cluster}\"}}'"),
        Kind::Untyped,
    );
    check_kind("a", "", Kind::Untyped);
    // Envoy may read on where our reader cannot.
    check_kind("a.yaml", &format!("{routes}  x: [\n"), Kind::Routes);
    check_kind(
        "a.yaml",
        &resource("config.cluster.v3.Cluster", "x: [\n"),
        Kind::Clusters,
    );
}

#[test]
fn names_every_resource() {
    let text = "resources:
- \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: one
  altStatName: statistics
- {\"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment,
   cluster_name: two, name: x}
- \"@type\": type.googleapis.com/envoy.service.discovery.v3.Resource
  name: x
  resource:
    name: three
    \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
- \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: &n four
  virtual_hosts: [{name: x}]
- \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener
  name: *n
- no type: x
  name: five
- \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfigurations
  name: six
- \"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignments
  cluster_name: seven
";
    let want = [
        (Kind::Clusters, "one"),
        (Kind::Clusters, "statistics"),
        (Kind::Endpoints, "two"),
        (Kind::Secrets, "three"),
        (Kind::Routes, "four"),
        (Kind::Listeners, "four"),
        // What Envoy refuses by its type, it refuses by the name that it asks for.
        (Kind::Routes, "five"),
        (Kind::Secrets, "five"),
        (Kind::Routes, "six"),
        (Kind::Secrets, "six"),
        (Kind::Endpoints, "seven"),
    ];
    let want = want.map(|(kind, name)| (kind, name.to_owned()));
    assert_eq!(resources_of(&file_name("a.yaml"), text.as_bytes()), want);
}

#[test]
fn knows_which_clusters_warm_up() {
    for (more, want) in [
        ("type: STATIC", false),
        ("type: EDS", false),
        ("type: STRICT_DNS", true),
        ("type: LOGICAL_DNS", true),
        ("type: 1", true),
        ("type: 0", false),
        (
            "metadata: {filter_metadata: {a: &d STRICT_DNS}}\n  type: *d",
            true,
        ),
        (
            "metadata: {filter_metadata: {a: {type: STRICT_DNS}}}",
            false,
        ),
        ("health_checks: [{timeout: 1s}]", true),
        ("healthChecks: {timeout: 1s}", true),
        ("health_checks: []", false),
        ("health_checks:", false),
        ("cluster_type: {name: envoy.cluster.dns}", true),
        (
            "clusterType: {name: x, typed_config: {\"@type\": t.v3.DnsCluster}}",
            true,
        ),
        ("cluster_type: {name: envoy.clusters.aggregate}", false),
    ] {
        let text = resource("config.cluster.v3.Cluster", &format!("  {more}\n"));
        let clusters = clusters_of(&file_name("cds.yaml"), text.as_bytes()).unwrap();
        assert_eq!(clusters.len(), 1, "{more}");
        assert_eq!(clusters[0].warms, want, "{more}");
    }
}

#[test]
fn finds_a_name_wherever_it_can_be_meant() {
    for text in [
        "cluster: web",
        "cluster: web # not this",
        "a: [b, {c: web}]",
        "{a: web}",
        "web: 1",
        "a: 'web'",
        "a: \"w\\x65b\"",
        "a: \"w\\\n  eb\"",
        "a: \"\\u0077\\U00000065b\"",
        "a: |\n  web",
        "a: >-\n  web",
        "a: &web web\nb: *web",
        "a: &x web\nb: *x",
        "a: |\n  handle:httpCall(\"web\", {})\n  handle:httpCall('b', {})",
        "a: \"{\\\"cluster\\\": \\\"web\\\"}\"",
        "a: !x web",
        "a: b\u{1}\nc: web",
        "a: b\n  c: web",
    ] {
        let found = mentions(&file_name("a.yaml"), text.as_bytes(), &["api", "web"]);
        assert_eq!(found, ["web"], "{text}");
    }
    let wide: Vec<u8> = "a: web".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(mentions(&file_name("a.yaml"), &wide, &["web"]), ["web"]);
    for (file, text) in [
        ("a.json", r#"{"a": "w\u0065b"}"#),
        ("a.json", r#"{web: 1}"#),
        ("a.pb", "\n\u{3}web\u{10}"),
        ("a", "exec web"),
    ] {
        assert_eq!(
            mentions(&file_name(file), text.as_bytes(), &["web"]),
            ["web"]
        );
    }
    let spaced = ["a b", "it's", "c\"d", "größe"];
    let text = "{x: [a\n  b, 'it''s', \"c\\x22d\", \"gr\\u00f6\\u00dfe\"]}";
    assert_eq!(
        mentions(&file_name("a.yaml"), text.as_bytes(), &spaced),
        spaced
    );
}

#[test]
fn finds_no_name_that_is_part_of_another_text() {
    for text in [
        "cluster: website",
        "cluster: web-2 # web",
        "# web\na: b",
        "a: b\n---\nweb",
        "a: the web is wide",
        "a: &web b\nc: *web",
        "a: \"x\\\"web\"",
    ] {
        let found = mentions(&file_name("a.yaml"), text.as_bytes(), &["web"]);
        assert_eq!(found, [""; 0], "{text}");
    }
}
