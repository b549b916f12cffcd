//! The table of flags: the name, the value and the default of each, and the usage text made of
//! them.

use std::fmt;

/// A flag of the command line.
pub struct Flag {
    /// Its name as pico-args wants it: `--output-dir`.
    pub name: &'static str,
    /// The name of its value in `-h`; `None` for a switch.
    pub value: Option<&'static str>,
    /// Its default, if that is a constant.
    pub default: Option<&'static str>,
    /// The explanation in `-h`.
    pub help: &'static str,
}

impl Flag {
    /// Returns the name without dashes.
    pub fn bare(&self) -> &'static str {
        self.name.trim_start_matches('-')
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-{}", self.bare())
    }
}

pub const ACCEPTED: Flag = Flag {
    name: "--accepted",
    value: None,
    default: None,
    help: "readiness probe: exit 0 once Envoy has taken the files since it started",
};

pub const APISERVER: Flag = Flag {
    name: "--apiserver",
    value: Some("URL"),
    default: None,
    help: "URL of the API server, http or https (default: https://kubernetes, or\n\
           https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT if both are set)",
};

pub const CA_FILE: Flag = Flag {
    name: "--ca-file",
    value: Some("PATH"),
    default: None,
    help: "CA certificates to trust for the API server\n(default: the service account's ca.crt if \
           it exists, otherwise the public CAs)",
};

pub const CONFIGMAP: Flag = Flag {
    name: "--configmap",
    value: Some("[NS/]NAME"),
    default: None,
    help: "ConfigMap whose keys become files (required, repeatable);\nwhere two have the same key, \
           the one given later wins",
};

pub const DRAIN: Flag = Flag {
    name: "--drain",
    value: Some("DURATION"),
    default: None,
    help: "keep running for this long after SIGTERM, then exit;\nwith a command: tell its Envoy to \
           drain, and forward the signal after this long",
};

pub const DRY_RUN: Flag = Flag {
    name: "--dry-run",
    value: None,
    default: None,
    help: "print the resulting ConfigMaps as manifests instead of writing files;\nwith -watch: \
           again after each change",
};

pub const ENVOY_ADMIN: Flag = Flag {
    name: "--envoy-admin",
    value: Some("URL|unix:PATH"),
    default: Some("http://127.0.0.1:9901"),
    help: "Envoy's admin interface, for -on-refusal (repeatable: each Envoy is asked)\nand -drain (the \
           first one's)",
};

pub const ENVOY_DRAIN_TIME: Flag = Flag {
    name: "--envoy-drain-time",
    value: Some("DURATION"),
    default: Some("600s"),
    help: "Envoy's --drain-time-s; after a change of listeners, clusters that are\nremoved stay \
           published for this long, for connections that Envoy drains",
};

pub const GATEWAY_API: Flag = Flag {
    name: "--gateway-api",
    value: None,
    default: None,
    help: "merge the weights of the namespace's HTTPRoutes that have a Service\nor one of the \
           ConfigMaps as a parent",
};

pub const HTTPROUTE: Flag = Flag {
    name: "--httproute",
    value: Some("[NS/]NAME"),
    default: None,
    help: "HTTPRoute whose weights are merged (repeatable); overrides -gateway-api",
};

pub const INSECURE: Flag = Flag {
    name: "--insecure",
    value: None,
    default: None,
    help: "do not verify the API server's certificate",
};

pub const LIVE: Flag = Flag {
    name: "--live",
    value: None,
    default: None,
    help: "liveness probe: exit 0 while the process that owns -output-dir is making progress",
};

pub const LOG_FORMAT: Flag = Flag {
    name: "--log-format",
    value: Some("text|json"),
    default: Some("text"),
    help: "format of the log on stderr; RUST_LOG sets its level",
};

pub const NAMESPACE: Flag = Flag {
    name: "--namespace",
    value: Some("NS"),
    default: None,
    help: "namespace of the objects that are given without one\n(default: $NS, else $POD_NAMESPACE, \
           else the service account's)",
};

pub const ONETIME: Flag = Flag {
    name: "--onetime",
    value: None,
    default: None,
    help: "publish once and exit, for an init container; overrides -watch",
};

pub const ONETIME_TIMEOUT: Flag = Flag {
    name: "--onetime-timeout",
    value: Some("DURATION"),
    default: None,
    help: "with -onetime: how long to retry, whatever the failure; 0 means forever\n(default: 1m0s, \
           but 5s after a 401, a 403 or for a missing ConfigMap, and not at all\nfor an invalid \
           one)",
};

pub const ON_REFUSAL: Flag = Flag {
    name: "--on-refusal",
    value: Some("off|warn|restore"),
    default: Some("off"),
    help: "what to do where Envoy refuses a set of files, which -envoy-admin tells:\nnothing, warn, or \
           also go back to the last set that it has taken",
};

pub const OUTPUT_DIR: Flag = Flag {
    name: "--output-dir",
    value: Some("DIR"),
    default: Some("/srv/runtime"),
    help: "directory to write the files to; Envoy reads them in DIR/current/",
};

pub const PUBLISH: Flag = Flag {
    name: "--publish",
    value: None,
    default: Some("true"),
    help: "with TrafficSplits or HTTPRoutes: show the merged ConfigMap in the cluster as NAME-gen",
};

pub const READY: Flag = Flag {
    name: "--ready",
    value: None,
    default: None,
    help: "readiness probe: exit 0 once Envoy can start with the files in -output-dir",
};

pub const SMI: Flag = Flag {
    name: "--smi",
    value: None,
    default: None,
    help: "merge the weights of all TrafficSplits of the namespace",
};

pub const STALE_OK: Flag = Flag {
    name: "--stale-ok",
    value: Some("DURATION"),
    default: None,
    help: "with -onetime: after this long, accept the complete files of a previous run,\nif they \
           came from exactly these ConfigMaps",
};

pub const SYNC_INTERVAL: Flag = Flag {
    name: "--sync-interval",
    value: Some("DURATION"),
    default: Some("1m0s"),
    help: "polling interval; with -watch: how often to verify that the watch is not stale",
};

pub const TOKEN_FILE: Flag = Flag {
    name: "--token-file",
    value: Some("PATH"),
    default: Some("/var/run/secrets/kubernetes.io/serviceaccount/token"),
    help: "file with the bearer token, read again when it changes;\nsent over plain http only if \
           this flag is given",
};

pub const TRAFFICSPLIT: Flag = Flag {
    name: "--trafficsplit",
    value: Some("[NS/]NAME"),
    default: None,
    help: "TrafficSplit whose weights are merged (repeatable); overrides -smi",
};

pub const TRAFFICSPLIT_API_VERSION: Flag = Flag {
    name: "--trafficsplit-api-version",
    value: Some("VERSION"),
    default: None,
    help: "version of split.smi-spec.io to use (default: ask the API server)",
};

pub const VERSION: Flag = Flag {
    name: "--version",
    value: None,
    default: None,
    help: "print the version and exit",
};

pub const WATCH: Flag = Flag {
    name: "--watch",
    value: None,
    default: None,
    help: "watch for changes instead of polling (default: true with a command)",
};

/// All flags, as `-h` lists them.
const FLAGS: [&Flag; 28] = [
    &ACCEPTED,
    &APISERVER,
    &CA_FILE,
    &CONFIGMAP,
    &DRAIN,
    &DRY_RUN,
    &ENVOY_ADMIN,
    &ENVOY_DRAIN_TIME,
    &GATEWAY_API,
    &HTTPROUTE,
    &INSECURE,
    &LIVE,
    &LOG_FORMAT,
    &NAMESPACE,
    &ONETIME,
    &ONETIME_TIMEOUT,
    &ON_REFUSAL,
    &OUTPUT_DIR,
    &PUBLISH,
    &READY,
    &SMI,
    &STALE_OK,
    &SYNC_INTERVAL,
    &TOKEN_FILE,
    &TRAFFICSPLIT,
    &TRAFFICSPLIT_API_VERSION,
    &VERSION,
    &WATCH,
];

/// Returns the flag of this bare name.
pub fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.into_iter().find(|flag| flag.bare() == name)
}

/// Returns the text of `-h`.
pub fn usage() -> String {
    let mut text = String::from("Usage: crossover [flags] [-- command [arguments]]\n");
    for flag in FLAGS {
        text += "  -";
        text += flag.bare();
        if let Some(value) = flag.value {
            text += " ";
            text += value;
        }
        for line in flag.help.lines() {
            text += "\n    \t";
            text += line;
        }
        if let Some(default) = flag.default {
            text += " (default ";
            text += default;
            text += ")";
        }
        text += "\n";
    }
    text
}
