//! The objects and their history: one resourceVersion counter, events in order, told to the
//! watches. Must not know HTTP.

use super::kinds::Kind;
use super::status::Failure;
use super::watches::{Change, Delivery, Part, Selection, Watch, WatchRequest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::mpsc::UnboundedReceiver;

/// The key of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// [`Kind::resource`].
    pub resource: String,
    /// Empty for what lies in none.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

impl Key {
    /// Returns its place in the order of a list.
    fn place(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// The beginning of a list's next page.
pub struct Continue {
    /// The version of the list, or `None` if the rest is listed as it is now.
    pub version: Option<u64>,
    /// After this object.
    pub after: String,
}

/// A part of a list.
pub struct Page {
    /// The objects.
    pub items: Vec<Value>,
    /// The list's resourceVersion.
    pub at: u64,
    /// The next page, if there is one.
    pub next: Option<Continue>,
    /// The number of objects that remain.
    pub remaining: Option<usize>,
}

impl Continue {
    /// Returns it as the real server writes it.
    pub fn token(&self) -> String {
        let version = self.version.map_or(json!(-1), |version| json!(version));
        let after = format!("{}\u{0}", self.after);
        let token = json!({"v": "meta.k8s.io/v1", "rv": version, "start": after});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    /// Reads a token.
    pub fn parse(token: &str) -> Option<Continue> {
        let token: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        Some(Continue {
            version: token["rv"].as_u64(),
            after: token["start"].as_str()?.trim_end_matches('\0').to_string(),
        })
    }
}

/// The cluster's state.
pub struct Store {
    /// The newest resourceVersion.
    pub version: u64,
    /// The kinds that are served.
    pub kinds: Vec<Kind>,
    /// The open watches.
    pub watches: Vec<Watch>,
    objects: BTreeMap<Key, Value>,
    history: VecDeque<Change>,
    history_limit: usize,
    /// The states that a list is read from page by page, by their resourceVersion.
    snapshots: BTreeMap<u64, BTreeMap<Key, Value>>,
    /// Watches from below are too old.
    floor: u64,
    delivery: Delivery,
    next_id: u64,
}

impl Store {
    /// Returns an empty cluster at a resourceVersion.
    pub fn new(version: u64, history_limit: usize, kinds: Vec<Kind>) -> Store {
        Store {
            version,
            kinds,
            watches: Vec::new(),
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            history_limit,
            snapshots: BTreeMap::new(),
            floor: version,
            delivery: Delivery::Normal,
            next_id: 0,
        }
    }

    /// Returns the kind behind a path, if that version of it is served.
    pub fn served(&self, group: &str, version: &str, plural: &str) -> Option<Kind> {
        let is_it = |k: &&Kind| {
            k.group == group && k.plural == plural && k.versions.iter().any(|v| v == version)
        };
        self.kinds.iter().find(is_it).cloned()
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    /// Returns a page of what a selection takes: at most `limit` objects from where `token` says
    /// on.
    pub fn page(
        &mut self,
        selection: &Selection,
        selects: impl Fn(&Value) -> bool,
        limit: Option<usize>,
        token: Option<Continue>,
    ) -> Result<Page, Failure> {
        let at = match &token {
            Some(token) => token.version.unwrap_or(self.version),
            None => self.version,
        };
        let now = token.as_ref().is_none_or(|token| token.version.is_none());
        let objects = if now {
            &self.objects
        } else {
            let snapshot = self.snapshots.get(&at);
            snapshot.ok_or_else(|| Failure::expired_page(token.as_ref()))?
        };
        let from = token.map(|token| token.after).unwrap_or_default();
        let after = |key: &Key| {
            let from = from.split_once('/');
            from.is_none_or(|from| (key.namespace.as_str(), key.name.as_str()) > from)
        };
        let left =
            |key: &Key, object: &Value| selection.takes(key) && after(key) && selects(object);
        let mut left = objects.iter().filter(|(key, object)| left(key, object));
        let taken: Vec<(&Key, &Value)> = left.by_ref().take(limit.unwrap_or(usize::MAX)).collect();
        let rest = left.count();
        let next = taken.last().filter(|_| rest > 0).map(|(key, _)| Continue {
            version: Some(at),
            after: key.place(),
        });
        let items = taken.iter().map(|(_, object)| (*object).clone()).collect();
        if next.is_some() && !self.snapshots.contains_key(&at) {
            self.snapshots.insert(at, self.objects.clone());
        }
        // With a selector the real server does not know it.
        let remaining = (rest > 0 && selection.name.is_none()).then_some(rest);
        Ok(Page {
            items,
            at,
            next,
            remaining,
        })
    }

    /// Stores an object under a new resourceVersion, which it is given, and tells the watches.
    pub fn put(&mut self, key: Key, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let before = self.objects.insert(key.clone(), object.clone());
        let event = if before.is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        self.record(event, key, object.clone());
        object
    }

    /// Removes an object; the event carries its last state under a new resourceVersion.
    pub fn remove(&mut self, key: &Key) -> Option<Value> {
        let mut object = self.objects.remove(key)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.record("DELETED", key.clone(), object.clone());
        Some(object)
    }

    fn record(&mut self, event: &'static str, key: Key, object: Value) {
        let change = Change {
            version: self.version,
            event,
            key,
            object,
        };
        for watch in &mut self.watches {
            watch.tell(&change, self.delivery);
        }
        self.history.push_back(change);
        while self.history.len() > self.history_limit {
            self.floor = self
                .history
                .pop_front()
                .map_or(self.floor, |change| change.version);
        }
    }

    /// Forgets all events so far: a watch from before now is Expired.
    pub fn compact(&mut self) {
        self.history.clear();
        self.snapshots.clear();
        self.floor = self.version;
    }

    /// Does what restoring an older etcd does: the counter goes back, objects stay as they are
    /// given.
    pub fn rewind(&mut self, version: u64) {
        self.history.clear();
        self.snapshots.clear();
        self.version = version;
        self.floor = version;
        self.end_watches(false);
    }

    /// Adds or replaces a served kind.
    pub fn serve(&mut self, kind: Kind) {
        self.kinds.retain(|k| k.resource() != kind.resource());
        self.kinds.push(kind);
    }

    /// Takes a kind away, its objects and watches with it.
    pub fn unserve(&mut self, resource: &str) {
        let gone: Vec<Key> = self
            .objects
            .keys()
            .filter(|key| key.resource == resource)
            .cloned()
            .collect();
        for key in gone {
            self.remove(&key);
        }
        self.kinds.retain(|kind| kind.resource() != resource);
        for watch in self
            .watches
            .iter()
            .filter(|w| w.selection.resource == resource)
        {
            watch.send(Part::End);
        }
    }

    /// Opens a watch: what happened since `from`, then what happens. Fails where `from` is too old.
    pub fn watch(
        &mut self,
        request: WatchRequest,
    ) -> Result<(u64, UnboundedReceiver<Part>), Failure> {
        let from = request.from;
        if from != 0 && from < self.floor {
            return Err(Failure::expired(from, self.floor));
        }
        self.next_id += 1;
        let (mut watch, receiver) = Watch::open(self.next_id, request);
        if from == 0 {
            watch.from = self.version;
            for (key, object) in &self.objects {
                if watch.selection.takes(key) {
                    watch.show(object, self.delivery);
                }
            }
        } else {
            for change in &self.history {
                watch.tell(change, self.delivery);
            }
        }
        self.watches.push(watch);
        Ok((self.next_id, receiver))
    }

    /// Ends one watch cleanly, with a last bookmark.
    pub fn end_watch(&mut self, id: u64) {
        self.bookmark(Some(id));
        self.end_silently(id);
    }

    /// Ends one watch cleanly, without a word.
    pub fn end_silently(&mut self, id: u64) {
        for watch in self.watches.iter().filter(|watch| watch.id == id) {
            watch.send(Part::End);
        }
    }

    /// Ends all watches cleanly, with a last bookmark or without.
    pub fn end_watches(&mut self, bookmark: bool) {
        if bookmark {
            self.bookmark(None);
        }
        for watch in &self.watches {
            watch.send(Part::End);
        }
    }

    /// A bookmark for one watch, or for all, where they asked for bookmarks.
    pub fn bookmark(&mut self, id: Option<u64>) {
        let taken = |watch: &&mut Watch| {
            id.is_none_or(|id| watch.id == id) && watch.bookmarks && watch.from <= self.version
        };
        for watch in self.watches.iter_mut().filter(taken) {
            watch.mark(self.version, self.delivery);
        }
    }

    /// Writes bytes as they are into watches, as one chunk each; returns into how many.
    pub fn inject(&mut self, bytes: &[u8], into: impl Fn(&Watch) -> bool) -> usize {
        let taken: Vec<&Watch> = self.watches.iter().filter(|watch| into(watch)).collect();
        for watch in &taken {
            watch.send(Part::Line(bytes.to_vec()));
        }
        taken.len()
    }

    /// Changes what happens to events; what was held goes out when delivery is normal again.
    pub fn set_delivery(&mut self, delivery: Delivery) {
        self.delivery = delivery;
        if delivery != Delivery::Held {
            self.watches.iter_mut().for_each(Watch::let_go);
        }
    }

    /// The client of a watch is gone.
    pub fn forget_watch(&mut self, id: u64) {
        self.watches.retain(|watch| watch.id != id);
    }
}
