//! `-onetime`: when all is done, and when patience ends.

use std::time::{Duration, Instant};

use super::Loop;
use crate::error::Error;
use crate::source::config_map::Source;

/// How long to try in all.
const ONCE_IN_ALL: Duration = Duration::from_secs(60);
/// How long a missing ConfigMap, a 401 or a 403 may last; RBAC takes a moment to spread.
const ONCE_DENIED: Duration = Duration::from_secs(5);

impl Loop {
    /// When patience ends.
    pub(super) fn patience(&self) -> Instant {
        let denied = self
            .sources
            .iter()
            .filter_map(|s| Some(s.denied.as_ref()?.0));
        let denied = denied
            .chain(self.server.unauthorized())
            .map(|since| since + ONCE_DENIED);
        denied
            .chain([self.started + ONCE_IN_ALL])
            .min()
            .unwrap_or(self.started)
    }

    /// Whether all is done. An error, when it cannot be or patience has ended.
    pub(super) fn is_finished(&mut self, now: Instant) -> Result<bool, Error> {
        for Source {
            object,
            content,
            refused,
            ..
        } in &self.sources
        {
            // `recall` has had its chance: the output is held before anything is read of it.
            if let (None, Some(why), true) = (content, refused, self.output.is_open()) {
                return Err(Error::Refused {
                    object: object.clone(),
                    why: why.clone(),
                });
            }
        }
        let denied = self.sources.iter().any(|source| source.denied.is_some());
        // Where the splits cannot be had, a whole set on disk is enough to start an Envoy with.
        let stays = self.gave_up_splits && !self.goes_without_splits;
        if (self.in_step || stays) && !denied {
            self.sources.iter_mut().for_each(Source::ask_twice);
            // They are for people: nobody waits for ever for them.
            return Ok(self.mirrors_are_settled() || now >= self.patience());
        }
        if now < self.patience() {
            return Ok(false);
        }
        let denied = self.sources.iter_mut().find_map(|s| s.denied.take());
        Err(denied
            .map(|(_, error)| error)
            .or_else(|| self.server.take_failure())
            .or_else(|| self.output.take_failure())
            .unwrap_or(Error::System {
                what: "publish in time",
                source: std::io::ErrorKind::TimedOut.into(),
            }))
    }
}
