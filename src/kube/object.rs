//! Objects of the API server as values: nothing in them has been checked. Pure.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::kube::http_route::HttpRouteSpec;
use crate::kube::quantity::{self, Weight};
use crate::snapshot::{Bytes, Version};
use crate::sorted::SortedMap;

/// A kind of objects that crossover reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// Holds files for Envoy.
    ConfigMap,
    /// Holds weights for their routes.
    TrafficSplit,
    /// Holds weights, too.
    HttpRoute,
}

impl ObjectKind {
    /// Returns the name in an object's `kind`.
    pub fn name(self) -> &'static str {
        match self {
            ObjectKind::ConfigMap => "ConfigMap",
            ObjectKind::TrafficSplit => "TrafficSplit",
            ObjectKind::HttpRoute => "HTTPRoute",
        }
    }

    /// Returns the name in a URL and in a Role.
    pub fn plural(self) -> &'static str {
        match self {
            ObjectKind::ConfigMap => "configmaps",
            ObjectKind::TrafficSplit => "trafficsplits",
            ObjectKind::HttpRoute => "httproutes",
        }
    }

    /// Returns the API group, which is empty for the core one.
    pub fn group(self) -> &'static str {
        match self {
            ObjectKind::ConfigMap => "",
            ObjectKind::TrafficSplit => "split.smi-spec.io",
            ObjectKind::HttpRoute => "gateway.networking.k8s.io",
        }
    }

    /// Returns the versions of the group that we can read, newest first.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            ObjectKind::ConfigMap => &["v1"],
            ObjectKind::TrafficSplit => &["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"],
            ObjectKind::HttpRoute => &["v1", "v1beta1"],
        }
    }
}

/// An object as the API server sends it.
#[derive(Debug)]
pub struct Object {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid` and `metadata.resourceVersion`.
    pub version: Version,
    /// The part that depends on its kind.
    pub body: Body,
}

/// The part of an object that depends on its kind. An error in it concerns this object alone, not
/// the list that it came in.
#[derive(Debug)]
pub enum Body {
    /// `data` and `binaryData` of a ConfigMap, or why they cannot be read.
    ConfigMap(Result<SortedMap<String, Bytes>, String>),
    /// The fields of a TrafficSplit.
    TrafficSplit {
        /// `metadata.creationTimestamp`: RFC 3339 in UTC, so its text tells older from newer.
        created: String,
        /// `spec`, or why it cannot be read.
        spec: Result<TrafficSplitSpec, String>,
    },
    /// The fields of an HTTPRoute.
    HttpRoute {
        /// The same.
        created: String,
        /// The same.
        spec: Result<HttpRouteSpec, String>,
    },
}

/// The part of the objects that an answer should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// Whole objects are sent.
    Full,
    /// Their metadata alone is sent.
    MetadataOnly,
}

/// `spec` of a TrafficSplit in any version of its group. An empty field is the same as a missing
/// one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TrafficSplitSpec {
    /// The root service.
    #[serde(deserialize_with = "nullable")]
    pub service: String,
    /// The services that share its traffic.
    pub backends: Option<Vec<BackendSpec>>,
    /// Conditions on requests; only whether there are any matters.
    pub matches: Option<Vec<IgnoredAny>>,
}

/// One of `spec.backends`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct BackendSpec {
    /// The service that gets a share.
    #[serde(deserialize_with = "nullable")]
    pub service: String,
    /// A number or a Quantity; 0 if it is absent, `None` if it is neither.
    #[serde(default = "quantity::absent", deserialize_with = "quantity::written")]
    pub weight: Option<Weight>,
}

/// Reads `null` as the default, for serde.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
