//! The storm's pauses: the server is well, nothing changes, and the disk has to become what the
//! cluster says.

use super::follower::SYNC;
use super::storm::Storm;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// In a pause, at worst all of this comes one after the other: the longest back-off of the
/// server's, a look whose answer stalls, the next one, what it is given until it is believed, the
/// longest back-off of the object's, a list without an answer, the weights of a split that is gone.
pub(super) const PAUSE_WITHIN: Duration =
    Duration::from_secs(10 + 10 + 2 * SYNC.as_secs() + 2 + 30 + 5 + 10);
/// And what is usual.
const CALM_USUALLY: Duration = Duration::from_secs(40);
/// What is not there by then never comes.
const HOPELESS: Duration = Duration::from_secs(180);

impl Storm {
    /// For who wants to know why.
    fn keep_logs(&self) {
        for follower in &self.followers {
            let path = std::env::temp_dir().join(format!("soak-{}.log", follower.name));
            let text = follower.lines().join("\n");
            if fs::write(&path, text).is_ok() {
                self.report.say("storm", format!("log: {}", path.display()));
            }
        }
    }

    /// The server is well again, and quiet: now the disk has to become what the cluster says.
    pub(super) fn pause(&mut self) {
        while !self.strikes.is_empty() {
            self.heal(0);
        }
        let began = Instant::now();
        let mut waiting: Vec<usize> = (0..self.followers.len()).collect();
        let (mut unusual, mut late) = (false, false);
        while !waiting.is_empty() && !self.stop.is_set() {
            let mut why = String::new();
            waiting.retain(|&at| {
                let follower = &mut self.followers[at];
                let differs = match follower.snapshot(&self.world) {
                    Err(wrong) => Some(wrong),
                    Ok(found) => {
                        let world = self.world.lock().expect("no panic");
                        let known = follower.knows_own_weights();
                        let differs = world.differs(&found, &self.floors[at], known);
                        if differs.is_none() {
                            self.floors[at] = found;
                        }
                        differs
                    }
                };
                match &differs {
                    None => follower.look_again(&self.world),
                    Some(differs) => why = format!("{}: {differs}", follower.name),
                }
                differs.is_some()
            });
            if began.elapsed() > CALM_USUALLY && !unusual && !waiting.is_empty() {
                unusual = true;
                self.report.say("storm", format!("a pause lasts: {why}"));
                self.keep_logs();
            }
            if began.elapsed() > PAUSE_WITHIN && !late && !waiting.is_empty() {
                late = true;
                let rule = "in a pause the disk equals the cluster in time";
                self.report
                    .violated("storm", rule, format!("after {} changes, {why}", self.made));
            }
            if began.elapsed() > HOPELESS {
                self.report
                    .violated("storm", "in a pause the disk equals the cluster ever", why);
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.pauses.push(began.elapsed());
    }
}
