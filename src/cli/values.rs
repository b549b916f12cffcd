//! What the values of flags may be: URLs, names, durations. Owns: reading and refusing them.

use std::path::Path;
use std::time::Duration;

use pico_args::Arguments;
use ureq::http::Uri;

use super::{SERVICE_ACCOUNT, all, bad};
use crate::error::Error;
use crate::output::manifest::mirror_of;
use crate::snapshot::ObjectName;

/// Looking more often than this would be a load on the API server and no gain beside a watch.
const SHORTEST_SYNC_INTERVAL: Duration = Duration::from_millis(100);

pub fn apiserver(
    flag: Option<String>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<String, Error> {
    let url = flag.unwrap_or_else(|| {
        let host = env("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty());
        match (
            host,
            env("KUBERNETES_SERVICE_PORT").filter(|port| !port.is_empty()),
        ) {
            (Some(host), Some(port)) if host.contains(':') => format!("https://[{host}]:{port}"),
            (Some(host), Some(port)) => format!("https://{host}:{port}"),
            _ => "https://kubernetes".into(),
        }
    });
    self::url("apiserver", url, &["http", "https"])
}

/// A base URL of such a scheme, without a slash at its end.
pub fn url(flag: &str, url: String, schemes: &[&str]) -> Result<String, Error> {
    let why = match url.parse::<Uri>() {
        Err(_) => "it is no URL",
        Ok(uri) => match (uri.scheme_str(), uri.authority()) {
            (_, Some(authority)) if authority.as_str().contains('@') => {
                // Not echoed: it may be a password.
                let what = format!("-{flag} names a user: use -token-file instead");
                return Err(Error::Usage(what));
            }
            (Some(scheme), Some(_)) if schemes.contains(&scheme) && uri.query().is_none() => {
                return Ok(url.trim_end_matches('/').to_owned());
            }
            _ if schemes.len() > 1 => "it must be http://HOST[:PORT] or https://HOST[:PORT]",
            _ => "it must be http://HOST[:PORT]",
        },
    };
    Err(bad(flag, &url, why))
}

/// The namespace of objects that are named without one, found only when it is needed.
pub struct NamespaceChoice<'a> {
    pub flag: Option<String>,
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

impl NamespaceChoice<'_> {
    pub fn get(&self) -> Result<String, Error> {
        let service_account = || {
            let file = Path::new(SERVICE_ACCOUNT).join("namespace");
            let text = std::fs::read_to_string(file).ok()?;
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
                let what = "no namespace is known: give -namespace, or set NS or POD_NAMESPACE";
                Error::Usage(what.into())
            })?;
        if !is_label(&namespace) {
            return Err(Error::Usage(format!(
                "invalid namespace {namespace:?} from {from}"
            )));
        }
        Ok(namespace)
    }
}

/// The objects that a repeatable flag names, each once.
pub fn objects(
    args: &mut Arguments,
    name: &'static str,
    namespace: &NamespaceChoice,
) -> Result<Vec<ObjectName>, Error> {
    let mut objects = Vec::new();
    for value in all(args, name) {
        let (ns, object) = match value.split_once('/') {
            Some((ns, object)) => (ns.to_owned(), object),
            None => (namespace.get()?, value.as_str()),
        };
        if !is_label(&ns) || !is_subdomain(object) {
            let why = "an object is named NAME or NAMESPACE/NAME, of a-z, 0-9, '-' and '.'";
            return Err(bad(name.trim_start_matches('-'), &value, why));
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

/// A mirror is never an input.
pub fn refuse_mirrors(configmaps: &[ObjectName]) -> Result<(), Error> {
    let mirror = |object: &&ObjectName| configmaps.contains(&mirror_of(object));
    match configmaps.iter().find(mirror) {
        None => Ok(()),
        Some(object) => {
            let (name, mirror) = (object.to_string(), mirror_of(object));
            Err(bad(
                "configmap",
                &mirror.to_string(),
                &format!("it is written from {name}"),
            ))
        }
    }
}

/// An RFC 1123 label: what a namespace is.
pub fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_dns_part(text)
}

/// An RFC 1123 subdomain as Kubernetes reads it: what a ConfigMap's name is.
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
    let interval = duration("sync-interval", text)?;
    if interval < SHORTEST_SYNC_INTERVAL {
        return Err(bad("sync-interval", text, "it is at least 100ms"));
    }
    Ok(interval)
}

pub fn duration(flag: &str, text: &str) -> Result<Duration, Error> {
    let why = "a duration is 90s, 1m30s, 1.5h or 300ms";
    go_duration(text).ok_or_else(|| bad(flag, text, why))
}

/// Go's `time.ParseDuration`, for durations that are not negative and fit a century.
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
