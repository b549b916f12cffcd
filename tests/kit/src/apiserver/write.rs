//! Writes change objects as in the real server: create, replace, patch, apply, delete. Must not
//! know HTTP.

use super::fields::{self, Writer};
use super::kinds::Kind;
use super::status::{Failure, deleted};
use super::store::{Key, Store};
use super::validation::validate;
use serde_json::{Value, json};
use std::hash::{BuildHasher, RandomState};

/// The object of a write, and who makes it.
pub struct Target<'a> {
    /// The kind, as served.
    pub kind: &'a Kind,
    /// The version in the path.
    pub version: &'a str,
    /// Empty for kinds that lie in none.
    pub namespace: &'a str,
    /// The `fieldManager`, or what stands for it.
    pub manager: &'a str,
}

/// The kind of a PATCH body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patch {
    /// RFC 7386; a strategic merge differs from it only for lists that our kinds do not have.
    Merge,
    /// Server-side apply.
    Apply {
        /// Take fields from other managers.
        force: bool,
    },
}

impl Target<'_> {
    /// Returns the key of an object here.
    pub fn key(&self, name: &str) -> Key {
        Key {
            resource: self.kind.resource(),
            namespace: self.namespace.to_string(),
            name: name.to_string(),
        }
    }

    fn writer(&self, operation: &'static str) -> Writer {
        Writer {
            manager: self.manager.to_string(),
            operation,
            api_version: self.kind.api_version(self.version),
            time: now(),
        }
    }

    /// Handles POST.
    pub fn create(&self, store: &mut Store, body: Value) -> Result<Value, Failure> {
        self.add(store, body, "Update")
    }

    fn add(
        &self,
        store: &mut Store,
        body: Value,
        operation: &'static str,
    ) -> Result<Value, Failure> {
        let mut object = self.checked(body, None)?;
        let name = name_of(&object);
        let key = self.key(&name);
        if store.get(&key).is_some() {
            return Err(Failure::already_exists(self.kind, &name));
        }
        validate(self.kind, &name, &object)?;
        let managed = fields::after_write(None, &object, &object, &self.writer(operation));
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(new_uid());
        metadata["creationTimestamp"] = json!(now());
        if self.kind.custom {
            metadata["generation"] = json!(1);
        }
        metadata["managedFields"] = managed;
        Ok(self.put(store, key, object))
    }

    /// Handles PUT.
    pub fn replace(&self, store: &mut Store, name: &str, body: Value) -> Result<Value, Failure> {
        let Some(old) = store.get(&self.key(name)).cloned() else {
            return Err(Failure::not_found(self.kind, name));
        };
        let object = self.checked(body, Some(name))?;
        match object["metadata"]["resourceVersion"].as_str() {
            Some(sent) if old["metadata"]["resourceVersion"] != json!(sent) => {
                return Err(Failure::conflict(self.kind, name));
            }
            None if self.kind.custom => {
                let said = "Invalid value: 0x0: must be specified for an update".to_string();
                let cause = ("metadata.resourceVersion".to_string(), said);
                return Err(Failure::invalid(self.kind, name, &[cause]));
            }
            Some(_) | None => {}
        }
        let sent = object.clone();
        self.update(store, old, object, &sent, "Update")
    }

    /// Handles PATCH. An apply creates an object that does not exist.
    pub fn patch(
        &self,
        store: &mut Store,
        name: &str,
        patch: Patch,
        body: Value,
    ) -> Result<Value, Failure> {
        let old = store.get(&self.key(name)).cloned();
        match (patch, old) {
            (Patch::Apply { .. }, None) => {
                let body = self.checked(body, Some(name))?;
                self.add(store, body, "Apply")
            }
            (Patch::Merge, None) => Err(Failure::not_found(self.kind, name)),
            (Patch::Merge, Some(old)) => {
                let sent = body["metadata"]["resourceVersion"].as_str();
                if sent.is_some_and(|sent| old["metadata"]["resourceVersion"] != json!(sent)) {
                    return Err(Failure::conflict(self.kind, name));
                }
                let mut object = old.clone();
                merge(&mut object, &body);
                let object = self.checked(object, Some(name))?;
                self.update(store, old, object, &body, "Update")
            }
            (Patch::Apply { force }, Some(old)) => {
                let body = self.checked(body, Some(name))?;
                let conflicts = fields::conflicts(&old, &body, self.manager);
                if !force && !conflicts.is_empty() {
                    return Err(Failure::apply_conflict(self.kind, self.version, &conflicts));
                }
                let mut object = old.clone();
                for path in fields::given_up(&old, &body, self.manager) {
                    remove_path(&mut object, &path);
                }
                merge(&mut object, &body);
                self.update(store, old, object, &body, "Apply")
            }
        }
    }

    /// Handles DELETE. Returns the Status.
    pub fn delete(&self, store: &mut Store, name: &str) -> Result<Value, Failure> {
        let Some(object) = store.remove(&self.key(name)) else {
            return Err(Failure::not_found(self.kind, name));
        };
        if self.kind.is_definition() {
            store.unserve(name);
        }
        Ok(deleted(self.kind, name, &object["metadata"]["uid"]))
    }

    /// Stores `object` over `old`. What the server owns stays; a write that changes nothing is
    /// none.
    fn update(
        &self,
        store: &mut Store,
        old: Value,
        mut object: Value,
        sent: &Value,
        operation: &'static str,
    ) -> Result<Value, Failure> {
        let name = name_of(&old);
        validate(self.kind, &name, &object)?;
        for field in [
            "uid",
            "creationTimestamp",
            "generation",
            "resourceVersion",
            "managedFields",
        ] {
            match old["metadata"].get(field) {
                Some(value) => object["metadata"][field] = value.clone(),
                None => remove_path(&mut object, &["metadata".into(), field.into()]),
            }
        }
        let api_version = old["apiVersion"].clone();
        let same_content = Value::as_object(&object).is_some_and(|fields| {
            let mut fields = fields.clone();
            fields.insert("apiVersion".into(), api_version);
            Some(&fields) == old.as_object()
        });
        let mut managed = fields::after_write(Some(&old), &object, sent, &self.writer(operation));
        if same_content
            && without_times(&managed) == without_times(&old["metadata"]["managedFields"])
        {
            return Ok(old);
        }
        if self.kind.custom && object["spec"] != old["spec"] {
            let generation = old["metadata"]["generation"].as_u64().unwrap_or(0);
            object["metadata"]["generation"] = json!(generation + 1);
        }
        object["metadata"]["managedFields"] = managed.take();
        Ok(self.put(store, self.key(&name), object))
    }

    /// Stores an object; a definition is served at once, and says so in its status.
    fn put(&self, store: &mut Store, key: Key, mut object: Value) -> Value {
        if self.kind.is_definition()
            && let Some(kind) = Kind::from_definition(&object)
        {
            let condition = |name| json!({"type": name, "status": "True"});
            let conditions = ["NamesAccepted", "Established"].map(condition);
            object["status"] = json!({"conditions": conditions});
            store.serve(kind);
        }
        store.put(key, object)
    }

    /// Returns the body as an object of this kind, name and namespace, or what is wrong with it.
    fn checked(&self, mut body: Value, name: Option<&str>) -> Result<Value, Failure> {
        if !body.is_object() {
            return Err(Failure::bad_request("the object provided is unrecognized"));
        }
        for (field, want) in [
            ("kind", &self.kind.kind),
            ("apiVersion", &self.api_version()),
        ] {
            match body[field].as_str() {
                None => body[field] = json!(want),
                Some(sent) if sent == want || field == "apiVersion" && name.is_some() => {
                    body[field] = json!(want);
                }
                Some(sent) => {
                    return Err(Failure::bad_request(format!(
                        "the {field} in the data ({sent}) does not match the expected {want}"
                    )));
                }
            }
        }
        let sent = name_of(&body);
        if let Some(name) = name.filter(|name| !sent.is_empty() && sent != *name) {
            return Err(Failure::bad_request(format!(
                "the name of the object ({sent}) does not match the name on the URL ({name})"
            )));
        }
        if let Some(name) = name {
            body["metadata"]["name"] = json!(name);
        }
        if self.kind.namespaced {
            match body["metadata"]["namespace"].as_str() {
                Some(sent) if sent != self.namespace => {
                    return Err(Failure::bad_request(
                        "the namespace of the provided object does not match the namespace sent \
                         on the request",
                    ));
                }
                Some(_) | None => body["metadata"]["namespace"] = json!(self.namespace),
            }
        }
        Ok(body)
    }

    fn api_version(&self) -> String {
        self.kind.api_version(self.version)
    }
}

/// Merges a patch into a value, as RFC 7386 says.
pub fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields.iter().filter(|(key, _)| !key.starts_with('$')) {
        if value.is_null() {
            remove_path(target, std::slice::from_ref(key));
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

fn remove_path(object: &mut Value, path: &[String]) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    let parent = parents
        .iter()
        .try_fold(object, |value, step| value.get_mut(step.as_str()));
    if let Some(fields) = parent.and_then(Value::as_object_mut) {
        fields.remove(last);
    }
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_string()
}

fn without_times(managed: &Value) -> Value {
    let mut managed = managed.clone();
    for fields in managed
        .as_array_mut()
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        fields.remove("time");
    }
    managed
}

fn now() -> String {
    let seconds = jiff::Timestamp::now().as_second();
    jiff::Timestamp::from_second(seconds)
        .expect("now is within range")
        .to_string()
}

/// Returns a random text in the form of a version 4 UUID.
pub fn new_uid() -> String {
    let half = || RandomState::new().hash_one(0);
    let hex = format!("{:016x}{:016x}", half(), half());
    format!(
        "{}-{}-4{}-a{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..]
    )
}
