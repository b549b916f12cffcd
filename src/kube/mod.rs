//! The API server, as far as it concerns us: requests out, bytes of answers in.

pub mod client;
pub mod credentials;
pub mod exchange;
pub mod lines;
pub mod transport;

use std::time::Duration;

use crate::error::Target;
use crate::resource::ResourceVersion;

/// Lists one object: its namespace's list, narrowed to its name, so that a Role can name it.
pub fn list_path(target: &Target) -> String {
    let object = &target.object;
    let (namespace, name, resource) = (&object.namespace, &object.name, target.resource);
    format!("/api/v1/namespaces/{namespace}/{resource}?fieldSelector=metadata.name%3D{name}")
}

/// Watches one object from a resourceVersion on, for so long.
pub fn watch_path(target: &Target, from: &ResourceVersion, lasts: Duration) -> String {
    let (list, seconds) = (list_path(target), lasts.as_secs());
    format!(
        "{list}&watch=1&resourceVersion={from}&allowWatchBookmarks=true&timeoutSeconds={seconds}"
    )
}
