//! The objects, their history, and who watches them: one resourceVersion counter, events in order.
//! Must not know HTTP.

use super::encode::{self, View};
use super::failure::Failure;
use super::kinds::Kind;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// [`Kind::resource`].
    pub resource: String,
    /// Empty for what lies in none.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

/// What a list or a watch is about.
#[derive(Clone, Debug)]
pub struct Selection {
    /// [`Kind::resource`].
    pub resource: String,
    /// All where `None`.
    pub namespace: Option<String>,
    /// `fieldSelector=metadata.name=`.
    pub name: Option<String>,
}

impl Selection {
    fn takes(&self, key: &Key) -> bool {
        self.resource == key.resource
            && self
                .namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == key.namespace)
            && self.name.as_ref().is_none_or(|name| *name == key.name)
    }
}

/// What goes into the body of a watch.
pub enum Part {
    /// One chunk.
    Line(Vec<u8>),
    /// The last chunk.
    End,
}

/// What happens to events on their way into the open watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// They go out.
    Normal,
    /// They and all bookmarks wait until delivery is normal again.
    Held,
    /// They and all bookmarks are lost.
    Lost,
    /// They are lost, bookmarks go out: the worst lie.
    LostButBookmarks,
}

/// One open watch.
pub struct Watch {
    /// Unique.
    pub id: u64,
    /// The connection it runs on.
    pub connection: u64,
    /// Path and query that opened it.
    pub target: String,
    selection: Selection,
    view: View,
    from: u64,
    bookmarks: bool,
    sender: UnboundedSender<Part>,
    held: Vec<Part>,
}

/// What a client asks of a watch.
pub struct WatchRequest {
    /// Path and query.
    pub target: String,
    /// The connection it came on.
    pub connection: u64,
    /// What it is about.
    pub selection: Selection,
    /// How events look.
    pub view: View,
    /// `resourceVersion`; 0 or none: what exists comes first, as ADDED.
    pub from: u64,
    /// `allowWatchBookmarks`
    pub bookmarks: bool,
}

struct Change {
    version: u64,
    event: &'static str,
    key: Key,
    object: Value,
}

/// The cluster's state.
pub struct Store {
    /// The newest resourceVersion.
    pub version: u64,
    /// What is served.
    pub kinds: Vec<Kind>,
    /// The open watches.
    pub watches: Vec<Watch>,
    objects: BTreeMap<Key, Value>,
    history: VecDeque<Change>,
    history_limit: usize,
    /// Watches from below are too old.
    floor: u64,
    delivery: Delivery,
    next_id: u64,
}

impl Store {
    /// An empty cluster at a resourceVersion.
    pub fn new(version: u64, history_limit: usize, kinds: Vec<Kind>) -> Store {
        Store {
            version,
            kinds,
            watches: Vec::new(),
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            history_limit,
            floor: version,
            delivery: Delivery::Normal,
            next_id: 0,
        }
    }

    /// The kind behind a path, if that version of it is served.
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

    /// All that a selection takes.
    pub fn list(&self, selection: &Selection) -> Vec<&Value> {
        let taken = self.objects.iter().filter(|(key, _)| selection.takes(key));
        taken.map(|(_, object)| object).collect()
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
        self.floor = self.version;
    }

    /// What restoring an older etcd does: the counter goes back, objects stay as they are given.
    pub fn rewind(&mut self, version: u64) {
        self.history.clear();
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
        let WatchRequest {
            target,
            connection,
            selection,
            view,
            from,
            bookmarks,
        } = request;
        if from != 0 && from < self.floor {
            return Err(Failure::expired(from, self.floor));
        }
        let (sender, receiver) = unbounded_channel();
        self.next_id += 1;
        let id = self.next_id;
        let held = Vec::new();
        let mut watch = Watch {
            id,
            connection,
            target,
            selection,
            view,
            from,
            bookmarks,
            sender,
            held,
        };
        if from == 0 {
            watch.from = self.version;
            for (key, object) in &self.objects {
                if watch.selection.takes(key) {
                    watch.deliver(watch.view.event("ADDED", object), self.delivery);
                }
            }
        } else {
            for change in &self.history {
                watch.tell(change, self.delivery);
            }
        }
        self.watches.push(watch);
        Ok((id, receiver))
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
            let line = watch.view.bookmark(self.version);
            let delivery = match self.delivery {
                Delivery::LostButBookmarks => Delivery::Normal,
                other => other,
            };
            watch.deliver(line, delivery);
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
            for watch in &mut self.watches {
                for part in std::mem::take(&mut watch.held) {
                    watch.send(part);
                }
            }
        }
    }

    /// The client of a watch is gone.
    pub fn forget_watch(&mut self, id: u64) {
        self.watches.retain(|watch| watch.id != id);
    }
}

impl Watch {
    fn tell(&mut self, change: &Change, delivery: Delivery) {
        if change.version > self.from && self.selection.takes(&change.key) {
            self.deliver(self.view.event(change.event, &change.object), delivery);
        }
    }

    fn deliver(&mut self, line: Vec<u8>, delivery: Delivery) {
        match delivery {
            Delivery::Normal => self.send(Part::Line(line)),
            Delivery::Held => self.held.push(Part::Line(line)),
            Delivery::Lost | Delivery::LostButBookmarks => {}
        }
    }

    /// A send fails only where the client is gone, and the watch with it in a moment.
    fn send(&self, part: Part) {
        let _ = self.sender.send(part);
    }
}

/// What a watch that is too old says before it ends, by the rule that an error is an event.
pub fn refusal(failure: &Failure) -> UnboundedReceiver<Part> {
    let (sender, receiver) = unbounded_channel();
    let _ = sender.send(Part::Line(encode::error_event(&failure.status)));
    let _ = sender.send(Part::End);
    receiver
}
