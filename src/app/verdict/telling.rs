//! The reports of Envoy's verdicts to the operator. Owns: the log lines.

use log::Level;
use log::kv::Value;

use super::{App, Verdicts};
use crate::envoy::acceptance::{Event, RefusedFile, SetId};
use crate::envoy::reason::timestamp;
use crate::logging::event;
use crate::snapshot::FileName;

/// The reports that matter later.
#[derive(Default)]
pub struct Told {
    /// The files of the set on disk that were refused last, and why.
    pub reason: Option<(Vec<FileName>, String)>,
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
        // That it cannot be taken back yet is told, too.
        let is_stuck = acceptance.goes_back() && self.output.failure().is_some();
        if acceptance.goes_back() && !is_stuck {
            return;
        }
        let visible = self.output.visible().unwrap_or_default();
        for event in acceptance.take_events() {
            verdicts.tell(event, visible, is_stuck);
        }
        verdicts.taken_back = None;
    }
}

impl Verdicts {
    /// Logs an event; `is_stuck`: the set that it brings back cannot be written now.
    fn tell(&mut self, it: Event, visible: SetId, is_stuck: bool) {
        let set = ("set", Value::from(visible));
        match it {
            Event::Accepted(_) => {
                let message = "accepted by Envoy";
                event(Level::Debug, message, &[set]);
                self.told.reason = None;
                self.accepted.clone_from(&self.visible);
            }
            Event::AcceptedInPart => self.accepted.clone_from(&self.visible),
            Event::AcceptedAgain(objects) => {
                let message = "accepted again by Envoy";
                let configmap = join(&objects);
                event(
                    Level::Info,
                    message,
                    &[("configmap", configmap.as_str().into())],
                );
            }
            Event::Refused {
                what,
                reason,
                restores,
                again,
            } => {
                let is_back = restores.map(|_| !is_stuck);
                self.tell_refused(&what, reason, is_back, again, visible);
            }
            Event::NotTheCause => {
                let message = "Envoy refuses the set before, too; publishing what the cluster has";
                event(Level::Warn, message, &[set]);
            }
            Event::Killed { objects, restores } => {
                let message = match restores.map(|_| !is_stuck) {
                    Some(true) => {
                        "Envoy or crossover has ended before Envoy had taken these contents; restored the last accepted set"
                    }
                    Some(false) => {
                        "Envoy or crossover has ended before Envoy had taken these contents; the last accepted set follows once the output directory can be written"
                    }
                    None => {
                        "Envoy or crossover has ended before Envoy had taken these contents; there is no accepted set to restore"
                    }
                };
                let configmap = join(&objects);
                event(
                    Level::Warn,
                    message,
                    &[("configmap", configmap.as_str().into()), set],
                );
            }
            Event::Unknown { envoy, why } => {
                let message = "it cannot be known whether Envoy takes its files; going on without";
                let envoy = self.envoys.get(envoy).map_or("", |port| port.text.as_str());
                let fields = [("envoy", envoy.into()), ("error", why.as_str().into())];
                event(Level::Warn, message, &fields);
            }
            Event::KnownAgain { envoy } => {
                let message = "it is known again whether Envoy takes its files";
                let envoy = self.envoys.get(envoy).map_or("", |port| port.text.as_str());
                event(Level::Info, message, &[("envoy", envoy.into())]);
            }
            Event::NotRead(files) => {
                let message = "Envoy does not ask for this file";
                for file in files {
                    if !self.told.unread.contains(&file) {
                        event(Level::Info, message, &[("file", file.as_str().into())]);
                        self.told.unread.push(file);
                    }
                }
            }
            Event::StillWarming(_) => {
                let message = "new clusters are not warm after 15 s; publishing their routes (look at DNS and health checks)";
                event(Level::Warn, message, &[set]);
            }
            Event::ListenersStillWarming(_) => {
                let message = "new listeners are not warm after 15 s; going on without them (look at where they have routes and secrets from)";
                event(Level::Warn, message, &[set]);
            }
            Event::UnknownFields { count, files } => {
                let message = "Envoy has ignored unknown fields; look for a typo";
                let file = join(&files);
                event(
                    Level::Warn,
                    message,
                    &[("file", file.as_str().into()), ("count", count.into())],
                );
            }
        }
    }

    fn tell_refused(
        &mut self,
        what: &[RefusedFile],
        reason: Option<String>,
        is_back: Option<bool>,
        again: bool,
        visible: SetId,
    ) {
        let step = self.taken_back.as_ref();
        let (held_by, committed) =
            step.map_or((&self.held_by, self.committed), |(files, at)| (files, *at));
        let why = reason.unwrap_or_else(|| {
            let time = timestamp(committed);
            let time = time.split_once('T').map_or("", |(_, time)| time);
            format!("Envoy's log of {time} has the reason")
        });
        let (mut files, mut objects) = (Vec::new(), Vec::new());
        let (mut versions, mut counters) = (Vec::new(), Vec::new());
        for refused in what {
            for file in &refused.files {
                add(&mut files, file.as_str().to_owned());
                if let Some(held) = held_by.get(file) {
                    add(&mut versions, held.origin.resource_version.0.clone());
                }
            }
            for object in &refused.objects {
                add(&mut objects, object.to_string());
            }
            add(&mut counters, refused.counter.clone());
        }
        let [files, objects, versions, counters] =
            [files, objects, versions, counters].map(|all| all.join(","));
        let level = match again {
            true => Level::Info,
            false => Level::Warn,
        };
        let message = match (is_back, self.restores) {
            (Some(true), _) => "refused by Envoy; restored the last accepted set",
            (Some(false), _) => {
                "refused by Envoy; the last accepted set follows once the output directory can be written"
            }
            (None, true) => "refused by Envoy; it stays, as there is no accepted set to restore",
            (None, false) => "refused by Envoy; it stays",
        };
        let fields = [
            ("file", files.as_str().into()),
            ("configmap", objects.as_str().into()),
            ("resource_version", versions.as_str().into()),
            ("counter", counters.as_str().into()),
            ("set", visible.into()),
            ("error", why.as_str().into()),
        ];
        event(level, message, &fields);
        if is_back.is_none() {
            let files = what
                .iter()
                .flat_map(|refused| refused.files.iter().cloned());
            self.told.reason = Some((files.collect(), why));
        }
    }
}

/// Adds what is not there yet.
fn add(all: &mut Vec<String>, text: String) {
    if !all.contains(&text) {
        all.push(text);
    }
}

fn join(texts: impl IntoIterator<Item = impl ToString>) -> String {
    let texts: Vec<String> = texts.into_iter().map(|text| text.to_string()).collect();
    texts.join(",")
}
