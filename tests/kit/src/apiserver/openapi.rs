//! Just enough OpenAPI v3 for kubectl: that the server itself validates what it is sent, so that
//! `replace` and `edit` need no `--validate=false`.

use super::kinds::Kind;
use serde_json::{Map, Value, json};

/// Returns the answer to `GET /openapi/v3`.
pub fn index(kinds: &[Kind]) -> Value {
    let paths: Map<String, Value> = kinds
        .iter()
        .flat_map(|kind| kind.versions.iter().map(|version| root(kind, version)))
        .map(|root| {
            let url = format!("/openapi/v3/{root}?hash=0");
            (root, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

/// Returns the answer to `GET /openapi/v3/api/v1` or `GET /openapi/v3/apis/GROUP/VERSION`.
pub fn document(kinds: &[Kind], group: &str, version: &str) -> Option<Value> {
    let served = |k: &&Kind| k.group == group && k.versions.iter().any(|v| v == version);
    let paths: Map<String, Value> = kinds
        .iter()
        .filter(served)
        .map(|kind| path(kind, version))
        .collect();
    (!paths.is_empty()).then(|| {
        json!({
            "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.34.0"},
            "paths": paths,
        })
    })
}

fn root(kind: &Kind, version: &str) -> String {
    let prefix = if kind.group.is_empty() { "api" } else { "apis" };
    format!("{prefix}/{}", kind.api_version(version))
}

fn path(kind: &Kind, version: &str) -> (String, Value) {
    let scope = if kind.namespaced {
        "namespaces/{namespace}/"
    } else {
        ""
    };
    let patch = json!({
        "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
        "responses": {},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": {
            "group": kind.group, "version": version, "kind": kind.kind,
        },
    });
    (
        format!("/{}/{scope}{}/{{name}}", root(kind, version), kind.plural),
        json!({"patch": patch}),
    )
}
