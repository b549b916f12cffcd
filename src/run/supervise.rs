//! Who rests on the output. Owns: when it can be rested on, and what is said until then.

use super::Loop;
use crate::error::{Chain, Error};
use crate::probe::READY;
use crate::reconcile::Latest;
use crate::source::Source;

impl Loop {
    /// Tells probes how far it is.
    pub(super) fn tell(&mut self) {
        if self.once {
            return;
        }
        self.ready = self.ready || self.is_ready();
        if self.ready {
            self.output.tell(READY);
        } else {
            self.output.tell(&self.obstacle());
        }
    }

    /// Whether an Envoy can start on what is published: it is what the cluster says, or else a
    /// whole set of an earlier life where the cluster says nothing better.
    fn is_ready(&mut self) -> bool {
        let lost = |source: &Source| matches!(source.latest, Latest::Absent | Latest::Refused);
        let silent = self.patient.is_none() && self.is_unread().is_some();
        let stands = silent || self.sources.iter().any(lost);
        self.in_step || stands && self.output.whole_set().is_some()
    }

    /// What the cluster has not spoken of yet.
    fn is_unread(&self) -> Option<String> {
        let unread = |source: &&Source| source.latest == Latest::Unknown;
        let source = self.sources.iter().find(unread);
        let source = source.map(|source| format!("ConfigMap {}", source.object));
        let unknown = self.smi.as_ref().is_some_and(|smi| !smi.is_known());
        source.or_else(|| unknown.then(|| "a TrafficSplit".to_owned()))
    }

    /// Why nothing is published yet.
    fn obstacle(&self) -> String {
        let error = |error: &Error| Chain(error).to_string();
        let denied = self.sources.iter().find_map(|source| {
            let denied = source.denied.as_ref().map(|(_, denied)| error(denied));
            let refused = source.refused.as_ref();
            denied.or_else(|| Some(format!("refused ConfigMap {}: {}", source.object, refused?)))
        });
        let failure = self.server.failure().or(self.output.failure()).map(error);
        let unread = || Some(format!("{} has not been read yet", self.is_unread()?));
        let obstacle = denied.or(failure).or_else(unread);
        obstacle.unwrap_or_else(|| "what was read is being published".to_owned())
    }
}
