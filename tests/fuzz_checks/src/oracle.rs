//! An oracle says what a merge should do. It knows nothing of bytes and events: it walks the tree
//! that serde_yaml or serde_json makes of the same text. It has no type of the program either, so
//! that the program's unit tests can ask it, too.

use std::fmt::Debug;

use serde::Deserialize;
use serde_yaml::{Mapping, Value};

/// The cluster's.
pub const DOMAIN: &str = "cluster.local";

/// A TrafficSplit.
#[derive(Clone, Debug)]
pub struct Split {
    /// Its namespace.
    pub namespace: String,
    /// The service whose traffic it splits.
    pub service: String,
    /// The services that get a share, with their weights.
    pub backends: Vec<(String, u64)>,
}

/// Defines `compare`, for the types that the caller has in scope. (The program's unit tests have types
/// of their own, as the program is compiled a second time for them.)
#[macro_export]
macro_rules! compare_with_oracle {
    () => {
        /// Merges, and panics if the result is not what the oracle says. Returns whether weights
        /// changed.
        fn compare(file: &str, text: &str, splits: &[&HostWeights]) -> Result<bool, Refused> {
            use $crate::oracle::{DOMAIN, Split};
            let name = FileName::new(file).expect("the name of a file");
            let known = splits.iter().map(|split| Split {
                namespace: split.source.name.namespace.clone(),
                service: split.hosts[0].name.clone(),
                backends: {
                    let backends = split.rules[0].backends.iter();
                    backends.map(|b| (b.service.clone(), b.weight)).collect()
                },
            });
            let known: Vec<Split> = known.collect();
            $crate::oracle::compare(file, text, &known, |text| {
                let merged = merge(&name, text, splits, DOMAIN)?;
                match merged.left_out.into_iter().next() {
                    Some(left_out) => Err(left_out.why),
                    None => Ok(merged.text),
                }
            })
        }
    };
}

/// Has `merge` merge a text, which returns `None` where no byte changes, and panics where the
/// result is not what the oracle says. Returns whether weights changed.
pub fn compare<R: Debug + PartialEq>(
    name: &str,
    text: &str,
    splits: &[Split],
    merge: impl Fn(&str) -> Result<Option<String>, R>,
) -> Result<bool, R> {
    let merged = merge(text)?;
    let first_document = |text: &str| first_document(name, text);
    let Some(found) = &merged else {
        // Nothing to do, as the oracle sees it too.
        if let Some(mut tree) = first_document(text)
            && is_merged(name, &tree)
        {
            let wanted = oracle(&mut tree, splits);
            assert!(
                wanted.iter().all(|w| w.new.is_none() || w.old == w.new),
                "not done:\n{text}"
            );
        }
        return Ok(false);
    };
    let again = merge(found);
    assert_eq!(again, Ok(None), "not done at once:\n{text}\n{found}");
    let (Some(mut old), Some(mut new)) = (first_document(text), first_document(found)) else {
        return Ok(true);
    };
    let wanted = oracle(&mut old, splits);
    let got = oracle(&mut new, splits);
    assert_eq!(wanted.len(), got.len(), "{text}\n{found}");
    for (wanted, got) in wanted.iter().zip(&got) {
        assert!(
            wanted.new.is_none() || wanted.new == got.old,
            "{text}\n{found}"
        );
    }
    assert_eq!(old, new, "{text}\n{found}");
    Ok(true)
}

fn extension(name: &str) -> String {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    extension.to_ascii_lowercase()
}

/// Returns whether a file of this name is merged at all. One that Envoy takes for JSON only because
/// it has no other ending is merged only if it could have been meant for Envoy.
fn is_merged(name: &str, tree: &Value) -> bool {
    let has_type = |resources: &Value| match resources {
        Value::Sequence(items) => items.iter().any(|item| item.get("@type").is_some()),
        resource => resource.get("@type").is_some(),
    };
    match &*extension(name) {
        "yaml" | "yml" | "json" => true,
        "pb" | "pb_text" => false,
        _ => tree.get("resources").is_some_and(has_type),
    }
}

/// Reads the first document without its tags, which mean nothing to Envoy, and the keys that are to
/// be ignored; the merge itself has to prove that they stay. Returns `None` also for a byte-order
/// mark inside: libyaml skips it, Envoy takes it as part of the key.
fn first_document(name: &str, text: &str) -> Option<Value> {
    if !["yaml", "yml"].contains(&&*extension(name)) {
        return serde_json::from_str(text).ok();
    }
    if text.trim_start_matches('\u{feff}').contains('\u{feff}') {
        return None;
    }
    // Line breaks to libyaml, and characters as all others to yaml-cpp, and so to Envoy.
    if text.contains(['\u{85}', '\u{2028}', '\u{2029}']) {
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
            let is_ignored = |key: &Value| matches!(key, Value::Tagged(t) if t.tag == "!ignore");
            let fields = fields.into_iter().filter(|(key, _)| !is_ignored(key));
            Value::Mapping(fields.map(|(k, v)| (untagged(k), untagged(v))).collect())
        }
        other => other,
    }
}

struct Wanted {
    old: Option<u64>,
    /// The weight, or `None` where the oracle cannot find it out.
    new: Option<u64>,
}

/// Returns what every weight should be, in order, and takes all of them out of the tree.
fn oracle(tree: &mut Value, splits: &[Split]) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for (key, value) in tree.as_mapping_mut().into_iter().flatten() {
        if is_any(key, &["resources", "static_resources"]) {
            way(value, splits, &mut wanted);
        }
    }
    wanted
}

/// The fields between a resource and its virtual hosts, none of them free-form.
const WAY: [&str; 15] = [
    "resource",
    "listeners",
    "filter_chains",
    "default_filter_chain",
    "filters",
    "typed_config",
    "value",
    "api_listener",
    "route_config",
    "route_configuration",
    "scoped_routes",
    "scoped_route_configurations",
    "scoped_route_configurations_list",
    "config_discovery",
    "default_config",
];

fn way(value: &mut Value, splits: &[Split], wanted: &mut Vec<Wanted>) {
    for fields in all_of(value).into_iter().filter_map(mapping) {
        for (key, value) in fields.iter_mut() {
            if is_any(key, &["virtual_hosts"]) {
                all_of(value)
                    .into_iter()
                    .filter_map(mapping)
                    .for_each(|host| host_weights(host, splits, wanted));
            } else if is_any(key, &WAY) {
                way(value, splits, wanted);
            }
        }
    }
}

/// Returns whether a key is one of these proto names, or one in lowerCamelCase.
fn is_any(key: &Value, names: &[&str]) -> bool {
    let camel = |name: &str| {
        let mut words = name.split('_');
        let first = words.next().unwrap().to_owned();
        words.fold(first, |all, word| {
            all + &word[..1].to_uppercase() + &word[1..]
        })
    };
    let key = key.as_str().unwrap_or("");
    let could_be =
        |name: &str| name.len() > key.len() && name.as_bytes().first() == key.as_bytes().first();
    names
        .iter()
        .any(|name| key == *name || could_be(name) && key == camel(name))
}

/// Returns the items of a list, and of lists in it. A value that is not a list counts as a list of
/// one.
fn all_of(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Sequence(items) => items.iter_mut().flat_map(all_of).collect(),
        Value::Null => Vec::new(),
        other => vec![other],
    }
}

fn host_weights(host: &mut Mapping, splits: &[Split], wanted: &mut Vec<Wanted>) {
    let name = host.get("name").and_then(Value::as_str);
    let name = name.unwrap_or("").to_owned();
    let domains = host.get_mut("domains").map(all_of).unwrap_or_default();
    let domains: Vec<String> = domains
        .into_iter()
        .filter_map(|domain| domain.as_str().map(str::to_owned))
        .collect();
    let meant: Vec<&Split> = splits
        .iter()
        .filter(|split| {
            let service = &split.service;
            let root = root(service, &split.namespace);
            let same = |domain: &String| {
                root.to_lowercase() == self::root(domain, &split.namespace).to_lowercase()
            };
            name == *service || name == root || domains.iter().any(same)
        })
        .collect();
    for (key, value) in host.iter_mut() {
        if is_any(key, &["routes"]) {
            route_weights(value, &meant, wanted);
        } else if is_any(key, &["matcher"]) {
            matcher_weights(value, &meant, wanted);
        }
    }
}

/// A host name without its port, its last dot, and all that a service's own name may end with.
fn root<'h>(host: &'h str, namespace: &str) -> &'h str {
    let port = |c: char| c.is_ascii_digit();
    let whole = host
        .strip_suffix('*')
        .unwrap_or(host.trim_end_matches(port));
    let host = whole.strip_suffix(':').unwrap_or(host);
    let host = host.strip_suffix('.').unwrap_or(host);
    let lower = host.to_ascii_lowercase();
    let ends = [format!(".svc.{DOMAIN}"), ".svc".to_owned(), String::new()];
    for end in ends {
        let end = format!(".{namespace}{end}").to_ascii_lowercase();
        if lower.ends_with(&end) {
            return &host[..host.len() - end.len()];
        }
    }
    host
}

/// The fields between a matcher and what it does.
const MATCHER: [&str; 12] = [
    "matcher",
    "matchers",
    "matcher_list",
    "matcher_tree",
    "on_match",
    "on_no_match",
    "exact_match_map",
    "prefix_match_map",
    "custom_match",
    "typed_config",
    "range_matchers",
    "domain_matchers",
];

fn matcher_weights(value: &mut Value, meant: &[&Split], wanted: &mut Vec<Wanted>) {
    for fields in all_of(value).into_iter().filter_map(mapping) {
        for (key, value) in fields.iter_mut() {
            if is_any(key, &["action"]) {
                for (key, config) in mapping(value).into_iter().flatten() {
                    if is_any(key, &["typed_config"]) {
                        route_weights(config, meant, wanted);
                    }
                }
            } else if is_any(key, &["map"]) {
                let values = mapping(value).into_iter().flatten();
                values.for_each(|(_, value)| matcher_weights(value, meant, wanted));
            } else if is_any(key, &MATCHER) {
                matcher_weights(value, meant, wanted);
            }
        }
    }
}

fn route_weights(value: &mut Value, meant: &[&Split], wanted: &mut Vec<Wanted>) {
    for route in all_of(value).into_iter().filter_map(mapping) {
        for (key, value) in route.iter_mut() {
            // Of a RouteList, and of a Route in a TypedStruct.
            if is_any(key, &["routes", "value"]) {
                route_weights(value, meant, wanted);
            } else if is_any(key, &["route"]) {
                for (key, group) in mapping(value).into_iter().flatten() {
                    if is_any(key, &["weighted_clusters"]) {
                        mapping(group)
                            .into_iter()
                            .for_each(|group| group_weights(group, meant, wanted));
                    }
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
    let clusters = group.get_mut("clusters").map(all_of).unwrap_or_default();
    let mut clusters: Vec<&mut Value> = clusters.into_iter().filter(|c| c.is_mapping()).collect();
    let names: Vec<Option<String>> = clusters.iter_mut().map(|c| name_of(c)).collect();
    let backend = |split: &Split, name: &Option<String>| {
        let name = name.as_ref()?;
        let mut places = split.backends.iter();
        let exact = places.position(|(service, _)| service == name);
        let mut places = split.backends.iter();
        exact.or_else(|| places.position(|(service, _)| service.replace('.', "_") == *name))
    };
    let is_meant = |split: &&&Split| names.iter().any(|name| backend(split, name).is_some());
    let Some(split) = meant.iter().find(is_meant) else {
        return;
    };
    let backends: Vec<Option<usize>> = names.iter().map(|n| backend(split, n)).collect();
    let present: Vec<u64> = (0..split.backends.len())
        .filter(|i| backends.contains(&Some(*i)))
        .map(|i| split.backends[i].1)
        .collect();
    let sum = present.iter().fold(0_u64, |sum, w| sum.saturating_add(*w));
    if sum == 0 || sum > u64::from(u32::MAX) {
        return;
    }
    let own: Vec<Option<u64>> = clusters
        .iter()
        .map(|cluster| match cluster.get("weight") {
            None | Some(Value::Null) => Some(0),
            // Whether it is octal is not told any more.
            Some(Value::String(text)) if text.starts_with('0') => None,
            Some(weight) => number(weight),
        })
        .collect();
    let new = divided(&backends, &own, split, sum);
    for (at, cluster) in clusters.iter_mut().enumerate() {
        if let Some(fields) = mapping(cluster) {
            let old = fields.remove("weight").as_ref().and_then(number);
            let new = new.as_ref().map(|new| new[at]);
            wanted.push(Wanted { old, new });
        }
    }
    drop(clusters);
    for key in ["total_weight", "totalWeight"] {
        if let Some(total) = group.remove(key) {
            let old = number(&total);
            let new = new.as_ref().map(|new| new.iter().sum());
            wanted.push(Wanted { old, new });
        }
    }
}

/// Multiplies the split until each cluster's part is whole.
fn divided(
    backends: &[Option<usize>],
    own: &[Option<u64>],
    split: &Split,
    sum: u64,
) -> Option<Vec<u64>> {
    let count = |i: usize| backends.iter().filter(|b| **b == Some(i)).count();
    let mut parts = Vec::new();
    for (backend, weight) in backends.iter().zip(own) {
        parts.push(match *backend {
            None => (0, 0, 1),
            Some(i) if count(i) == 1 => (u128::from(split.backends[i].1), 1, 1),
            Some(i) => {
                let share = split.backends[i].1.into();
                let of_it = backends.iter().zip(own).filter(|(b, _)| **b == Some(i));
                let all = of_it.map(|(_, own)| own.map(u128::from));
                match all.sum::<Option<u128>>()? {
                    0 => (share, 1, count(i) as u128),
                    all => (share, u128::from((*weight)?), all),
                }
            }
        });
    }
    let is_whole = |m: &u128| {
        parts
            .iter()
            .all(|(share, by, of)| (share * by * m).is_multiple_of(*of))
    };
    let factor = (1..50_000_u128).find(is_whole)?;
    let scaled = parts.iter().map(|(share, by, of)| share * by * factor / of);
    let mut scaled: Vec<u128> = scaled.collect();
    // By one small divisor after the other: larger ones are common only to large splits' weights.
    for divisor in (2..1000).filter(|_| factor > 1) {
        while scaled.iter().all(|w| w.is_multiple_of(divisor)) {
            scaled.iter_mut().for_each(|w| *w /= divisor);
        }
    }
    let is_known = factor == 1 || sum < 1000 && scaled.iter().sum::<u128>() <= u32::MAX.into();
    is_known.then(|| scaled.iter().map(|w| *w as u64).collect())
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0)?;
            (0.0..1e15).contains(&whole).then_some(whole as u64)
        }),
        Value::String(text) => text.parse().ok(),
        Value::Mapping(fields) => number(fields.get("value")?),
        _ => None,
    }
}

fn mapping(value: &mut Value) -> Option<&mut Mapping> {
    value.as_mapping_mut()
}
