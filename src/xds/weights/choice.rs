//! Chooses the rule that a route follows. Owns: which of several rules counts. Must not: parse, or
//! say anything.
//!
//! 1. Rules with conditions equal to the route's own count, else those without conditions. A rule
//!    with conditions never counts for a route that has others, or none.
//! 2. Where those differ, the one with the longest path that covers the route's counts.
//! 3. Of equally long ones the first counts.

use super::host::Cluster;
use super::host_weights::HostWeights;
use super::matching::Match;
use super::warning::Obstacle;
use crate::sorted::SortedSet;

/// A rule that has a backend among the clusters of a route.
pub(super) struct Candidate<'s> {
    /// The object, by its index and as it is.
    pub(super) input: usize,
    pub(super) weights: &'s HostWeights,
    /// The index of the rule.
    pub(super) rule: usize,
    /// The backend that each cluster of the route stands for.
    pub(super) backends: Vec<Option<usize>>,
}

/// The rule that counts.
pub(super) struct Choice {
    /// Its index among the candidates.
    pub(super) chosen: usize,
    /// Index of another that differs and has as long a path.
    pub(super) tied: Option<usize>,
}

impl<'s> Candidate<'s> {
    /// Returns a rule of an object, if one of the `clusters` stands for a backend of it.
    pub(super) fn new(
        (input, weights): (usize, &'s HostWeights),
        rule: usize,
        clusters: &[Cluster<'_>],
        domain: &str,
    ) -> Option<Candidate<'s>> {
        let backends = clusters.iter().map(|c| backend(weights, rule, c, domain));
        let backends: Vec<Option<usize>> = backends.collect();
        backends.iter().any(Option::is_some).then_some(Candidate {
            input,
            weights,
            rule,
            backends,
        })
    }

    fn matches(&self) -> &'s [Match] {
        &self.weights.rules[self.rule].matches
    }

    /// Returns whether it has conditions equal to the route's own.
    pub(super) fn is_like(&self, route: &Match) -> bool {
        self.matches().iter().any(|own| own.is_like(route))
    }

    fn is_general(&self) -> bool {
        self.weights.rules[self.rule].is_general()
    }

    /// Returns whether it divides the traffic, where a single cluster would get all.
    pub(super) fn divides(&self) -> bool {
        self.backends.iter().flatten().count() > 1
    }

    fn share(&self, backend: Option<usize>) -> u128 {
        let backends = &self.weights.rules[self.rule].backends;
        // No route can have a larger weight, and the product of two has to fit.
        let share = |i: usize| u128::from(backends[i].weight).min(1 << 32);
        backend.map_or(0, share)
    }

    /// Returns the sum of what its backends get that have a cluster in the route.
    fn total(&self) -> u128 {
        let present: SortedSet<usize> = self.backends.iter().flatten().copied().collect();
        present.into_iter().map(|i| self.share(Some(i))).sum()
    }

    fn is_ambiguous(&self) -> bool {
        let backends = &self.weights.rules[self.rule].backends;
        let mut present = self.backends.iter().flatten();
        present.any(|i| backends[*i].is_ambiguous)
    }

    /// Returns whether both give the clusters of the route the same parts of its traffic.
    pub(super) fn is_same(&self, other: &Candidate<'_>) -> bool {
        let (ours, theirs) = (self.total(), other.total());
        let mut pairs = self.backends.iter().zip(&other.backends);
        (ours == 0, self.is_ambiguous()) == (theirs == 0, other.is_ambiguous())
            && pairs.all(|(own, its)| self.share(*own) * theirs == other.share(*its) * ours)
    }

    /// Returns how specific the longest of its paths is that covers the route's, among those of
    /// alternatives that count.
    fn covers(&self, route: &Match, by_conditions: bool) -> Option<(usize, bool)> {
        let counts = |own: &&Match| match by_conditions {
            true => own.is_like(route),
            false => own.is_general(),
        };
        let matches = self.matches().iter().filter(counts);
        matches.filter_map(|own| own.path.covers(&route.path)).max()
    }
}

/// Chooses among rules, the first of which come from the oldest objects.
pub(super) fn choose(candidates: &[Candidate<'_>], route: &Match) -> Result<Choice, Obstacle> {
    let by_conditions = candidates.iter().any(|candidate| candidate.is_like(route));
    let counts = |i: &usize| match by_conditions {
        true => candidates[*i].is_like(route),
        false => candidates[*i].is_general(),
    };
    let left: Vec<usize> = (0..candidates.len()).filter(counts).collect();
    let Some(first) = left.first() else {
        return Err(Obstacle::Conditions);
    };
    let is_same = |one: usize, other: usize| candidates[one].is_same(&candidates[other]);
    if left.iter().all(|i| is_same(*first, *i)) {
        return Ok(Choice {
            chosen: *first,
            tied: None,
        });
    }
    let rank = |i: usize| candidates[i].covers(route, by_conditions);
    let longest = left.iter().filter_map(|i| rank(*i)).max();
    let Some(longest) = longest else {
        return Err(Obstacle::Paths);
    };
    let mut equal = left.into_iter().filter(|i| rank(*i) == Some(longest));
    let Some(chosen) = equal.next() else {
        return Err(Obstacle::Paths);
    };
    let tied = equal.find(|i| !is_same(chosen, *i));
    Ok(Choice { chosen, tied })
}

/// Returns the index of the backend that a cluster stands for in this rule.
pub(super) fn backend(
    weights: &HostWeights,
    rule: usize,
    cluster: &Cluster<'_>,
    domain: &str,
) -> Option<usize> {
    let name = cluster.name.as_deref().filter(|_| !cluster.is_header);
    weights.backend_of(rule, name?, domain)
}
