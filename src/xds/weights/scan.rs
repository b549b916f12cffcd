//! Reads a text's events in one pass. Owns: finding the virtual hosts that weights are for, the
//! clusters of their routes, and where each weight stands. Must not: change the text, or decide
//! which weight is right (`plan.rs` does).
//!
//! It holds one virtual host's clusters in memory, and one edit for each weight that changes.

mod conditions;
mod weight;

use granit_parser::{Event, Span, StructureStyle};

use super::anchors::Anchors;
use super::edit::Edit;
use super::host::{Cluster, Host, WeightSite};
use super::outcome::Refused;
use super::plan::Plan;
use super::route_match::MatchField;
use super::schema::Field;
use crate::xds::yaml::{self, Form};
use weight::NO_VALUE;

/// The number of bytes of one text that may be read again to see what stands behind aliases. This
/// budget keeps the time linear: 4 MiB take about a second.
const REREAD_MAX_BYTES: usize = 4 << 20;

/// The depth to which aliases are followed inside what aliases name.
const ALIAS_DEPTH_MAX: usize = 16;

/// The reason why a pass ended early.
pub(super) enum Stop {
    /// An object applies, and an edit cannot be made safely.
    Refused(Refused),
    /// The parser cannot read on.
    Unreadable(Refused),
}

/// A collection that is open.
struct Frame {
    field: Field,
    mapping: bool,
    /// True if it is itself a key, and so not the value of one.
    is_key: bool,
    /// The meaning of the value of the key just read.
    value: Option<Field>,
    /// The offset of that key.
    key_at: u32,
    /// Its index into the anchors.
    anchored: Option<usize>,
    /// A route's index among the conditions of its virtual host, where they are asked for.
    matching: Option<u32>,
}

/// The state of a pass.
pub(super) struct Scanner<'a, 's> {
    text: &'a str,
    form: Form,
    plan: Plan<'s>,
    stack: Vec<Frame>,
    anchors: Anchors<'a>,
    host: Host<'a>,
    /// The ordinal of the event being read.
    event: u32,
    /// The number of aliases that are being followed, each inside the one before.
    via_alias: usize,
    /// The number of bytes that have been read again through aliases.
    reread_bytes: usize,
    /// The index of the conditions that are being read.
    matching: u32,
}

impl<'a, 's> Scanner<'a, 's> {
    pub(super) fn new(text: &'a str, form: Form, plan: Plan<'s>) -> Scanner<'a, 's> {
        Scanner {
            text,
            form,
            plan,
            stack: Vec::new(),
            anchors: Anchors::default(),
            host: Host::default(),
            event: 0,
            via_alias: 0,
            reread_bytes: 0,
            matching: 0,
        }
    }

    /// Reads the first document, as Envoy does, and returns the plan.
    pub(super) fn run(mut self) -> Result<Plan<'s>, Stop> {
        for event in yaml::events(self.text, self.form) {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    let line = error.marker().line() as u32;
                    return Err(self.stop(Refused::new(line, error.info())));
                }
            };
            if event == Event::DocumentEnd {
                break;
            }
            self.read(&event, span)?;
            self.event += 1;
        }
        self.bar_routes_that_aliases_repeat();
        Ok(self.plan)
    }

    /// Handles that the text cannot be read on, which matters only if an object applies to what has
    /// been read.
    fn stop(&self, refused: Refused) -> Stop {
        if self.plan.applied.iter().any(|applied| applied.routes > 0) {
            Stop::Refused(refused)
        } else {
            Stop::Unreadable(refused)
        }
    }

    /// Leaves out routes that an alias repeats: an edit would show wherever the alias stands.
    fn bar_routes_that_aliases_repeat(&mut self) {
        self.anchors.keep_aliased();
        for at in 0..self.plan.edits.len() {
            let Edit {
                at, line, route, ..
            } = self.plan.edits[at];
            if self.anchors.contain(at) {
                let reason = "the weight is part of what an alias repeats";
                self.plan.bar(route, Refused::new(line, reason));
            }
        }
    }

    fn read(&mut self, event: &Event<'a>, span: Span) -> Result<(), Stop> {
        if let Event::Alias(id) = event {
            self.anchors.mark_aliased(*id);
        }
        match event {
            Event::MappingEnd | Event::SequenceEnd => self.close(span),
            _ if !event.is_node() => Ok(()),
            _ => match self.stack.last_mut() {
                None => self.value(Field::Root, event, span),
                Some(frame) if !frame.mapping => {
                    let field = frame.field;
                    self.value(field, event, span)
                }
                Some(frame) => match frame.value.take() {
                    Some(field) => self.value(field, event, span),
                    None => self.key(event, span),
                },
            },
        }
    }

    fn key(&mut self, event: &Event<'a>, span: Span) -> Result<(), Stop> {
        let name = self.anchors.scalar_of(event);
        let name = name.filter(|_| !self.anchors.is_ignored(event));
        if let Event::MappingStart(_, anchor, _) | Event::SequenceStart(_, anchor, _) = event {
            let mapping = matches!(event, Event::MappingStart(..));
            self.push(Field::Opaque, mapping, *anchor, span, true);
            return Ok(());
        }
        self.remember(event, span);
        if let Some(frame) = self.stack.last_mut() {
            let mut value = name.map_or(Field::Opaque, |name| frame.field.value_of(&name));
            if value == Field::Match(MatchField::All) {
                match frame.matching.filter(|_| self.plan.reads_matches) {
                    Some(index) => self.matching = index,
                    None => value = Field::Opaque,
                }
            }
            frame.value = Some(value);
            frame.key_at = start(span);
            if let Field::Match(field) = value {
                self.name_in_match(field);
            }
            // protobuf's JSON reader takes both of two lists.
            if self.form == Form::Yaml {
                self.host.begin(value);
            }
        }
        Ok(())
    }

    fn value(&mut self, field: Field, event: &Event<'a>, span: Span) -> Result<(), Stop> {
        match event {
            Event::MappingStart(style, anchor, _) => self.open(field, true, *style, *anchor, span),
            Event::SequenceStart(style, anchor, _) => {
                self.open(field, false, *style, *anchor, span)
            }
            Event::Alias(id) if self.anchors.scalar_of(event).is_none() => {
                // What it names is looked at where it stands; as a part of a route, here too.
                if field != Field::Opaque {
                    return self.follow(*id, field, span);
                }
            }
            _ => {
                self.remember(event, span);
                self.scalar(field, event, span);
            }
        }
        Ok(())
    }

    /// Reads what an alias names as if it stood here. Nothing of it can be edited. Where it is too
    /// much, the virtual host it is in is not known well enough to edit anything of it.
    fn follow(&mut self, id: usize, field: Field, span: Span) -> Result<(), Stop> {
        let depth = self.stack.len();
        let (mut inside, mut read_to) = (false, 0);
        self.via_alias += 1;
        for event in yaml::events(self.text, self.form) {
            let Ok((event, at)) = event else { break };
            self.reread_bytes += (start(at) as usize).saturating_sub(read_to);
            read_to = read_to.max(start(at) as usize);
            if self.reread_bytes > REREAD_MAX_BYTES || self.via_alias > ALIAS_DEPTH_MAX {
                let cut = Refused::new(line(span), "there is too much behind aliases");
                self.plan.cut.get_or_insert_with(|| cut.clone());
                self.host.cut = Some(cut);
                self.stack.truncate(depth);
                break;
            }
            if inside {
                self.read(&event, at)?;
            } else if event.is_node() && event.anchor_id() == Some(id) {
                inside = true;
                self.value(field, &event, at)?;
            }
            if inside && self.stack.len() == depth {
                break;
            }
        }
        self.via_alias -= 1;
        Ok(())
    }

    fn open(
        &mut self,
        field: Field,
        mapping: bool,
        style: StructureStyle,
        anchor: usize,
        span: Span,
    ) {
        match field {
            Field::VirtualHost if mapping => self.host.reset(),
            Field::WeightedClusters if mapping => {
                let matching = self.matching_of_route();
                self.host.add_route(matching);
            }
            Field::Match(field) => self.open_match(field, mapping),
            Field::Cluster if mapping => self.host.clusters.push(Cluster {
                line: line(span),
                flow: style == StructureStyle::Flow,
                via_alias: self.via_alias > 0,
                ..Cluster::default()
            }),
            Field::Weight | Field::WeightValue | Field::TotalWeight | Field::TotalValue => {
                self.fill(field, WeightSite::Unsafe(line(span), NO_VALUE, None));
            }
            _ => {}
        }
        let is_route = field == Field::Route && mapping && self.plan.reads_matches;
        let matching = is_route.then(|| self.begin_route());
        let field = match field.takes(mapping) {
            true => field,
            false => Field::Opaque,
        };
        self.push(field, mapping, anchor, span, false);
        if let (Some(_), Some(frame)) = (matching, self.stack.last_mut()) {
            frame.matching = matching;
        }
    }

    fn push(&mut self, field: Field, mapping: bool, anchor: usize, span: Span, is_key: bool) {
        let is_new = anchor != 0 && self.via_alias == 0;
        let anchored = is_new.then(|| self.anchors.open(anchor, start(span)));
        self.stack.push(Frame {
            field,
            mapping,
            is_key,
            value: None,
            key_at: 0,
            anchored,
            matching: None,
        });
    }

    fn close(&mut self, span: Span) -> Result<(), Stop> {
        let Some(frame) = self.stack.pop() else {
            return Ok(());
        };
        if let Some(index) = frame.anchored {
            self.anchors.close(index, start(span));
        }
        if frame.is_key
            && let Some(parent) = self.stack.last_mut()
        {
            parent.value = Some(Field::Opaque);
        }
        if frame.field == Field::VirtualHost && frame.mapping {
            self.plan.decide(self.text, &self.host);
        }
        Ok(())
    }

    /// Takes a scalar, or an alias of one, as a value.
    fn scalar(&mut self, field: Field, event: &Event<'a>, span: Span) {
        let Some(value) = self.anchors.scalar_of(event) else {
            return;
        };
        match field {
            Field::HostName => self.host.name = Some(value),
            Field::Domain => self.plan.note_domain(&mut self.host, &value),
            Field::Match(field) => self.scalar_of_match(field, &value),
            // Envoy takes an empty name beside a header for none.
            Field::ClusterName if value.is_empty() => {}
            Field::ClusterName | Field::ClusterHeader => {
                let key_at = self.stack.last().map_or(0, |frame| frame.key_at);
                if let Some(cluster) = self.host.clusters.last_mut() {
                    cluster.name = Some(value);
                    cluster.is_header = field == Field::ClusterHeader;
                    cluster.name_event = self.event;
                    cluster.key_at = key_at;
                    cluster.value_end = end(span);
                }
            }
            Field::Weight | Field::WeightValue | Field::TotalWeight | Field::TotalValue => {
                let site = self.site_of(event, &value, span);
                self.fill(field, site);
            }
            _ => {}
        }
    }

    /// Takes note of a scalar that an alias may name.
    fn remember(&mut self, event: &Event<'a>, span: Span) {
        if self.via_alias == 0 {
            self.anchors.remember(event, start(span), end(span));
        }
    }
}

fn start(span: Span) -> u32 {
    span.start.byte_offset().unwrap_or(0) as u32
}

fn end(span: Span) -> u32 {
    span.end.byte_offset().unwrap_or(0) as u32
}

fn line(span: Span) -> u32 {
    span.start.line() as u32
}
