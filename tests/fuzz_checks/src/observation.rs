//! Objects of the API server: from JSON to what should stand on disk.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Deserialize;
use serde_json::Value;

use super::oracle::DOMAIN;
use super::{FileName, HostWeights, SECRET, base64, compare, merge, name, usual_splits};
use crossover::testing::api::{self, WatchEvent};
use crossover::testing::poll::Changed;
use crossover::testing::{
    Body, Bytes, ConfigMapFiles, ConfigMapSource, Done, Event, Merge, Object, ObjectKind, Observed,
    Projection, ResourceVersion, Snapshot, WeightStore, desired, manifest,
};

/// SourceView before: it must outlive whatever is refused.
const EARLIER: &[u8] = br#"{"type":"ADDED","object":{"kind":"ConfigMap","metadata":
    {"name":"envoy","uid":"u0","resourceVersion":"1"},"data":{"a.yaml":"a: b\n","b.json":"{}"}}}"#;

/// Routes for whatever a TrafficSplit says.
const ROUTES: &str = include_str!("../../data/route/block/config.yaml");

/// Checks what is read of JSON, whatever it was asked for.
pub fn check(bytes: &[u8]) {
    let tree: Option<Value> = serde_json::from_slice(bytes).ok();
    let silent = |found: Result<(), String>| {
        if let Err(text) = found
            && text.contains(SECRET)
        {
            // What kind of object it is, and its keys, may be cited.
            let cited = tree.as_ref().is_none_or(|tree| cites(tree, None));
            assert!(cited, "{text}");
        }
    };
    for kind in [
        ObjectKind::ConfigMap,
        ObjectKind::TrafficSplit,
        ObjectKind::HttpRoute,
    ] {
        for extent in [Projection::Full, Projection::MetadataOnly] {
            silent(api::list(bytes, kind, extent).map(|list| {
                check_version(&list.at);
                check_objects(bytes, kind, extent, tree.as_ref());
            }));
        }
        silent(api::event(bytes, kind).map(|event| match event {
            WatchEvent::Changed(_) => check_objects(bytes, kind, Projection::Full, tree.as_ref()),
            WatchEvent::Deleted(_, at) | WatchEvent::Bookmark(at) => check_version(&at),
            WatchEvent::Failed(_) | WatchEvent::Unknown(_) => {}
        }));
    }
    silent(api::group(bytes).map(drop));
    silent(api::mirrored(bytes).map(|mirrored| {
        manifest::is_ours(&mirrored.metadata);
    }));
    api::status(bytes);
}

/// Returns whether the secret stands in a place that may be cited.
fn cites(tree: &Value, key: Option<&str>) -> bool {
    match tree {
        Value::Object(fields) => fields
            .iter()
            .any(|(key, value)| key.contains(SECRET) || cites(value, Some(key))),
        Value::Array(items) => items.iter().any(|item| cites(item, None)),
        Value::String(text) => matches!(key, Some("kind")) && text.contains(SECRET),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// It can stand in a line of the log; in a URL it is escaped.
fn check_version(version: &ResourceVersion) {
    let plain = |c: char| c.is_ascii_graphic();
    assert!(
        !version.0.is_empty() && version.0.chars().all(plain),
        "{version}"
    );
}

/// The objects of a list or an event, as often as they are asked for.
fn objects(bytes: &[u8], kind: ObjectKind, extent: Projection) -> Vec<Object> {
    if let Ok(list) = api::list(bytes, kind, extent) {
        return list.items;
    }
    match api::event(bytes, kind) {
        Ok(WatchEvent::Changed(object)) => vec![object],
        _ => Vec::new(),
    }
}

fn check_objects(bytes: &[u8], kind: ObjectKind, extent: Projection, tree: Option<&Value>) {
    let read = || objects(bytes, kind, extent);
    match kind {
        ObjectKind::ConfigMap => {
            let is_list = api::list(bytes, kind, extent).is_ok();
            for (number, (first, second)) in read().into_iter().zip(read()).enumerate() {
                let tree = tree.map(|tree| match is_list {
                    true => &tree["items"][number],
                    false => &tree["object"],
                });
                check_config_map(first, second, tree);
            }
        }
        ObjectKind::TrafficSplit => check_splits(read(), read()),
        ObjectKind::HttpRoute => check_http_routes(read(), read()),
    }
}

fn check_config_map(object: Object, again: Object, tree: Option<&Value>) {
    check_version(&object.version.resource_version);
    let files = match &object.body {
        Body::ConfigMap(files) => files.as_ref().ok().cloned(),
        Body::TrafficSplit { .. } | Body::HttpRoute { .. } => {
            unreachable!("a ConfigMap was asked for")
        }
    };
    if let (Some(files), Some(tree)) = (&files, tree) {
        for (key, text) in entries(tree, "data") {
            let hidden = entries(tree, "binaryData").any(|(other, _)| other == key);
            assert!(hidden || files[key][..] == *text.as_bytes(), "{key}");
        }
        for (key, text) in entries(tree, "binaryData") {
            assert_eq!(base64(&files[key]), text, "{key}");
        }
    }

    let now = Instant::now();
    let mut source = ConfigMapSource::new(name("envoy"));
    for earlier in objects(EARLIER, ObjectKind::ConfigMap, Projection::Full) {
        source.take(Event::Applied(earlier), now);
    }
    let before = source.content.clone().expect("it is fit");
    source.take(Event::Applied(object), now);
    let content = source.content.as_ref().expect("what was there stays");
    match source.observed {
        Observed::Valid => {
            let files = files.expect("what is fit could be read");
            let want = files.iter().map(|(key, bytes)| (key.as_str(), bytes));
            let found = content.files.iter();
            assert!(want.eq(found.map(|(name, bytes)| (name.as_str(), bytes))));
            assert!(!files.is_empty());
        }
        Observed::Invalid => {
            assert_eq!(content.files, before.files);
            assert_eq!(content.origin, before.origin);
            let reasons = source.refused.as_deref().expect("a reason");
            let cited = tree.is_none_or(|tree| cites(tree, None));
            assert!(cited || !reasons.contains(SECRET), "{reasons}");
        }
        Observed::Pending | Observed::Missing => unreachable!("it is there"),
    }
    let said = (source.observed, source.refused.clone());
    let first = merged(&source);
    source.take(Event::Applied(again), now);
    assert_eq!(said, (source.observed, source.refused.clone()));
    let second = merged(&source);
    assert_eq!((&first.set, &first.behind), (&second.set, &second.behind));
    source.run_deferred_checks(now);
    let content = source.content.as_ref().expect("what was there stays");
    check_weights(content, &first.set);
    check_set(content, &first.set);
}

fn entries<'t>(tree: &'t Value, key: &str) -> impl Iterator<Item = (&'t str, &'t str)> {
    let fields = tree.get(key).and_then(Value::as_object);
    let fields = fields.into_iter().flatten();
    fields.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

fn merged(source: &ConfigMapSource) -> Done {
    let splits = usual_splits();
    let splits: Vec<&HostWeights> = splits.iter().collect();
    let desired = desired(&[source.known()], false);
    let desired = desired.expect("the one source is known and has content");
    Merge::new(&splits, DOMAIN, desired.set).finish(&Snapshot::new(), None)
}

/// Every file with the weights that a merge of it alone gives; one that is refused is as it was.
fn check_weights(content: &ConfigMapFiles, set: &Snapshot) {
    let splits = usual_splits();
    let splits: Vec<&HostWeights> = splits.iter().collect();
    let merged = |(name, bytes): (&FileName, &Bytes)| {
        let text = std::str::from_utf8(bytes).unwrap_or("");
        let merged = merge(name, text, &splits, DOMAIN)
            .ok()
            .and_then(|merged| merged.text);
        merged.map_or(bytes.to_vec(), String::into_bytes)
    };
    let want = content.files.iter().map(merged);
    assert!(set.values().map(|file| file.bytes.to_vec()).eq(want));
}

/// Checks what stands on disk: only plain names, and `kubectl` and we read the same of its mirror.
fn check_set(content: &ConfigMapFiles, set: &Snapshot) {
    assert!(set.keys().eq(content.files.keys()));
    for name in set.keys().map(FileName::as_str) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        assert!(
            name.bytes().all(plain) && (1..=253).contains(&name.len()),
            "{name}"
        );
        assert!(name != "." && !name.starts_with(".."), "{name}");
    }
    let files: BTreeMap<&str, &[u8]> = set
        .iter()
        .map(|(name, file)| (name.as_str(), &file.bytes[..]))
        .collect();
    let mirror = manifest::mirror(&name("envoy"), set, None).expect("JSON");
    let mirror = api::mirrored(&mirror).expect("our own mirror");
    assert!(manifest::is_ours(&mirror.metadata));
    let mirror = mirror
        .files
        .iter()
        .map(|(key, bytes)| (key.as_str(), &bytes[..]));
    assert!(mirror.eq(files.iter().map(|(name, bytes)| (*name, *bytes))));

    let yaml = manifest::manifests(set, false);
    let document = serde_yaml::Deserializer::from_str(&yaml)
        .next()
        .expect("a manifest");
    let read = Shown::deserialize(document).expect("YAML");
    let mut shown: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    shown.extend(
        read.data
            .iter()
            .map(|(key, text)| (key.as_str(), text.clone().into_bytes())),
    );
    for (key, want) in &files {
        match read.binary_data.get(*key) {
            Some(text) => assert_eq!(*text, base64(want), "{yaml}"),
            None => assert_eq!(shown.get(key).map(Vec::as_slice), Some(*want), "{yaml}"),
        }
    }
    assert_eq!(files.len(), read.data.len() + read.binary_data.len());
}

/// A manifest.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Shown {
    data: BTreeMap<String, String>,
    binary_data: BTreeMap<String, String>,
}

fn check_splits(first: Vec<Object>, again: Vec<Object>) {
    let now = Instant::now();
    let mut splits = store(ObjectKind::TrafficSplit);
    let _ = splits.take(Event::Replaced(first), now);
    let usable = usable(&splits);
    for split in &usable {
        let backends = &split.rules[0].backends;
        assert!(!split.hosts[0].name.is_empty() && !backends.is_empty());
        assert!(backends.iter().all(|backend| !backend.service.is_empty()));
    }
    let _ = splits.take(Event::Replaced(again), now);
    assert_eq!(usable, self::usable(&splits));
    let usable: Vec<&HostWeights> = usable.iter().collect();
    let merged = compare("a.yaml", ROUTES, &usable);
    assert!(merged.is_ok(), "{merged:?}");
}

fn store(kind: ObjectKind) -> WeightStore {
    WeightStore::new(kind, "test".to_owned(), None, [name("envoy")].into())
}

fn usable(store: &WeightStore) -> Vec<HostWeights> {
    let usable = store.usable().into_iter();
    usable.map(|(_, weights)| weights.clone()).collect()
}

/// What is read of an HTTPRoute is the same each time, no event of it changes anything the second
/// time, and a merge changes nothing but weights, at once.
fn check_http_routes(first: Vec<Object>, again: Vec<Object>) {
    let now = Instant::now();
    let mut routes = store(ObjectKind::HttpRoute);
    let _ = routes.take(Event::Replaced(first), now);
    let usable = usable(&routes);
    for route in &usable {
        let mut backends = route.rules.iter().flat_map(|rule| &rule.backends);
        assert!(backends.clone().next().is_some());
        assert!(backends.all(|backend| !backend.service.is_empty()));
        assert!(route.hosts.iter().all(|host| !host.name.is_empty()));
    }
    let names: std::collections::BTreeSet<String> =
        again.iter().map(|object| object.name.clone()).collect();
    let is_unique = names.len() == again.len();
    let changed = routes.take(Event::Replaced(again), now);
    assert!(changed == Changed::No || !is_unique, "nothing has changed");
    assert_eq!(usable, self::usable(&routes));
    let usable: Vec<&HostWeights> = usable.iter().collect();
    let file = FileName::new("a.yaml").expect("a name");
    if let Some(text) = merge(&file, ROUTES, &usable, DOMAIN).expect("YAML").text {
        let again = merge(&file, &text, &usable, DOMAIN).expect("YAML");
        assert_eq!(again.text, None, "{text}");
    }
}
