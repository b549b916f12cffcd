use super::*;
use serde_json::json;

/// Returns `value` with `with` in one place, for each place in it, and the place, as
/// `/metadata/name`.
fn variants(value: &Value, with: &Value) -> Vec<(String, Value)> {
    let mut found = vec![(String::new(), with.clone())];
    if let Value::Object(fields) = value {
        for (key, inner) in fields {
            for (place, variant) in variants(inner, with) {
                let mut fields = fields.clone();
                fields.insert(key.clone(), variant);
                found.push((format!("/{key}{place}"), Value::Object(fields)));
            }
        }
    }
    found
}

fn every_field(kind: &str) -> Value {
    json!({
        "kind": kind, "apiVersion": "v1",
        "metadata": {
            "name": "a", "namespace": "default", "uid": "u", "resourceVersion": "7",
            "creationTimestamp": "2026-11-27T20:33:05Z", "labels": {"k": "v"},
            "annotations": {"k": "v"}, "ownerReferences": [], "managedFields": [],
            "continue": "", "remainingItemCount": 1, "selfLink": "",
        },
        "data": {"a.yaml": "a: 1\n"}, "binaryData": {"b": "aGk="}, "immutable": false,
        "spec": {"service": "s", "backends": [{"service": "b", "weight": 1}]},
        "status": "Failure", "code": 410, "message": "m", "reason": "r", "details": {},
        "versions": [{"version": "v1"}], "items": [],
    })
}

const KINDS: [ObjectKind; 3] = [
    ObjectKind::ConfigMap,
    ObjectKind::TrafficSplit,
    ObjectKind::HttpRoute,
];

const ODD: [&str; 6] = ["null", "7", "true", "\"odd\"", "[null]", "{\"odd\": null}"];

/// Returns whether an object can be done without what stands at `place`, if it is this.
fn is_optional(place: &str, odd: &Value) -> bool {
    match place {
        // The version is what a watch goes on from; the kind says whether it is ours at all.
        "/metadata/resourceVersion" => odd.is_string(),
        "" | "/kind" | "/metadata" => false,
        _ => true,
    }
}

#[test]
fn no_optional_field_makes_an_object_or_a_list_unreadable_whatever_stands_in_it() {
    for kind in KINDS {
        let object = every_field(kind.name());
        for odd in ODD.map(|text| serde_json::from_str::<Value>(text).unwrap()) {
            for (place, variant) in variants(&object, &odd) {
                for event in ["ADDED", "DELETED", "BOOKMARK"] {
                    let line = json!({"type": event, "object": variant}).to_string();
                    let read = super::event(line.as_bytes(), kind);
                    let optional = is_optional(&place, &odd);
                    assert_eq!(read.is_ok(), optional, "{event} {place} {odd}: {read:?}");
                }
                if is_optional(&place, &odd) {
                    let mut list = every_field(&format!("{}List", kind.name()));
                    list["items"] = json!([object, variant, object]);
                    let read = super::list(list.to_string().as_bytes(), kind, Projection::Full);
                    assert_eq!(read.unwrap().items.len(), 3, "{place} {odd}");
                }
            }
        }
    }
}

#[test]
fn null_is_the_same_as_absent() {
    for kind in KINDS {
        let object = every_field(kind.name());
        for (place, variant) in variants(&object, &Value::Null) {
            if !is_optional(&place, &Value::Null) || place.starts_with("/data/") {
                continue;
            }
            let mut without = object.clone();
            let (parent, key) = place.rsplit_once('/').unwrap();
            let parent = without.pointer_mut(parent).unwrap();
            parent.as_object_mut().unwrap().remove(key);
            let read = |object: Value| {
                let line = json!({"type": "ADDED", "object": object}).to_string();
                format!("{:?}", super::event(line.as_bytes(), kind).unwrap())
            };
            if place != "/binaryData/b" {
                assert_eq!(read(variant), read(without), "{place}");
            }
        }
    }
}

#[test]
fn an_event_of_nulls_is_recognized() {
    let kind = ObjectKind::ConfigMap;
    let failed = event(br#"{"type":"ERROR","object":null}"#, kind);
    assert!(matches!(
        failed,
        Ok(WatchEvent::Failed(Status { code: 0, .. }))
    ));
    assert!(event(br#"{"type":null,"object":null}"#, kind).is_err());
    let empty = br#"{"kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"204"},"items":null}"#;
    assert!(
        list(empty, kind, Projection::MetadataOnly)
            .unwrap()
            .items
            .is_empty()
    );
    let group = br#"{"kind":"APIGroup","versions":[null,{"version":null},{"version":"v1"}]}"#;
    assert_eq!(super::group(group).unwrap(), ["v1"]);
}

#[test]
fn a_config_map_whose_data_is_odd_says_so() {
    for (data, want) in [
        (json!("x"), "data is not a map"),
        (json!({"a": 7}), "data of \"a\" is not a text"),
    ] {
        let mut object = every_field("ConfigMap");
        object["data"] = data;
        let line = json!({"type": "ADDED", "object": object}).to_string();
        let Ok(WatchEvent::Changed(object)) = event(line.as_bytes(), ObjectKind::ConfigMap) else {
            panic!("{line}");
        };
        match object.body {
            Body::ConfigMap(files) => assert_eq!(files.unwrap_err(), want),
            Body::TrafficSplit { .. } | Body::HttpRoute { .. } => panic!("a ConfigMap"),
        }
    }
}

#[test]
fn the_list_of_a_custom_kind_may_be_called_anything_but_is_of_its_group() {
    let check = |kind, called: &str, api_version: &str, want: bool| {
        let metadata = json!({"name": "a", "resourceVersion": "1"});
        let answer = json!({"kind": called, "apiVersion": api_version, "items": [
            {"metadata": metadata}], "metadata": metadata});
        let list = list(answer.to_string().as_bytes(), kind, Projection::Full);
        assert_eq!(list.is_ok(), want, "{called} {api_version}");
    };
    let split = ObjectKind::TrafficSplit;
    check(
        split,
        "TrafficSplitList",
        "split.smi-spec.io/v1alpha2",
        true,
    );
    check(split, "Splits", "split.smi-spec.io/v1alpha2", true);
    check(split, "Splits", "split.smi-spec.iot/v1alpha2", false);
    check(split, "ConfigMapList", "v1", false);
    check(ObjectKind::ConfigMap, "Splits", "v1", false);
    let none = br#"{"kind":"TrafficSplit","apiVersion":"split.smi-spec.io/v1alpha2",
        "metadata":{"resourceVersion":"1"}}"#;
    assert!(
        list(none, split, Projection::Full).is_err(),
        "it is an object"
    );
}
