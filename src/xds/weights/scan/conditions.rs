//! The conditions of Envoy's routes, where it depends on them what a route follows. Owns: which
//! route a condition is of.

use super::{Frame, Scanner};
use crate::xds::weights::route_match::{MatchField, RouteMatch};
use crate::xds::weights::schema::Field;

impl Scanner<'_, '_> {
    /// Begins the conditions of a route. Those of a matcher stand elsewhere, and count as one that
    /// cannot be compared.
    pub(super) fn begin_route(&mut self) -> u32 {
        let above = |frame: &&Frame| frame.field != Field::Route || frame.mapping;
        let above = self.stack.iter().rev().find(above);
        let is_foreign = above.is_some_and(|frame| match frame.matching {
            Some(index) => self.host.matches[index as usize].is_foreign,
            None => frame.field == Field::MatchAction,
        });
        self.host.matches.push(RouteMatch::new(is_foreign));
        (self.host.matches.len() - 1) as u32
    }

    /// Returns the index of the conditions of the route that is being read.
    pub(super) fn matching_of_route(&self) -> Option<u32> {
        self.plan.reads_matches.then(|| {
            let mut above = self.stack.iter().rev();
            above.find_map(|frame| frame.matching)
        })?
    }

    /// A key stands in a route's conditions.
    pub(super) fn name_in_match(&mut self, field: MatchField) {
        if let Some(conditions) = self.host.matches.get_mut(self.matching as usize) {
            conditions.name(field);
        }
    }

    /// A mapping or a list begins in a route's conditions.
    pub(super) fn open_match(&mut self, field: MatchField, mapping: bool) {
        if let Some(conditions) = self.host.matches.get_mut(self.matching as usize) {
            match field {
                MatchField::All if mapping => conditions.begin(),
                _ => conditions.open(field, mapping),
            }
        }
    }

    /// A scalar stands in a route's conditions.
    pub(super) fn scalar_of_match(&mut self, field: MatchField, value: &str) {
        if let Some(conditions) = self.host.matches.get_mut(self.matching as usize) {
            conditions.scalar(field, value);
        }
    }
}
