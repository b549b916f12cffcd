//! What the operator reads of Envoy's verdicts. Owns: the log lines.

use std::time::{Duration, SystemTime};

use log::{debug, info, warn};

use super::{App, Verdicts};
use crate::envoy::acceptance::{Event, RefusedFile, SetId};
use crate::snapshot::{FileName, ObjectName};

/// What was told, as far as it matters later.
#[derive(Default)]
pub struct Told {
    /// Why the set on disk is refused.
    pub reason: Option<String>,
    /// The files that nobody asks for.
    unread: Vec<FileName>,
}

impl App {
    /// Logs what has happened, once it is done.
    pub(super) fn tell_verdicts(&mut self) {
        let Some(verdicts) = &mut self.verdicts else {
            return;
        };
        let Some(acceptance) = &mut verdicts.acceptance else {
            return;
        };
        if acceptance.goes_back() {
            return;
        }
        let visible = self.output.visible().unwrap_or_default();
        for event in acceptance.take_events() {
            verdicts.tell(event, visible);
        }
        verdicts.taken_back = None;
    }
}

impl Verdicts {
    fn tell(&mut self, event: Event, visible: SetId) {
        match event {
            Event::Accepted(set) => {
                debug!(set; "accepted by Envoy");
                self.told.reason = None;
                self.accepted.clone_from(&self.visible);
            }
            Event::AcceptedAgain(objects) => {
                let configmap = join(&objects);
                info!(configmap; "accepted again by Envoy");
            }
            Event::Refused {
                what,
                reason,
                restores,
                again,
            } => self.tell_refused(&what, reason, restores.is_some(), again, visible),
            Event::NotTheCause => {
                warn!(set = visible; "Envoy refuses the set before, too; publishing what the cluster has");
            }
            Event::Killed { objects, restores } => {
                let configmap = join(&objects);
                match restores {
                    Some(_) => warn!(configmap, set = visible;
                        "Envoy has ended with these contents before it had taken them; restored the last accepted set"),
                    None => warn!(configmap;
                        "Envoy has ended with these contents before it had taken them; there is no accepted set to restore"),
                }
            }
            Event::Unknown { envoy, why } => {
                let envoy = self.envoys.get(envoy).map_or("", |port| port.text.as_str());
                warn!(envoy, error = why; "it cannot be known whether Envoy takes its files; publishing all the same");
            }
            Event::NotRead(files) => {
                for file in files {
                    if !self.told.unread.contains(&file) {
                        info!(file:% = file; "Envoy does not ask for this file");
                        self.told.unread.push(file);
                    }
                }
            }
            Event::StillWarming(set) => {
                warn!(set; "new clusters are not warm after 15 s; publishing their routes (look at DNS and health checks)");
            }
            Event::ListenersStillWarming(set) => {
                warn!(set; "new listeners are not warm after 15 s; going on without them (look at where they have routes and secrets from)");
            }
            Event::UnknownFields { count, files } => {
                let file = join(&files);
                warn!(file, count; "Envoy has ignored unknown fields; look for a typo");
            }
        }
    }

    fn tell_refused(
        &mut self,
        what: &[RefusedFile],
        reason: Option<String>,
        is_back: bool,
        again: bool,
        visible: SetId,
    ) {
        let step = self.taken_back.as_ref();
        let (held_by, committed) =
            step.map_or((&self.held_by, self.committed), |(files, at)| (files, *at));
        let why = reason.unwrap_or_else(|| {
            let time = time_of_day(committed);
            format!("Envoy's log of {time} has the reason")
        });
        let files: Vec<&FileName> = what.iter().flat_map(|it| &it.files).collect();
        let objects: Vec<&ObjectName> = what.iter().flat_map(|it| &it.objects).collect();
        let mut versions: Vec<&str> = Vec::new();
        for held in files.iter().filter_map(|name| held_by.get(*name)) {
            let version = held.origin.resource_version.0.as_str();
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
        let (file, configmap) = (join(unique(files)), join(unique(objects)));
        let resource_version = join(versions);
        let counter = join(what.iter().map(|it| it.counter.as_str()));
        let level = if again {
            log::Level::Info
        } else {
            log::Level::Warn
        };
        let message = match (is_back, self.restores) {
            (true, _) => "refused by Envoy; restored the last accepted set",
            (false, true) => "refused by Envoy; it stays, as there is no accepted set to restore",
            (false, false) => "refused by Envoy; it stays",
        };
        log::log!(level, file, configmap, resource_version, counter, set = visible, error = why; "{message}");
        self.told.reason = Some(why);
    }
}

fn unique<T: PartialEq>(all: Vec<T>) -> Vec<T> {
    let mut unique = Vec::new();
    for it in all {
        if !unique.contains(&it) {
            unique.push(it);
        }
    }
    unique
}

fn join(texts: impl IntoIterator<Item = impl ToString>) -> String {
    let texts: Vec<String> = texts.into_iter().map(|text| text.to_string()).collect();
    texts.join(",")
}

/// Returns the time of day, as Envoy's log has it.
fn time_of_day(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or(Duration::ZERO);
    let (seconds, millis) = (since.as_secs() % 86_400, since.subsec_millis());
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{millis:03}", seconds % 60)
}
