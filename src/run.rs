//! The loop: the one thread's one wait, and the only owner of mutable state. Owns: the order in
//! which things happen. Must not: know bytes, YAML or paths.
//!
//! A turn: wait for input or a deadline, read what has arrived, publish once nothing more is
//! waiting, then make at most one request.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::Path;
use std::time::{Duration, Instant};

use log::{info, warn};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::args::{Config, Mode};
use crate::backoff::Random;
use crate::error::{Chain, Error};
use crate::follow::Followed;
use crate::kube::client::Client;
use crate::kube::credentials::{Roots, TokenFile};
use crate::kube::transport::timespec;
use crate::output::{Output, Written};
use crate::publish::Published;
use crate::reconcile::{self, Latest, Override};
use crate::resource::{FileSet, ObjectKind, ObjectName};
use crate::server::Server;
use crate::signal::Signals;
use crate::source::Source;
use crate::watch::Manner;

/// The service account's CA, where a pod has one.
const CLUSTER_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// A change is not held back longer than this for others that may come with it.
const GATHER_FOR: Duration = Duration::from_millis(10);
/// `-onetime`: how long to try in all.
const ONCE_IN_ALL: Duration = Duration::from_secs(60);
/// `-onetime`: how long a missing ConfigMap, a 401 or a 403 may last; RBAC takes a moment to spread.
const ONCE_DENIED: Duration = Duration::from_secs(5);

/// Does what `config` asks for, until it is done or a signal comes.
pub fn run(config: Config, signals: Signals) -> Result<(), Error> {
    let token = config
        .token_file
        .as_deref()
        .map(TokenFile::open)
        .transpose()?;
    let roots = match &config.ca_file {
        _ if config.insecure => Roots::Anyone,
        Some(path) => Roots::File(path.clone()),
        None if Path::new(CLUSTER_CA).exists() => Roots::File(CLUSTER_CA.into()),
        None => Roots::Public,
    };
    if config.insecure && config.apiserver.starts_with("https:") {
        warn!("the API server's certificate is not verified: -insecure is for tests");
    }
    let names: Vec<String> = config.configmaps.iter().map(ToString::to_string).collect();
    info!(version = env!("CARGO_PKG_VERSION"), apiserver = config.apiserver,
        configmaps = names.join(","); "started");
    if config.smi {
        warn!("TrafficSplits are not merged yet: the ConfigMaps' own weights stand");
    }
    let client = Client::new(&config.apiserver, token, roots, signals.clone())?;
    let seed = RandomState::new().hash_one(std::process::id());
    Loop::new(config, Server::new(client, Random::new(seed)), signals).run()
}

struct Loop {
    once: bool,
    signals: Signals,
    server: Server,
    /// In the order of the command line.
    sources: Vec<Source>,
    /// One for each source.
    followed: Vec<Followed>,
    output: Output,
    /// Since when there is something to publish.
    changed: Option<Instant>,
    /// The last wait found nothing to read: no change is known of that waits behind this one.
    idle: bool,
    /// The output holds what the cluster said last.
    in_step: bool,
    overrides: Vec<Override>,
    started: Instant,
    /// Who may ask first next time: nobody is starved.
    first: usize,
}

impl Loop {
    fn new(config: Config, mut server: Server, signals: Signals) -> Loop {
        let Config {
            configmaps,
            output_dir,
            mode,
            sync_interval,
            dry_run,
            ..
        } = config;
        let now = Instant::now();
        let manner = match mode {
            Mode::Once => Manner::Once,
            // A dry run without -watch has nothing to wait for once it has printed.
            Mode::Poll if dry_run => Manner::Once,
            Mode::Poll => Manner::Poll(sync_interval),
            Mode::Follow => Manner::Follow(sync_interval),
        };
        let mut follow = |object: &ObjectName| {
            let ObjectName { namespace, name } = object.clone();
            let kind = ObjectKind::ConfigMap;
            Followed::new(kind, namespace, Some(name), manner, now, &mut server)
        };
        Loop {
            once: manner == Manner::Once,
            followed: configmaps.iter().map(&mut follow).collect(),
            sources: configmaps.into_iter().map(Source::new).collect(),
            signals,
            server,
            output: match dry_run {
                true => Output::stdout(),
                false => Output::directory(output_dir, sync_interval, now),
            },
            changed: None,
            idle: true,
            in_step: false,
            overrides: Vec::new(),
            started: now,
            first: 0,
        }
    }

    fn run(mut self) -> Result<(), Error> {
        loop {
            let now = Instant::now();
            if self.output.open(self.once, now, &mut self.server.random)? {
                self.changed.get_or_insert(now);
            }
            self.tick(now);
            let gathered = |since: &Instant| self.idle || now > *since + GATHER_FOR;
            if let Some(since) = self.changed.take_if(|since| gathered(since)) {
                self.publish(since, now)?;
            }
            if self.once && self.is_finished(now)? {
                return Ok(());
            }
            self.request(now);
            if self.wait()? {
                info!("stopped by a signal");
                return Ok(());
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
                self.changed.get_or_insert_with(Instant::now);
                source.take(observation, Instant::now());
            }
        }
    }

    /// Waits for input or the next deadline. True: a signal has come.
    fn wait(&mut self) -> Result<bool, Error> {
        let exchanges = || self.followed.iter().flat_map(Followed::exchanges);
        let at_once = self.changed.is_some() || exchanges().any(|exchange| exchange.more);
        let timeout = match at_once {
            true => Some(Duration::ZERO),
            false => self
                .deadline()
                .map(|at| at.saturating_duration_since(Instant::now())),
        };
        let mut fds = vec![PollFd::new(&*self.signals.pipe, PollFlags::IN)];
        fds.extend(exchanges().map(|exchange| PollFd::new(exchange, PollFlags::IN)));
        match poll(&mut fds, timeout.map(timespec).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => {
                return Err(Error::System {
                    what: "wait for input",
                    source: e.into(),
                });
            }
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let exchanges = self.followed.iter_mut().flat_map(Followed::exchanges_mut);
        for (exchange, ready) in exchanges.zip(&ready[1..]) {
            exchange.more |= *ready;
        }
        self.idle = self
            .followed
            .iter()
            .flat_map(Followed::exchanges)
            .all(|e| !e.more);
        Ok(ready[0])
    }

    /// When something is to be done though nothing has come in.
    fn deadline(&self) -> Option<Instant> {
        let permitted = self.server.next_try();
        let followed = self.followed.iter().filter_map(|f| f.deadline(permitted));
        // That requests are permitted is nothing to do where none is wanted.
        let next = followed
            .chain(self.server.next_notice())
            .chain(self.output.deadline());
        let patience = self.once.then(|| self.patience());
        next.chain(patience).min()
    }

    fn tick(&mut self, now: Instant) {
        self.server.tick(now);
        for followed in &mut self.followed {
            followed.tick(&mut self.server, now);
        }
        let random = &mut self.server.random;
        if self.output.check(now, random) || self.output.is_due(now) {
            self.changed.get_or_insert(now);
        }
    }

    fn request(&mut self, now: Instant) {
        if self.changed.is_some() || !self.server.permits(now) {
            return;
        }
        let count = self.followed.len();
        for i in (0..count).map(|i| (self.first + i) % count) {
            if self.followed[i].request(&mut self.server, now) {
                self.first = i + 1;
                return;
            }
        }
    }

    /// Brings the output in step with what is known, if enough is.
    fn publish(&mut self, since: Instant, now: Instant) -> Result<(), Error> {
        self.recall();
        let sources = self
            .sources
            .iter()
            .map(|source| (source.latest, source.content.as_ref()));
        let Some((set, overrides)) = reconcile::desired(sources) else {
            return Ok(());
        };
        for hidden in overrides
            .iter()
            .filter(|hidden| !self.overrides.contains(hidden))
        {
            let Override {
                file,
                winner,
                loser,
            } = hidden;
            let message = "two ConfigMaps have the same file: the later one wins";
            warn!(file:% = file, configmap:% = winner, hidden:% = loser; "{message}");
        }
        self.overrides = overrides;
        let written = self
            .output
            .write(&set, self.once, now, &mut self.server.random)?;
        self.in_step = !matches!(written, Written::NotYet);
        if let Written::New(published) = written {
            report(&published, &set, since);
        }
        Ok(())
    }

    /// What an earlier life published stands in for what is absent or refused now.
    fn recall(&mut self) {
        let lacking = |source: &&mut Source| {
            let lost = matches!(source.latest, Latest::Absent | Latest::Refused);
            lost && source.content.is_none()
        };
        let mut earlier = None;
        for source in self.sources.iter_mut().filter(lacking) {
            let Some(set) = earlier.get_or_insert_with(|| self.output.earlier_life()) else {
                return;
            };
            source.content = reconcile::from_earlier_life(&source.object, set);
        }
    }

    /// `-onetime`: when patience ends.
    fn patience(&self) -> Instant {
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

    /// `-onetime`: whether all is done. An error, when it cannot be or patience has ended.
    fn is_finished(&mut self, now: Instant) -> Result<bool, Error> {
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
        if self.in_step && !denied {
            return Ok(true);
        }
        if now < self.patience() {
            return Ok(false);
        }
        let denied = self.sources.iter_mut().find_map(|s| s.denied.take());
        Err(denied
            .map(|(_, error)| error)
            .or_else(|| self.server.take_failure())
            .or_else(|| self.output.take_failure())
            .unwrap_or(Error::Usage("nothing was published in time".into())))
    }
}

/// One line for each set, and a warning for what an Envoy may miss.
fn report(published: &Published, set: &FileSet, since: Instant) {
    let Published {
        number,
        changed,
        removed,
        committed,
        unswept,
    } = published;
    let mut origins: Vec<_> = changed
        .iter()
        .filter_map(|name| Some(set.get(name)?.origin.clone()))
        .collect();
    origins.dedup();
    let join = |texts: Vec<String>| texts.join(",");
    let gone = removed.iter().map(|name| format!("-{name}"));
    let files = changed.iter().map(ToString::to_string).chain(gone);
    let milliseconds = committed.saturating_duration_since(since).as_secs_f64() * 1000.0;
    info!(
        configmap = join(origins.iter().map(|o| o.object.to_string()).collect()),
        resource_version = join(origins.iter().map(|o| o.resource_version.to_string()).collect()),
        files = join(files.collect()),
        set = *number,
        ms = format!("{milliseconds:.3}");
        "published"
    );
    if let Some(error) = unswept {
        warn!(error:% = Chain(error); "old sets cannot be removed: trying again");
    }
    for name in removed {
        warn!(file:% = name;
            "a file is gone: an Envoy restarted now would not start, if its bootstrap names it");
    }
}
