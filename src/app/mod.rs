//! The loop: the one thread's one wait, and the only owner of mutable state. Owns: the order in
//! which things happen. Must not: know bytes, YAML or paths.
//!
//! A turn: wait for input or a deadline, read what has arrived, publish once nothing more is
//! waiting, then make at most one request.

mod once;
mod publish;
mod readiness;

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::Path;
use std::rc::Rc;
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
use crate::snapshot::{ObjectName, Origin, Snapshot};
use crate::source::config_map::ConfigMapSource;
use crate::source::smi::Smi;
use crate::xds::desired::Collision;
use crate::xds::merge::WeightTable;
use readiness::PendingChild;

/// The service account's CA, where a pod has one.
const CLUSTER_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// A change is held back for others that come with it: as long as the last publish took, and so long
/// at least and at most.
const DEBOUNCE: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(100)];
/// An API server that has told nothing for so long is silent.
const API_SILENCE_GRACE: Duration = Duration::from_secs(10);
/// Mirrors wait for a moment without input, but no longer than this.
const BUSY_FOR: Duration = Duration::from_secs(1);
/// How often `-onetime` looks again where it was given time.
const ONCE_EVERY: Duration = Duration::from_secs(1);
/// No request takes as long.
const NO_REQUEST: Duration = Duration::from_secs(60);
/// How long nothing goes out for want of a word about the splits.
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
        warn!("the API server's certificate is not verified: -insecure is for tests");
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
    /// In the order of the command line.
    sources: Vec<ConfigMapSource>,
    /// One for each source.
    followed: Vec<Reflector>,
    /// `None`: no TrafficSplit is asked for.
    smi: Option<Smi>,
    /// One for each source, or none.
    mirrors: Vec<Mirror>,
    output: Output,
    /// Since when there is something to publish.
    dirty_since: Option<Instant>,
    /// How long changes are held back for others.
    debounce: Duration,
    /// When to do what was put off for the last change.
    deferred_at: Option<Instant>,
    /// When the output was synced last.
    last_fsync: Option<Instant>,
    /// The last wait found nothing to read: no change is known of that waits behind this one.
    input_drained: bool,
    /// When it was so last.
    rested: Instant,
    /// The output holds what the cluster said last.
    in_sync: bool,
    overrides: Vec<Collision>,
    /// The routes that follow a split, as published.
    weights: WeightTable,
    /// What was said about them.
    warnings: BTreeSet<String>,
    /// A whole set stands on disk, of this life or an earlier one, as far as is known.
    stands: bool,
    /// Nothing can be published since then.
    held_up: Option<ReminderSchedule>,
    /// The texts that weights were merged into last.
    good: Snapshot,
    /// The states that the output was last brought in step with.
    shown: Vec<Rc<Origin>>,
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
    /// There was no word of the splits for too long.
    gave_up_splits: bool,
    /// And there was nothing on disk either.
    goes_without_splits: bool,
    /// Who may ask first next time: nobody is starved.
    first: usize,
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
        let follow = |object: &ObjectName| {
            let ObjectName { namespace, name } = object.clone();
            let kind = ObjectKind::ConfigMap;
            Reflector::new(kind, namespace, Some(name), manner, rng.fork(), now)
        };
        let followed = configmaps.iter().map(follow).collect();
        let smi = Smi::new(
            splits,
            split_version,
            sync_interval,
            manner,
            rng.fork(),
            now,
        );
        let (waiting, drain) = PendingChild::new(wrapped, now);
        let mirrored = configmaps
            .iter()
            .filter(|_| smi.is_some() && publish && !dry_run);
        App {
            once,
            mirrors: mirrored
                .map(|object| Mirror::new(object.clone(), once, rng.fork()))
                .collect(),
            output: match dry_run {
                true => Output::stdout(smi.is_some()),
                false => Output::directory(output_dir, sync_interval, rng.fork(), now),
            },
            sources: configmaps.into_iter().map(ConfigMapSource::new).collect(),
            followed,
            smi,
            signals,
            cluster_domain: resolv_conf::cluster_domain(),
            server,
            dirty_since: None,
            debounce: DEBOUNCE[0],
            deferred_at: None,
            last_fsync: None,
            input_drained: true,
            rested: now,
            in_sync: false,
            overrides: Vec::new(),
            weights: WeightTable::default(),
            warnings: BTreeSet::new(),
            stands: false,
            held_up: None,
            good: Snapshot::new(),
            shown: Vec::new(),
            started: now,
            ready: false,
            waiting,
            drain,
            api_grace_until: match once {
                true => patience.stale_ok.map(|lasts| now + lasts),
                false => Some(now + API_SILENCE_GRACE),
            },
            patience,
            gave_up_splits: false,
            goes_without_splits: false,
            first: 0,
        }
    }

    fn run(mut self) -> Result<u8, Error> {
        loop {
            let now = Instant::now();
            if self.output.open(self.once, now)? {
                self.dirty_since.get_or_insert(now);
            }
            self.tick(now);
            let gathered = |since: &Instant| self.input_drained || now > *since + self.debounce;
            if let Some(since) = self.dirty_since.take_if(|since| gathered(since)) {
                self.publish(since, now)?;
                let [least, most] = DEBOUNCE;
                self.debounce = now.elapsed().clamp(least, most);
            }
            // What has just been read must have been published, or recalled, before it is judged.
            if self.once && self.dirty_since.is_none() && self.is_finished(now)? {
                return Ok(0);
            }
            self.tell();
            self.start_command(now)?;
            let mirroring = !self.mirrors_are_settled();
            self.request(now);
            if self.once && mirroring && self.mirrors_are_settled() {
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
                    info!(code; "the command has ended");
                    return Ok(code);
                }
            }
            self.read();
        }
    }

    /// Takes in what has arrived.
    fn read(&mut self) {
        let mut observations = Vec::new();
        for (followed, source) in self.followed.iter_mut().zip(&mut self.sources) {
            followed.read(&mut self.server, &mut observations);
            for observation in observations.drain(..) {
                self.dirty_since.get_or_insert_with(Instant::now);
                source.take(observation, Instant::now());
            }
        }
        if self
            .smi
            .as_mut()
            .is_some_and(|smi| smi.read(&mut self.server))
        {
            self.dirty_since.get_or_insert_with(Instant::now);
        }
        for mirror in &mut self.mirrors {
            mirror.read();
        }
    }

    /// Waits for input or the next deadline. Something: a signal calls us away.
    fn wait(&mut self) -> Result<Option<Wakeup>, Error> {
        let responses = || self.responses();
        let at_once = self.dirty_since.is_some() || responses().any(|response| response.readable);
        let deadline = match at_once {
            true => Some(Instant::now()),
            false => self.deadline(self.server.next_try()),
        };
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(responses().map(|response| PollFd::new(response, PollFlags::IN)));
        poll::wait(&mut fds, deadline).map_err(|source| Error::System {
            what: "wait for input",
            source,
        })?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let responses = self.responses_mut();
        for (response, ready) in responses.zip(&ready[1..]) {
            response.readable |= *ready;
        }
        let idle = self.responses().all(|response| !response.readable);
        self.input_drained = idle;
        if idle {
            self.rested = Instant::now();
        }
        Ok(self.signals.dispatch())
    }

    fn responses(&self) -> impl Iterator<Item = &Response> {
        let followed = self.followed.iter().flat_map(Reflector::responses);
        let smi = self.smi.iter().flat_map(Smi::responses);
        followed
            .chain(smi)
            .chain(self.mirrors.iter().filter_map(Mirror::response))
    }

    fn responses_mut(&mut self) -> impl Iterator<Item = &mut Response> {
        let followed = self.followed.iter_mut().flat_map(Reflector::responses_mut);
        let smi = self.smi.iter_mut().flat_map(Smi::responses_mut);
        followed
            .chain(smi)
            .chain(self.mirrors.iter_mut().filter_map(Mirror::response_mut))
    }

    /// When something is to be done though nothing has come in.
    /// `permitted`: when requests may go out.
    fn deadline(&self, permitted: Option<Instant>) -> Option<Instant> {
        let followed = self.followed.iter().filter_map(|f| f.deadline(permitted));
        let smi = self.smi.iter().filter_map(|smi| smi.deadline(permitted));
        let mirrors = self.mirrors.iter().filter_map(Mirror::deadline);
        // They wait for the server like all others.
        let mirrors = mirrors.map(|at| permitted.map_or(at, |permitted| at.max(permitted)));
        let unknown = self
            .smi
            .as_ref()
            .filter(|smi| !smi.is_known() && !self.gave_up_splits && self.output.is_open());
        let unknown = unknown.map(|_| self.started + SPLITS_TIMEOUT);
        // That requests are permitted is nothing to do where none is wanted.
        let next = followed.chain(smi).chain(mirrors).chain(unknown);
        let next = next
            .chain(self.server.next_notice())
            .chain(self.output.deadline())
            .chain(self.deferred_at)
            .chain(self.held_up.as_ref().map(|notices| notices.next))
            .chain(self.api_grace_until.filter(|_| !self.ready))
            .chain(self.waiting.as_ref().map(|waiting| waiting.notices.next))
            .chain(self.signals.deadline());
        let patience = self.once.then(|| self.patience()).flatten();
        next.chain(patience).min()
    }

    fn tick(&mut self, now: Instant) {
        self.server.tick(now);
        self.api_grace_until.take_if(|at| *at <= now);
        self.tell_what_holds_up(now);
        if self.deferred_at.take_if(|at| *at <= now).is_some() {
            self.sources
                .iter_mut()
                .for_each(ConfigMapSource::run_deferred_checks);
            self.sync(now);
        }
        for followed in &mut self.followed {
            followed.tick(&mut self.server, now);
        }
        let gone = self
            .smi
            .as_mut()
            .is_some_and(|smi| smi.tick(&mut self.server, now));
        for mirror in &mut self.mirrors {
            mirror.tick(&mut self.server, now);
        }
        // What is on disk decides, so it has to be seen first.
        let late = now >= self.started + SPLITS_TIMEOUT;
        let late = late && !self.gave_up_splits && self.output.is_open();
        if late && self.smi.as_ref().is_some_and(|smi| !smi.is_known()) {
            self.give_up_splits();
            self.dirty_since.get_or_insert(now);
        }
        if gone {
            self.dirty_since.get_or_insert(now);
        }
        if self.output.check(now) || self.output.is_due(now) {
            self.dirty_since.get_or_insert(now);
        }
    }

    fn mirrors_are_settled(&self) -> bool {
        self.mirrors.iter().all(Mirror::is_settled)
    }

    fn request(&mut self, now: Instant) {
        if self.dirty_since.is_some() || !self.server.permits(now) {
            return;
        }
        if self.server.is_slow(now) {
            // Whatever is due without a request.
            self.server.return_by(self.deadline(Some(now + NO_REQUEST)));
        }
        // All of them in turn: who is never done would starve the others.
        let count = self.followed.len() + 1 + self.mirrors.len();
        let first = self.first;
        let mut order = (first..first + count).map(|i| i % count);
        let asked = order.find(|i| self.request_of(*i, now));
        self.first = asked.map_or(first, |i| i + 1);
    }

    /// Makes the request of a ConfigMap, the TrafficSplits or a mirror, by their order, if one is due.
    fn request_of(&mut self, i: usize, now: Instant) -> bool {
        let server = &mut self.server;
        let Some(rest) = i.checked_sub(self.followed.len()) else {
            return self.followed[i].request(server, now);
        };
        let Some(mirror) = rest.checked_sub(1) else {
            let smi = self.smi.as_mut();
            return smi.is_some_and(|smi| smi.request(server, now));
        };
        // A request takes its time: none goes out for people while an event may wait, as long as
        // it is not always so.
        let busy = !self.input_drained && now < self.rested + BUSY_FOR;
        let published = || self.output.last_good();
        !busy && self.mirrors[mirror].request(server, published, now)
    }
}
