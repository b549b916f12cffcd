//! Nodes with an anchor. Owns: what an alias names, and which bytes of a text an alias repeats.

use std::borrow::Cow;

use granit_parser::{Event, Tag};

/// The anchors of a text, as far as it has been read.
#[derive(Default)]
pub(super) struct Anchors<'a> {
    /// The values of scalars with an anchor. Like `nodes`, they are in the order of their anchors.
    scalars: Vec<(usize, Cow<'a, str>)>,
    nodes: Vec<Anchored>,
    /// The anchors of scalars with the tag that makes Envoy drop a key.
    ignored: Vec<usize>,
}

/// A node with an anchor, from its first byte to the one behind it.
struct Anchored {
    id: usize,
    from: u32,
    to: u32,
    aliased: bool,
}

impl<'a> Anchors<'a> {
    /// Begins a collection with an anchor. Returns its index.
    pub(super) fn open(&mut self, id: usize, from: u32) -> usize {
        self.nodes.push(Anchored {
            id,
            from,
            to: u32::MAX,
            aliased: false,
        });
        self.nodes.len() - 1
    }

    /// Ends the collection of this index.
    pub(super) fn close(&mut self, index: usize, to: u32) {
        if let Some(node) = self.nodes.get_mut(index) {
            node.to = to;
        }
    }

    /// Takes note of a scalar, if it has an anchor.
    pub(super) fn remember(&mut self, event: &Event<'a>, from: u32, to: u32) {
        if let Event::Scalar(value, _, anchor @ 1.., _) = event {
            if self.is_ignored(event) {
                self.ignored.push(*anchor);
            }
            self.scalars.push((*anchor, value.clone()));
            self.nodes.push(Anchored {
                id: *anchor,
                from,
                to,
                aliased: false,
            });
        }
    }

    /// Notes that an alias names this anchor.
    pub(super) fn mark_aliased(&mut self, id: usize) {
        let found = self.nodes.binary_search_by_key(&id, |node| node.id);
        if let Some(node) = found.ok().and_then(|i| self.nodes.get_mut(i)) {
            node.aliased = true;
        }
    }

    /// Forgets nodes that no alias names.
    pub(super) fn keep_aliased(&mut self) {
        self.nodes.retain(|node| node.aliased);
    }

    /// Returns whether this offset is part of one of the nodes.
    pub(super) fn contain(&self, at: u32) -> bool {
        let mut nodes = self.nodes.iter();
        nodes.any(|node| node.from <= at && at < node.to)
    }

    /// Returns the value of a scalar, or of the scalar that an alias names.
    pub(super) fn scalar_of(&self, event: &Event<'a>) -> Option<Cow<'a, str>> {
        match event {
            Event::Scalar(value, ..) => Some(value.clone()),
            Event::Alias(id) => {
                let found = self.scalars.binary_search_by_key(id, |(named, _)| *named);
                let (_, value) = self.scalars.get(found.ok()?)?;
                Some(value.clone())
            }
            _ => None,
        }
    }

    /// Returns whether Envoy drops what has this key.
    pub(super) fn is_ignored(&self, event: &Event<'_>) -> bool {
        match event {
            Event::Scalar(_, _, _, tag) => tag.as_deref().is_some_and(is_ignore),
            Event::Alias(id) => self.ignored.contains(id),
            _ => false,
        }
    }
}

/// Returns whether a tag is `ignore`, written as `!ignore` or `!<!ignore>`.
fn is_ignore(tag: &Tag) -> bool {
    "!ignore".strip_prefix(tag.handle()) == Some(tag.suffix())
}
