//! Limits the cost of aliases to Envoy. Owns: the size of a document once every alias is replaced
//! by what it names, and its depth as it is written. Must not: build it.

use granit_parser::{Event, Span};

use super::fault::Fault;
use crate::xds::yaml::NESTING_MAX;

/// Envoy copies what an alias names, and copies of copies: a few hundred bytes can become more
/// nodes than any machine holds. Measured: 5.4 million take it 6.9 s and 2.1 GB.
const EXPANDED_NODES_MAX: u64 = 10_000_000;

/// Counts the nodes that are left when every alias is replaced by what it names.
#[derive(Default)]
pub(super) struct Aliases {
    /// The number of nodes so far, with every alias expanded.
    nodes: u64,
    /// The anchor (0: none) and `nodes` at the start of each collection that is open.
    open: Vec<(usize, u64)>,
    /// Each anchor and the expanded size of what it names; the last of an anchor holds.
    named: Vec<(usize, u64)>,
}

impl Aliases {
    /// Returns the number of open collections.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Takes in the next event.
    pub(super) fn follow(&mut self, event: &Event<'_>, span: Span) -> Result<(), Fault> {
        match event {
            Event::Scalar(_, _, anchor, _) => {
                self.nodes += 1;
                self.name(*anchor, 1);
            }
            Event::SequenceStart(_, anchor, _) | Event::MappingStart(_, anchor, _) => {
                if self.open.len() == NESTING_MAX {
                    return Err(Fault::envoy(span, "it is nested too deeply"));
                }
                self.open.push((*anchor, self.nodes));
                self.nodes += 1;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((anchor, before)) = self.open.pop() {
                    self.name(anchor, self.nodes - before);
                }
            }
            Event::Alias(anchor) => {
                if self.open.iter().any(|(open, _)| open == anchor) {
                    // Measured: Envoy 1.40 dies of a stack overflow.
                    return Err(Fault::envoy(span, "an alias stands inside what it names"));
                }
                let at = self.named.binary_search_by_key(anchor, |(named, _)| *named);
                let size = at.ok().and_then(|at| self.named.get(at)).map_or(1, |n| n.1);
                self.nodes = self.nodes.saturating_add(size);
            }
            // Anchors and unresolved aliases are reported on request only; the rest are not nodes.
            _ => {}
        }
        if self.nodes > EXPANDED_NODES_MAX {
            return Err(Fault::envoy(span, "its aliases expand beyond all bounds"));
        }
        Ok(())
    }

    /// Notes the size of what an anchor names. Collections end in another order than they begin in,
    /// so this is an insertion.
    fn name(&mut self, anchor: usize, size: u64) {
        if anchor != 0 {
            let at = self.named.partition_point(|(named, _)| *named < anchor);
            self.named.insert(at, (anchor, size));
        }
    }
}
