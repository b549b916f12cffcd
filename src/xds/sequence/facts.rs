//! Reads what a resource says of itself. Owns: which of its fields matter here. Must not: read a
//! text.

use std::borrow::Cow;

use granit_parser::Span;

use super::declined::Declined;

/// The type of a resource that holds another one.
const WRAPPER: &str = "envoy.service.discovery.v3.Resource";

/// The fields of a resource that matter here.
#[derive(Default)]
pub(super) struct Facts<'a> {
    /// The type, without what stands before its last slash.
    pub(super) of_type: Option<Cow<'a, str>>,
    pub(super) name: Option<Cow<'a, str>>,
    pub(super) cluster_name: Option<Cow<'a, str>>,
    pub(super) alt_stat_name: Option<Cow<'a, str>>,
    /// It is not of use before DNS has answered, or before its health has been checked.
    pub(super) warms: bool,
    /// The reason why its type or its name may not be what Envoy takes them for.
    pub(super) unclear: Option<Declined>,
    /// The resource that this one may hold.
    inner: Option<Box<Facts<'a>>>,
}

impl<'a> Facts<'a> {
    /// Returns what is known of the resource, or of the one that it holds.
    pub(super) fn unwrapped(&self) -> &Facts<'a> {
        match &self.inner {
            Some(inner) if self.of_type.as_deref() == Some(WRAPPER) => inner,
            _ => self,
        }
    }

    /// Returns what takes note of the fields of the mapping under this key.
    pub(super) fn of_value(&mut self, key: &str) -> Option<&mut Facts<'a>> {
        (key == "resource").then(|| &mut **self.inner.insert(Box::default()))
    }

    /// Takes note of a field: its value where that is a scalar, and its value as one line.
    pub(super) fn note(
        &mut self,
        key: &str,
        (span, is_tagged): (Span, bool),
        scalar: Option<Cow<'a, str>>,
        line: &str,
    ) {
        let slot = match key {
            "@type" => &mut self.of_type,
            "name" => &mut self.name,
            "cluster_name" | "clusterName" => &mut self.cluster_name,
            "alt_stat_name" | "altStatName" => &mut self.alt_stat_name,
            "type" => {
                // Names of an enum, or numbers.
                let waits = |it: &str| it.ends_with("_DNS") || matches!(it, "1" | "2");
                self.warms |= scalar.is_some_and(|it| waits(&it));
                return;
            }
            "cluster_type" | "clusterType" => {
                let line = line.to_ascii_lowercase();
                self.warms |= line.contains("dns") || line.contains("redis");
                return;
            }
            "health_checks" | "healthChecks" => {
                self.warms |= !matches!(line, "[]" | "null");
                return;
            }
            _ => return,
        };
        let reason = match (&slot, is_tagged) {
            (Some(_), _) => Some("a key stands twice"),
            (None, true) => Some("a tag stands here"),
            (None, false) => None,
        };
        if let (Some(reason), "@type" | "name") = (reason, key) {
            let declined = || Declined::at(span, reason);
            self.unclear.get_or_insert_with(declined);
        }
        *slot = match key {
            "@type" => scalar.map(last_part),
            _ => scalar,
        };
    }
}

/// `envoy.config.cluster.v3.Cluster` of `type.googleapis.com/envoy.config.cluster.v3.Cluster`.
fn last_part(url: Cow<'_, str>) -> Cow<'_, str> {
    match (url.rfind('/'), url) {
        (None, url) => url,
        (Some(at), Cow::Borrowed(url)) => url[at + 1..].into(),
        (Some(at), Cow::Owned(mut url)) => {
            url.drain(..=at);
            url.into()
        }
    }
}
