//! The command line, in Go's flag syntax, and the few environment variables that stand in for it.
//! Owns: flag names, defaults, validation and the usage text. Must not: open anything but the
//! service account's namespace file.

mod values;

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pico_args::Arguments;

use crate::error::Error;
use crate::output::probe::Probe;
use crate::snapshot::ObjectName;
use values::{
    NamespaceChoice, apiserver, duration, is_label, objects, refuse_mirrors, sync_interval, url,
};

/// Where Kubernetes mounts a pod's own identity.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Do the work.
    Run(Box<Config>),
    /// Answer a probe about this output directory.
    Probe(Probe, PathBuf),
    /// Print the usage.
    Help,
    /// Print the version.
    Version,
}

/// Everything that can be chosen, validated.
#[derive(Debug)]
pub struct Config {
    /// The API server's base URL: its scheme in lower case, without a slash at its end.
    pub apiserver: String,
    /// Trusted roots; `None`: the service account's, if it is there, else the public ones.
    pub ca_file: Option<PathBuf>,
    /// Verify nothing.
    pub insecure: bool,
    /// Where the bearer token stands; `None`: send none.
    pub token_file: Option<PathBuf>,
    /// ConfigMaps in the order given, each once.
    pub configmaps: Vec<ObjectName>,
    /// Where the files go.
    pub output_dir: PathBuf,
    /// How long `run` goes on, and how it learns of changes.
    pub mode: Mode,
    /// How often to look in `Poll`, and the safety look of `Follow`.
    pub sync_interval: Duration,
    /// Print manifests instead of writing files.
    pub dry_run: bool,
    /// Whose weights are merged.
    pub splits: SplitChoice,
    /// The version of split.smi-spec.io to speak; `None`: the server is asked.
    pub split_version: Option<String>,
    /// Write the mirrors `<configmap>-gen`.
    pub publish: bool,
    /// Log lines as JSON objects.
    pub log_json: bool,
    /// What to run beside.
    pub wrapped: Option<ChildSpec>,
    /// Without a command: how long to go on after SIGTERM.
    pub lingers: Option<Duration>,
    /// When `Once` ends without being done.
    pub patience: Patience,
}

/// When `Once` ends without being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// How long to try, whatever is amiss; zero: for ever. `None`: it depends on what is amiss.
    pub timeout: Option<Duration>,
    /// After so long, a whole set of an earlier life will do.
    pub stale_ok: Option<Duration>,
}

/// A command to be run once Envoy can find its files.
#[derive(Debug)]
pub struct ChildSpec {
    /// Its words, at least one.
    pub words: Vec<CString>,
    /// Whether the Envoy that it is gets time to drain.
    pub drain: Option<Drain>,
}

/// What happens before SIGTERM is passed on.
#[derive(Debug)]
pub struct Drain {
    /// How long listeners drain.
    pub lasts: Duration,
    /// The base URL of Envoy's admin port.
    pub admin: String,
}

/// TrafficSplits whose weights are merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SplitChoice {
    /// None.
    None,
    /// These, each once, in the order given.
    Named(Vec<ObjectName>),
    /// All of a namespace.
    All(String),
}

/// How long to go on, and how changes are learned of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Publish once.
    Once,
    /// Look every sync interval.
    Poll,
    /// Watch, and look every sync interval as a safety net.
    Follow,
}

/// A flag: its name, what its value is called (empty for a switch), its default and its help.
struct Flag(&'static str, &'static str, &'static str, &'static str);

const FLAGS: &[Flag] = &[
    Flag(
        "apiserver",
        "URL",
        "",
        "the API server, http or https\n(default https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT, else https://kubernetes)",
    ),
    Flag(
        "ca-file",
        "PATH",
        "",
        "trusted roots for the API server\n(default the service account's ca.crt if it is there, else the public roots)",
    ),
    Flag(
        "configmap",
        "[NS/]NAME",
        "",
        "a ConfigMap whose keys become files; required, repeatable;\na later one's files win over equal names of an earlier one",
    ),
    Flag(
        "drain",
        "DURATION",
        "",
        "on SIGTERM go on for so long, then end;\nwith a command: have its Envoy drain, wait so long, then pass the signal on",
    ),
    Flag(
        "dry-run",
        "",
        "",
        "print the resulting ConfigMaps as manifests and write nothing; with -watch: at each change",
    ),
    Flag(
        "envoy-admin",
        "URL",
        "http://127.0.0.1:9901",
        "where -drain finds Envoy's admin port",
    ),
    Flag(
        "insecure",
        "",
        "",
        "do not verify the API server's certificate",
    ),
    Flag(
        "live",
        "",
        "",
        "a probe: exit 0 while the crossover that holds the output directory turns",
    ),
    Flag(
        "log-format",
        "text|json",
        "text",
        "one line per event on stderr; RUST_LOG sets the level",
    ),
    Flag(
        "namespace",
        "NS",
        "",
        "the namespace of objects named without one\n(default $NS, else $POD_NAMESPACE, else the service account's)",
    ),
    Flag(
        "onetime",
        "",
        "",
        "publish once and exit: for an init container; wins over -watch",
    ),
    Flag(
        "onetime-timeout",
        "DURATION",
        "",
        "with -onetime: how long to try, whatever is amiss; 0: for ever\n(default 1m0s, but 5s for a missing ConfigMap, a 401 or a 403, and none for a bad one)",
    ),
    Flag(
        "output-dir",
        "DIR",
        "/srv/runtime",
        "where the files go: Envoy reads DIR/current/",
    ),
    Flag(
        "publish",
        "",
        "",
        "with TrafficSplits: show the result in the cluster as NAME-gen (default true)",
    ),
    Flag(
        "ready",
        "",
        "",
        "a probe: exit 0 once an Envoy can start on the output directory",
    ),
    Flag(
        "smi",
        "",
        "",
        "merge the weights of every TrafficSplit of the namespace",
    ),
    Flag(
        "stale-ok",
        "DURATION",
        "",
        "with -onetime: after so long, a whole set of an earlier life will do,\nif it came from exactly these ConfigMaps",
    ),
    Flag(
        "sync-interval",
        "DURATION",
        "1m0s",
        "how often to look without -watch; with it, the safety net",
    ),
    Flag(
        "token-file",
        "PATH",
        "/var/run/secrets/kubernetes.io/serviceaccount/token",
        "the bearer token, read again whenever it changes;\nover http it is sent only if this flag is given",
    ),
    Flag(
        "trafficsplit",
        "[NS/]NAME",
        "",
        "a TrafficSplit whose weights are merged; repeatable, implies -smi",
    ),
    Flag(
        "trafficsplit-api-version",
        "VERSION",
        "",
        "the version of split.smi-spec.io to use (default: the server is asked)",
    ),
    Flag("version", "", "", "print the version and exit"),
    Flag("watch", "", "", "follow changes as they happen"),
];

/// The text of `-h`.
pub fn usage() -> String {
    let mut text = String::from("Usage of crossover: crossover [flags] [-- command [arguments]]\n");
    for Flag(name, value, default, help) in FLAGS {
        text += "  -";
        text += name;
        if !value.is_empty() {
            text += " ";
            text += value;
        }
        for line in help.lines() {
            text += "\n    \t";
            text += line;
        }
        if !default.is_empty() {
            text += " (default ";
            text += default;
            text += ")";
        }
        text += "\n";
    }
    text
}

/// Reads the command line (without the program's name).
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Command, Error> {
    let mut args = args.into_iter();
    let (flags, wraps) = go_args(&mut args)?;
    let word = |word: OsString| CString::new(word.into_vec()).ok();
    let words: Vec<CString> = args.filter_map(word).collect();
    if flags.iter().any(|flag| flag == "--help") {
        return Ok(Command::Help);
    }
    let mut args = Arguments::from_vec(flags);
    if switch(&mut args, "--version") {
        return Ok(Command::Version);
    }
    let output_dir = path(&mut args, "--output-dir").unwrap_or_else(|| "/srv/runtime".into());
    let (once, dry_run) = (
        switch(&mut args, "--onetime"),
        switch(&mut args, "--dry-run"),
    );
    // Other flags may stand beside them: a pod's container and its probes can share their own.
    let probe = match (switch(&mut args, "--ready"), switch(&mut args, "--live")) {
        (false, false) => None,
        (true, false) => Some(Probe::Ready),
        (false, true) => Some(Probe::Live),
        (true, true) => {
            return Err(Error::Usage("-ready and -live are two questions".into()));
        }
    };
    let excluded = once || dry_run || probe.is_some();
    if let (Some(probe), false) = (probe, wraps) {
        return Ok(Command::Probe(probe, output_dir));
    }
    let drain = last(&mut args, "--drain");
    let drain = drain.map(|text| duration("drain", &text)).transpose()?;
    if drain.is_some() && excluded {
        let what = "-drain is for what stays: it does not go with -onetime and -dry-run";
        return Err(Error::Usage(what.into()));
    }
    let wrapped = wrapped(&mut args, wraps, words, drain, excluded)?;
    let patience = patience(&mut args, once)?;

    let namespace = last(&mut args, "--namespace");
    let namespace = NamespaceChoice {
        flag: namespace,
        env: &env,
    };
    let configmaps = objects(&mut args, "--configmap", &namespace)?;
    if configmaps.is_empty() {
        return Err(Error::Usage(
            "no -configmap is given: name at least one".into(),
        ));
    }
    refuse_mirrors(&configmaps)?;
    let named = objects(&mut args, "--trafficsplit", &namespace)?;
    let splits = match switch(&mut args, "--smi") {
        _ if !named.is_empty() => SplitChoice::Named(named),
        true => SplitChoice::All(namespace.get()?),
        false => SplitChoice::None,
    };
    let split_version = match last(&mut args, "--trafficsplit-api-version") {
        Some(version) if !is_label(&version) => {
            return Err(bad(
                "trafficsplit-api-version",
                &version,
                "a version is v1alpha2",
            ));
        }
        version => version,
    };

    let apiserver = apiserver(last(&mut args, "--apiserver"), &env)?;
    // A token belongs to TLS; in the clear it goes out only where the user asked for that.
    let token_file = match path(&mut args, "--token-file") {
        Some(given) => Some(given),
        None if apiserver.starts_with("https:") => Some(Path::new(SERVICE_ACCOUNT).join("token")),
        None => None,
    };
    let sync_interval = match last(&mut args, "--sync-interval") {
        Some(text) => sync_interval(&text)?,
        None => Duration::from_secs(60),
    };
    let log_json = match last(&mut args, "--log-format").as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(bad("log-format", other, "text and json are known")),
    };
    let watch = last(&mut args, "--watch").map_or(wrapped.is_some(), |value| value == "true");
    let config = Config {
        apiserver,
        ca_file: path(&mut args, "--ca-file"),
        insecure: switch(&mut args, "--insecure"),
        token_file,
        configmaps,
        output_dir,
        mode: match (once, watch) {
            (true, _) => Mode::Once,
            (false, true) => Mode::Follow,
            (false, false) => Mode::Poll,
        },
        sync_interval,
        dry_run,
        splits,
        split_version,
        publish: last(&mut args, "--publish").is_none_or(|value| value == "true"),
        log_json,
        lingers: drain.filter(|_| wrapped.is_none()),
        wrapped,
        patience,
    };
    Ok(Command::Run(Box::new(config)))
}

/// What stands after `--`. `excluded`: a flag is given that leaves no room for it.
fn wrapped(
    args: &mut Arguments,
    wraps: bool,
    words: Vec<CString>,
    drain: Option<Duration>,
    excluded: bool,
) -> Result<Option<ChildSpec>, Error> {
    let usage = |what: &str| Err(Error::Usage(what.into()));
    let admin = last(args, "--envoy-admin");
    if !wraps {
        return Ok(None);
    }
    if excluded {
        return usage("a command stays: -onetime, -dry-run, -ready and -live do not go with --");
    }
    if words.is_empty() {
        return usage("no command follows --");
    }
    let admin = admin.unwrap_or_else(|| "http://127.0.0.1:9901".into());
    let drain = match drain {
        Some(lasts) => Some(Drain {
            lasts,
            admin: url("flag -envoy-admin", admin, &["http"])?,
        }),
        None => None,
    };
    Ok(Some(ChildSpec { words, drain }))
}

/// The limits of `-onetime`.
fn patience(args: &mut Arguments, once: bool) -> Result<Patience, Error> {
    let mut limit = |flag: &'static str, name| match last(args, flag) {
        Some(_) if !once => {
            let what = format!("-{name} is for -onetime: give that too");
            Err(Error::Usage(what))
        }
        Some(text) => duration(name, &text).map(Some),
        None => Ok(None),
    };
    Ok(Patience {
        timeout: limit("--onetime-timeout", "onetime-timeout")?,
        stale_ok: limit("--stale-ok", "stale-ok")?,
    })
}

/// Turns Go's syntax (`-x`, `--x`, `-x=v`, `-x v`) into the `--x v` pairs that pico-args reads, up
/// to a `--`. True: there is one.
fn go_args(args: &mut impl Iterator<Item = OsString>) -> Result<(Vec<OsString>, bool), Error> {
    let usage = |what: String| Err(Error::Usage(what));
    let mut pairs = Vec::new();
    while let Some(arg) = args.next() {
        let Some(arg) = arg.to_str() else {
            return usage(format!("an argument is not UTF-8: {arg:?}"));
        };
        if arg == "--" {
            return Ok((pairs, true));
        }
        let dashed = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'));
        let Some(body) = dashed.filter(|body| !body.is_empty()) else {
            return usage(format!("unexpected argument: {arg:?}"));
        };
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        if matches!(name, "h" | "help") {
            return Ok((vec!["--help".into()], false));
        }
        let Some(flag) = FLAGS.iter().find(|flag| flag.0 == name) else {
            let given = format!("-{name}");
            return usage(format!("flag provided but not defined: {given:?}"));
        };
        let value = match (flag.1.is_empty(), value) {
            (true, None) => "true".to_owned(),
            (true, Some(value)) => match value.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => "true".to_owned(),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => "false".to_owned(),
                _ => return Err(bad(name, &value, "true and false are known")),
            },
            (false, Some(value)) => value,
            (false, None) => match args.next().map(OsString::into_string) {
                Some(Ok(value)) => value,
                _ => return usage(format!("flag needs an argument: -{name}")),
            },
        };
        if value.starts_with("--") {
            // Almost surely a forgotten value; pico-args would take it for a flag.
            return usage(format!("flag needs an argument: -{name} (found {value:?})"));
        }
        pairs.push(format!("--{name}").into());
        pairs.push(value.into());
    }
    Ok((pairs, false))
}

fn bad(name: &str, value: &str, why: &str) -> Error {
    Error::Usage(format!("invalid value {value:?} for flag -{name}: {why}"))
}

/// Every value of a flag, in order.
fn all(args: &mut Arguments, name: &'static str) -> Vec<String> {
    // Every pair is complete and UTF-8, so nothing can fail here.
    args.values_from_str(name).unwrap_or_default()
}

/// The value that counts: as in Go, the last one.
fn last(args: &mut Arguments, name: &'static str) -> Option<String> {
    all(args, name).pop()
}

fn switch(args: &mut Arguments, name: &'static str) -> bool {
    last(args, name).is_some_and(|value| value == "true")
}

/// An empty path means the default, as in the Go program.
fn path(args: &mut Arguments, name: &'static str) -> Option<PathBuf> {
    last(args, name)
        .filter(|text| !text.is_empty())
        .map(PathBuf::from)
}
