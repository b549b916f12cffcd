//! What the parts of order and of the verdict are judged by: the requests that failed, and what
//! Envoy has refused.

use super::super::report::{ms, percentile, seconds};
use super::{Part, Soak};
use jiff::Timestamp;
use std::fs;
use std::time::{Duration, Instant};
use testkit::clients::{Clients, Failure};

impl Soak {
    /// What failed, but by Envoy's own death: that gives no answer at all, and one that is started
    /// on a slip, before it is taken back, gives a wrong one.
    pub(super) fn failures(&self) -> Vec<Failure> {
        let excused = |failure: &Failure| {
            let slips = self.part == Part::Verdict;
            self.is_of_a_death(failure) && (slips || !is_answer(failure))
        };
        let tallies = self.clients.iter().map(Clients::tally);
        let failures = tallies.flat_map(|tally| tally.failures);
        failures.filter(|failure| !excused(failure)).collect()
    }

    fn is_of_a_death(&self, failure: &Failure) -> bool {
        let within =
            |[killed, back]: &[Instant; 2]| failure.ended >= *killed && failure.sent <= *back;
        self.deaths.iter().any(within)
    }

    pub(super) fn judge(mut self) {
        if self.stop.is_set() {
            return;
        }
        self.note_refusals();
        self.events.extend(self.crossover.lines());
        let rule = format!("{:?}: requests that failed", self.watching);
        let (answered, failures) = (self.answered(), self.failures());
        self.events.extend(self.refusals.iter().cloned());
        self.events.sort();
        if let Some(first) = failures.first() {
            let at = Timestamp::now() - first.sent.elapsed();
            self.report
                .say(self.part.name(), format!("{at:.3} failed: {}", first.what));
            self.tell_around(at);
        }
        let unwanted = self.refusals.iter().take(3);
        for refusal in unwanted.filter(|_| self.part == Part::Order) {
            self.report
                .say(self.part.name(), format!("refused: {refusal}"));
            let at = refusal.split(' ').next().unwrap_or_default();
            if let Ok(at) = at.parse() {
                self.tell_around(at);
            }
        }
        let said = format!("{} of {answered}", failures.len());
        self.report
            .limit(self.part.name(), &rule, said, failures.is_empty(), "0");
        self.judge_refusals();
        let changes: Vec<String> = self
            .changes
            .iter()
            .map(|(kind, n)| format!("{n} {kind}"))
            .collect();
        self.report.say(
            self.part.name(),
            format!("{:?}: {}", self.watching, changes.join(", ")),
        );
        let faults = format!("{} kills, {} throttles", self.kills, self.throttles);
        self.report.row(
            self.part.name(),
            &format!("{:?}: faults", self.watching),
            faults,
            "",
        );
        self.settle();
    }

    fn judge_refusals(&self) {
        let part = self.part.name();
        let rule = |what: &str| format!("{:?}: {what}", self.watching);
        let refused = self.refused;
        let updates = rule("updates that Envoy refused");
        if self.part == Part::Order {
            self.report
                .limit(part, &updates, refused, refused == 0, "0");
            return;
        }
        self.report.row(part, &updates, refused, "");
        let all: usize = self.changes.values().sum();
        self.report.row(part, &rule("changes"), all, "");
        let slips: usize = self
            .changes
            .iter()
            .filter(|(kind, _)| kind.contains(": "))
            .map(|(_, count)| count)
            .sum();
        self.report.row(part, &rule("of them slips"), slips, "");
        let times = &self.taken_back;
        self.report
            .row(part, &rule("slips left to stand"), times.len(), "");
        for (name, percent) in [("median", 50), ("99 %", 99), ("longest", 100)] {
            let figure = rule(&format!("  told and taken back, {name}"));
            self.report
                .row(part, &figure, ms(percentile(times, percent)), "");
        }
        let tallies = self.clients.iter().map(Clients::tally);
        let failures: Vec<Failure> = tallies.flat_map(|tally| tally.failures).collect();
        let (answers, none): (Vec<&Failure>, Vec<&Failure>) =
            failures.iter().partition(|failure| is_answer(failure));
        let of_deaths = |all: &[&Failure]| all.iter().filter(|it| self.is_of_a_death(it)).count();
        let figure = rule("unanswered as Envoy was killed");
        self.report.row(part, &figure, of_deaths(&none), "");
        let figure = rule("failed in an Envoy started on a slip");
        self.report.row(part, &figure, of_deaths(&answers), "");
    }

    /// Says what happened around this time.
    fn tell_around(&self, at: Timestamp) {
        let [from, to] = [at - Duration::from_secs(4), at + Duration::from_secs(2)];
        let [from, to] = [from, to].map(|at| format!("{at:.3}"));
        let around = self
            .events
            .iter()
            .filter(|event| (&from..&to).contains(event));
        for event in around {
            self.report.say(self.part.name(), event);
        }
    }

    /// Once everything that was kept is dropped, the target stands byte for byte.
    fn settle(&self) {
        let began = Instant::now();
        let files = self.model.files();
        let current = self.dir.path().join("current");
        let stands = || {
            let same = |(name, text): (&String, &String)| {
                fs::read_to_string(current.join(name)).is_ok_and(|found| found == *text)
            };
            files.iter().all(same)
        };
        let longest = Duration::from_secs(30);
        while !stands() && began.elapsed() < longest && self.stop.pause(Duration::from_millis(50)) {
        }
        let rule = format!("{:?}: the target stands after", self.watching);
        let took = began.elapsed();
        self.report.limit(
            self.part.name(),
            &rule,
            seconds(took),
            stands(),
            "30 s at most",
        );
    }
}

/// Whether it has a status.
fn is_answer(failure: &Failure) -> bool {
    failure.what.starts_with(|c: char| c.is_ascii_digit())
}
