//! A client's request: the log entry, and its path and query taken apart.

use super::watches::Selection;
use serde_json::Value;
use std::time::Instant;

/// `/api/v1/watch/...`: deprecated, but still served, and what the Go program uses.
const OLD_WATCH: &str = "watch";

/// One request, as the log keeps it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Counts from 1.
    pub number: usize,
    /// The connection it came on; counts from 1.
    pub connection: u64,
    /// The time at which it had been read whole.
    pub at: Instant,
    /// `GET`
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// Empty where there was none.
    pub accept: String,
    /// Empty where there was none.
    pub content_type: String,
    /// Empty where there was none.
    pub user_agent: String,
    /// The bearer token, if any.
    pub token: Option<String>,
    /// The body.
    pub body: Vec<u8>,
    /// The status of the answer; 0 without one.
    pub status: u16,
}

/// A path of the resource API, taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// Empty for the core group.
    pub group: String,
    /// `v1`
    pub version: String,
    /// Empty for all of them.
    pub namespace: String,
    /// `configmaps`
    pub plural: String,
    /// Empty for the collection.
    pub name: String,
}

impl Request {
    /// Returns the part of the target before the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Returns method, target and status for messages.
    pub fn line(&self) -> String {
        format!("{} {} -> {}", self.method, self.target, self.status)
    }

    /// Returns a query parameter, decoded.
    pub fn query(&self, key: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs
            .find(|(name, _)| *name == key)
            .map(|(_, value)| decode(value))
    }

    /// Asks for a stream of events.
    pub fn is_watch(&self) -> bool {
        let old = |path: &str| path.split('/').any(|part| part == OLD_WATCH);
        let prefix = self.path().split("/namespaces/").next();
        self.method == "GET" && (self.flag("watch") || prefix.is_some_and(old))
    }

    /// Asks for a collection, once.
    pub fn is_list(&self) -> bool {
        let list = |place: Place| place.name.is_empty();
        self.method == "GET" && !self.is_watch() && self.place().is_some_and(list)
    }

    /// Asks for metadata alone.
    pub fn is_metadata_only(&self) -> bool {
        self.accept.contains("as=PartialObjectMetadata")
    }

    /// Changes something.
    pub fn is_write(&self) -> bool {
        self.method != "GET"
    }

    /// About an object of this name, be it by path or by field selector.
    pub fn names(&self, name: &str) -> bool {
        let by_path = self.place().is_some_and(|place| place.name == name);
        by_path
            || self
                .selected_name()
                .is_ok_and(|selected| selected.as_deref() == Some(name))
    }

    /// Returns whether a parameter is `1` or `true`.
    pub fn flag(&self, key: &str) -> bool {
        matches!(self.query(key).as_deref(), Some("1" | "true"))
    }

    /// Returns the name in `fieldSelector=metadata.name=`, or an error if the selector is not
    /// supported.
    pub fn selected_name(&self) -> Result<Option<String>, String> {
        match self
            .query("fieldSelector")
            .filter(|selector| !selector.is_empty())
        {
            None => Ok(None),
            Some(selector) => match selector.strip_prefix("metadata.name=") {
                Some(name) => Ok(Some(name.trim_start_matches('=').to_string())),
                None => Err(format!("field label not supported: {selector}")),
            },
        }
    }

    /// Returns whether an object has the labels of `labelSelector=a=b,c=d`.
    pub fn selects(&self, object: &Value) -> bool {
        let wanted = self.query("labelSelector").unwrap_or_default();
        let mut pairs = wanted.split(',').filter_map(|pair| pair.split_once('='));
        pairs.all(|(key, value)| object["metadata"]["labels"][key] == *value)
    }

    /// Returns the place that it is about, or `None` for discovery and the like.
    pub fn place(&self) -> Option<Place> {
        let mut parts: Vec<String> = self
            .path()
            .trim_matches('/')
            .split('/')
            .map(decode)
            .collect();
        let mut place = Place::default();
        match parts.first()?.as_str() {
            "api" if parts.len() > 2 => parts.drain(..1).for_each(drop),
            "apis" if parts.len() > 3 => place.group = parts.drain(..2).nth(1)?,
            _ => return None,
        }
        place.version = parts.remove(0);
        if parts[0] == OLD_WATCH && parts.len() > 1 {
            parts.remove(0);
        }
        if parts[0] == "namespaces" && parts.len() > 2 {
            place.namespace = parts.drain(..2).nth(1)?;
        }
        place.plural = parts.remove(0);
        if !parts.is_empty() {
            place.name = parts.remove(0);
        }
        parts.is_empty().then_some(place)
    }

    /// Returns the RBAC verb.
    pub fn verb(&self) -> &'static str {
        match self.method.as_str() {
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            _ if self.is_watch() => "watch",
            _ if self.is_list() => "list",
            _ => "get",
        }
    }
}

impl Place {
    /// Returns the objects that a list or watch at this place is about.
    pub fn selection(&self, resource: String, selected: Option<String>) -> Selection {
        let name = if self.name.is_empty() {
            selected
        } else {
            Some(self.name.clone())
        };
        let namespace = (!self.namespace.is_empty()).then(|| self.namespace.clone());
        Selection {
            resource,
            namespace,
            name,
        }
    }
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}
