//! Notes when a listener changed last, for the run after this one: connections of the older listener
//! may go on for a long time, and need their clusters. Owns: the link `moved`, whose own time is that
//! moment. Must not: know which files have listeners.

use std::time::Duration;

use super::OutputDirectory;
use super::stage::Staged;
use crate::output::disk::age_of;
use crate::output::step::Step;

impl OutputDirectory {
    /// Notes that a listener changes with the set that is about to be committed. A failure stops
    /// nothing: it counts only if this run ends while connections go on with the older one.
    pub(super) fn note_move(&mut self, step: &Step, staged: &Staged) {
        if step.moves_listener {
            let moved = self.at.moved.clone();
            let _ = self.replace_with_link(&staged.number.to_string(), &moved);
        }
    }

    /// Returns how long ago a listener changed last, in this run or an earlier one; zero if Envoy
    /// may not have been told of it yet.
    pub fn listener_moved_ago(&self) -> Option<Duration> {
        let with = self.on_disk().numbered(&self.at.moved).ok()??;
        let found = self.disk.lstat(&self.at.moved).ok()??;
        let active = self.inventory.visible.active();
        let is_untold = active.is_some_and(|it| it.number == with && !it.is_announced());
        Some(if is_untold {
            Duration::ZERO
        } else {
            age_of(&found)
        })
    }
}
