//! The loop: the one thread's one wait, and the only owner of mutable state. Owns: the order in
//! which things happen. It does not know bytes, YAML or paths.
//!
//! A turn: wait for input or a deadline, read what has arrived, publish once nothing more is
//! waiting, then make at most one request.

mod child;
mod notes;
mod once;
mod order;
mod pending;
mod publish;
mod readiness;
mod reminder;
mod report;
mod sequence;
mod split_gate;
mod start;
mod task;
mod verdict;

use std::time::{Duration, Instant};

use log::info;
use rustix::event::{PollFd, PollFlags};

use crate::cli::Patience;
use crate::error::Error;
use crate::kube::health::ApiServer;
use crate::net::response::Response;
use crate::output::Output;
use crate::poll::{self, Changed};
use crate::process::signals::{Signals, Wakeup};
use child::ChildState;
use notes::Notes;
use pending::{Deferred, Pending};
use publish::LastPublish;
use readiness::Readiness;
use report::Progress;
use sequence::Sequence;
use split_gate::SplitGate;
pub use start::run;
use task::{Ctx, Tasks};
use verdict::Verdicts;

/// A time that is longer than any request takes.
const LONGEST_REQUEST: Duration = Duration::from_secs(60);

struct App {
    /// The time to try before giving up; `Some` if one publish is all there is to do.
    once: Option<Patience>,
    signals: Signals,
    server: ApiServer,
    /// The domain that names of services in virtual hosts may end with.
    cluster_domain: String,
    tasks: Tasks,
    split_gate: SplitGate,
    /// The time since which nothing but objects with weights has held up the first publish.
    splits_since: Instant,
    /// The time at which to see whether it waits for them any longer.
    splits_until: Instant,
    output: Output,
    sequence: Sequence,
    /// Envoy's verdicts; `None` if it is not asked for any.
    verdicts: Option<Box<Verdicts>>,
    pending: Pending,
    deferred: Deferred,
    /// The visible part of a change whose routes wait.
    progress: Option<Progress>,
    last: LastPublish,
    notes: Notes,
    readiness: Readiness,
    /// True once the log has said that readers cannot be seen.
    told_unwatched: bool,
    started: Instant,
    child: ChildState,
}

impl App {
    fn run(mut self) -> Result<u8, Error> {
        loop {
            let now = Instant::now();
            if self.output.open(now)? {
                if let Some(ago) = self.output.listener_moved_ago() {
                    self.sequence.recall_listener(ago, now);
                }
                self.pending.mark(now);
            }
            self.tick(now);
            self.drive_verdicts(now)?;
            if let Some(since) = self.pending.take_due(now) {
                self.publish(since, now)?;
                self.pending.published(now.elapsed());
                self.drive_verdicts(Instant::now())?;
            }
            // What has just been read is published, or replaced by files of a previous run, before
            // it is judged.
            if self.once.is_some() && !self.pending.is_dirty() && self.try_finish(now)? {
                return Ok(0);
            }
            self.write_heartbeat();
            self.drive_child(now)?;
            let mirroring = !self.tasks.are_mirrors_settled();
            self.request(now);
            if self.once.is_some() && mirroring && self.tasks.are_mirrors_settled() {
                // That was the last thing to do, and no input would end a wait.
                continue;
            }
            match self.wait()? {
                None => {}
                Some(Wakeup::DrainRequested) => self.drain(),
                Some(Wakeup::Shutdown) => {
                    self.end_verdicts();
                    self.output.shut_down();
                    info!("stopped by a signal");
                    return Ok(0);
                }
                Some(Wakeup::ChildExited(code)) => {
                    self.output.shut_down();
                    info!(code; "command exited");
                    return Ok(code);
                }
            }
            self.read();
        }
    }

    /// Reads what has arrived.
    fn read(&mut self) {
        self.hear_readers(Instant::now());
        self.hear_envoys(Instant::now());
        let (tasks, mut ctx) = self.tasks_at(Instant::now());
        if tasks.on_readable(&mut ctx) == Changed::Yes {
            self.pending.mark(Instant::now());
        }
    }

    fn tasks_at(&mut self, now: Instant) -> (&mut Tasks, Ctx<'_>) {
        let ctx = Ctx {
            now,
            api: &mut self.server,
            output: &mut self.output,
            is_busy: self.pending.is_busy(now),
        };
        (&mut self.tasks, ctx)
    }

    /// Waits for input or the next deadline. Returns what a signal asks for, if one interrupted it.
    fn wait(&mut self) -> Result<Option<Wakeup>, Error> {
        let mut deadline = self.deadline(self.server.next_try());
        let mut tasks = self.tasks.all();
        let mut responses: Vec<&mut Response> =
            tasks.iter_mut().flat_map(|task| task.responses()).collect();
        if self.pending.is_dirty() || responses.iter().any(|response| response.readable) {
            deadline = Some(Instant::now());
        }
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(
            responses
                .iter()
                .map(|response| PollFd::new(&**response, PollFlags::IN)),
        );
        let readers = self.output.reads();
        fds.extend(readers.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(self.verdicts.iter().flat_map(|verdicts| verdicts.fds()));
        poll::wait(&mut fds, deadline).map_err(|source| Error::System {
            what: "wait for input",
            source,
        })?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (response, ready) in responses.iter_mut().zip(&ready[1..]) {
            response.readable |= *ready;
        }
        let is_drained = responses.iter().all(|response| !response.readable);
        self.pending.waited(is_drained);
        Ok(self.signals.dispatch())
    }

    /// Returns when something is due without input. Requests may go out from `permitted` on.
    fn deadline(&self, permitted: Option<Instant>) -> Option<Instant> {
        let splits = self.waits_for_splits().then_some(self.splits_until);
        // That requests are permitted is not a reason to turn where none is wanted.
        let tasks = self.tasks.deadline(permitted);
        let next = tasks
            .into_iter()
            .chain(splits)
            .chain(self.server.next_notice())
            .chain(self.output.deadline())
            .chain(
                self.deferred
                    .deadline()
                    .filter(|_| !self.sequence.is_listening()),
            )
            .chain(self.sequence.deadline())
            .chain(self.verdicts.as_ref().and_then(|it| it.deadline()))
            .chain(self.readiness.deadline())
            .chain(self.child.deadline())
            .chain(self.signals.deadline());
        next.chain(self.patience_ends()).min()
    }

    fn tick(&mut self, now: Instant) {
        self.server.tick(now);
        self.readiness.tick(now);
        self.report_blocked(now);
        self.tick_sequence(now);
        // Syncing reads files, and would be taken for Envoy.
        if !self.sequence.is_listening() && self.deferred.take_due(now) {
            self.run_deferred_checks(now);
            self.sync(now);
        }
        let (tasks, mut ctx) = self.tasks_at(now);
        if tasks.on_time(&mut ctx) == Changed::Yes {
            self.pending.mark(now);
        }
        self.tick_split_gate(now);
        if self.output.check(now) || self.output.take_due_retry(now) {
            self.pending.mark(now);
        }
    }

    fn run_deferred_checks(&mut self, now: Instant) {
        self.tasks
            .sources_mut()
            .for_each(|source| source.run_deferred_checks(now));
    }

    fn request(&mut self, now: Instant) {
        if self.pending.is_dirty() || !self.server.permits(now) {
            return;
        }
        if self.server.is_slow(now) {
            // What is due without a request must not wait for a slow answer.
            self.server
                .return_by(self.deadline(Some(now + LONGEST_REQUEST)));
        }
        let (tasks, mut ctx) = self.tasks_at(now);
        tasks.request(&mut ctx);
    }
}
