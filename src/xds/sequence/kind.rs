//! Tells what kind of resources a file holds. Owns: the types of each kind. Must not: go by a
//! file's name, except for the form that it is read in.

use std::ops::ControlFlow;

use memchr::memchr_iter;

use super::flow::Line;
use super::resources::{self, Text};
use crate::snapshot::FileName;
use crate::xds::yaml::Form;

/// The kind of a file, by the types of its resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Cluster.
    Clusters,
    /// ClusterLoadAssignment, or single endpoints.
    Endpoints,
    /// Secret.
    Secrets,
    /// Runtime.
    Runtime,
    /// Listener.
    Listeners,
    /// RouteConfiguration. Also scoped routes, virtual hosts, and extensions' configurations.
    Routes,
    /// No resource with a type that is known.
    Untyped,
}

/// The types of the resources that files can hold.
const TYPES: [(&str, Kind); 10] = [
    ("envoy.config.cluster.v3.Cluster", Kind::Clusters),
    (
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        Kind::Endpoints,
    ),
    ("envoy.config.endpoint.v3.LbEndpoint", Kind::Endpoints),
    (
        "envoy.extensions.transport_sockets.tls.v3.Secret",
        Kind::Secrets,
    ),
    ("envoy.service.runtime.v3.Runtime", Kind::Runtime),
    ("envoy.config.listener.v3.Listener", Kind::Listeners),
    ("envoy.config.route.v3.RouteConfiguration", Kind::Routes),
    (
        "envoy.config.route.v3.ScopedRouteConfiguration",
        Kind::Routes,
    ),
    ("envoy.config.route.v3.VirtualHost", Kind::Routes),
    ("envoy.config.core.v3.TypedExtensionConfig", Kind::Routes),
];

impl Kind {
    /// Returns whether Envoy must have read such a file before others can refer to it.
    pub fn goes_first(self) -> bool {
        match self {
            Kind::Clusters | Kind::Endpoints | Kind::Secrets | Kind::Runtime | Kind::Untyped => {
                true
            }
            Kind::Listeners | Kind::Routes => false,
        }
    }

    fn of_type(name: &str) -> Kind {
        let known = TYPES.iter().find(|(known, _)| *known == name);
        known.map_or(Kind::Untyped, |(_, kind)| *kind)
    }
}

/// Returns the kind of the first resource that has one. Most texts are not parsed for that: it is
/// enough to look at where `@type` stands in them.
pub fn kind_of(name: &FileName, text: &[u8]) -> Kind {
    let form = Form::of(name);
    if form == Form::Protobuf {
        return in_protobuf(text);
    }
    let seen = Seen::in_text(text);
    if let (Some(kind), false) = (seen.kind, seen.is_doubtful) {
        return kind;
    }
    // Behind an escape, or in another encoding, it may stand unseen.
    let may_hide = || text.contains(&b'\\') || text.contains(&0);
    if seen.kind.is_none() && !seen.is_doubtful && !may_hide() {
        return Kind::Untyped;
    }
    let unread = match form {
        Form::Unnamed => Kind::Untyped,
        Form::Yaml | Form::Json | Form::Protobuf => seen.kind.unwrap_or(Kind::Untyped),
    };
    read(form, text).unwrap_or(unread)
}

/// Returns the names of a file's resources, with the kind of each: the `cluster_name` of a
/// ClusterLoadAssignment, and the `name` of any other. A cluster with an `alt_stat_name` is there
/// twice, and a resource of a type that is not known once for each kind that it may be meant for.
/// Of a text that cannot be read to its end there are those before the fault.
pub fn resources_of(name: &FileName, text: &[u8]) -> Vec<(Kind, String)> {
    let mut found = Vec::new();
    let Ok(text) = Text::new(Form::of(name), text) else {
        return found;
    };
    let unwritten = Line::unwritten();
    // The fault is told where the text is judged.
    let _ = resources::read(&text, unwritten, |resource| {
        let facts = resource.facts.unwrapped();
        let kind = Kind::of_type(facts.of_type.as_deref().unwrap_or_default());
        let (name, of_cluster) = (&facts.name, &facts.cluster_name);
        let names = match kind {
            Kind::Endpoints => vec![(kind, of_cluster)],
            Kind::Clusters => vec![(kind, name), (kind, &facts.alt_stat_name)],
            Kind::Untyped => vec![
                (Kind::Routes, name),
                (Kind::Secrets, name),
                (Kind::Endpoints, of_cluster),
            ],
            _ => vec![(kind, name)],
        };
        let names = names.into_iter();
        found.extend(names.filter_map(|(kind, name)| Some((kind, name.as_deref()?.into()))));
        Ok(ControlFlow::Continue(()))
    });
    found
}

/// Reads up to the first resource of a kind. Returns `None` for a text that cannot be read so far.
pub(super) fn read(form: Form, text: &[u8]) -> Option<Kind> {
    let text = Text::new(form, text).ok()?;
    let mut found = Kind::Untyped;
    let read = resources::read(&text, Line::unwritten(), |resource| {
        let facts = resource.facts.unwrapped();
        found = Kind::of_type(facts.of_type.as_deref().unwrap_or_default());
        Ok(match found {
            Kind::Untyped => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        })
    });
    read.is_ok().then_some(found)
}

/// The facts about a text that its bytes alone tell.
struct Seen {
    /// The first kind that stands in plain sight.
    kind: Option<Kind>,
    /// It may be another one.
    is_doubtful: bool,
}

impl Seen {
    fn in_text(text: &[u8]) -> Seen {
        let mut seen = Seen {
            kind: None,
            is_doubtful: false,
        };
        for at in memchr_iter(b'@', text) {
            let Some(rest) = text[at + 1..].strip_prefix(b"type") else {
                continue;
            };
            match type_in_sight(rest) {
                None => seen.is_doubtful = true,
                Some(Kind::Untyped) => {}
                Some(kind) => {
                    let is_other = *seen.kind.get_or_insert(kind) != kind;
                    let is_first = kind.goes_first();
                    seen.is_doubtful |= is_other || is_first || is_comment(text, at);
                }
            }
            if seen.is_doubtful && seen.kind.is_some() {
                break;
            }
        }
        seen
    }
}

/// Reads the type behind the key `@type`, if it stands right there.
fn type_in_sight(mut rest: &[u8]) -> Option<Kind> {
    const BLANK: [u8; 4] = *b" \t\r\n";
    let skip = |rest: &mut &[u8], some: &[u8]| {
        let len = rest.iter().take_while(|b| some.contains(b)).count();
        *rest = &rest[len..];
    };
    skip(&mut rest, b"\"'");
    skip(&mut rest, &BLANK);
    rest = rest.strip_prefix(b":")?;
    skip(&mut rest, &BLANK);
    skip(&mut rest, b"\"'");
    rest = rest.strip_prefix(b"type.googleapis.com")?;
    rest = rest
        .strip_prefix(b"\\")
        .unwrap_or(rest)
        .strip_prefix(b"/")?;
    let (name, mut behind) = split_name(rest);
    // Envoy looks behind the last slash, which may still come.
    skip(&mut behind, b" \t");
    let ends = behind.first().is_none_or(|b| b"\"'\r\n,}#".contains(b));
    (ends && !name.is_empty()).then(|| Kind::of_type(name))
}

/// Splits off the name of a type.
fn split_name(text: &[u8]) -> (&str, &[u8]) {
    let in_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_');
    let len = text.iter().take_while(|b| in_name(b)).count();
    let (name, behind) = text.split_at(len);
    (str::from_utf8(name).unwrap_or_default(), behind)
}

/// Returns whether a `#` stands before this on its line.
fn is_comment(text: &[u8], at: usize) -> bool {
    let before = text[..at].iter().rev();
    let mut line = before.take_while(|b| !matches!(b, b'\n' | b'\r'));
    line.any(|b| *b == b'#')
}

/// Protobuf as text or in binary: a type stands there as it is.
fn in_protobuf(text: &[u8]) -> Kind {
    let kinds = memchr_iter(b'/', text).map(|at| Kind::of_type(split_name(&text[at + 1..]).0));
    let mut known = kinds.filter(|kind| *kind != Kind::Untyped);
    known.next().unwrap_or(Kind::Untyped)
}
