//! Envoy's verdict on the files that a step has changed, from what it counted before and after.
//! Pure.
//!
//! | what moved, of the subscriptions whose resources a changed file holds | outcome |
//! |---|---|
//! | uptime, or the attempts of clusters or listeners, fell | restarted |
//! | uptime rose by far more than time passed | restarted |
//! | `update_rejected`, `update_failure`, `load_error` | refused |
//! | of the file nothing, but `update_rejected` of a name that it held before, and no listener drains | refused |
//! | nothing, and no subscription counts anything | unknown |
//! | nothing | not read |
//! | `update_attempt` | accepted |
//!
//! A file that nobody had asked for in its own step is judged with the steps after it: a listener
//! may only then ask for it.
//!
//! The first line that fits is the outcome. Nothing else refuses: neither what was counted before
//! the step, nor a cluster's failed look-ups, nor a listener that drains and still asks for routes
//! by a name that its file has no more.

use std::fmt;

use super::stats::{ATTEMPT, CLUSTERS, FAILURE, LISTENERS, LOAD_ERROR, REJECTED, RUNTIME, Stats};

/// A subscription of Envoy to a file, which has counters of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subscription {
    /// All clusters.
    Clusters,
    /// All listeners.
    Listeners,
    /// The layers of the runtime.
    Runtime,
    /// The RouteConfiguration of this name.
    Routes(String),
    /// The Secret of this name.
    Secret(String),
    /// The ClusterLoadAssignment of this cluster.
    Endpoints(String),
}

impl fmt::Display for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subscription::Clusters => f.write_str("clusters"),
            Subscription::Listeners => f.write_str("listeners"),
            Subscription::Runtime => f.write_str("runtime"),
            Subscription::Routes(name) => write!(f, "route configuration {name}"),
            Subscription::Secret(name) => write!(f, "secret {name}"),
            Subscription::Endpoints(name) => write!(f, "endpoints of cluster {name}"),
        }
    }
}

impl Subscription {
    /// Calls `count` with each of its counters that is there: its whole name, its last part and its
    /// value. Routes have one for each prefix that a connection manager gives.
    fn each<'s>(&self, stats: &'s Stats, mut count: impl FnMut(&'s str, &'s str, u64)) {
        let (exact, suffix) = match self {
            Subscription::Clusters => (CLUSTERS.into(), None),
            Subscription::Listeners => (LISTENERS.into(), None),
            Subscription::Runtime => (RUNTIME.into(), None),
            Subscription::Routes(name) => (String::new(), Some(format!(".rds.{}", in_stats(name)))),
            Subscription::Secret(name) => (format!("sds.{}", in_stats(name)), None),
            Subscription::Endpoints(name) => (format!("cluster.{}", in_stats(name)), None),
        };
        for (whole, value) in stats.iter() {
            let Some((of, last)) = whole.rsplit_once('.') else {
                continue;
            };
            let is_ours = match &suffix {
                None => of == exact,
                Some(suffix) => of.starts_with("http.") && of.ends_with(suffix.as_str()),
            };
            if is_ours {
                count(whole, last, value);
            }
        }
    }
}

/// Writes a resource's name as Envoy writes it in a counter's.
fn in_stats(name: &str) -> String {
    let name = name.trim_end_matches('.');
    name.replace("://", "_")
        .replace(":/", "_")
        .replace(':', "_")
}

/// The subscriptions that a file which a step has changed is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// The subscriptions that the new text is for.
    pub now: Vec<Subscription>,
    /// The subscriptions that the text before it was for.
    pub before: Vec<Subscription>,
}

impl Holdings {
    /// Returns what is asked for in the file: a text without resources has the names of the one
    /// before.
    fn subscriptions(&self) -> &[Subscription] {
        if self.now.is_empty() {
            &self.before
        } else {
            &self.now
        }
    }

    /// Has a secret of another name than before be judged with the next step, in which a listener
    /// asks for it: the one before asks for the former name until then.
    pub fn expect_renamed_secrets(&mut self) {
        if self
            .now
            .iter()
            .any(|it| matches!(it, Subscription::Secret(_)))
        {
            self.before.clear();
        }
    }
}

/// The way in which Envoy took a step's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has read at least one of them, and refused nothing.
    Accepted,
    /// It has refused these.
    Refused(Vec<Refusal>),
    /// It has not read any of them: not yet, if this is the first answer, or nobody asks for them.
    NotRead,
    /// It is another process than the one before.
    Restarted,
    /// It counts nothing that a verdict could be made from.
    Hidden,
}

/// A counter that says that something was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The subscription that counts it.
    pub subscription: Subscription,
    /// The counter's whole name.
    pub counter: String,
    /// The files that hold what was refused, as places in the list of changed files.
    pub files: Vec<usize>,
}

/// A verdict, and what else the same answer tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The way in which Envoy took them, as the table has it.
    pub outcome: Outcome,
    /// The changed files that nobody has read, as places in their list.
    pub unread: Vec<usize>,
    /// More clusters warm up than did before.
    pub is_warming: bool,
    /// More listeners warm up than did before: they may not have asked for their routes yet.
    pub has_warming_listeners: bool,
    /// Connections of an older configuration are still served.
    pub is_draining: bool,
    /// The number of unknown fields that were ignored since.
    pub unknown_fields: u64,
}

/// Judges a step that has changed these files, from the counters before and after it.
pub fn judge(before: &Stats, after: &Stats, changed: &[Holdings]) -> Verdict {
    let mut verdict = Verdict {
        outcome: Outcome::Restarted,
        unread: Vec::new(),
        is_warming: after.warming_clusters() > before.warming_clusters(),
        has_warming_listeners: after.warming_listeners() > before.warming_listeners(),
        is_draining: after.draining() > 0,
        unknown_fields: after
            .unknown_fields()
            .saturating_sub(before.unknown_fields()),
    };
    if after.restarted_since(before) {
        verdict.unknown_fields = 0;
        return verdict;
    }
    let mut refused = Refusals::default();
    for (place, file) in changed.iter().enumerate() {
        let mut read = file.subscriptions().is_empty();
        for subscription in file.subscriptions() {
            let moved = moved(subscription, before, after);
            read |= moved.read;
            refused.add(place, subscription, moved.refused);
        }
        if read {
            continue;
        }
        verdict.unread.push(place);
        // A wrong name: whoever read the file asks for the one that was there.
        for subscription in file.before.iter().filter(|_| !verdict.is_draining) {
            refused.add(
                place,
                subscription,
                moved(subscription, before, after).refused,
            );
        }
    }
    let is_judged = |place: usize| !changed[place].subscriptions().is_empty();
    let judged = (0..changed.len()).filter(|place| is_judged(*place)).count();
    verdict.outcome = if !refused.0.is_empty() {
        Outcome::Refused(refused.0)
    } else if judged > 0 && !after.has_subscriptions() {
        Outcome::Hidden
    } else if judged > 0 && judged == verdict.unread.len() {
        Outcome::NotRead
    } else {
        Outcome::Accepted
    };
    verdict
}

impl Verdict {
    /// Also judges files of earlier steps that nobody has asked for so far, which are named as the
    /// places from `first` on. Returns which of them are read by now.
    pub fn judge_late(
        &mut self,
        (before, after): (&Stats, &Stats),
        first: usize,
        late: &[&Holdings],
    ) -> Vec<usize> {
        let mut refused = match &mut self.outcome {
            Outcome::Refused(refused) => Refusals(std::mem::take(refused)),
            Outcome::Accepted | Outcome::NotRead => Refusals::default(),
            Outcome::Restarted | Outcome::Hidden => return Vec::new(),
        };
        let mut read = Vec::new();
        for (place, file) in late.iter().enumerate() {
            let mut is_read = false;
            for subscription in &file.now {
                // One that counted before is another's: a cluster's failed look-ups.
                if matches!(subscription, Subscription::Endpoints(_))
                    && moved(subscription, &Stats::default(), before).read
                {
                    continue;
                }
                let moved = moved(subscription, before, after);
                is_read |= moved.read;
                refused.add(first + place, subscription, moved.refused);
            }
            if is_read {
                read.push(place);
            }
        }
        if !refused.0.is_empty() {
            self.outcome = Outcome::Refused(refused.0);
        } else if !read.is_empty() {
            self.outcome = Outcome::Accepted;
        }
        read
    }
}

/// Refusals, each with all files that hold what was refused.
#[derive(Default)]
struct Refusals(Vec<Refusal>);

impl Refusals {
    fn add(&mut self, place: usize, subscription: &Subscription, counters: Vec<&str>) {
        for counter in counters {
            let mut known = self.0.iter_mut();
            match known.find(|refusal| refusal.counter == counter) {
                Some(refusal) if refusal.files.contains(&place) => {}
                Some(refusal) => refusal.files.push(place),
                None => self.0.push(Refusal {
                    subscription: subscription.clone(),
                    counter: counter.into(),
                    files: vec![place],
                }),
            }
        }
    }
}

/// The counters of a subscription that have moved within a step.
struct Moved<'s> {
    read: bool,
    refused: Vec<&'s str>,
}

fn moved<'s>(subscription: &Subscription, before: &Stats, after: &'s Stats) -> Moved<'s> {
    let mut moved = Moved {
        read: false,
        refused: Vec::new(),
    };
    let of_runtime = *subscription == Subscription::Runtime;
    subscription.each(after, |whole, last, value| {
        // A counter that fell is that of a listener or cluster that was made anew.
        if value <= before.get(whole) {
            return;
        }
        match last {
            ATTEMPT => moved.read = true,
            REJECTED | FAILURE => moved.refused.push(whole),
            LOAD_ERROR if of_runtime => moved.refused.push(whole),
            _ => {}
        }
    });
    moved
}

#[cfg(test)]
mod tests;
