//! What a virtual host's routes should weigh. Owns: which split a route follows, the sums, the
//! warnings, and where a weight that is missing goes. Must not: parse.

use std::borrow::Cow;

use super::Refused;
use super::edit::{Edit, Insert};
use super::outcome::{
    CHANGES_KEPT, ClusterWeight, LeftOut, RouteWeights, SplitMatches, WARNINGS_KEPT, Warning,
    Weighted,
};
use super::schema::Field;
use super::service;
use super::share::{Member, divide};
use super::split::Split;

/// A virtual host, as far as it has been read.
#[derive(Default)]
pub(super) struct Host<'a> {
    pub(super) name: Option<Cow<'a, str>>,
    /// Indexes of the splits that one of `domains` says.
    pub(super) domains: Vec<usize>,
    /// Its routes with weighted clusters.
    pub(super) routes: Vec<Route>,
    /// The clusters of all of them.
    pub(super) clusters: Vec<Cluster<'a>>,
    /// Not all of it could be read.
    pub(super) cut: Option<Refused>,
}

/// A route with weighted clusters.
#[derive(Default)]
pub(super) struct Route {
    /// Index of its first cluster; they end where the next route's begin.
    first: usize,
    pub(super) total: WeightSite,
}

/// A weighted cluster.
#[derive(Default)]
pub(super) struct Cluster<'a> {
    pub(super) name: Option<Cow<'a, str>>,
    /// The name is that of a request header, which names the cluster.
    pub(super) is_header: bool,
    pub(super) weight: WeightSite,
    /// Ordinal of the name's event.
    pub(super) name_event: u32,
    /// Offset of the key `name`.
    pub(super) key_at: u32,
    /// Offset behind the name.
    pub(super) value_end: u32,
    pub(super) line: u32,
    pub(super) flow: bool,
    /// It stands elsewhere and is only named here.
    pub(super) behind: bool,
}

/// Where a weight stands.
#[derive(Clone, Copy, Default)]
pub(super) enum WeightSite {
    #[default]
    Missing,
    Number(Number),
    /// It cannot be edited: line, why, and what it says where that is certain.
    Unsafe(u32, &'static str, Option<u32>),
}

/// A weight that can be edited.
#[derive(Clone, Copy)]
pub(super) struct Number {
    /// Ordinal of its event.
    pub(super) event: u32,
    /// Offset and length, without quotes.
    pub(super) at: u32,
    pub(super) len: u32,
    pub(super) line: u32,
    /// What it says, where we can tell.
    pub(super) was: Option<u32>,
    /// The same, if writing it again would change no byte.
    pub(super) as_written: Option<u32>,
}

impl WeightSite {
    pub(super) fn line(&self) -> u32 {
        match self {
            WeightSite::Missing => 0,
            WeightSite::Number(number) => number.line,
            WeightSite::Unsafe(line, ..) => *line,
        }
    }

    fn was(&self) -> Option<u32> {
        match self {
            WeightSite::Missing => None,
            WeightSite::Number(number) => number.was,
            WeightSite::Unsafe(_, _, was) => *was,
        }
    }
}

impl Cluster<'_> {
    /// How it is called in messages.
    fn label(&self) -> String {
        let name = self.name.as_deref().unwrap_or("");
        match self.is_header {
            true => format!("cluster_header {name}"),
            false => name.to_owned(),
        }
    }
}

impl Host<'_> {
    /// Another virtual host begins.
    pub(super) fn reset(&mut self) {
        self.name = None;
        self.domains.clear();
        self.routes.clear();
        self.clusters.clear();
        self.cut = None;
    }

    pub(super) fn add_route(&mut self) {
        self.routes.push(Route {
            first: self.clusters.len(),
            total: WeightSite::Missing,
        });
    }

    /// A key has been read whose value has this role. Of two equal keys the last counts in YAML.
    pub(super) fn begin(&mut self, value: Field) {
        match (value, self.routes.last()) {
            (Field::Domain, _) => self.domains.clear(),
            (Field::Cluster, Some(route)) => self.clusters.truncate(route.first),
            _ => {}
        }
    }

    fn clusters_of(&self, index: usize) -> &[Cluster<'_>] {
        let first = self.routes[index].first;
        let next = self.routes.get(index + 1).map(|route| route.first);
        &self.clusters[first..next.unwrap_or(self.clusters.len())]
    }
}

/// What is to be done to a text, and to be said about it.
pub(super) struct Plan<'s> {
    splits: &'s [&'s Split],
    /// The cluster's.
    domain: &'s str,
    /// Routes that must not be edited, sorted by ordinal.
    pub(super) barred: Vec<(u32, Refused)>,
    /// Every route, where that is what is asked for.
    pub(super) seen: Option<Vec<Weighted>>,
    /// Ordinal of the next route.
    next_route: u32,
    pub(super) edits: Vec<Edit>,
    pub(super) applied: Vec<SplitMatches>,
    pub(super) changes: Vec<RouteWeights>,
    pub(super) more_changes: usize,
    pub(super) warnings: Vec<Warning>,
    pub(super) more_warnings: usize,
    pub(super) left_out: Vec<LeftOut>,
    /// Something that may hold routes was not read.
    pub(super) cut: Option<Refused>,
}

impl<'s> Plan<'s> {
    pub(super) fn new(splits: &'s [&'s Split], domain: &'s str) -> Plan<'s> {
        Plan {
            splits,
            domain,
            barred: Vec::new(),
            seen: None,
            next_route: 0,
            edits: Vec::new(),
            applied: splits
                .iter()
                .map(|split| SplitMatches::none(split))
                .collect(),
            changes: Vec::new(),
            more_changes: 0,
            warnings: Vec::new(),
            more_warnings: 0,
            left_out: Vec::new(),
            cut: None,
        }
    }

    /// Where a route is among those that must not be edited, or would be.
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
        for (index, split) in self.splits.iter().enumerate() {
            if split.has_host(name, self.domain) && !host.domains.contains(&index) {
                host.domains.push(index);
            }
        }
    }

    /// Plans all routes of a virtual host that has been read.
    pub(super) fn decide(&mut self, text: &str, host: &Host<'_>) {
        let name = host.name.as_deref().unwrap_or("");
        let splits = self.splits;
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
            let mut follows = splits.iter().enumerate().filter(|(i, split)| {
                let is_name = name == split.service || name == split.root(self.domain);
                (is_name || host.domains.contains(i))
                    && clusters.iter().any(|c| backend(split, c).is_some())
            });
            let Some((first, split)) = follows.next() else {
                continue;
            };
            for (_, later) in follows {
                self.warn(Warning::Overruled {
                    split: later.name.clone(),
                    by: split.name.clone(),
                    virtual_host: name.to_owned(),
                });
            }
            self.weigh(text, first, name, (ordinal, route), clusters);
        }
    }

    /// Plans one route.
    fn weigh(
        &mut self,
        text: &str,
        index: usize,
        host: &str,
        (ordinal, route): (u32, &Route),
        clusters: &[Cluster<'_>],
    ) {
        let split = self.splits[index];
        let applied = &mut self.applied[index];
        applied.routes += 1;
        let mut absent = vec![true; split.backends.len()];
        for found in clusters.iter().filter_map(|c| backend(split, c)) {
            applied.has_cluster[found] = true;
            absent[found] = false;
        }
        let members = clusters.iter().map(|cluster| Member {
            backend: backend(split, cluster),
            // Without a weight, or without a number for one, Envoy would not load the file.
            own: cluster.weight.was().unwrap_or(0),
        });
        let shares: Vec<u64> = split.backends.iter().map(|b| b.weight).collect();
        let weights = match divide(&members.collect::<Vec<_>>(), &shares) {
            Ok(weights) => weights,
            Err(sum) => {
                let missing = split
                    .backends
                    .iter()
                    .zip(absent)
                    .filter(|(_, absent)| *absent);
                self.warn(Warning::KeepsOwn {
                    split: split.name.clone(),
                    virtual_host: host.to_owned(),
                    sum,
                    without_cluster: missing.map(|(b, _)| b.service.clone()).collect(),
                });
                return;
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
            let unlisted = backend(split, cluster).is_none();
            if unlisted && cluster.weight.was() != Some(0) {
                let kind = if cluster.is_header { "" } else { "cluster " };
                self.warn(Warning::Unlisted {
                    split: split.name.clone(),
                    virtual_host: host.to_owned(),
                    cluster: format!("{kind}{}", cluster.label()),
                });
            }
        }
        if self.edits.len() > before {
            self.applied[index].changed += 1;
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
                split: self.splits[index].name.clone(),
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

    fn set(&mut self, route: u32, slot: WeightSite, weight: u32) -> Result<(), Refused> {
        match slot {
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

    /// A weight where there is none: behind the name, as the text around it is written.
    fn insert(
        &mut self,
        text: &str,
        route: u32,
        cluster: &Cluster<'_>,
        weight: u32,
    ) -> Result<(), Refused> {
        if cluster.behind || cluster.name.is_none() {
            let why = "a weight is missing where none can be put";
            return Err(Refused::new(cluster.line, why));
        }
        let (key_at, value_end) = (cluster.key_at as usize, cluster.value_end as usize);
        let place = if cluster.flow {
            Some((value_end, flow_insert(&text[key_at..value_end])))
        } else {
            block_insert(text, key_at, value_end)
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

fn backend(split: &Split, cluster: &Cluster<'_>) -> Option<usize> {
    let name = cluster.name.as_deref().filter(|_| !cluster.is_header);
    split.backend_of(name?)
}

/// `, weight: ` in the manner of `name: x`, `"name": "x"` or `"name":"x"`.
fn flow_insert(field: &str) -> Insert {
    let quote = field.get(..1).filter(|q| matches!(*q, "\"" | "'"));
    let quote = quote.unwrap_or("");
    let tight = !quote.is_empty() && field[1..].contains(&format!("{quote}:{quote}"));
    let space = if tight { "" } else { " " };
    Insert {
        before: format!(",{space}{quote}weight{quote}:{space}"),
        after: String::new(),
    }
}

/// A line of its own below the name's, at the same column.
fn block_insert(text: &str, key_at: usize, value_end: usize) -> Option<(usize, Insert)> {
    let line_start = text[..key_at].rfind(['\n', '\r']).map_or(0, |at| at + 1);
    let lead = &text[line_start..key_at];
    let rest = &text[value_end..];
    let line_end = rest.find(['\n', '\r']).unwrap_or(rest.len());
    let tail = rest[..line_end].trim_start_matches([' ', '\t']);
    let one_line = !text[key_at..value_end].contains(['\n', '\r']);
    if !one_line
        || !lead.is_ascii()
        || lead.contains('\t')
        || !(tail.is_empty() || tail.starts_with('#'))
    {
        return None;
    }
    // To yaml-cpp the first line end of a text is that of all lines.
    let newline = match text.find(['\n', '\r']).map_or("", |at| &text[at..]) {
        end if end.starts_with("\r\n") => "\r\n",
        end if end.starts_with('\r') => "\r",
        _ => "\n",
    };
    let lead = lead.len();
    let before = format!("{newline}{}weight: ", " ".repeat(lead));
    let after = String::new();
    Some((value_end + line_end, Insert { before, after }))
}
