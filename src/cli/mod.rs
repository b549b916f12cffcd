//! The command line, in Go's flag syntax, and the few environment variables that stand in for it.
//! Owns: which flags there are ([`flags`]), how they are written (`syntax`), what their values may
//! be (`values`), and which of them go together. Must not: open anything but the service account's
//! namespace file.

mod flags;
mod syntax;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::kube::list_watch::SyncMode;
use crate::output::heartbeat::Probe;
use crate::process::child::{ChildSpec, Drain};
use crate::snapshot::ObjectName;
use crate::source::weight_objects::WeightChoice;
use flags::Flag;
pub use flags::usage;
use syntax::{Args, invalid};
use values::{
    NamespaceChoice, admin, apiserver, duration, is_label, objects, refuse_mirrors, sync_interval,
};

/// The request that the command line makes.
#[derive(Debug)]
pub enum Command {
    /// Keeps the files in step with the cluster.
    Run(Box<Config>),
    /// Answers a probe about this output directory.
    Probe(Probe, PathBuf),
    /// Prints the usage.
    Help,
    /// Prints the version.
    Version,
}

/// The validated settings of a run.
#[derive(Debug)]
pub struct Config {
    /// The API server's base URL: its scheme in lower case, without a slash at its end.
    pub apiserver: String,
    /// The file of trusted roots; `None` for the service account's if it is there, else the public
    /// ones.
    pub ca_file: Option<PathBuf>,
    /// True if any certificate of the API server is accepted.
    pub insecure: bool,
    /// The file of the bearer token; `None` to send none.
    pub token_file: Option<PathBuf>,
    /// The ConfigMaps in the order given, each once.
    pub configmaps: Vec<ObjectName>,
    /// The directory that the files are written to.
    pub output_dir: PathBuf,
    /// The way in which changes are found; `Once` if the program ends after one publish.
    pub sync: SyncMode,
    /// The polling interval; with a watch, that of the consistency check.
    pub sync_interval: Duration,
    /// True if manifests are printed instead of files written.
    pub dry_run: bool,
    /// Envoy's `--drain-time-s`.
    pub envoy_drain_time: Duration,
    /// The HTTPRoutes whose weights are merged.
    pub http_routes: WeightChoice,
    /// The TrafficSplits whose weights are merged.
    pub splits: WeightChoice,
    /// The version of split.smi-spec.io to use; `None` to ask the API server.
    pub split_version: Option<String>,
    /// True if the mirrors `<configmap>-gen` are written.
    pub publish: bool,
    /// True if log lines are JSON objects.
    pub log_json: bool,
    /// The command to start and run beside.
    pub wrapped: Option<ChildSpec>,
    /// The time to go on after SIGTERM without a command.
    pub lingers: Option<Duration>,
    /// The time that `-onetime` tries.
    pub patience: Patience,
    /// The Envoys that are asked whether they accept the files, if any is.
    pub verdict: Option<Verdict>,
}

/// The question what Envoy made of the files.
#[derive(Debug)]
pub struct Verdict {
    /// The addresses of all Envoys' admin interfaces: URLs, or `unix:` and a path.
    pub admins: Vec<String>,
    /// True if what is refused is also taken back.
    pub restores: bool,
}

/// The time that `-onetime` tries before it ends without being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// The time to retry, whatever the failure, zero meaning forever; `None` to let the kind of
    /// failure decide.
    pub timeout: Option<Duration>,
    /// The time after which the complete files of a previous run are accepted; `None` for never.
    pub stale_ok: Option<Duration>,
}

/// Reads the command line (without the program's name).
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Command, Error> {
    let mut args = Args::read(args)?;
    if args.help {
        return Ok(Command::Help);
    }
    if args.switch(&flags::VERSION) {
        return Ok(Command::Version);
    }
    // Other flags may stand beside a probe: a pod's container and its probes can share theirs.
    let probes = [
        (&flags::READY, Probe::Ready),
        (&flags::LIVE, Probe::Live),
        (&flags::ACCEPTED, Probe::Accepted),
    ];
    let mut asked = probes.into_iter().filter(|(flag, _)| args.switch(flag));
    match (asked.next(), asked.next()) {
        (Some(_), Some(_)) => usage_error("-ready, -live and -accepted cannot be combined"),
        (Some(_), None) if args.command.is_some() => usage_error(NOT_WITH_A_COMMAND),
        (Some((_, probe)), None) => Ok(Command::Probe(probe, output_dir(&mut args))),
        (None, _) => Ok(Command::Run(Box::new(config(args, &env)?))),
    }
}

/// Returns the error for flags that end the program, or write nothing, while a command needs it.
const NOT_WITH_A_COMMAND: &str =
    "-onetime, -dry-run, -ready, -live and -accepted cannot be used with a command";

fn usage_error<T>(what: &str) -> Result<T, Error> {
    Err(Error::Usage(what.to_owned()))
}

/// Reads the settings of a run.
fn config(mut args: Args, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Error> {
    let once = args.switch(&flags::ONETIME);
    let dry_run = args.switch(&flags::DRY_RUN);
    let Lifetime {
        child,
        lingers,
        patience,
        admins,
    } = lifetime(&mut args, once, dry_run)?;
    let verdict = verdict(&mut args, admins, once || dry_run)?;
    let namespace = NamespaceChoice {
        flag: args.given(&flags::NAMESPACE),
        env,
    };
    let configmaps = objects(&mut args, &flags::CONFIGMAP, &namespace)?;
    if configmaps.is_empty() {
        return usage_error("-configmap is required");
    }
    refuse_mirrors(&configmaps)?;
    let of_routes = (&flags::HTTPROUTE, &flags::GATEWAY_API);
    let http_routes = weights(&mut args, of_routes, &namespace)?;
    let splits = weights(&mut args, (&flags::TRAFFICSPLIT, &flags::SMI), &namespace)?;
    let split_version = args.given(&flags::TRAFFICSPLIT_API_VERSION);
    if let Some(version) = split_version.as_ref().filter(|text| !is_label(text)) {
        let why = "must be a version such as v1alpha2";
        return Err(invalid(&flags::TRAFFICSPLIT_API_VERSION, version, why));
    }
    let apiserver = apiserver(args.given(&flags::APISERVER), env)?;
    // A token belongs to TLS; in the clear it goes out only where the user asked for that.
    let token_file = args.path(&flags::TOKEN_FILE);
    let by_default = flags::TOKEN_FILE.default.map(PathBuf::from);
    let token_file = token_file.or(by_default.filter(|_| apiserver.starts_with("https:")));
    let sync_interval = sync_interval(&args.value(&flags::SYNC_INTERVAL))?;
    let watch = args.given(&flags::WATCH);
    let watch = watch.map_or(child.is_some(), |value| value == "true");
    Ok(Config {
        apiserver,
        ca_file: args.path(&flags::CA_FILE),
        insecure: args.switch(&flags::INSECURE),
        token_file,
        configmaps,
        output_dir: output_dir(&mut args),
        // A dry run without -watch has nothing to wait for once it has printed.
        sync: match (once, watch) {
            (true, _) => SyncMode::Once,
            (false, true) => SyncMode::Watch(sync_interval),
            (false, false) if dry_run => SyncMode::Once,
            (false, false) => SyncMode::Poll(sync_interval),
        },
        sync_interval,
        dry_run,
        envoy_drain_time: {
            let flag = &flags::ENVOY_DRAIN_TIME;
            duration(flag, &args.value(flag))?
        },
        http_routes,
        splits,
        split_version,
        publish: args.switch(&flags::PUBLISH),
        log_json: match args.value(&flags::LOG_FORMAT).as_str() {
            "text" => false,
            "json" => true,
            other => return Err(invalid(&flags::LOG_FORMAT, other, "must be text or json")),
        },
        wrapped: child,
        lingers,
        patience,
        verdict,
    })
}

/// Reads whether Envoy is asked what it made of the files, and where.
fn verdict(
    args: &mut Args,
    admins: Vec<String>,
    writes_once: bool,
) -> Result<Option<Verdict>, Error> {
    let restores = match args.value(&flags::ON_REFUSAL).as_str() {
        "off" => return Ok(None),
        "warn" => false,
        "restore" => true,
        other => {
            let why = "must be off, warn or restore";
            return Err(invalid(&flags::ON_REFUSAL, other, why));
        }
    };
    if writes_once {
        return usage_error("-on-refusal cannot be combined with -onetime or -dry-run");
    }
    Ok(Some(Verdict { admins, restores }))
}

/// The command that a run wraps, and the limits of its time.
struct Lifetime {
    child: Option<ChildSpec>,
    lingers: Option<Duration>,
    patience: Patience,
    admins: Vec<String>,
}

/// Reads the command, and the flags that say when it or the program ends.
fn lifetime(args: &mut Args, once: bool, dry_run: bool) -> Result<Lifetime, Error> {
    let command = args.command.take();
    if command.is_some() && (once || dry_run) {
        return usage_error(NOT_WITH_A_COMMAND);
    }
    let drain = limit(args, &flags::DRAIN)?;
    if drain.is_some() && (once || dry_run) {
        return usage_error("-drain cannot be combined with -onetime or -dry-run");
    }
    let patience = Patience {
        timeout: limit(args, &flags::ONETIME_TIMEOUT)?,
        stale_ok: limit(args, &flags::STALE_OK)?,
    };
    if patience != Patience::default() && !once {
        let flag = match patience.timeout {
            Some(_) => &flags::ONETIME_TIMEOUT,
            None => &flags::STALE_OK,
        };
        return usage_error(&format!("{flag} requires -onetime"));
    }
    let mut admins = Vec::new();
    for address in args.all_or_default(&flags::ENVOY_ADMIN) {
        admins.push(admin(address)?);
    }
    let Some(argv) = command else {
        return Ok(Lifetime {
            child: None,
            lingers: drain,
            patience,
            admins,
        });
    };
    if argv.is_empty() {
        return usage_error("missing command after --");
    }
    let admin = || admins.first().cloned().unwrap_or_default();
    let drain = drain.map(|drain_time| Drain {
        drain_time,
        admin: admin(),
    });
    Ok(Lifetime {
        child: Some(ChildSpec { argv, drain }),
        lingers: None,
        patience,
        admins,
    })
}

/// Reads a duration that has no default.
fn limit(args: &mut Args, flag: &Flag) -> Result<Option<Duration>, Error> {
    let given = args.given(flag);
    given.map(|text| duration(flag, &text)).transpose()
}

/// Reads the objects of one kind, which a repeatable flag names or a switch asks for.
fn weights(
    args: &mut Args,
    (flag, switch): (&Flag, &Flag),
    namespace: &NamespaceChoice,
) -> Result<WeightChoice, Error> {
    let named = objects(args, flag, namespace)?;
    let all = args.switch(switch);
    if !named.is_empty() {
        Ok(WeightChoice::Named(named))
    } else if all {
        Ok(WeightChoice::All(namespace.get()?))
    } else {
        Ok(WeightChoice::None)
    }
}

fn output_dir(args: &mut Args) -> PathBuf {
    let given = args.path(&flags::OUTPUT_DIR);
    given.unwrap_or_else(|| flags::OUTPUT_DIR.default.unwrap_or_default().into())
}
