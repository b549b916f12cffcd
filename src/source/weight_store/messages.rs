//! The messages about objects with weights. Owns: the words for each kind.

use crate::kube::object::ObjectKind;

/// The messages about the objects of one kind.
pub struct Messages {
    /// The key of the field that names the object.
    pub key: &'static str,
    pub not_found: &'static str,
    pub invalid: &'static str,
    pub valid: &'static str,
    pub deleted: &'static str,
    pub still_deleted: &'static str,
    pub reset: &'static str,
    pub still_reset: &'static str,
}

const OF_TRAFFIC_SPLITS: Messages = Messages {
    key: "trafficsplit",
    not_found: "TrafficSplit not found; using the weights in the ConfigMaps",
    invalid: "TrafficSplit cannot be applied; using the weights in the ConfigMaps",
    valid: "TrafficSplit is valid now",
    deleted: "TrafficSplit deleted; keeping its weights for 10 s",
    still_deleted: "TrafficSplit still deleted; restoring the weights in the ConfigMaps",
    // Their weights have no default.
    reset: "",
    still_reset: "",
};

const OF_HTTP_ROUTES: Messages = Messages {
    key: "httproute",
    not_found: "HTTPRoute not found; using the weights in the ConfigMaps",
    invalid: "HTTPRoute cannot be applied; using the weights in the ConfigMaps",
    valid: "HTTPRoute is valid now",
    deleted: "HTTPRoute deleted; keeping its weights for 10 s",
    still_deleted: "HTTPRoute still deleted; restoring the weights in the ConfigMaps",
    reset: "all weights of the HTTPRoute are 1, the default; keeping the last ones for 10 s",
    still_reset: "all weights of the HTTPRoute are still 1; applying them",
};

impl Messages {
    /// Returns the messages about a kind.
    pub fn of(kind: ObjectKind) -> &'static Messages {
        match kind {
            ObjectKind::HttpRoute => &OF_HTTP_ROUTES,
            ObjectKind::ConfigMap | ObjectKind::TrafficSplit => &OF_TRAFFIC_SPLITS,
        }
    }
}
