//! The weights of clusters and routes. Owns: where each of them stands, and whether it can be edited.

use granit_parser::{Event, ScalarStyle, Span};

use super::{Scanner, end, line, start};
use crate::xds::weights::host::{Number, WeightSite};
use crate::xds::weights::number::{as_written, number_in};
use crate::xds::weights::schema::Field;
use crate::xds::yaml::Form;

pub(super) const NO_VALUE: &str = "the weight has no value";

impl<'a> Scanner<'a, '_> {
    /// Returns where a weight stands, or why it cannot be edited.
    pub(super) fn site_of(&self, event: &Event<'a>, value: &str, span: Span) -> WeightSite {
        let unsafe_at = |why| WeightSite::Unsafe(line(span), why, as_written(value));
        let (from, to) = (start(span) as usize, end(span) as usize);
        let raw = self.text.get(from..to).unwrap_or("");
        let Event::Scalar(_, style, _, tag) = event else {
            return unsafe_at("the weight is an alias");
        };
        let quotes = match style {
            ScalarStyle::Plain => 0,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted if raw.len() >= 2 => 1,
            _ => return unsafe_at("the weight is a block scalar"),
        };
        if self.via_alias > 0 {
            return unsafe_at("the weight is behind an alias");
        }
        let digits = &raw[quotes..raw.len() - quotes];
        if digits.is_empty() {
            return unsafe_at(NO_VALUE);
        }
        WeightSite::Number(Number {
            event: self.event,
            at: (from + quotes) as u32,
            len: digits.len() as u32,
            line: line(span),
            was: number_in(
                value,
                self.form == Form::Yaml && (quotes == 0 || tag.is_some()),
            ),
            as_written: as_written(digits),
        })
    }

    /// Puts a weight where it belongs. A second one makes both unsafe, unless it is the `value` of
    /// the first.
    pub(super) fn fill(&mut self, field: Field, site: WeightSite) {
        let total = matches!(field, Field::TotalWeight | Field::TotalValue);
        let place = if total {
            self.host.routes.last_mut().map(|route| &mut route.total)
        } else {
            self.host.clusters.last_mut().map(|c| &mut c.weight)
        };
        let Some(place) = place else { return };
        let inner = matches!(field, Field::TotalValue | Field::WeightValue);
        *place = match (&place, inner) {
            (WeightSite::Missing, _) => site,
            (WeightSite::Unsafe(_, NO_VALUE, _), true) => site,
            _ => WeightSite::Unsafe(site.line(), "there are two weights", None),
        };
    }
}
