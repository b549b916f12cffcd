//! The merge on random and on mutated documents, held against an oracle that knows nothing of bytes
//! and events: it walks the tree that serde_yaml makes of the same text.
//!
//! `PROPTEST_CASES=1000000 cargo test --release route::tests::properties` runs for longer.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_yaml::{Mapping, Value};

use super::*;

/// Runs in a few seconds without optimization.
const CASES: u32 = 5_000;

fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    config.failure_persistence = None;
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_random_document_becomes_the_same_tree_with_the_weights_set(
        document in document(), splits in splits_of_two(),
    ) {
        let splits: Vec<&Split> = splits.iter().collect();
        let merged = compare(&document, &splits);
        prop_assert!(merged.is_ok(), "{merged:?}\n{document}");
    }

    #[test]
    fn a_mutated_document_is_merged_rightly_or_refused(
        document in document(),
        splits in splits_of_two(),
        mutations in prop::collection::vec((any::<Index>(), mutation()), 1..4),
    ) {
        let mut text = document;
        for (place, mutation) in mutations {
            mutate(&mut text, place, &mutation);
        }
        let splits: Vec<&Split> = splits.iter().collect();
        // Refused is as good.
        let _ = compare(&text, &splits);
    }
}

/// Merges, and panics where the result is not what the oracle says.
fn compare(text: &str, splits: &[&Split]) -> Result<(), Refused> {
    let name = FileName::new("a.yaml").unwrap();
    let merged = merge(&name, text, splits)?;
    let Some(found) = &merged.text else {
        // Nothing to do, as the oracle sees it too.
        if let Some(mut tree) = first_document(text) {
            let wanted = oracle(&mut tree, splits);
            assert!(
                wanted.iter().all(|w| w.old == Some(w.new)),
                "not done:\n{text}"
            );
        }
        return Ok(());
    };
    let again = merge(&name, found, splits);
    assert_eq!(
        again.map(|again| again.text),
        Ok(None),
        "not done at once:\n{text}\n{found}"
    );
    let (Some(mut old), Some(mut new)) = (first_document(text), first_document(found)) else {
        return Ok(());
    };
    let wanted = oracle(&mut old, splits);
    let got = oracle(&mut new, splits);
    assert_eq!(wanted.len(), got.len(), "{text}\n{found}");
    for (wanted, got) in wanted.iter().zip(&got) {
        assert_eq!(Some(wanted.new), got.old, "{text}\n{found}");
    }
    assert_eq!(old, new, "{text}\n{found}");
    Ok(())
}

/// Without its tags, which mean nothing to Envoy; that they stay is for the merge itself to prove.
/// `None` also for a byte-order mark inside: libyaml skips it, Envoy takes it as part of the key.
fn first_document(text: &str) -> Option<Value> {
    if text.trim_start_matches('\u{feff}').contains('\u{feff}') {
        return None;
    }
    let document = serde_yaml::Deserializer::from_str(text).next()?;
    Some(untagged(Value::deserialize(document).ok()?))
}

fn untagged(value: Value) -> Value {
    match value {
        Value::Tagged(tagged) => untagged(tagged.value),
        Value::Sequence(items) => Value::Sequence(items.into_iter().map(untagged).collect()),
        Value::Mapping(fields) => {
            let fields = fields.into_iter();
            Value::Mapping(fields.map(|(k, v)| (untagged(k), untagged(v))).collect())
        }
        other => other,
    }
}

// The oracle.

struct Wanted {
    old: Option<u64>,
    new: u64,
}

/// What every weight should be, in order; takes all of them out of the tree.
fn oracle(tree: &mut Value, splits: &[&Split]) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    let Some(root) = mapping(tree) else {
        return wanted;
    };
    for resource in items(root, "resources") {
        resource_weights(resource, splits, &mut wanted);
    }
    for (key, value) in root.iter_mut() {
        if key.as_str() != Some("resources") {
            inline_weights(key.as_str(), value, splits, &mut wanted);
        }
    }
    wanted
}

fn resource_weights(resource: &mut Value, splits: &[&Split], wanted: &mut Vec<Wanted>) {
    let Some(fields) = mapping(resource) else {
        return;
    };
    for (key, value) in fields.iter_mut() {
        match key.as_str() {
            Some("virtual_hosts" | "virtualHosts") => hosts(value, splits, wanted),
            Some("resource") => resource_weights(value, splits, wanted),
            key => inline_weights(key, value, splits, wanted),
        }
    }
}

fn inline_weights(
    key: Option<&str>,
    value: &mut Value,
    splits: &[&Split],
    wanted: &mut Vec<Wanted>,
) {
    match (key, value) {
        (Some("filter_metadata" | "filterMetadata"), _) => {}
        (
            Some("route_config" | "routeConfig" | "route_configuration" | "routeConfiguration"),
            Value::Mapping(fields),
        ) => {
            for (key, value) in fields.iter_mut() {
                if matches!(key.as_str(), Some("virtual_hosts" | "virtualHosts")) {
                    hosts(value, splits, wanted);
                }
            }
        }
        (
            Some("route_config" | "routeConfig" | "route_configuration" | "routeConfiguration"),
            _,
        ) => {}
        (_, Value::Mapping(fields)) => {
            for (key, value) in fields.iter_mut() {
                inline_weights(key.as_str(), value, splits, wanted);
            }
        }
        (_, Value::Sequence(items)) => {
            for item in items {
                inline_weights(None, item, splits, wanted);
            }
        }
        _ => {}
    }
}

fn hosts(value: &mut Value, splits: &[&Split], wanted: &mut Vec<Wanted>) {
    let Value::Sequence(hosts) = value else {
        return;
    };
    for host in hosts.iter_mut().filter_map(mapping) {
        let name = host.get("name").and_then(Value::as_str);
        let name = name.unwrap_or("").to_owned();
        let domains: Vec<String> = items(host, "domains")
            .iter_mut()
            .filter_map(|domain| domain.as_str().map(str::to_owned))
            .collect();
        let meant: Vec<&Split> = splits
            .iter()
            .copied()
            .filter(|split| {
                name == split.service
                    || domains.iter().any(|domain| {
                        let namespace = &split.name.namespace;
                        let port = |c: char| c.is_ascii_digit();
                        let host = domain.trim_end_matches(port);
                        let host = host.strip_suffix(':').unwrap_or(domain);
                        host == split.service
                            || host == format!("{}.{namespace}", split.service)
                            || host == format!("{}.{namespace}.svc.cluster.local", split.service)
                    })
            })
            .collect();
        for route in items(host, "routes") {
            let groups = mapping(route)
                .and_then(|route| route.get_mut("route"))
                .and_then(mapping)
                .map(|action| {
                    action.iter_mut().filter(|(key, _)| {
                        matches!(key.as_str(), Some("weighted_clusters" | "weightedClusters"))
                    })
                });
            for (_, group) in groups.into_iter().flatten() {
                if let Some(group) = mapping(group) {
                    group_weights(group, &meant, wanted);
                }
            }
        }
    }
}

fn group_weights(group: &mut Mapping, meant: &[&Split], wanted: &mut Vec<Wanted>) {
    let name_of = |cluster: &mut Value| {
        let name = mapping(cluster)?.get("name")?;
        name.as_str().map(str::to_owned)
    };
    let mut clusters: Vec<&mut Value> = items(group, "clusters").iter_mut().collect();
    let names: Vec<Option<String>> = clusters.iter_mut().map(|c| name_of(c)).collect();
    let backend = |split: &Split, name: &Option<String>| {
        let name = name.as_ref()?;
        let mut exact = split.backends.iter().filter(|b| &b.service == name);
        let mut other = split
            .backends
            .iter()
            .filter(|b| b.service.replace('.', "_") == *name);
        exact.next().or(other.next()).map(|b| b.weight)
    };
    let Some(split) = meant
        .iter()
        .find(|split| names.iter().any(|name| backend(split, name).is_some()))
    else {
        return;
    };
    let new: Vec<u64> = names
        .iter()
        .map(|n| backend(split, n).unwrap_or(0))
        .collect();
    let sum: u64 = new.iter().fold(0, |sum, new| sum.saturating_add(*new));
    if sum == 0 || sum > u64::from(u32::MAX) {
        return;
    }
    for (cluster, new) in clusters.iter_mut().zip(new) {
        if let Some(fields) = mapping(cluster) {
            let old = fields.remove("weight").as_ref().and_then(number);
            wanted.push(Wanted { old, new });
        }
    }
    drop(clusters);
    for key in ["total_weight", "totalWeight"] {
        if let Some(total) = group.remove(key) {
            wanted.push(Wanted {
                old: number(&total),
                new: sum,
            });
        }
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        Value::Mapping(fields) => number(fields.get("value")?),
        _ => None,
    }
}

fn mapping(value: &mut Value) -> Option<&mut Mapping> {
    value.as_mapping_mut()
}

fn items<'v>(fields: &'v mut Mapping, key: &str) -> &'v mut [Value] {
    match fields.get_mut(key) {
        Some(Value::Sequence(items)) => items,
        _ => &mut [],
    }
}

// Documents.

const NAMES: [&str; 8] = [
    "podinfo-primary",
    "podinfo-canary",
    "web.a",
    "web_a",
    "other",
    "podinfo",
    "\"podinfo-canary\"",
    "'web.a'",
];

fn splits_of_two() -> impl Strategy<Value = Vec<Split>> {
    let weight = || {
        prop_oneof![
            0_u64..3,
            0_u64..1000,
            Just(u64::from(u32::MAX)),
            Just(u64::MAX)
        ]
    };
    let split = |service: &str, backends: Vec<(&'static str, u64)>| Split {
        name: ObjectName {
            namespace: "test".to_owned(),
            name: service.to_owned(),
        },
        service: service.to_owned(),
        backends: backends
            .into_iter()
            .map(|(service, weight)| Backend {
                service: service.to_owned(),
                weight,
            })
            .collect(),
    };
    (weight(), weight(), weight(), any::<bool>()).prop_map(move |(a, b, c, both)| {
        let mut splits = vec![split(
            "podinfo",
            vec![("podinfo-primary", a), ("podinfo-canary", b)],
        )];
        if both {
            splits.push(split("web", vec![("web.a", c), ("podinfo-canary", a)]));
        }
        splits
    })
}

/// How a document is written.
#[derive(Clone, Copy, Debug)]
struct Style {
    flow_cluster: bool,
    flow_group: bool,
    camel: bool,
    listener: bool,
    total: bool,
    end: &'static str,
    comments: bool,
}

fn style() -> impl Strategy<Value = Style> {
    let end = select(vec!["\n", "\n", "\r\n"]);
    (any::<[bool; 6]>(), end).prop_map(|(b, end)| Style {
        flow_cluster: b[0],
        flow_group: b[1],
        camel: b[2],
        listener: b[3],
        total: b[4],
        end,
        comments: b[5],
    })
}

fn cluster() -> impl Strategy<Value = (&'static str, String, bool)> {
    let weight = prop_oneof![
        3 => (0_u32..200).prop_map(|n| n.to_string()),
        1 => (0_u32..200).prop_map(|n| format!("\"{n}\"")),
        1 => (0_u32..200).prop_map(|n| format!("{{value: {n}}}")),
        1 => Just(String::new()),
    ];
    (select(NAMES.to_vec()), weight, any::<bool>())
}

fn document() -> impl Strategy<Value = String> {
    let route = (prop::collection::vec(cluster(), 1..4), style());
    let host = (
        select(vec!["podinfo", "web", "\"podinfo\"", "x"]),
        select(vec![
            "\"*\"",
            "podinfo:80",
            "web.test",
            "web.test.svc.cluster.local:9",
            "y",
        ]),
        prop::collection::vec(route, 1..3),
    );
    (prop::collection::vec(host, 1..3), style()).prop_map(|(hosts, whole)| {
        let key = |snake: &'static str, camel: &'static str, style: Style| {
            if style.camel { camel } else { snake }
        };
        let comment = if whole.comments { "  # größe" } else { "" };
        let mut out = format!("version_info: a{comment}\nresources:\n- name: r\n");
        let mut lead = "  ";
        if whole.listener {
            out += &format!(
                "  x: [1]\n  {}:\n",
                key("route_config", "routeConfig", whole)
            );
            lead = "    ";
        }
        out += &format!("{lead}{}:\n", key("virtual_hosts", "virtualHosts", whole));
        for (name, domain, routes) in hosts {
            out += &format!("{lead}- name: {name}{comment}\n{lead}  domains: [{domain}]\n");
            out += &format!("{lead}  routes:\n");
            for (clusters, style) in routes {
                let group = key("weighted_clusters", "weightedClusters", style);
                let total = key("total_weight", "totalWeight", style);
                out += &format!("{lead}  - match: {{prefix: /}}\n{lead}    route:\n");
                let fields: Vec<Vec<String>> = clusters.iter().map(fields).collect();
                if style.flow_group {
                    let all: Vec<String> = fields
                        .iter()
                        .map(|f| format!("{{{}}}", f.join(", ")))
                        .collect();
                    let total = if style.total {
                        format!(", {total}: 1")
                    } else {
                        String::new()
                    };
                    let all = all.join(",\n");
                    out += &format!("{lead}      {group}: {{clusters: [{all}]{total}}}\n");
                    continue;
                }
                out += &format!("{lead}      {group}:\n");
                if style.total {
                    out += &format!("{lead}        {total}: 100{comment}\n");
                }
                out += &format!("{lead}        clusters:{comment}\n");
                for fields in fields {
                    let (open, between, close) = if style.flow_cluster {
                        ("{", ", ".to_owned(), "}")
                    } else {
                        ("", format!("{comment}\n{lead}          "), "")
                    };
                    out += &format!("{lead}        - {open}{}{close}\n", fields.join(&between));
                }
            }
        }
        out.replace('\n', whole.end)
    })
}

fn fields((name, weight, swap): &(&str, String, bool)) -> Vec<String> {
    let mut fields = vec![format!("name: {name}")];
    if !weight.is_empty() {
        fields.insert(usize::from(!swap), format!("weight: {weight}"));
    }
    fields
}

#[derive(Clone, Debug)]
enum Mutation {
    Insert(&'static str),
    Delete(usize),
    Copy(Index, usize),
    Cut,
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let bits = vec![
        "\n",
        " ",
        "  ",
        ":",
        ": ",
        "- ",
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        ",",
        "#",
        " # ",
        "&a ",
        "*a",
        "!x ",
        "!!str ",
        "|",
        ">",
        "%",
        "@",
        "\t",
        "---\n",
        "...\n",
        "? ",
        "\\",
        "\r",
        "0",
        "ü",
        "\u{feff}",
        "\0",
        "weight: 1\n",
        ", weight: 2",
        "name: podinfo",
        "&b [",
        "<<: ",
        "{}",
        "~",
    ];
    prop_oneof![
        4 => select(bits).prop_map(Mutation::Insert),
        3 => (1_usize..6).prop_map(Mutation::Delete),
        2 => (any::<Index>(), 1_usize..40).prop_map(|(from, len)| Mutation::Copy(from, len)),
        1 => Just(Mutation::Cut),
    ]
}

fn mutate(text: &mut String, place: Index, mutation: &Mutation) {
    let boundary = |text: &str, mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let at = boundary(text, place.index(text.len() + 1));
    match mutation {
        Mutation::Insert(bit) => text.insert_str(at, bit),
        Mutation::Delete(len) => {
            let end = boundary(text, (at + len).min(text.len()));
            text.replace_range(at..end.max(at), "");
        }
        Mutation::Copy(from, len) => {
            let from = boundary(text, from.index(text.len() + 1));
            let end = boundary(text, (from + len).min(text.len())).max(from);
            let piece = text[from..end].to_owned();
            text.insert_str(at, &piece);
        }
        Mutation::Cut => text.truncate(at),
    }
    if text.is_empty() {
        text.push('\n');
    }
}
