//! The objects that tests put into the cluster, in a line each.

use serde_json::{Map, Value, json};

/// A ConfigMap in namespace `default` with these `data` keys.
pub fn config_map(name: &str, data: &[(&str, &str)]) -> Value {
    let data: Map<String, Value> = data
        .iter()
        .map(|(key, text)| (key.to_string(), json!(text)))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": data,
    })
}

/// A TrafficSplit in namespace `default`, written as v1alpha2.
pub fn traffic_split(name: &str, service: &str, backends: &[(&str, u64)]) -> Value {
    let backends: Vec<Value> = backends
        .iter()
        .map(|(service, weight)| json!({"service": service, "weight": weight}))
        .collect();
    json!({
        "apiVersion": "split.smi-spec.io/v1alpha2",
        "kind": "TrafficSplit",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"service": service, "backends": backends},
    })
}

/// The same object in another namespace.
pub fn in_namespace(namespace: &str, mut object: Value) -> Value {
    object["metadata"]["namespace"] = json!(namespace);
    object
}

/// The CustomResourceDefinition that makes a server serve TrafficSplits in these versions, the
/// first one stored.
pub fn traffic_split_crd(versions: &[&str]) -> Value {
    let schema = json!({"openAPIV3Schema": {
        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
    }});
    let versions: Vec<Value> = versions
        .iter()
        .enumerate()
        .map(|(at, name)| {
            json!({"name": name, "served": true, "storage": at == 0, "schema": schema})
        })
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "trafficsplits.split.smi-spec.io"},
        "spec": {
            "group": "split.smi-spec.io",
            "names": {
                "kind": "TrafficSplit", "listKind": "TrafficSplitList",
                "plural": "trafficsplits", "singular": "trafficsplit", "shortNames": ["ts"],
            },
            "scope": "Namespaced",
            "versions": versions,
        },
    })
}
