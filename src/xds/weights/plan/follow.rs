//! The object that a route follows: the first TrafficSplit, or before it an HTTPRoute. Owns: which
//! of both counts, and what is said of those that do not.

use super::Plan;
use crate::xds::weights::choice::{Candidate, backend, choose};
use crate::xds::weights::host::{Cluster, Host};
use crate::xds::weights::host_weights::HostWeights;
use crate::xds::weights::matching::{Match, PathMatch};
use crate::xds::weights::warning::Warning;

impl<'s> Plan<'s> {
    /// Returns the input and the rule that a route follows, if any.
    pub(super) fn rule_of(
        &mut self,
        name: &str,
        host: &Host<'_>,
        route: usize,
    ) -> Option<(usize, usize)> {
        let clusters = host.clusters_of(route);
        let (mut split, mut pool) = (None, Vec::new());
        for (index, input) in self.inputs.iter().enumerate() {
            let input: &'s HostWeights = input;
            let follows = host.domains.contains(&index) || input.has_name(name, self.domain);
            if !input.is_split() {
                self.gather((index, input), follows, name, clusters, &mut pool);
                continue;
            }
            let is_meant = |c| backend(input, 0, c, self.domain).is_some();
            if !follows || !clusters.iter().any(is_meant) {
                continue;
            }
            match split {
                None => split = Some(index),
                Some(first) => self.warn_overruled(index, first, name),
            }
        }
        if pool.is_empty() {
            return split.map(|split| (split, 0));
        }
        self.choose(name, host, route, split, pool)
    }

    /// Adds the rules of an HTTPRoute that have a backend among the clusters.
    fn gather(
        &mut self,
        (index, input): (usize, &'s HostWeights),
        follows: bool,
        host: &str,
        clusters: &[Cluster<'_>],
        pool: &mut Vec<Candidate<'s>>,
    ) {
        let domain = self.domain;
        let candidate = |rule| Candidate::new((index, input), rule, clusters, domain);
        let rules = (0..input.rules.len()).filter_map(candidate);
        for found in rules {
            let applied = &mut self.applied[index];
            if !follows {
                return applied.note_beside(host);
            }
            for backend in found.backends.iter().flatten() {
                applied.rules[found.rule].has_cluster[*backend] = true;
            }
            pool.push(found);
        }
    }

    /// Chooses among the rules of HTTPRoutes, and the TrafficSplit that applies too.
    fn choose(
        &mut self,
        name: &str,
        host: &Host<'_>,
        route: usize,
        split: Option<usize>,
        mut pool: Vec<Candidate<'s>>,
    ) -> Option<(usize, usize)> {
        let matching = host.routes[route].matching;
        let matching = matching.and_then(|index| host.matches.get(index as usize));
        let any = || Match::new(PathMatch::Any, Vec::new());
        let matching = matching.map_or_else(any, |read| read.to_match());
        for found in pool.iter().filter(|found| found.is_like(&matching)) {
            self.applied[found.input].rules[found.rule].has_conditions = true;
        }
        let clusters = host.clusters_of(route);
        let of_split = split.and_then(|index| {
            Candidate::new((index, self.inputs[index]), 0, clusters, self.domain)
        });
        if let Some(split) = &of_split {
            // It has found its route, whichever of both that follows.
            for backend in split.backends.iter().flatten() {
                self.applied[split.input].rules[0].has_cluster[*backend] = true;
            }
            // What names a single cluster says where requests go, not how they are divided.
            let divides = |input: usize| {
                let own = |found: &&Candidate<'_>| found.input == input;
                let mut own = pool.iter().filter(own);
                self.inputs[input].is_named || own.any(Candidate::divides)
            };
            let stays: Vec<bool> = pool.iter().map(|found| divides(found.input)).collect();
            let mut stays = stays.into_iter();
            let (kept, dropped) = pool
                .into_iter()
                .partition(|_| stays.next().unwrap_or_default());
            pool = kept;
            let dropped: Vec<Candidate<'_>> = dropped;
            for found in dropped.iter().filter(|found| !found.is_same(split)) {
                self.warn_overruled(found.input, split.input, name);
            }
            if pool.is_empty() {
                return Some((split.input, 0));
            }
        }
        match choose(&pool, &matching) {
            Ok(choice) => {
                let chosen = &pool[choice.chosen];
                let source = |found: &Candidate<'_>| (found.weights.source.clone(), found.rule);
                if let Some(tied) = choice.tied {
                    self.warn(Warning::Tied {
                        source: source(chosen),
                        other: source(&pool[tied]),
                        virtual_host: name.to_owned(),
                    });
                }
                if let Some(split) = of_split.filter(|split| !split.is_same(chosen)) {
                    self.warn_overruled(split.input, chosen.input, name);
                }
                Some((chosen.input, chosen.rule))
            }
            Err(_) if split.is_some() => split.map(|split| (split, 0)),
            Err(why) => {
                self.warn_kept(pool[0].input, name, why);
                None
            }
        }
    }

    fn warn_overruled(&mut self, index: usize, by: usize, host: &str) {
        self.warn(Warning::Overruled {
            source: self.inputs[index].source.clone(),
            by: self.inputs[by].source.clone(),
            virtual_host: host.to_owned(),
        });
    }
}
