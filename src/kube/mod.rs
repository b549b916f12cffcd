//! The API server, as far as it concerns us: requests out, bytes of answers in.

pub mod api;
pub mod auth;
pub mod client;
pub mod discovery;
pub mod health;
pub mod list_watch;
pub mod quantity;
pub mod reflector;

use std::time::Duration;

use crate::error::Target;
use crate::snapshot::ResourceVersion;

/// Lists objects: a single one by its namespace's list, narrowed to its name, so that a Role can
/// name it.
pub fn list_path(target: &Target, version: &str) -> String {
    let path = collection_path(target, version);
    match &target.name {
        Some(name) => format!("{path}?fieldSelector=metadata.name%3D{name}"),
        None => path,
    }
}

/// Watches the same from a resourceVersion on, for so long.
pub fn watch_path(
    target: &Target,
    version: &str,
    from: &ResourceVersion,
    lasts: Duration,
) -> String {
    let mut path = collection_path(target, version) + "?watch=1";
    if let Some(name) = &target.name {
        path += "&fieldSelector=metadata.name%3D";
        path += name;
    }
    let seconds = lasts.as_secs();
    path + &format!("&resourceVersion={from}&allowWatchBookmarks=true&timeoutSeconds={seconds}")
}

/// All objects of a kind in a namespace; also where a new one is sent.
pub fn collection_path(target: &Target, version: &str) -> String {
    let Target {
        resource,
        group,
        namespace,
        ..
    } = target;
    match *group {
        "" => format!("/api/{version}/namespaces/{namespace}/{resource}"),
        group => format!("/apis/{group}/{version}/namespaces/{namespace}/{resource}"),
    }
}
