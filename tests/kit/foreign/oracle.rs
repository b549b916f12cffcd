//! What a merge should do, told by an oracle that knows nothing of bytes and events: it walks the tree
//! that serde_yaml makes of the same text. Shared by path: whoever has it as a module has the names
//! that it uses.

use serde::Deserialize;
use serde_yaml::{Mapping, Value};

use super::{FileName, Refused, Split, merge};

/// Merges, and panics where the result is not what the oracle says.
pub fn compare(text: &str, splits: &[&Split]) -> Result<(), Refused> {
    let name = FileName::new("a.yaml").unwrap();
    let merged = merge(&name, text, splits)?;
    if let Some(left_out) = merged.left_out.first() {
        return Err(left_out.why.clone());
    }
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
