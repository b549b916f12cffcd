//! The loop: the one thread's one wait, and the only owner of mutable state. Owns: the order in
//! which things happen. Must not: know bytes, YAML or paths.
//!
//! A turn: wait for input or a deadline, read what has arrived, publish once nothing more is
//! waiting, then make at most one request.

mod once;
mod pending;
mod publish;
mod readiness;
mod task;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;
use log::{info, warn};
use rustix::event::{PollFd, PollFlags};

use crate::cli::{Config, Patience};
use crate::error::Error;
use crate::kube::auth::Roots;
use crate::kube::circuit_breaker::ReminderSchedule;
use crate::kube::client::Client;
use crate::kube::health::ApiServer;
use crate::kube::list_watch::{RETRY_DENIED, SyncMode};
use crate::kube::object::ObjectKind;
use crate::kube::reflector::Reflector;
use crate::net::resolv_conf;
use crate::net::response::Response;
use crate::output::Output;
use crate::output::mirror::Mirror;
use crate::poll;
use crate::process::child::Drain;
use crate::process::signals::{Signals, Wakeup};
use crate::snapshot::ObjectName;
use crate::source::config_map::ConfigMapSource;
use crate::source::smi::Smi;
use pending::{Deferred, Pending};
use publish::{LastPublish, Notes, SplitGate};
use readiness::PendingChild;
use task::{Changed, ConfigMap, ConfigMapInput, Ctx, Tasks};

/// The service account's CA, where a pod has one.
const CLUSTER_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// How long the API server may take before files of a previous run count as good enough.
const API_SILENCE_GRACE: Duration = Duration::from_secs(10);
/// How often `-onetime` with a timeout of its own lists again.
const ONCE_EVERY: Duration = Duration::from_secs(1);
/// A time that no request takes.
const NO_REQUEST: Duration = Duration::from_secs(60);
/// How long the first publish waits for TrafficSplits to be listed.
const SPLITS_TIMEOUT: Duration = Duration::from_secs(10);

/// Does what `config` asks for, until it is done, a signal comes or the command ends; the exit code.
pub fn run(config: Config, signals: Signals) -> Result<u8, Error> {
    let roots = match &config.ca_file {
        _ if config.insecure => Roots::Insecure,
        Some(path) => Roots::File(path.clone()),
        None if Path::new(CLUSTER_CA).exists() => Roots::File(CLUSTER_CA.into()),
        None => Roots::Public,
    };
    if config.insecure && config.apiserver.starts_with("https:") {
        warn!("the API server's certificate is not verified; -insecure is for tests only");
    }
    // First of all, so that the API server works on the connection meanwhile.
    let token = config.token_file.as_deref();
    let client = Client::new(&config.apiserver, token, roots, signals.clone());
    let names: Vec<String> = config.configmaps.iter().map(ToString::to_string).collect();
    info!(version = env!("CARGO_PKG_VERSION"), apiserver = config.apiserver,
        configmaps = names.join(","); "started");
    let seed = RandomState::new().hash_one(std::process::id());
    let mut rng = Rng::with_seed(seed);
    let server = ApiServer::new(client?, rng.fork());
    App::new(config, server, rng, signals).run()
}

struct App {
    once: bool,
    signals: Signals,
    server: ApiServer,
    /// What names of services in virtual hosts may end with.
    cluster_domain: String,
    tasks: Tasks,
    split_gate: SplitGate,
    output: Output,
    pending: Pending,
    deferred: Deferred,
    last: LastPublish,
    /// What was last warned of.
    notes: Notes,
    /// Whether the output holds what the cluster said last.
    in_sync: bool,
    /// Whether a complete snapshot is known to be on disk, of this run or a previous one.
    stands: bool,
    /// When to report that nothing can be published, while that is so.
    held_up: Option<ReminderSchedule>,
    started: Instant,
    /// An Envoy can start, or could once.
    ready: bool,
    /// Until then the API server may take its time; with `once`, nothing stale will do.
    api_grace_until: Option<Instant>,
    /// The command that has yet to start.
    waiting: Option<PendingChild>,
    drain: Option<Drain>,
    /// When `once` gives up.
    patience: Patience,
}

impl App {
    fn new(config: Config, mut server: ApiServer, mut rng: Rng, signals: Signals) -> App {
        let Config {
            apiserver: _,
            ca_file: _,
            insecure: _,
            token_file: _,
            configmaps,
            output_dir,
            sync,
            sync_interval,
            dry_run,
            splits,
            split_version,
            publish,
            log_json: _,
            wrapped,
            lingers: _,
            patience,
        } = config;
        let now = Instant::now();
        let once = sync == SyncMode::Once;
        let manner = match patience.timeout {
            // There is time to see that what is bad has become good.
            Some(_) if once => SyncMode::Poll(ONCE_EVERY),
            _ => sync,
        };
        server.fixed_retry = (manner == SyncMode::Once).then_some(RETRY_DENIED);
        let smi = Smi::new(
            splits,
            split_version,
            sync_interval,
            manner,
            rng.fork(),
            now,
        );
        let (waiting, drain) = PendingChild::new(wrapped, now);
        let is_mirrored = smi.is_some() && publish && !dry_run;
        let output = if dry_run {
            Output::stdout(smi.is_some())
        } else {
            Output::directory(output_dir, sync_interval, once, rng.fork(), now)
        };
        let configmap = |object: ObjectName| {
            let ObjectName { namespace, name } = object.clone();
            let kind = ObjectKind::ConfigMap;
            ConfigMap {
                mirror: is_mirrored.then(|| Mirror::new(object.clone(), once, rng.fork())),
                input: ConfigMapInput {
                    reflector: Reflector::new(kind, namespace, Some(name), manner, rng.fork(), now),
                    source: ConfigMapSource::new(object),
                },
            }
        };
        App {
            once,
            output,
            tasks: Tasks::new(configmaps.into_iter().map(configmap).collect(), smi),
            signals,
            cluster_domain: resolv_conf::cluster_domain(),
            server,
            split_gate: SplitGate::Waiting,
            pending: Pending::new(now),
            deferred: Deferred::default(),
            last: LastPublish::default(),
            notes: Notes::default(),
            in_sync: false,
            stands: false,
            held_up: None,
            started: now,
            ready: false,
            waiting,
            drain,
            api_grace_until: match once {
                true => patience.stale_ok.map(|lasts| now + lasts),
                false => Some(now + API_SILENCE_GRACE),
            },
            patience,
        }
    }

    fn run(mut self) -> Result<u8, Error> {
        loop {
            let now = Instant::now();
            if self.output.open(now)? {
                self.pending.mark(now);
            }
            self.tick(now);
            if let Some(since) = self.pending.take_due(now) {
                self.publish(since, now)?;
                self.pending.published(now.elapsed());
            }
            // What has just been read must have been published, or recalled, before it is judged.
            if self.once && !self.pending.is_dirty() && self.is_finished(now)? {
                return Ok(0);
            }
            self.tell();
            self.start_command(now)?;
            let mirroring = !self.tasks.are_mirrors_settled();
            self.request(now);
            if self.once && mirroring && self.tasks.are_mirrors_settled() {
                // That was the last thing to do: nothing comes in that would tell.
                continue;
            }
            match self.wait()? {
                None => {}
                Some(Wakeup::DrainRequested) => self.drain(),
                Some(Wakeup::Shutdown) => {
                    self.output.make_durable();
                    info!("stopped by a signal");
                    return Ok(0);
                }
                Some(Wakeup::ChildExited(code)) => {
                    self.output.make_durable();
                    info!(code; "command exited");
                    return Ok(code);
                }
            }
            self.read();
        }
    }

    /// Takes in what has arrived.
    fn read(&mut self) {
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

    /// Waits for input or the next deadline. Returns what interrupted it, if a signal did.
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

    /// When something is to be done though nothing has come in.
    /// `permitted`: when requests may go out.
    fn deadline(&self, permitted: Option<Instant>) -> Option<Instant> {
        let splits = self
            .waits_for_splits()
            .then(|| self.started + SPLITS_TIMEOUT);
        // That requests are permitted is not a reason to turn where none is wanted.
        let tasks = self.tasks.deadline(permitted);
        let next = tasks
            .into_iter()
            .chain(splits)
            .chain(self.server.next_notice())
            .chain(self.output.deadline())
            .chain(self.deferred.deadline())
            .chain(self.held_up.as_ref().map(|notices| notices.next))
            .chain(self.api_grace_until.filter(|_| !self.ready))
            .chain(self.waiting.as_ref().map(|waiting| waiting.notices.next))
            .chain(self.signals.deadline());
        let patience = self.once.then(|| self.patience()).flatten();
        next.chain(patience).min()
    }

    /// Whether the first publish waits for TrafficSplits. What is on disk decides what becomes of it
    /// without them, so the output has to be open.
    fn waits_for_splits(&self) -> bool {
        let is_waiting = self.split_gate == SplitGate::Waiting && !self.tasks.are_splits_known();
        is_waiting && self.output.is_open()
    }

    fn tick(&mut self, now: Instant) {
        self.server.tick(now);
        self.api_grace_until.take_if(|at| *at <= now);
        self.tell_what_holds_up(now);
        if self.deferred.take_due(now) {
            self.run_deferred_checks();
            self.sync(now);
        }
        let (tasks, mut ctx) = self.tasks_at(now);
        if tasks.on_time(&mut ctx) == Changed::Yes {
            self.pending.mark(now);
        }
        if now >= self.started + SPLITS_TIMEOUT && self.waits_for_splits() {
            self.give_up_splits();
            self.pending.mark(now);
        }
        if self.output.check(now) || self.output.take_due_retry(now) {
            self.pending.mark(now);
        }
    }

    fn run_deferred_checks(&mut self) {
        self.tasks
            .sources_mut()
            .for_each(ConfigMapSource::run_deferred_checks);
    }

    fn request(&mut self, now: Instant) {
        if self.pending.is_dirty() || !self.server.permits(now) {
            return;
        }
        if self.server.is_slow(now) {
            // What is due without a request must not wait for a slow answer.
            self.server.return_by(self.deadline(Some(now + NO_REQUEST)));
        }
        let (tasks, mut ctx) = self.tasks_at(now);
        tasks.request(&mut ctx);
    }
}
