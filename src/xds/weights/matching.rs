//! The conditions under which a route takes a request, in an HTTPRoute's rule or in Envoy's route.
//! Owns: when the conditions of both are equal, and which path covers which. Must not: read either.

use crate::sorted::SortedSet;

/// The conditions on one request. All of them have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// The condition on the path.
    pub path: PathMatch,
    /// The conditions on all but the path; `None` if they cannot be compared.
    pub conditions: Option<SortedSet<Condition>>,
}

/// A condition on the path of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathMatch {
    /// There is none, or none that can be compared.
    #[default]
    Any,
    /// It is this text.
    Exact(String),
    /// It begins with this text, in an HTTPRoute by whole segments.
    Prefix(String),
    /// All of it matches this expression.
    Regex(String),
}

/// A condition on a header or on a parameter of the query. The method is the header `:method`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// The part of the request that it is on.
    pub part: Part,
    /// A header's name is in lower case.
    pub name: String,
    /// The value that is wanted.
    pub value: ValueMatch,
}

/// The part of a request that a condition is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A header of this name.
    Header,
    /// A parameter of this name in the query.
    Query,
}

/// The value that a condition wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValueMatch {
    /// This text.
    Exact(String),
    /// A text that matches this expression as a whole.
    Regex(String),
}

impl Match {
    /// Makes a match of these conditions, which may come in any order and repeat themselves.
    pub fn new(path: PathMatch, conditions: Vec<Condition>) -> Match {
        let conditions = Some(conditions.into_iter().collect());
        Match { path, conditions }
    }

    /// Returns whether the path is all that a request has to have.
    pub(super) fn is_general(&self) -> bool {
        self.conditions.as_ref().is_some_and(SortedSet::is_empty)
    }

    /// Returns whether both want the same of a request, whatever its path.
    pub(super) fn is_like(&self, other: &Match) -> bool {
        self.conditions.is_some() && self.conditions == other.conditions
    }

    /// Returns whether a cookie is among what a request has to have.
    pub(super) fn wants_cookie(&self) -> bool {
        let is_cookie = |c: &Condition| c.part == Part::Header && c.name == "cookie";
        self.conditions.iter().flatten().any(is_cookie)
    }
}

impl PathMatch {
    /// Returns how specific this path of a rule is, if it covers the path of a route: the length of
    /// the text, and of equal texts a prefix comes last.
    pub(super) fn covers(&self, route: &PathMatch) -> Option<(usize, bool)> {
        use PathMatch::{Any, Exact, Prefix, Regex};
        match (self, route) {
            (Any, _) => Some((0, false)),
            (Exact(ours), Exact(path)) | (Regex(ours), Regex(path)) => {
                (ours == path).then_some((ours.len(), true))
            }
            (Prefix(ours), _) => {
                let ours = ours.trim_end_matches('/');
                let covered = match route {
                    Exact(path) | Prefix(path) => {
                        let rest = path.strip_prefix(ours);
                        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                    }
                    Any | Regex(_) => false,
                };
                (covered || ours.is_empty()).then_some((ours.len(), false))
            }
            (Exact(_) | Regex(_), _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PathMatch::{Any, Exact, Prefix, Regex};
    use super::*;

    #[test]
    fn a_prefix_covers_by_whole_segments_and_the_rest_only_itself() {
        let [prefix, exact, regex] = [Prefix, Exact, Regex];
        let check = |ours: PathMatch, route: PathMatch, want| {
            assert_eq!(ours.covers(&route), want, "{ours:?} {route:?}");
        };
        let text = |text: &str| text.to_owned();
        for route in [prefix, exact] {
            for path in ["/a", "/a/", "/a/b"] {
                check(Prefix(text("/a")), route(text(path)), Some((2, false)));
                check(Prefix(text("/a/")), route(text(path)), Some((2, false)));
            }
            for path in ["/ab", "/", "", "/b/a"] {
                check(Prefix(text("/a")), route(text(path)), None);
            }
        }
        for (same, other) in [(exact, regex), (regex, exact), (exact, prefix)] {
            check(same(text("/a")), same(text("/a")), Some((2, true)));
            check(same(text("/a")), same(text("/b")), None);
            check(same(text("/a")), other(text("/a")), None);
        }
        for route in [Any, Prefix(text("")), Exact(text("/x")), Regex(text(".*"))] {
            check(Prefix(text("/")), route.clone(), Some((0, false)));
            check(Any, route, Some((0, false)));
        }
        check(Prefix(text("/a")), Any, None);
    }

    #[test]
    fn conditions_are_equal_as_sets_and_unknown_ones_are_not_equal_to_anything() {
        let header = |name: &str, value: &str| Condition {
            part: Part::Header,
            name: name.to_owned(),
            value: ValueMatch::Exact(value.to_owned()),
        };
        let of = |conditions: &[Condition]| Match::new(Any, conditions.to_vec());
        let (a, b) = (header("a", "1"), header("b", "1"));
        let both = of(&[a.clone(), b.clone()]);
        assert!(both.is_like(&of(&[b.clone(), a.clone(), b])));
        assert!(!both.is_like(&of(std::slice::from_ref(&a))) && !of(&[]).is_like(&of(&[a])));
        let unknown = Match::default();
        assert!(!unknown.is_like(&unknown) && !unknown.is_general());
        assert!(of(&[]).is_general() && !both.is_general());
    }
}
