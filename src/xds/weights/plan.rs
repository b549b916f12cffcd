//! Plans the weights of a virtual host's routes. Owns: which object a route follows, the sums, the
//! warnings, and which weights are edited. Must not: parse.

mod follow;

use super::choice::backend;
use super::edit::Edit;
use super::host::{Cluster, Host, Route, WeightSite};
use super::host_weights::HostWeights;
use super::insert;
use super::outcome::{
    CHANGES_KEPT, ClusterWeight, LeftOut, Matches, Merged, Refused, RouteWeights, WARNINGS_KEPT,
    Weighted,
};
use super::service;
use super::share::{Member, divide};
use super::warning::{Obstacle, Warning};

/// The edits of a text, and the warnings about it.
pub(super) struct Plan<'s> {
    inputs: &'s [&'s HostWeights],
    /// The cluster's domain.
    domain: &'s str,
    /// True if it can depend on a route's conditions or path which rule it follows.
    pub(super) reads_matches: bool,
    /// The routes that must not be edited, sorted by ordinal.
    pub(super) barred: Vec<(u32, Refused)>,
    /// Every route, if that is what is asked for.
    pub(super) seen: Option<Vec<Weighted>>,
    /// The ordinal of the next route.
    next_route: u32,
    pub(super) edits: Vec<Edit>,
    pub(super) applied: Vec<Matches>,
    pub(super) changes: Vec<RouteWeights>,
    pub(super) more_changes: usize,
    pub(super) warnings: Vec<Warning>,
    pub(super) more_warnings: usize,
    pub(super) left_out: Vec<LeftOut>,
    /// True if something that may hold routes was not read.
    pub(super) cut: Option<Refused>,
}

impl<'s> Plan<'s> {
    pub(super) fn new(inputs: &'s [&'s HostWeights], domain: &'s str) -> Plan<'s> {
        let rules = || {
            let routes = inputs.iter().filter(|input| !input.is_split());
            routes.flat_map(|route| &route.rules)
        };
        Plan {
            inputs,
            domain,
            reads_matches: rules().nth(1).is_some() || rules().any(|rule| !rule.is_general()),
            barred: Vec::new(),
            seen: None,
            next_route: 0,
            edits: Vec::new(),
            applied: inputs.iter().map(|input| Matches::none(input)).collect(),
            changes: Vec::new(),
            more_changes: 0,
            warnings: Vec::new(),
            more_warnings: 0,
            left_out: Vec::new(),
            cut: None,
        }
    }

    /// Returns the outcome for a text. `text` is the new one, if any byte of it changes.
    pub(super) fn into_outcome(self, text: Option<String>) -> Merged {
        Merged {
            text,
            applied: self.applied,
            changes: self.changes,
            more_changes: self.more_changes,
            warnings: self.warnings,
            more_warnings: self.more_warnings,
            left_out: self.left_out,
        }
    }

    /// Returns the index of a route among those that must not be edited, or where it would be.
    pub(super) fn find_barred(&self, route: u32) -> Result<usize, usize> {
        self.barred
            .binary_search_by_key(&route, |(barred, _)| *barred)
    }

    /// Leaves a route out, from the next pass on if it has been planned.
    pub(super) fn bar(&mut self, route: u32, why: Refused) {
        if let Err(at) = self.find_barred(route) {
            self.barred.insert(at, (route, why));
        }
    }

    pub(super) fn note_domain(&self, host: &mut Host<'_>, domain: &str) {
        let name = service::bare(domain);
        for (index, input) in self.inputs.iter().enumerate() {
            if input.has_host(name, self.domain) && !host.domains.contains(&index) {
                host.domains.push(index);
            }
        }
    }

    /// Plans all routes of a virtual host that has been read.
    pub(super) fn decide(&mut self, text: &str, host: &Host<'_>) {
        let name = host.name.as_deref().unwrap_or("");
        for (index, route) in host.routes.iter().enumerate() {
            let clusters = host.clusters_of(index);
            let ordinal = self.next_route;
            self.next_route += 1;
            if let Some(seen) = &mut self.seen {
                seen.push(weighted(name, clusters));
                continue;
            }
            if let Some(cut) = &host.cut {
                self.bar(ordinal, cut.clone());
            }
            if let Some(rule) = self.rule_of(name, host, index) {
                self.weigh(text, rule, name, (ordinal, route), clusters);
            }
        }
    }

    fn warn_kept(&mut self, index: usize, host: &str, why: Obstacle) {
        self.warn(Warning::KeepsOwn {
            source: self.inputs[index].source.clone(),
            virtual_host: host.to_owned(),
            why,
        });
    }

    /// Plans one route by a rule of an input.
    fn weigh(
        &mut self,
        text: &str,
        (index, rule): (usize, usize),
        host: &str,
        (ordinal, route): (u32, &Route),
        clusters: &[Cluster<'_>],
    ) {
        let input = self.inputs[index];
        let backends = &input.rules[rule].backends;
        let stands_for = |cluster: &Cluster<'_>| backend(input, rule, cluster, self.domain);
        let applied = &mut self.applied[index];
        applied.routes += 1;
        let mut absent = vec![true; backends.len()];
        for found in clusters.iter().filter_map(stands_for) {
            applied.rules[rule].has_cluster[found] = true;
            absent[found] = false;
        }
        let is_unclear = |c: &&Cluster<'_>| {
            let found = stands_for(c);
            found.is_some_and(|i| backends[i].is_ambiguous)
        };
        if let Some(cluster) = clusters.iter().find(is_unclear) {
            return self.warn_kept(index, host, Obstacle::OneName(cluster.label()));
        }
        let members = clusters.iter().map(|cluster| Member {
            backend: stands_for(cluster),
            // Without a weight, or without a number for one, Envoy would not load the file.
            own: cluster.weight.was().unwrap_or(0),
        });
        let shares: Vec<u64> = backends.iter().map(|b| b.weight).collect();
        let weights = match divide(&members.collect::<Vec<_>>(), &shares) {
            Ok(weights) => weights,
            Err(sum) => {
                let missing = backends.iter().zip(absent).filter(|(_, absent)| *absent);
                let without_cluster = missing.map(|(b, _)| b.label()).collect();
                let why = Obstacle::Sum {
                    sum,
                    without_cluster,
                };
                return self.warn_kept(index, host, why);
            }
        };

        let before = self.edits.len();
        if let Err(why) = self.edit(text, (ordinal, route), clusters, &weights) {
            self.edits.truncate(before);
            self.left_out.push(LeftOut {
                route: Some(ordinal as usize),
                why,
            });
            let own = clusters.iter().map(|cluster| cluster.weight.was());
            if let Some(own) = own.collect::<Option<Vec<_>>>() {
                self.note_change(index, host, clusters, &own);
            }
            return;
        }
        for cluster in clusters {
            let unlisted = backend(input, rule, cluster, self.domain).is_none();
            if unlisted && cluster.weight.was() != Some(0) {
                let kind = if cluster.is_header { "" } else { "cluster " };
                self.warn(Warning::Unlisted {
                    source: input.source.clone(),
                    virtual_host: host.to_owned(),
                    cluster: format!("{kind}{}", cluster.label()),
                });
            }
        }
        self.note_change(index, host, clusters, &weights);
    }

    /// Plans the edits of one route.
    fn edit(
        &mut self,
        text: &str,
        (ordinal, route): (u32, &Route),
        clusters: &[Cluster<'_>],
        weights: &[u32],
    ) -> Result<(), Refused> {
        if let Ok(at) = self.find_barred(ordinal) {
            return Err(self.barred[at].1.clone());
        }
        for (cluster, weight) in clusters.iter().zip(weights) {
            if let WeightSite::Missing = cluster.weight {
                self.insert(text, ordinal, cluster, *weight)?;
            } else {
                self.set(ordinal, cluster.weight, *weight)?;
            }
        }
        self.set(ordinal, route.total, weights.iter().sum())
    }

    fn note_change(&mut self, index: usize, host: &str, clusters: &[Cluster<'_>], new: &[u32]) {
        if self.changes.len() >= CHANGES_KEPT {
            self.more_changes += 1;
        } else {
            let clusters = clusters
                .iter()
                .zip(new)
                .map(|(cluster, new)| ClusterWeight {
                    cluster: cluster.label(),
                    old: cluster.weight.was(),
                    new: *new,
                });
            self.changes.push(RouteWeights {
                source: self.inputs[index].source.clone(),
                virtual_host: host.to_owned(),
                clusters: clusters.collect(),
            });
        }
    }

    fn warn(&mut self, warning: Warning) {
        if self.warnings.contains(&warning) {
            return;
        }
        if self.warnings.len() < WARNINGS_KEPT {
            self.warnings.push(warning);
        } else {
            self.more_warnings += 1;
        }
    }

    fn set(&mut self, route: u32, site: WeightSite, weight: u32) -> Result<(), Refused> {
        match site {
            WeightSite::Number(number) if number.as_written == Some(weight) => {}
            WeightSite::Number(number) => self.edits.push(Edit {
                event: number.event,
                at: number.at,
                len: number.len,
                line: number.line,
                route,
                weight,
                insert: None,
            }),
            WeightSite::Unsafe(_, _, was) if was == Some(weight) => {}
            WeightSite::Unsafe(line, why, _) => return Err(Refused::new(line, why)),
            WeightSite::Missing => {}
        }
        Ok(())
    }

    /// Plans to insert a missing weight: behind the name, as the text around it is written.
    fn insert(
        &mut self,
        text: &str,
        route: u32,
        cluster: &Cluster<'_>,
        weight: u32,
    ) -> Result<(), Refused> {
        if cluster.via_alias || cluster.name.is_none() {
            let why = "a weight is missing where none can be put";
            return Err(Refused::new(cluster.line, why));
        }
        let (key_at, value_end) = (cluster.key_at as usize, cluster.value_end as usize);
        let place = if cluster.flow {
            Some((value_end, insert::in_flow(&text[key_at..value_end])))
        } else {
            insert::in_block(text, key_at, value_end)
        };
        let Some((at, insert)) = place else {
            let why = "a weight is missing, and there is no simple place for it";
            return Err(Refused::new(cluster.line, why));
        };
        self.edits.push(Edit {
            event: cluster.name_event,
            at: at as u32,
            len: 0,
            line: cluster.line,
            route,
            weight,
            insert: Some(Box::new(insert)),
        });
        Ok(())
    }
}

fn weighted(virtual_host: &str, clusters: &[Cluster<'_>]) -> Weighted {
    Weighted {
        virtual_host: virtual_host.to_owned(),
        clusters: clusters.iter().map(Cluster::label).collect(),
        weights: clusters
            .iter()
            .map(|cluster| cluster.weight.was())
            .collect(),
    }
}
