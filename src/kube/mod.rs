//! The API server, as far as it concerns us: requests out, bytes of answers in.

pub mod api;
pub mod auth;
pub mod circuit_breaker;
pub mod client;
pub mod discovery;
pub mod health;
pub mod hint;
pub mod http_route;
pub mod list_watch;
pub mod object;
pub mod pages;
pub mod quantity;
pub mod reflector;

use std::fmt::Write;
use std::time::Duration;

use crate::error::Target;
use crate::kube::pages::Pages;
use crate::snapshot::ResourceVersion;

/// Returns the path of a list. It narrows the namespace's list to a single object's name, so that a
/// Role can name it, and asks for all objects in pages.
pub fn list_path(target: &Target, version: &str, pages: &Pages) -> String {
    let path = collection_path(target, version);
    let (limit, next) = pages.wanted();
    let mut path = match &target.name {
        Some(name) => format!("{path}?fieldSelector=metadata.name%3D{name}"),
        None => format!("{path}?limit={limit}"),
    };
    if let Some(next) = next {
        path += "&continue=";
        add_escaped(&mut path, next);
    }
    path
}

/// Appends a text of the server's, escaped for a query.
fn add_escaped(path: &mut String, text: &str) {
    for byte in text.bytes() {
        // A String takes whatever is written.
        let _ = match byte {
            b'-' | b'.' | b'_' | b'~' => path.write_char(byte.into()),
            _ if byte.is_ascii_alphanumeric() => path.write_char(byte.into()),
            _ => write!(path, "%{byte:02X}"),
        };
    }
}

/// Returns the path of a watch from a resourceVersion on, which ends after `lasts`.
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
    path += "&resourceVersion=";
    add_escaped(&mut path, &from.0);
    let seconds = lasts.as_secs();
    path + &format!("&allowWatchBookmarks=true&timeoutSeconds={seconds}")
}

/// Returns the path of all objects of a kind in a namespace, to which new ones are posted, too.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Verb;

    #[test]
    fn what_the_server_says_is_escaped_where_a_query_needs_it() {
        let target = Target {
            verb: Verb::Watch,
            resource: "configmaps",
            group: "",
            namespace: "n".to_owned(),
            name: Some("a.b".to_owned()),
        };
        let from = ResourceVersion::new("aZ9-._~+/=&%".to_owned()).unwrap();
        assert_eq!(
            watch_path(&target, "v1", &from, Duration::from_secs(5)),
            "/api/v1/namespaces/n/configmaps?watch=1&fieldSelector=metadata.name%3Da.b\
             &resourceVersion=aZ9-._~%2B%2F%3D%26%25&allowWatchBookmarks=true&timeoutSeconds=5"
        );
    }
}
