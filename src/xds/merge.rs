//! Merges weights into a set of files. Pure. Owns: which splits count, which text a file
//! goes out with where weights cannot be merged into all of it, what is said about that, and how a
//! change of weights is put in words.

use std::collections::BTreeSet;

use crate::snapshot::{Bytes, File, FileName, ObjectName, Snapshot};
use crate::xds::weights::{
    self, ClusterWeight, Refused, RouteWeights, Split, SplitMatches, Weighted, resolve_conflicts,
};
use crate::xds::yaml::{self, Encoding, Form};

/// The number of routes of a file that are named one by one if they cannot be edited.
const TOLD: usize = 4;

/// The routes that follow a split.
#[derive(Debug, Default)]
pub struct WeightTable {
    /// The first of each file.
    routes: Vec<(FileName, RouteWeights)>,
    /// The number of routes beyond these.
    more: usize,
}

/// Merges splits into a set of files, and collects what is found on the way.
pub struct Merge<'s> {
    splits: Vec<&'s Split>,
    /// The cluster's.
    domain: &'s str,
    done: Done,
    /// Files with routes that cannot be edited.
    undecided: Vec<(FileName, Tried)>,
}

/// A file that weights were to be merged into.
struct Tried {
    file: File,
    encoding: Encoding,
    /// An error: no route of it can be edited.
    merged: Result<weights::Merged, Refused>,
}

/// The result of a merge.
#[derive(Default)]
pub struct Done {
    /// The files, with weights.
    pub set: Snapshot,
    /// The texts that they were merged into: each file's last known good one from now on.
    pub good: Snapshot,
    /// ConfigMaps that have a newer text of some file than the one that goes out.
    pub behind: Vec<ObjectName>,
    /// The routes that follow a split.
    pub changes: WeightTable,
    /// All that should be said.
    pub warnings: BTreeSet<String>,
    /// The matches of each split in all files so far.
    applied: Vec<SplitMatches>,
    /// A file goes without: what a split found is not all there is for it.
    incomplete: bool,
}

impl<'s> Merge<'s> {
    /// Merges the splits' weights into `set`, as far as that can be done without knowing what was
    /// published before. Of several splits for one service, the first in `splits` counts.
    pub fn new(splits: &[&'s Split], domain: &'s str, set: Snapshot) -> Merge<'s> {
        let (first, later) = resolve_conflicts(splits, domain);
        let message = |(loser, winner): (usize, usize)| {
            let Split { name, service, .. } = splits[loser];
            format!(
                "TrafficSplit {name} is not applied: {} is for {service} too",
                splits[winner].name
            )
        };
        let mut warnings = BTreeSet::new();
        warnings.extend(later.into_iter().map(message));
        let done = Done {
            applied: first
                .iter()
                .map(|split| SplitMatches::none(split))
                .collect(),
            warnings,
            ..Done::default()
        };
        let mut merge = Merge {
            splits: first,
            domain,
            done,
            undecided: Vec::new(),
        };
        if merge.splits.is_empty() {
            merge.done.set = set;
            return merge;
        }
        for (name, file) in set {
            let tried = Tried::new(&name, file, &merge.splits, domain);
            if tried.is_whole() {
                merge.done.take(name, tried);
            } else {
                merge.undecided.push((name, tried));
            }
        }
        merge
    }

    /// Returns whether the rest depends on what is on disk.
    pub fn is_undecided(&self) -> bool {
        !self.undecided.is_empty()
    }

    /// Decides the rest. `good` has the texts that were merged last, and `on_disk` what stands
    /// there, if anything does.
    pub fn finish(mut self, good: &Snapshot, on_disk: Option<&Snapshot>) -> Done {
        for (name, tried) in std::mem::take(&mut self.undecided) {
            self.decide(name, tried, good, on_disk);
        }
        let judged = self.splits.iter().filter(|_| !self.done.incomplete);
        for (split, applied) in judged.zip(&self.done.applied) {
            let warnings = applied.warnings(split);
            self.done
                .warnings
                .extend(warnings.iter().map(ToString::to_string));
        }
        self.done
    }

    /// Decides about a file with routes that cannot be edited. Their weights stay what they are on
    /// disk: the file's new text goes out if it has the same ones, else the last known good text
    /// stays, and follows the splits.
    fn decide(
        &mut self,
        name: FileName,
        tried: Tried,
        good: &Snapshot,
        on_disk: Option<&Snapshot>,
    ) {
        let shown = on_disk.and_then(|set| set.get(&name));
        let object = tried.file.origin.object.clone();
        let own = |set: Option<&Snapshot>| {
            let file = set?.get(&name)?;
            (file.origin.object == object).then(|| file.clone())
        };
        let (latest, disk) = (own(Some(good)), own(on_disk));
        let reasons = tried.reasons(&object, &name);
        if tried.merged.is_ok() && shown.is_none_or(|shown| tried.keeps(&name, shown)) {
            self.tell(reasons, "such a route keeps its text's weights");
            return self.done.take(name, tried);
        }
        let earlier = |file: Option<File>| {
            let earlier = Tried::new(&name, file?, &self.splits, self.domain);
            earlier.merged.is_ok().then_some(earlier)
        };
        let last =
            earlier(latest).filter(|last| shown.is_none_or(|shown| last.keeps(&name, shown)));
        // What was published without weights, because there was nothing better, does not count as
        // last known good.
        if let Some(last) = last.or_else(|| earlier(disk)) {
            self.tell(reasons, "the file's last good text stays");
            self.done.behind.push(object);
            return self.done.take(name, last);
        }
        if tried.merged.is_ok() {
            self.tell(reasons, "such a route goes out with its text's weights");
            return self.done.take(name, tried);
        }
        self.tell(reasons, "the file goes out with its own weights");
        self.done.behind.push(object);
        self.done.incomplete = true;
        self.done.set.insert(name, tried.file);
    }

    fn tell(&mut self, reasons: Vec<String>, what: &str) {
        let told = |reason| format!("weights cannot be merged into {reason}: {what}");
        self.done.warnings.extend(reasons.into_iter().map(told));
    }
}

impl Tried {
    fn new(name: &FileName, file: File, splits: &[&Split], domain: &str) -> Tried {
        let (text, encoding) = yaml::decode(&file.bytes);
        let mut merged = weights::merge(name, &text, splits, domain);
        let is_edited = merged.as_ref().is_ok_and(|merged| merged.text.is_some());
        // Only yaml-cpp takes what is not UTF-8.
        let is_sound = match (Form::of(name), encoding) {
            (_, Encoding::Utf8) => true,
            (Form::Yaml, _) if is_edited => *encoding.encode(text.into_owned()) == *file.bytes,
            _ => !is_edited,
        };
        if !is_sound {
            let reason = "it is not UTF-8, or its encoding is broken".into();
            merged = Err(Refused { line: 0, reason });
        }
        Tried {
            file,
            encoding,
            merged,
        }
    }

    /// Returns whether every route follows the split that applies to it.
    fn is_whole(&self) -> bool {
        let merged = self.merged.as_ref();
        merged.is_ok_and(|merged| merged.left_out.is_empty())
    }

    /// Returns whether the routes that cannot be edited have the weights that they have in `shown`.
    fn keeps(&self, name: &FileName, shown: &File) -> bool {
        let Ok(merged) = &self.merged else {
            return false;
        };
        if self.is_whole() {
            return true;
        }
        let routes = |file: &File| weights::weights(name, &yaml::decode(&file.bytes).0);
        let (now, before) = (routes(&self.file), routes(shown));
        let kept = |at: usize| {
            let route = now.get(at)?;
            // Equal routes are told apart by their order.
            let nth = now[..at].iter().filter(|other| is_alike(other, route));
            let nth = nth.count();
            let known = before
                .iter()
                .filter(|other| is_alike(other, route))
                .nth(nth)?;
            Some(route.weights.is_some() && route.weights == known.weights)
        };
        let is_kept = |out: &weights::LeftOut| out.route.and_then(kept) == Some(true);
        merged.left_out.iter().all(is_kept)
    }

    /// Returns what keeps routes from being edited.
    fn reasons(&self, object: &ObjectName, name: &FileName) -> Vec<String> {
        let lines: Vec<&Refused> = match &self.merged {
            Ok(merged) => merged.left_out.iter().map(|out| &out.why).collect(),
            Err(refused) => vec![refused],
        };
        let told = lines.iter().take(TOLD);
        let mut reasons: Vec<String> = told
            .map(|refused| format!("{object} {name}: {refused}"))
            .collect();
        if lines.len() > TOLD {
            reasons.push(format!(
                "{object} {name}: {} more routes",
                lines.len() - TOLD
            ));
        }
        reasons
    }
}

/// Returns whether both are the same route, as far as a route can be told from others.
fn is_alike(one: &Weighted, other: &Weighted) -> bool {
    (&one.virtual_host, &one.clusters) == (&other.virtual_host, &other.clusters)
}

impl Done {
    /// Takes a file as it was merged.
    fn take(&mut self, name: FileName, tried: Tried) {
        let Tried {
            file,
            encoding,
            merged,
        } = tried;
        let Ok(merged) = merged else { return };
        let object = &file.origin.object;
        for (sum, found) in self.applied.iter_mut().zip(&merged.applied) {
            sum.add(found);
        }
        let warnings = merged.warnings.iter();
        self.warnings
            .extend(warnings.map(|warning| format!("{object} {name}: {warning}")));
        if merged.more_warnings > 0 {
            let more = merged.more_warnings;
            self.warnings
                .insert(format!("{object} {name}: {more} more warnings of the kind"));
        }
        self.changes.more += merged.more_changes;
        let changes = merged.changes.into_iter();
        self.changes
            .routes
            .extend(changes.map(|change| (name.clone(), change)));
        let bytes = match merged.text {
            Some(text) => Bytes::from(encoding.encode(text)),
            None => file.bytes.clone(),
        };
        let origin = file.origin.clone();
        self.good.insert(name.clone(), file);
        self.set.insert(name, File { bytes, origin });
    }
}

/// Describes what changed from one set of weights to the next, for a log line; empty if nothing
/// did.
/// `splits` are those that count now.
///
/// `default/podinfo in rds.yaml, podinfo: podinfo-primary 100->75 podinfo-canary 0->25 (2 routes)`
pub fn describe(before: &WeightTable, after: &WeightTable, splits: &[ObjectName]) -> String {
    let mut texts: Vec<(String, usize)> = Vec::new();
    let mut add = |text: String| match texts.iter_mut().find(|(known, _)| *known == text) {
        Some((_, count)) => *count += 1,
        None => texts.push((text, 1)),
    };
    let moved = |cluster: &ClusterWeight| cluster.old != Some(cluster.new);
    let mut left: Vec<&(FileName, RouteWeights)> = before.routes.iter().collect();
    for (file, change) in &after.routes {
        let mut change = change.clone();
        // Of equal routes in one virtual host the first was the first before, too.
        if let Some(at) = left.iter().position(|known| is_same(known, file, &change)) {
            let (_, known) = left.remove(at);
            for (cluster, known) in change.clusters.iter_mut().zip(&known.clusters) {
                cluster.old = Some(known.new);
            }
        }
        if change.clusters.iter().any(moved) {
            add(format!("{} in {file}, {change}", change.split));
        }
    }
    for (file, known) in left {
        let mut change = known.clone();
        for cluster in &mut change.clusters {
            let new = cluster.old.unwrap_or(cluster.new);
            (cluster.old, cluster.new) = (Some(cluster.new), new);
        }
        if splits.contains(&known.split) {
            let host = &known.virtual_host;
            add(format!(
                "{} in {file}, {host}: no such route any more",
                known.split
            ));
        } else if change.clusters.iter().any(moved) {
            add(format!("{} no longer in {file}, {change}", change.split));
        }
    }
    let counted = |(text, count): (String, usize)| match count {
        1 => text,
        _ => format!("{text} ({count} routes)"),
    };
    let mut all: Vec<String> = texts.into_iter().map(counted).collect();
    if after.more > 0 && !all.is_empty() {
        all.push(format!("{} more routes follow a split", after.more));
    }
    all.join("; ")
}

/// Returns whether this is what a route was before, as far as a route can be told from others.
fn is_same(
    (known_file, known): &(FileName, RouteWeights),
    file: &FileName,
    change: &RouteWeights,
) -> bool {
    let mut clusters = known.clusters.iter().zip(&change.clusters);
    (known_file, &known.split, &known.virtual_host) == (file, &change.split, &change.virtual_host)
        && known.clusters.len() == change.clusters.len()
        && clusters.all(|(known, cluster)| known.cluster == cluster.cluster)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Origin, ResourceVersion};
    use crate::xds::weights::Backend;
    use std::rc::Rc;

    const FILE: &str = "rds.yaml";

    fn object(name: &str) -> ObjectName {
        ObjectName {
            namespace: "default".to_owned(),
            name: name.to_owned(),
        }
    }

    fn split(service: &str, [primary, canary]: [u64; 2]) -> Split {
        let backend = |name: &str, weight| Backend {
            service: name.to_owned(),
            weight,
        };
        Split {
            name: object(service),
            service: service.to_owned(),
            backends: vec![backend("a", primary), backend("b", canary)],
        }
    }

    /// A route to each of two clusters, as a virtual host's.
    fn host(name: &str, primary: &str, canary: &str) -> String {
        format!(
            "  - name: {name}\n    routes:\n    - route: {{weighted_clusters: {{clusters: [\
             {{name: a, weight: {primary}}}, {{name: b, weight: {canary}}}]}}}}\n"
        )
    }

    fn text(hosts: &[String]) -> String {
        let kept = "x: [*all, *none]\n";
        let hosts = hosts.concat();
        let kept = if hosts.contains("&all") { kept } else { "" };
        format!("resources:\n- virtual_hosts:\n{hosts}{kept}")
    }

    /// A set of one file, of ConfigMap `owner`.
    fn set_of(owner: &str, text: &str) -> Snapshot {
        let origin = Rc::new(Origin {
            object: object(owner),
            uid: String::new(),
            resource_version: ResourceVersion("1".to_owned()),
        });
        let file = File {
            bytes: Bytes::from(text.as_bytes()),
            origin,
        };
        Snapshot::from([(FileName::new(FILE).unwrap(), file)])
    }

    /// Returns what ConfigMap `envoy` goes out with, what is kept of it, and what is said, where
    /// each of the services `shop` and `blog` has a split.
    fn merged(
        text: &str,
        splits: [[u64; 2]; 2],
        good: &Snapshot,
        on_disk: Option<&Snapshot>,
    ) -> (Snapshot, Snapshot, String) {
        let splits = [split("shop", splits[0]), split("blog", splits[1])];
        let splits: Vec<&Split> = splits.iter().collect();
        let done =
            Merge::new(&splits, "cluster.local", set_of("envoy", text)).finish(good, on_disk);
        let warnings: Vec<String> = done.warnings.into_iter().collect();
        (done.set, done.good, warnings.join("\n"))
    }

    #[track_caller]
    fn check(
        new: &[String],
        good: Option<&[String]>,
        on_disk: Option<&[String]>,
        want: &[String],
        said: &str,
    ) {
        let none = Snapshot::new();
        let good = good.map(|hosts| set_of("envoy", &text(hosts)));
        let on_disk = on_disk.map(|hosts| set_of("envoy", &text(hosts)));
        let (set, kept, warnings) = merged(
            &text(new),
            [[95, 5], [90, 10]],
            good.as_ref().unwrap_or(&none),
            on_disk.as_ref(),
        );
        let name = FileName::new(FILE).unwrap();
        let found = std::str::from_utf8(&set[&name].bytes).unwrap();
        assert_eq!(found, text(want), "{warnings}");
        assert!(warnings.contains(said), "{warnings}");
        assert!(kept.contains_key(&name));
    }

    const LEFT_OUT: &str = "weights cannot be merged into default/envoy rds.yaml: line 8: the \
                            weight is part of what an alias repeats: ";
    const KEEPS: &str = "such a route keeps its text's weights";
    const STAYS: &str = "the file's last good text stays";

    #[test]
    fn a_route_that_cannot_be_edited_keeps_what_is_on_disk_and_all_others_follow() {
        let stuck = host("blog", "&all 100", "&none 0");
        let own = host("shop", "50", "50");
        let (before, now) = (host("shop", "99", "1"), host("shop", "95", "5"));
        let new = [own.clone(), stuck.clone()];
        let want = [now.clone(), stuck.clone()];
        let keeps = format!("{LEFT_OUT}{KEEPS}");
        // In this life and after a restart, where only the disk tells.
        for good in [Some(&new[..]), None] {
            let on_disk = [before.clone(), stuck.clone()];
            check(&new, good, Some(&on_disk), &want, &keeps);
            // Whatever way the same weights are written there.
            let plain = [host("blog", "100", "0"), before.clone()];
            check(&new, good, Some(&plain), &want, KEEPS);
        }
        // The very first time it has its own.
        check(&new, None, None, &want, KEEPS);
        // An anchor that nothing refers to is in nobody's way.
        let free = host("blog", "&every 100", "0");
        let want = [now, host("blog", "&every 90", "10")];
        let on_disk = [before, stuck];
        check(&[own, free], None, Some(&on_disk), &want, "");
    }

    #[test]
    fn where_its_weights_are_others_on_disk_the_last_good_text_stays_and_follows() {
        let stuck = [
            host("blog", "&all 100", "&none 0"),
            host("shop", "50", "50"),
        ];
        let good = [host("blog", "100", "0"), host("shop", "1", "1")];
        let on_disk = [host("blog", "80", "20"), host("shop", "99", "1")];
        let want = [host("blog", "90", "10"), host("shop", "95", "5")];
        let said = format!("{LEFT_OUT}{STAYS}").replace("line 8", "line 5");
        check(&stuck, Some(&good), Some(&on_disk), &want, &said);
        // After a restart the one on disk is it.
        check(&stuck, None, Some(&on_disk), &want, &said);
        // In what is good by now the route is new, so it is not known.
        let more = [
            stuck[0].clone(),
            stuck[1].clone(),
            stuck[0].replace("&all ", "").replace("&none ", ""),
        ];
        check(&more, Some(&good), Some(&on_disk), &want, STAYS);
        // Even on disk it cannot be edited: it stays, and the other follows.
        let odd = [host("blog", "&all 80", "&none 20"), host("shop", "99", "1")];
        let want = [odd[0].clone(), host("shop", "95", "5")];
        check(&stuck, None, Some(&odd), &want, STAYS);
    }

    #[test]
    fn equal_routes_are_told_apart_by_their_order() {
        let stuck = |weights: [&str; 2]| {
            host("blog", &format!("&all {}", weights[0]), "&none 0")
                + &host("blog", weights[1], "*none")
        };
        let new = [stuck(["100", "60"])];
        let same = [host("blog", "100", "0") + &host("blog", "60", "0")];
        check(&new, None, Some(&same), &new, KEEPS);
        let swapped = [host("blog", "60", "0") + &host("blog", "100", "0")];
        let want = [host("blog", "90", "10") + &host("blog", "90", "10")];
        check(&new, None, Some(&swapped), &want, STAYS);
    }

    #[test]
    fn another_configmaps_text_is_nobodys_last_good_one() {
        let stuck = host("blog", "&all 100", "&none 0");
        let [new, want] = ["1", "95"].map(|shop| {
            let rest = if shop == "1" { "1" } else { "5" };
            text(&[stuck.clone(), host("shop", shop, rest)])
        });
        let other = set_of("other", &text(&[host("blog", "80", "20")]));
        let (set, kept, said) = merged(&new, [[95, 5], [90, 10]], &other, Some(&other));
        assert_eq!(set, set_of("envoy", &want));
        assert!(
            said.contains("such a route goes out with its text's weights"),
            "{said}"
        );
        assert_eq!(kept, set_of("envoy", &new));
    }

    #[test]
    fn a_file_that_cannot_be_read_to_its_end_keeps_its_last_good_text() {
        let bad = text(&[host("shop", "50", "50")]) + "x: [1\n";
        let own = set_of("envoy", &text(&[host("shop", "99", "1")]));
        let want = set_of("envoy", &text(&[host("shop", "95", "5")]));
        let none = Snapshot::new();
        for (good, on_disk) in [(&own, None), (&own, Some(&own)), (&none, Some(&own))] {
            let (set, _, said) = merged(&bad, [[95, 5], [1, 1]], good, on_disk);
            assert_eq!(set, want, "{said}");
            assert!(said.contains(STAYS), "{said}");
        }
        let (set, kept, _) = merged(&bad, [[95, 5], [1, 1]], &none, Some(&set_of("envoy", &bad)));
        assert_eq!((set, kept.len()), (set_of("envoy", &bad), 0));
    }

    /// A text that no encoding but UTF-8 writes in its bytes.
    fn encoded(encoding: Encoding, mark: &str, primary: &str, canary: &str) -> Vec<u8> {
        let hosts = [host("shop", primary, canary)];
        encoding.encode(format!("{mark}# gr\u{f6}\u{df}e\n{}", text(&hosts)))
    }

    /// Returns what becomes of file `name`, and what is said.
    fn merged_bytes(name: &str, bytes: Vec<u8>) -> (Vec<u8>, String) {
        let name = FileName::new(name).unwrap();
        let file = set_of("envoy", "").into_values().next().unwrap();
        let bytes = Bytes::from(bytes);
        let set = Snapshot::from([(name.clone(), File { bytes, ..file })]);
        let split = split("shop", [95, 5]);
        let done = Merge::new(&[&split], "cluster.local", set).finish(&Snapshot::new(), None);
        let warnings: Vec<String> = done.warnings.into_iter().collect();
        (done.set[&name].bytes.to_vec(), warnings.join("\n"))
    }

    #[test]
    fn a_text_is_merged_in_the_encoding_that_it_is_in() {
        let sides = [true, false];
        let wide = sides.map(|little| Encoding::Utf16 { little });
        let wider = sides.map(|little| Encoding::Utf32 { little });
        for (encoding, mark) in [(Encoding::Utf8, ""), (Encoding::Latin1, "")]
            .into_iter()
            .chain(wide.map(|encoding| (encoding, "")))
            .chain(wide.map(|encoding| (encoding, "\u{feff}")))
            .chain(wider.map(|encoding| (encoding, "")))
            .chain(wider.map(|encoding| (encoding, "\u{feff}")))
        {
            let before = encoded(encoding, mark, "100", "0");
            assert_eq!(yaml::decode(&before).1, encoding);
            let want = encoded(encoding, mark, "95", "5");
            let found = merged_bytes("a.yaml", before);
            assert_eq!(found, (want, String::new()), "{encoding:?} {mark:?}");
        }
    }

    #[test]
    fn what_is_not_utf_8_and_cannot_be_written_back_is_named() {
        let utf16 = || encoded(Encoding::Utf16 { little: true }, "", "100", "0");
        // Half of a surrogate pair, and half a unit.
        let half_pair = [utf16(), vec![b'#', 0, 0, 0xd8, b'\n', 0]].concat();
        let half_unit = [utf16(), vec![b'#']].concat();
        let json = r#"{"resources":[{"virtual_hosts":[{"name":"shop","routes":[{"route":
            {"weighted_clusters":{"clusters":[{"name":"a","weight":1}]}}}]}]}],"x":"\u{f6}"}"#;
        let json = Encoding::Latin1.encode(json.replace("\\u{f6}", "\u{f6}"));
        for (name, bytes) in [
            ("a.yaml", half_pair),
            ("a.yaml", half_unit),
            ("a.json", json),
        ] {
            let (found, warnings) = merged_bytes(name, bytes.clone());
            assert_eq!(found, bytes);
            let said = format!("default/envoy {name}: line 0: it is not UTF-8");
            assert!(warnings.contains(&said), "{warnings}");
        }
    }
}
