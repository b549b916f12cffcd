//! The objects that tests put into the cluster, in a line each.

use serde_json::{Map, Value, json};

/// Returns a ConfigMap in namespace `default` with these `data` keys.
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

/// Returns a TrafficSplit in namespace `default`, written as v1alpha2.
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

/// Returns an HTTPRoute in namespace `default` with these rules, attached to a ConfigMap as the
/// documents recommend it, and else as Flagger writes it.
pub fn http_route(name: &str, rules: Value) -> Value {
    let reconcile = "kustomize.toolkit.fluxcd.io/reconcile";
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "default", "annotations": {
            reconcile: "disabled", "helm.toolkit.fluxcd.io/driftDetection": "disabled",
        }},
        "spec": {
            "parentRefs": [{"group": "", "kind": "ConfigMap", "name": "envoy-xds"}],
            "rules": rules,
        },
    })
}

/// Returns a CustomResourceDefinition of HTTPRoutes, cut down to the fields that tests write, that
/// makes a server serve them in these versions, the first one stored.
pub fn http_route_crd(versions: &[&str]) -> Value {
    let text = json!({"type": "string"});
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let list = |items: &Value| json!({"type": "array", "maxItems": 16, "items": items});
    let backend = json!({"type": "object", "required": ["name"], "properties": {
        "group": text, "kind": text, "namespace": text, "name": text,
        "port": {"type": "integer"}, "filters": list(&any),
        "weight": {"type": "integer", "default": 1, "minimum": 0, "maximum": 1_000_000},
    }});
    let rule = json!({"type": "object", "properties": {
        "name": text, "matches": list(&any), "filters": list(&any), "timeouts": any,
        "backendRefs": list(&backend),
    }});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "parentRefs": list(&any), "hostnames": list(&text), "rules": list(&rule),
        }},
        "status": any,
    }}});
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
        "metadata": {"name": "httproutes.gateway.networking.k8s.io", "annotations": {
            "api-approved.kubernetes.io":
                "https://github.com/kubernetes-sigs/gateway-api/pull/2466",
        }},
        "spec": {
            "group": "gateway.networking.k8s.io",
            "names": {
                "kind": "HTTPRoute", "listKind": "HTTPRouteList",
                "plural": "httproutes", "singular": "httproute",
            },
            "scope": "Namespaced",
            "versions": versions,
        },
    })
}

/// Returns the same object in another namespace.
pub fn in_namespace(namespace: &str, mut object: Value) -> Value {
    object["metadata"]["namespace"] = json!(namespace);
    object
}

/// Returns the CustomResourceDefinition that makes a server serve TrafficSplits in these versions,
/// the first one stored.
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
