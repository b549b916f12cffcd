//! The cluster's objects in a test's hand: changes without HTTP, by the same rules.

use super::kinds::Kind;
use super::status::Failure;
use super::store::Store;
use super::write::Target;
use serde_json::Value;

/// The manager of these changes in managedFields, which a client gets that does not name itself.
const MANAGER: &str = "unknown";

/// The cluster's objects, during a change.
pub struct Cluster<'a> {
    pub(super) store: &'a mut Store,
}

impl Cluster<'_> {
    /// Creates an object; returns its resourceVersion.
    #[track_caller]
    pub fn create(&mut self, object: Value) -> String {
        self.write(object, |target, store, object| target.create(store, object))
    }

    /// Replaces an object whatever its resourceVersion was; returns the new one.
    #[track_caller]
    pub fn replace(&mut self, object: Value) -> String {
        self.write(object, |target, store, mut object| {
            let name = object["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_string();
            let old = store.get(&target.key(&name));
            if let Some(version) = old.map(|old| old["metadata"]["resourceVersion"].clone()) {
                object["metadata"]["resourceVersion"] = version;
            }
            target.replace(store, &name, object)
        })
    }

    /// Creates or replaces an object; returns its resourceVersion.
    #[track_caller]
    pub fn apply(&mut self, object: Value) -> String {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let metadata = &object["metadata"];
        let place = (
            text(&object["kind"]),
            text(&metadata["namespace"]),
            text(&metadata["name"]),
        );
        match self.get(&place.0, &place.1, &place.2) {
            Some(_) => self.replace(object),
            None => self.create(object),
        }
    }

    /// Deletes an object.
    #[track_caller]
    pub fn delete(&mut self, kind: &str, namespace: &str, name: &str) {
        let old = self
            .get(kind, namespace, name)
            .expect("the object is there");
        self.write(old, |target, store, _| target.delete(store, name));
    }

    /// Returns an object as it is stored.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let kind = self.store.kinds.iter().find(|k| k.kind == kind)?;
        let version = kind.versions.first()?;
        let namespace = if kind.namespaced { namespace } else { "" };
        let target = Target {
            kind,
            version,
            namespace,
            manager: MANAGER,
        };
        self.store.get(&target.key(name)).cloned()
    }

    #[track_caller]
    fn write(
        &mut self,
        object: Value,
        write: impl FnOnce(&Target<'_>, &mut Store, Value) -> Result<Value, Failure>,
    ) -> String {
        let api_version = object["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let is_it = |k: &&Kind| k.group == group && object["kind"] == *k.kind;
        let kind = self.store.kinds.iter().find(is_it).cloned();
        let kind = kind.unwrap_or_else(|| panic!("the server has no {api_version}: {object}"));
        let (version, namespace) = (version.to_string(), object["metadata"]["namespace"].clone());
        let namespace = namespace.as_str().unwrap_or_default();
        let target = Target {
            kind: &kind,
            version: &version,
            namespace,
            manager: MANAGER,
        };
        match write(&target, self.store, object) {
            Ok(written) => {
                let version = written["metadata"]["resourceVersion"].as_str();
                version.unwrap_or_default().to_string()
            }
            Err(failure) => panic!("{}", failure.status["message"]),
        }
    }
}
