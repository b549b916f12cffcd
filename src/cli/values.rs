//! The values of flags: URLs, names, durations. Owns: how they are read, and which are refused.

use std::time::Duration;

use ureq::http::Uri;

use super::flags::{self, Flag};
use super::syntax::{Args, invalid};
use crate::error::Error;
use crate::output::manifest::mirror_of;
use crate::snapshot::ObjectName;

/// The file in which Kubernetes mounts the namespace of a pod.
const OWN_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// The shortest polling interval: a shorter one would load the API server, and gain nothing over a
/// watch.
const SHORTEST_SYNC_INTERVAL: Duration = Duration::from_millis(100);

pub fn apiserver(
    flag: Option<String>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<String, Error> {
    let variable = |name| env(name).filter(|value| !value.is_empty());
    let host = variable("KUBERNETES_SERVICE_HOST");
    let (what, url) = match (flag, host, variable("KUBERNETES_SERVICE_PORT")) {
        (Some(url), ..) => ("flag -apiserver", url),
        (None, Some(host), Some(port)) => {
            // An IPv6 address, which may have its brackets already.
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let host = if bare.contains(':') {
                format!("[{bare}]")
            } else {
                host
            };
            let what = "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT";
            (what, format!("https://{host}:{port}"))
        }
        (None, ..) => return Ok("https://kubernetes".into()),
    };
    self::url(what, url, &["http", "https"])
}

/// The length of the longest path of a socket.
const LONGEST_SOCKET_PATH: usize = 107;

/// Reads the address of an admin interface: a URL, or `unix:` and a path.
pub fn admin(address: String) -> Result<String, Error> {
    let Some(path) = address.strip_prefix("unix:") else {
        return url("flag -envoy-admin", address, &["http"]);
    };
    let why = match path {
        _ if path.starts_with('@') => {
            "a socket without a path is open to all of the pod; give it a path"
        }
        _ if !path.starts_with('/') => "the path must begin with a slash",
        _ if path.len() > LONGEST_SOCKET_PATH => "the path must have at most 107 bytes",
        _ => return Ok(address),
    };
    Err(invalid(&flags::ENVOY_ADMIN, &address, why))
}

/// Reads a base URL of one of these schemes, and returns it in the form in which URLs can be
/// compared and extended: the scheme in lower case, no slash at the end, nothing after the path.
/// `what` says where it was found.
pub fn url(what: &str, url: String, schemes: &[&str]) -> Result<String, Error> {
    let refused = |why| {
        Err(Error::Usage(format!(
            "invalid value {url:?} for {what}: {why}"
        )))
    };
    let uri = url.parse::<Uri>();
    let names_user = match &uri {
        Ok(uri) => uri.authority().is_some_and(|a| a.as_str().contains('@')),
        Err(_) => url.contains('@'),
    };
    if names_user {
        // Not echoed: it may be a password.
        let what = format!("{what} must not contain a user name or a password");
        let hint = match schemes {
            [_] => "",
            _ => "; use -token-file",
        };
        return Err(Error::Usage(what + hint));
    }
    let Ok(uri) = uri else {
        return refused("not a valid URL");
    };
    let form = match schemes {
        [_] => "must be http://HOST[:PORT] or unix:PATH",
        _ => "must be http://HOST[:PORT] or https://HOST[:PORT]",
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return refused(form);
    };
    // The parser drops a fragment without a word.
    if !schemes.contains(&scheme) || uri.query().is_some() || url.contains('#') {
        return refused(form);
    }
    // A port that it cannot read would be taken for none, which is the scheme's own.
    let host = authority.host();
    if host.is_empty()
        || authority.as_str() != host && matches!(authority.port_u16(), None | Some(0))
    {
        return refused("the port must be a number from 1 to 65535");
    }
    let path = uri.path().trim_end_matches('/');
    Ok(format!("{scheme}://{authority}{path}"))
}

/// Finds the namespace of objects that are named without one, once it is needed.
pub struct NamespaceChoice<'a> {
    pub flag: Option<String>,
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

impl NamespaceChoice<'_> {
    pub fn get(&self) -> Result<String, Error> {
        let service_account = || {
            let text = std::fs::read_to_string(OWN_NAMESPACE).ok()?;
            Some(("the service account", text.trim().to_owned()))
        };
        let found = [
            ("flag -namespace", self.flag.clone()),
            ("environment variable NS", (self.env)("NS")),
            (
                "environment variable POD_NAMESPACE",
                (self.env)("POD_NAMESPACE"),
            ),
        ];
        let found = found
            .into_iter()
            .filter_map(|(from, value)| Some((from, value?)));
        let (from, namespace) = found
            .chain(std::iter::once_with(service_account).flatten())
            .find(|(_, value)| !value.is_empty())
            .ok_or_else(|| {
                let what = "no namespace given: use -namespace, or set NS or POD_NAMESPACE";
                Error::Usage(what.into())
            })?;
        if !is_label(&namespace) {
            return Err(Error::Usage(format!(
                "invalid namespace {namespace:?} from {from}: must be at most 63 of a-z, 0-9 and '-'"
            )));
        }
        Ok(namespace)
    }
}

/// Takes the objects that a repeatable flag names, each once.
pub fn objects(
    args: &mut Args,
    flag: &Flag,
    namespace: &NamespaceChoice,
) -> Result<Vec<ObjectName>, Error> {
    let mut objects = Vec::new();
    for value in args.all(flag) {
        let (ns, object) = match value.split_once('/') {
            Some((ns, object)) => (ns.to_owned(), object),
            None => (namespace.get()?, value.as_str()),
        };
        if !is_label(&ns) || !is_subdomain(object) {
            let why = "must be NAME or NAMESPACE/NAME, of a-z, 0-9, '-' and '.'";
            return Err(invalid(flag, &value, why));
        }
        let object = ObjectName {
            namespace: ns,
            name: object.to_owned(),
        };
        if !objects.contains(&object) {
            objects.push(object);
        }
    }
    Ok(objects)
}

/// Refuses the mirror of a ConfigMap that is given, too: what crossover writes is never an input.
pub fn refuse_mirrors(configmaps: &[ObjectName]) -> Result<(), Error> {
    let mirror = |object: &&ObjectName| configmaps.contains(&mirror_of(object));
    match configmaps.iter().find(mirror) {
        None => Ok(()),
        Some(object) => {
            let why = format!("it is the mirror that crossover writes of {object}");
            let mirror = mirror_of(object).to_string();
            Err(invalid(&flags::CONFIGMAP, &mirror, &why))
        }
    }
}

/// Returns whether a text is an RFC 1123 label, as the name of a namespace must be.
pub fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_dns_part(text)
}

/// Returns whether a text is an RFC 1123 subdomain, as the name of a ConfigMap must be.
fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_part)
}

fn is_dns_part(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| alphanumeric(b) || b == b'-')
}

pub fn sync_interval(text: &str) -> Result<Duration, Error> {
    let interval = duration(&flags::SYNC_INTERVAL, text)?;
    if interval < SHORTEST_SYNC_INTERVAL {
        return Err(invalid(
            &flags::SYNC_INTERVAL,
            text,
            "must be at least 100ms",
        ));
    }
    Ok(interval)
}

pub fn duration(flag: &Flag, text: &str) -> Result<Duration, Error> {
    let why = "must be a duration such as 90s, 1m30s, 1.5h or 300ms";
    go_duration(text).ok_or_else(|| invalid(flag, text, why))
}

/// Reads a duration as Go's `time.ParseDuration` does, if it is not negative and at most a century.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit() || c == '.');
        let unit_end = unit_end.map_or(rest.len(), |length| end + length);
        seconds += number
            * match &rest[end..unit_end] {
                "ns" => 1e-9,
                "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    const CENTURY: f64 = 100.0 * 365.0 * 86400.0;
    (!text.is_empty() && seconds <= CENTURY).then(|| Duration::from_secs_f64(seconds))
}
