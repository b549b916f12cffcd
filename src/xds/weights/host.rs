//! A virtual host as it is read: its routes, their weighted clusters, and where each weight stands.
//! Must not: decide what a weight should be.

use std::borrow::Cow;

use super::outcome::Refused;
use super::route_match::RouteMatch;
use super::schema::Field;

/// A virtual host, as far as it has been read.
#[derive(Default)]
pub(super) struct Host<'a> {
    pub(super) name: Option<Cow<'a, str>>,
    /// The indexes of the inputs that one of its `domains` names.
    pub(super) domains: Vec<usize>,
    /// Its routes with weighted clusters.
    pub(super) routes: Vec<Route>,
    /// The clusters of all of them.
    pub(super) clusters: Vec<Cluster<'a>>,
    /// The conditions of Envoy's routes, where they are asked for.
    pub(super) matches: Vec<RouteMatch>,
    /// The reason why not all of it could be read, if so.
    pub(super) cut: Option<Refused>,
}

/// A route with weighted clusters.
#[derive(Default)]
pub(super) struct Route {
    /// The index of its first cluster; they end where the next route's begin.
    first: usize,
    pub(super) total: WeightSite,
    /// The index of its conditions, where they are asked for.
    pub(super) matching: Option<u32>,
}

/// A weighted cluster.
#[derive(Default)]
pub(super) struct Cluster<'a> {
    pub(super) name: Option<Cow<'a, str>>,
    /// True if the name is that of a request header, which names the cluster.
    pub(super) is_header: bool,
    pub(super) weight: WeightSite,
    /// The ordinal of the name's event.
    pub(super) name_event: u32,
    /// The offset of the key `name`.
    pub(super) key_at: u32,
    /// The offset behind the name.
    pub(super) value_end: u32,
    pub(super) line: u32,
    pub(super) flow: bool,
    /// True if it stands elsewhere and is only named here, by an alias.
    pub(super) via_alias: bool,
}

/// The place of a weight.
#[derive(Clone, Copy, Default)]
pub(super) enum WeightSite {
    #[default]
    Missing,
    Number(Number),
    /// A weight that cannot be edited: its line, why, and its number where that is certain.
    Unsafe(u32, &'static str, Option<u32>),
}

/// A weight that can be edited.
#[derive(Clone, Copy)]
pub(super) struct Number {
    /// The ordinal of its event.
    pub(super) event: u32,
    /// Its offset and length, without quotes.
    pub(super) at: u32,
    pub(super) len: u32,
    pub(super) line: u32,
    /// Its value, if that is certain.
    pub(super) was: Option<u32>,
    /// The same value, if writing it again would change no byte.
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

    pub(super) fn was(&self) -> Option<u32> {
        match self {
            WeightSite::Missing => None,
            WeightSite::Number(number) => number.was,
            WeightSite::Unsafe(_, _, was) => *was,
        }
    }
}

impl Cluster<'_> {
    /// Returns its name for messages.
    pub(super) fn label(&self) -> String {
        let name = self.name.as_deref().unwrap_or("");
        match self.is_header {
            true => format!("cluster_header {name}"),
            false => name.to_owned(),
        }
    }
}

impl Host<'_> {
    /// Begins another virtual host.
    pub(super) fn reset(&mut self) {
        self.name = None;
        self.domains.clear();
        self.routes.clear();
        self.clusters.clear();
        self.matches.clear();
        self.cut = None;
    }

    pub(super) fn add_route(&mut self, matching: Option<u32>) {
        self.routes.push(Route {
            first: self.clusters.len(),
            total: WeightSite::Missing,
            matching,
        });
    }

    /// Notes a key whose value is this field. Of two equal keys the last counts in YAML.
    pub(super) fn begin(&mut self, value: Field) {
        match (value, self.routes.last()) {
            (Field::Domain, _) => self.domains.clear(),
            (Field::Cluster, Some(route)) => self.clusters.truncate(route.first),
            _ => {}
        }
    }

    pub(super) fn clusters_of(&self, index: usize) -> &[Cluster<'_>] {
        let first = self.routes[index].first;
        let next = self.routes.get(index + 1).map(|route| route.first);
        &self.clusters[first..next.unwrap_or(self.clusters.len())]
    }
}
