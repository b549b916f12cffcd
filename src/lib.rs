//! Keeps Envoy's xDS files in step with Kubernetes ConfigMaps.
//!
//! One thread, one loop, one way through; `docs/architecture.md` has the whole of it:
//!
//! ```text
//! API server --bytes--> net --lines--> kube --events--> source --observed--> xds --desired-->
//! output --files--> Envoy
//! ```
//!
//! - `app`: the loop, which owns all state. `cli`: the command line.
//! - `source`: what the cluster says of ConfigMaps and TrafficSplits, as far as it can be trusted.
//! - `kube`: the API server's client, its list-watches and its objects. `net`: connections, TLS and
//!   responses.
//! - `xds`: Envoy's configuration as text; pure. `output`: the directory, the mirror, a dry run.
//! - `envoy`: Envoy's admin port. `process`: signals and the child.
//! - `snapshot`, `sorted`, `poll`, `backoff`, `error`, `logging`: what all of these stand on.
//!
//! Public is only what the program in `main.rs` calls, and [`testing`].
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub(crate) mod app;
pub(crate) mod backoff;
pub(crate) mod cli;
pub(crate) mod envoy;
pub(crate) mod error;
pub(crate) mod kube;
pub(crate) mod logging;
pub(crate) mod net;
pub(crate) mod output;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod snapshot;
pub(crate) mod sorted;
pub(crate) mod source;
pub(crate) mod xds;

pub use app::run;
pub use cli::{Command, Config, parse, usage};
pub use error::{Chain, Error};
pub use logging::install as install_logger;
pub use output::heartbeat::ask as ask_probe;
pub use process::signals::Signals;

/// Parts of the program that its fuzz targets and integration tests (`tests/fuzz_checks`) feed with
/// arbitrary input. It is the only door to them, so that the compiler finds code that is not used.
#[doc(hidden)]
pub mod testing {
    pub use crate::error::{Target, Verb};
    pub use crate::kube::auth::Roots;
    pub use crate::kube::client::{Call, Client, Method};
    pub use crate::kube::http_route::HttpRouteSpec;
    pub use crate::kube::object::{Body, Object, ObjectKind, Projection, TrafficSplitSpec};
    pub use crate::kube::reflector::Event;
    pub use crate::net::response::{Progress, Response};
    pub use crate::snapshot::{Bytes, FileName, ObjectName, ResourceVersion, Snapshot};
    pub use crate::source::config_map::ConfigMapSource;
    pub use crate::source::weight_store::WeightStore;
    pub use crate::source::{http_route, traffic_split};
    pub use crate::xds::content::ConfigMapFiles;
    pub use crate::xds::desired::{Observed, desired};
    pub use crate::xds::merge::{Done, Merge};
    pub use crate::xds::weights::{Backend, HostWeights, Refused, merge, resolve_conflicts};

    /// Envoy's admin port, and what is made of its counters.
    pub mod envoy {
        pub use crate::envoy::address::Address;
        pub use crate::envoy::admin::Exchange;
        pub use crate::envoy::connect::IdleConnection;
        pub use crate::envoy::error::AdminError;
        pub use crate::envoy::reason::{MAX_DUMP, Topic, reason};
        pub use crate::envoy::stats::{MAX_ANSWER, PATH, Stats};
        pub use crate::envoy::verdict::{Holdings, Outcome, Subscription, Verdict, judge};
    }

    /// Objects of the API server as JSON.
    pub mod api {
        pub use crate::kube::api::{WatchEvent, event, group, list, mirrored, status};
    }

    /// The wait on descriptors, and what came of a turn.
    pub mod poll {
        pub use crate::poll::{Changed, wait};
    }

    /// ConfigMaps as `-dry-run` and the mirror write them.
    pub mod manifest {
        pub use crate::output::manifest::{is_ours, manifests, mirror};
    }

    /// The steps of a change, as far as they are text.
    pub mod sequence {
        pub use crate::xds::sequence::{
            Cluster, Declined, Kind, Union, clusters_of, kind_of, mentions, resources_of, union,
        };
    }

    /// The verdicts on a file's text.
    pub mod validate {
        pub use crate::xds::validate::{Fault, Verdict, check, cross_check};
    }

    /// The forms in which files are read.
    pub mod yaml {
        pub use crate::xds::yaml::Form;
    }
}
