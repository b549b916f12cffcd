//! The open watches: what each is about, and how events reach it, wait, or get lost.

use super::encode::{self, View};
use super::status::Failure;
use super::store::Key;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The objects of a list or a watch.
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
    /// Returns whether an object is among these.
    pub fn takes(&self, key: &Key) -> bool {
        self.resource == key.resource
            && self
                .namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == key.namespace)
            && self.name.as_ref().is_none_or(|name| *name == key.name)
    }
}

/// A part of the body of a watch.
pub enum Part {
    /// One chunk.
    Line(Vec<u8>),
    /// The last chunk.
    End,
}

/// The fate of events on their way into the open watches.
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
    /// The objects that it is about.
    pub selection: Selection,
    view: View,
    /// Events after this.
    pub from: u64,
    /// Asked for bookmarks.
    pub bookmarks: bool,
    sender: UnboundedSender<Part>,
    held: Vec<Part>,
}

/// A client's request for a watch.
pub struct WatchRequest {
    /// Path and query.
    pub target: String,
    /// The connection it came on.
    pub connection: u64,
    /// The objects that it is about.
    pub selection: Selection,
    /// The form of its events.
    pub view: View,
    /// `resourceVersion`; 0 or none: what exists comes first, as ADDED.
    pub from: u64,
    /// `allowWatchBookmarks`
    pub bookmarks: bool,
}

/// One event of the history.
pub struct Change {
    /// The resourceVersion it made.
    pub version: u64,
    /// `ADDED`, `MODIFIED`, `DELETED`
    pub event: &'static str,
    /// The object.
    pub key: Key,
    /// Its state after, or the last one.
    pub object: Value,
}

impl Watch {
    /// Returns a watch that nothing was told yet, and where its chunks come out.
    pub fn open(id: u64, request: WatchRequest) -> (Watch, UnboundedReceiver<Part>) {
        let WatchRequest {
            target,
            connection,
            selection,
            view,
            from,
            bookmarks,
        } = request;
        let (sender, receiver) = unbounded_channel();
        let held = Vec::new();
        let watch = Watch {
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
        (watch, receiver)
    }

    /// Tells an event, if it is one that this watch is about.
    pub fn tell(&mut self, change: &Change, delivery: Delivery) {
        if change.version > self.from && self.selection.takes(&change.key) {
            self.deliver(self.view.event(change.event, &change.object), delivery);
        }
    }

    /// Tells that an object is there.
    pub fn show(&mut self, object: &Value, delivery: Delivery) {
        self.deliver(self.view.event("ADDED", object), delivery);
    }

    /// Tells a resourceVersion alone.
    pub fn mark(&mut self, version: u64, delivery: Delivery) {
        let delivery = match delivery {
            Delivery::LostButBookmarks => Delivery::Normal,
            Delivery::Normal | Delivery::Held | Delivery::Lost => delivery,
        };
        self.deliver(self.view.bookmark(version), delivery);
    }

    /// Sends what was held.
    pub fn let_go(&mut self) {
        for part in std::mem::take(&mut self.held) {
            self.send(part);
        }
    }

    fn deliver(&mut self, line: Vec<u8>, delivery: Delivery) {
        match delivery {
            Delivery::Normal => self.send(Part::Line(line)),
            Delivery::Held => self.held.push(Part::Line(line)),
            Delivery::Lost | Delivery::LostButBookmarks => {}
        }
    }

    /// Sends a part as it is. It fails only where the client is gone, and the watch with it in a
    /// moment.
    pub fn send(&self, part: Part) {
        let _ = self.sender.send(part);
    }
}

/// Returns the body of a watch that is too old: the error comes as an event, and then the end.
pub fn refusal(failure: &Failure) -> UnboundedReceiver<Part> {
    let (sender, receiver) = unbounded_channel();
    let _ = sender.send(Part::Line(encode::error_event(&failure.status)));
    let _ = sender.send(Part::End);
    receiver
}
