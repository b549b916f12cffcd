//! A route configuration and the TrafficSplit that weighs it: what the tests of splits and mirrors
//! begin with.

use super::apiserver::faults::{Fault, Misbehaviour};
use super::apiserver::request::Request;
use super::objects::traffic_split;
use super::setup::Setup;
use super::until;
use serde_json::{Value, json};
use std::fs;

/// The file in each ConfigMap of [`Setup::template`].
pub const FILE: &str = "rds.yaml";
/// The path of the group's discovery, which rights on its objects do not cover.
pub const GROUP: &str = "/apis/split.smi-spec.io";
/// Follows ConfigMap `a` and TrafficSplit `podinfo`, writes no mirror.
pub const FOLLOW: [&str; 5] = [
    "-watch",
    "-sync-interval=1h",
    "-configmap=a",
    "-trafficsplit=podinfo",
    "-publish=false",
];

/// Routes of one virtual host whose requests go to a primary and a canary.
pub fn routes_of(service: &str, [primary, canary]: [u64; 2]) -> String {
    format!(
        "\
# {service}
resources:
- \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: {service}
  virtual_hosts:
  - name: {service}
    domains: [\"*\"]
    routes:
    - match: {{prefix: /}}
      route:
        weighted_clusters:
          clusters:
          - {{name: {service}-primary, weight: {primary}}}
          - {{name: {service}-canary, weight: {canary}}}
"
    )
}

/// Routes of service `podinfo`.
pub fn routes(weights: [u64; 2]) -> String {
    routes_of("podinfo", weights)
}

/// Returns a TrafficSplit for a service's primary and canary.
pub fn split_of(name: &str, service: &str, [primary, canary]: [u64; 2]) -> Value {
    let names = [format!("{service}-primary"), format!("{service}-canary")];
    traffic_split(name, service, &[(&names[0], primary), (&names[1], canary)])
}

/// Returns the object with a change of its `spec`.
pub fn with(mut object: Value, field: &str, value: Value) -> Value {
    object["spec"][field] = value;
    object
}

/// Returns whether a request is about TrafficSplits or their versions.
pub fn about_splits(request: &Request) -> bool {
    request.path().starts_with(GROUP)
}

/// Makes a real API server's answer for a path that it does not know.
pub fn unserved() -> Fault {
    Fault::Answer {
        status: 404,
        headers: vec![("Content-Type".into(), "text/plain".into())],
        body: b"404 page not found\n".to_vec(),
    }
}

impl Setup {
    /// Starts a server with ConfigMap `a`, whose own weights are 100 and 0.
    pub fn template() -> Setup {
        let setup = Setup::new();
        setup.put("a", &[(FILE, &routes([100, 0]))]);
        setup
    }

    /// Creates or changes TrafficSplit `podinfo`.
    #[track_caller]
    pub fn split(&self, weights: [u64; 2]) -> String {
        self.server.apply(split_of("podinfo", "podinfo", weights))
    }

    /// Waits until the one file that is published has these weights.
    #[track_caller]
    pub fn until_weights(&self, weights: [u64; 2]) {
        self.until_found(&[(FILE, &routes(weights))]);
    }

    /// Asserts that the one published file has these weights now.
    #[track_caller]
    pub fn assert_weights(&self, weights: [u64; 2]) {
        self.assert_found(&[(FILE, &routes(weights))]);
    }

    /// Makes the next requests that `matches` takes fail like this.
    pub fn fail_next(
        &self,
        times: usize,
        fault: Fault,
        matches: impl Fn(&Request) -> bool + Send + 'static,
    ) {
        let misbehaviour = Misbehaviour::new(fault, matches).times(times);
        self.server.misbehave(misbehaviour);
    }

    /// Returns a mirror, once it is there.
    #[track_caller]
    pub fn mirror(&self, name: &str) -> Value {
        until(name, || self.server.get("ConfigMap", name))
    }

    /// Waits until the mirror of `a` shows these weights.
    #[track_caller]
    pub fn until_mirrored(&self, weights: [u64; 2]) -> Value {
        until(&format!("a mirror with {weights:?}"), || {
            let mirror = self.server.get("ConfigMap", "a-gen")?;
            (mirror["data"] == json!({FILE: routes(weights)})).then_some(mirror)
        })
    }

    /// Returns everything under `current/`, as it is on disk now.
    pub fn says(&self, file: &str) -> String {
        fs::read_to_string(self.output().join("current").join(file)).unwrap_or_default()
    }
}
