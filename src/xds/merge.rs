//! Merges weights into a set of files. Pure. Owns: which objects count, which text a file
//! goes out with where weights cannot be merged into all of it, and the warnings about that.

mod changes;
mod tried;

use crate::snapshot::{Bytes, File, FileName, ObjectName, Snapshot};
use crate::sorted::{SortedMap, SortedSet};
use crate::xds::weights::{HostWeights, Matches, WeightSource, resolve_conflicts};
pub use changes::{WeightTable, describe};
use tried::Tried;

/// Merges weights into a set of files, and collects what is found on the way.
pub struct Merge<'s> {
    inputs: Vec<Input<'s>>,
    /// The cluster's domain.
    domain: &'s str,
    done: Done,
    /// Files with routes that cannot be edited.
    undecided: Vec<(FileName, Tried)>,
}

/// An object that counts.
struct Input<'s> {
    weights: &'s HostWeights,
    /// Its matches in all files so far.
    matches: Matches,
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
    /// The routes that follow an object.
    pub changes: WeightTable,
    /// The warnings about it.
    pub warnings: Warnings,
}

/// The warnings about a merge.
#[derive(Default)]
pub struct Warnings {
    /// The texts, by what they are about.
    pub texts: SortedMap<Subject, SortedSet<String>>,
    /// True if it is known what each object found: no file goes out without weights.
    pub are_inputs_judged: bool,
}

/// The subject of a warning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A file of a ConfigMap.
    File { object: ObjectName, file: FileName },
    /// An object that holds weights.
    Weights(WeightSource),
}

impl Subject {
    fn file(object: &ObjectName, file: &FileName) -> Subject {
        Subject::File {
            object: object.clone(),
            file: file.clone(),
        }
    }
}

impl Warnings {
    fn add(&mut self, subject: Subject, text: String) {
        self.texts.get_or_insert_default(subject).insert(text);
    }
}

impl<'s> Merge<'s> {
    /// Merges the weights of `inputs` into `set`, as far as that can be done without knowing what
    /// was published before. Of several TrafficSplits for one service, the first counts.
    pub fn new(inputs: &[&'s HostWeights], domain: &'s str, set: Snapshot) -> Merge<'s> {
        let (first, later) = resolve_conflicts(inputs, domain);
        let mut warnings = Warnings {
            texts: SortedMap::new(),
            are_inputs_judged: true,
        };
        for (loser, winner) in later {
            let HostWeights { source, hosts, .. } = inputs[loser];
            let service = hosts.first().map_or("", |host| &host.name);
            let winner = &inputs[winner].source.name;
            let text = format!("{source} is not applied: {winner} is for {service} too");
            warnings.add(Subject::Weights(source.clone()), text);
        }
        let input = |weights: &&'s HostWeights| Input {
            weights,
            matches: Matches::none(weights),
        };
        let mut merge = Merge {
            inputs: first.iter().map(input).collect(),
            domain,
            done: Done {
                warnings,
                ..Done::default()
            },
            undecided: Vec::new(),
        };
        if merge.inputs.is_empty() {
            merge.done.set = set;
            return merge;
        }
        for (name, file) in set {
            let tried = Tried::new(&name, file, &first, domain);
            if tried.is_whole() {
                merge.take(name, tried);
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
        if self.done.warnings.are_inputs_judged {
            for Input { weights, matches } in &self.inputs {
                for warning in matches.warnings(weights) {
                    let subject = Subject::Weights(weights.source.clone());
                    self.done.warnings.add(subject, warning.to_string());
                }
            }
        }
        self.done
    }

    /// Decides about a file with routes that cannot be edited. Their weights stay what they are on
    /// disk: the file's new text goes out if it has the same ones, else the last known good text
    /// stays, and follows the objects.
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
        let reasons = tried.reasons();
        if tried.merged.is_ok() && shown.is_none_or(|shown| tried.keeps(&name, shown)) {
            self.tell(
                &object,
                &name,
                reasons,
                "such a route keeps its text's weights",
            );
            return self.take(name, tried);
        }
        let inputs: Vec<&HostWeights> = self.inputs.iter().map(|input| input.weights).collect();
        let earlier = |file: Option<File>| {
            let earlier = Tried::new(&name, file?, &inputs, self.domain);
            earlier.merged.is_ok().then_some(earlier)
        };
        let last =
            earlier(latest).filter(|last| shown.is_none_or(|shown| last.keeps(&name, shown)));
        // What was published without weights, because there was nothing better, does not count as
        // last known good.
        if let Some(last) = last.or_else(|| earlier(disk)) {
            self.tell(&object, &name, reasons, "the file's last good text stays");
            self.done.behind.push(object);
            return self.take(name, last);
        }
        if tried.merged.is_ok() {
            self.tell(
                &object,
                &name,
                reasons,
                "such a route goes out with its text's weights",
            );
            return self.take(name, tried);
        }
        self.tell(
            &object,
            &name,
            reasons,
            "the file goes out with its own weights",
        );
        self.done.behind.push(object);
        // What an object found is not all there is for it.
        self.done.warnings.are_inputs_judged = false;
        self.done.set.insert(name, tried.file);
    }

    /// Takes a file as it was merged.
    fn take(&mut self, name: FileName, tried: Tried) {
        if let Ok(merged) = &tried.merged {
            for (input, found) in self.inputs.iter_mut().zip(&merged.applied) {
                input.matches.add(found);
            }
        }
        self.done.take(name, tried);
    }

    fn tell(&mut self, object: &ObjectName, name: &FileName, reasons: Vec<String>, what: &str) {
        for reason in reasons {
            let text = format!("weights cannot be merged into {object} {name}: {reason}: {what}");
            self.done.warnings.add(Subject::file(object, name), text);
        }
    }
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
        let texts = merged.warnings.iter().map(ToString::to_string);
        let more = match merged.more_warnings {
            0 => None,
            more => Some(format!("{more} more warnings of the kind")),
        };
        for text in texts.chain(more) {
            let text = format!("{object} {name}: {text}");
            self.warnings.add(Subject::file(object, &name), text);
        }
        self.changes.add(&name, merged.changes, merged.more_changes);
        let bytes = match merged.text {
            Some(text) => Bytes::from(encoding.encode(text)),
            None => file.bytes.clone(),
        };
        let origin = file.origin.clone();
        self.good.insert(name.clone(), file);
        self.set.insert(name, File { bytes, origin });
    }
}

#[cfg(test)]
mod tests;
