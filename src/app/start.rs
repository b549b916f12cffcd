//! The start of a run: makes the loop's values from the command line's.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;
use log::{info, warn};

use super::App;
use super::child::ChildState;
use super::notes::Notes;
use super::pending::{Deferred, Pending};
use super::publish::LastPublish;
use super::readiness::Readiness;
use super::sequence::Sequence;
use super::split_gate::{SPLITS_TIMEOUT, SplitGate};
use super::task::{ConfigMap, ConfigMapInput, Tasks};
use super::verdict::Verdicts;
use crate::cli::Config;
use crate::error::Error;
use crate::kube::auth::Roots;
use crate::kube::client::Client;
use crate::kube::health::ApiServer;
use crate::kube::list_watch::{RETRY_DENIED, SyncMode};
use crate::kube::object::ObjectKind;
use crate::kube::reflector::Reflector;
use crate::net::resolv_conf;
use crate::output::mirror::{Mirror, Schedule};
use crate::output::{Delivery, Output};
use crate::process::signals::Signals;
use crate::snapshot::ObjectName;
use crate::source::config_map::ConfigMapSource;
use crate::source::weight_objects::{Sync, WeightObjects};

/// The service account's CA, if there is a pod around us.
const CLUSTER_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// The time between two lists of `-onetime` with `-onetime-timeout`.
const ONCE_EVERY: Duration = Duration::from_secs(1);
/// Runs until what `config` asks for is done, a signal comes or the command ends. Returns the exit
/// code.
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
    // The connection is made first, so that the API server works on it meanwhile.
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
            envoy_drain_time,
            http_routes,
            splits,
            split_version,
            publish,
            log_json: _,
            wrapped,
            lingers: _,
            patience,
            verdict,
        } = config;
        let now = Instant::now();
        let once = (sync == SyncMode::Once).then_some(patience);
        let mode = match patience.timeout {
            // There is time to see that what is bad has become good.
            Some(_) if once.is_some() => SyncMode::Poll(ONCE_EVERY),
            _ => sync,
        };
        server.fixed_retry = (mode == SyncMode::Once).then_some(RETRY_DENIED);
        let sync = Sync {
            mode,
            interval: sync_interval,
        };
        let mut objects = |kind, choice, version| {
            let rng = rng.fork();
            WeightObjects::new(kind, choice, version, &configmaps, sync, rng, now)
        };
        let http_routes = objects(ObjectKind::HttpRoute, http_routes, None);
        let splits = objects(ObjectKind::TrafficSplit, splits, split_version);
        let weights: Vec<WeightObjects> = http_routes.into_iter().chain(splits).collect();
        let is_mirrored = !weights.is_empty() && publish && !dry_run;
        let output = if dry_run {
            Output::stdout(!weights.is_empty())
        } else {
            let delivery = match once {
                Some(_) => Delivery::Once,
                None => Delivery::Continuous,
            };
            let output = Output::directory(output_dir, sync_interval, delivery, rng.fork(), now);
            match &verdict {
                Some(_) => output.with_verdicts(),
                None => output,
            }
        };
        let verdicts_rng = rng.fork();
        let schedule = |rng: &mut Rng| match once {
            Some(_) => Schedule::once(),
            None => Schedule::continuous(rng.fork()),
        };
        let configmap = |object: ObjectName| {
            let ObjectName { namespace, name } = object.clone();
            let kind = ObjectKind::ConfigMap;
            ConfigMap {
                mirror: is_mirrored.then(|| Mirror::new(object.clone(), schedule(&mut rng))),
                input: ConfigMapInput {
                    reflector: Reflector::new(kind, namespace, Some(name), mode, rng.fork(), now),
                    source: ConfigMapSource::new(object),
                },
            }
        };
        App {
            once,
            output,
            tasks: Tasks::new(configmaps.into_iter().map(configmap).collect(), weights),
            signals,
            cluster_domain: resolv_conf::cluster_domain(),
            server,
            split_gate: SplitGate::Waiting,
            sequence: Sequence::new(envoy_drain_time),
            splits_since: now,
            splits_until: now + SPLITS_TIMEOUT,
            pending: Pending::new(now),
            deferred: Deferred::default(),
            verdicts: Verdicts::new(verdict, verdicts_rng),
            progress: None,
            told_unwatched: false,
            last: LastPublish::default(),
            notes: Notes::default(),
            readiness: Readiness::new(once.as_ref(), now),
            started: now,
            child: ChildState::new(wrapped, now),
        }
    }
}
