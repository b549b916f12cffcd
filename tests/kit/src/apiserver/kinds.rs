//! The kinds that the server knows, with their groups and versions, and their discovery. Must not
//! hold objects.

use serde_json::{Value, json};

/// A resource type.
#[derive(Clone, Debug, PartialEq)]
pub struct Kind {
    /// Empty for the core group.
    pub group: String,
    /// The served versions, the preferred one first.
    pub versions: Vec<String>,
    /// The name in paths: `configmaps`.
    pub plural: String,
    /// The name in objects: `ConfigMap`.
    pub kind: String,
    /// The names that kubectl also takes.
    pub short_names: Vec<String>,
    /// Lies in a namespace.
    pub namespaced: bool,
    /// True for a CustomResourceDefinition's kind: keys come sorted, objects carry a generation.
    pub custom: bool,
}

const CRD_GROUP: &str = "apiextensions.k8s.io";
const SPLIT_GROUP: &str = "split.smi-spec.io";

impl Kind {
    fn built_in(group: &str, plural: &str, kind: &str, short: &[&str], namespaced: bool) -> Kind {
        Kind {
            group: group.into(),
            versions: vec!["v1".into()],
            plural: plural.into(),
            kind: kind.into(),
            short_names: short.iter().map(|s| s.to_string()).collect(),
            namespaced,
            custom: false,
        }
    }

    /// Returns the kinds that every server has.
    pub fn all_built_in() -> Vec<Kind> {
        let rbac = "rbac.authorization.k8s.io";
        vec![
            Kind::built_in("", "configmaps", "ConfigMap", &["cm"], true),
            Kind::built_in("", "namespaces", "Namespace", &["ns"], false),
            Kind::built_in(rbac, "roles", "Role", &[], true),
            Kind::built_in(rbac, "rolebindings", "RoleBinding", &[], true),
            // What Helm installs beside them. Nothing comes of these: no pod runs.
            Kind::built_in("", "pods", "Pod", &["po"], true),
            Kind::built_in("", "serviceaccounts", "ServiceAccount", &["sa"], true),
            Kind::built_in("", "services", "Service", &["svc"], true),
            Kind::built_in("apps", "deployments", "Deployment", &["deploy"], true),
            Kind::built_in(
                "policy",
                "poddisruptionbudgets",
                "PodDisruptionBudget",
                &["pdb"],
                true,
            ),
            Kind::built_in(
                CRD_GROUP,
                "customresourcedefinitions",
                "CustomResourceDefinition",
                &["crd"],
                false,
            ),
        ]
    }

    /// Returns the kind TrafficSplit, which is served in these versions.
    pub fn traffic_split(versions: &[&str]) -> Kind {
        let mut kind = Kind::built_in(SPLIT_GROUP, "trafficsplits", "TrafficSplit", &["ts"], true);
        kind.versions = versions.iter().map(|v| v.to_string()).collect();
        kind.sort_versions();
        kind.custom = true;
        kind
    }

    /// Returns the kind that a CustomResourceDefinition defines, or `None` if it serves nothing.
    pub fn from_definition(crd: &Value) -> Option<Kind> {
        let spec = &crd["spec"];
        let text = |value: &Value| value.as_str().map(str::to_string);
        let versions: Vec<String> = spec["versions"]
            .as_array()?
            .iter()
            .filter(|v| v["served"] == json!(true))
            .filter_map(|v| text(&v["name"]))
            .collect();
        let short = spec["names"]["shortNames"].as_array();
        let mut kind = Kind {
            group: text(&spec["group"])?,
            versions,
            plural: text(&spec["names"]["plural"])?,
            kind: text(&spec["names"]["kind"])?,
            short_names: short.into_iter().flatten().filter_map(text).collect(),
            namespaced: spec["scope"] == json!("Namespaced"),
            custom: true,
        };
        kind.sort_versions();
        (!kind.versions.is_empty()).then_some(kind)
    }

    /// Returns whether it is a CustomResourceDefinition itself.
    pub fn is_definition(&self) -> bool {
        self.group == CRD_GROUP
    }

    /// `configmaps`, `trafficsplits.split.smi-spec.io`: unique, and what messages say.
    pub fn resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// Returns the name as "is invalid" messages have it: `ConfigMap`,
    /// `TrafficSplit.split.smi-spec.io`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.kind.clone()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }

    /// Returns the apiVersion: `v1`, `split.smi-spec.io/v1alpha2`.
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() {
            version.to_string()
        } else {
            format!("{}/{version}", self.group)
        }
    }

    /// Kubernetes prefers the highest version; among alphas that is the highest number.
    fn sort_versions(&mut self) {
        self.versions.sort_by(|a, b| b.cmp(a));
    }
}

/// Returns the answer to `GET /api`.
pub fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// Returns the answer to `GET /apis`.
pub fn groups(kinds: &[Kind]) -> Value {
    let mut names: Vec<&str> = kinds.iter().map(|k| k.group.as_str()).collect();
    names.retain(|name| !name.is_empty());
    names.sort_unstable();
    names.dedup();
    let groups: Vec<Value> = names
        .into_iter()
        .filter_map(|name| group(kinds, name))
        .map(|mut group| {
            if let Some(fields) = group.as_object_mut() {
                fields.retain(|key, _| key != "kind" && key != "apiVersion");
            }
            group
        })
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// Returns the answer to `GET /apis/GROUP`, or `None` if the group is not served.
pub fn group(kinds: &[Kind], name: &str) -> Option<Value> {
    let kind = kinds.iter().find(|k| k.group == name && !name.is_empty())?;
    let entry = |v: &String| json!({"groupVersion": kind.api_version(v), "version": v});
    // Those of all its kinds.
    let mut names: Vec<&String> = kinds
        .iter()
        .filter(|k| k.group == name)
        .flat_map(|k| &k.versions)
        .collect();
    names.sort_by(|a, b| b.cmp(a));
    names.dedup();
    let versions: Vec<Value> = names.into_iter().map(entry).collect();
    Some(json!({
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": versions,
        "preferredVersion": versions.first(),
    }))
}

/// Returns the answer to `GET /api/v1` or `GET /apis/GROUP/VERSION`, or `None` if it is not served.
pub fn resources(kinds: &[Kind], group: &str, version: &str) -> Option<Value> {
    let served: Vec<&Kind> = kinds
        .iter()
        .filter(|k| k.group == group && k.versions.iter().any(|v| v == version))
        .collect();
    let group_version = served.first()?.api_version(version);
    let verbs = [
        "create", "delete", "get", "list", "patch", "update", "watch",
    ];
    let resources: Vec<Value> = served
        .iter()
        .map(|k| {
            json!({
                "name": k.plural, "singularName": k.kind.to_lowercase(), "kind": k.kind,
                "namespaced": k.namespaced, "verbs": verbs, "shortNames": k.short_names,
            })
        })
        .collect();
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": group_version, "resources": resources,
    }))
}
