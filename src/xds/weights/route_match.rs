//! The conditions of an Envoy route, as its `match` is read. Owns: which field of it says what, and
//! which condition has no counterpart in an HTTPRoute. A route that has one of those is not equal
//! to any rule.

use super::matching::{Condition, Match, Part, PathMatch, ValueMatch};

/// A field of Envoy's RouteMatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MatchField {
    /// All of it.
    All,
    /// `prefix` or `path_separated_prefix`.
    Prefix,
    /// `path`.
    Path,
    /// `safe_regex`.
    PathRegex,
    /// Its `regex`.
    PathRegexText,
    /// One of `headers` or `query_parameters`.
    Condition(Part),
    /// Its `name`.
    Name,
    /// Its `string_match`.
    StringMatch,
    /// An `exact` value.
    Exact,
    /// A regular expression for the value.
    ValueRegex,
    /// Its `regex`.
    ValueRegexText,
    /// A field that means something else unless it is false.
    False,
    /// A condition that no HTTPRoute can express.
    Foreign,
    /// A field that does not narrow the match.
    Neutral,
}

impl MatchField {
    /// Returns the meaning of a key's value in a mapping that is this field.
    pub(super) fn value_of(self, key: &str) -> MatchField {
        use MatchField::*;
        match (self, key) {
            (All, "prefix" | "path_separated_prefix" | "pathSeparatedPrefix") => Prefix,
            (All, "path") => Path,
            (All, "safe_regex" | "safeRegex") => PathRegex,
            (All, "case_sensitive" | "caseSensitive") => Neutral,
            (All, "headers") => Condition(Part::Header),
            (All, "query_parameters" | "queryParameters") => Condition(Part::Query),
            (Condition(_), "name") => Name,
            (Condition(_), "string_match" | "stringMatch") => StringMatch,
            (Condition(Part::Header), "exact_match" | "exactMatch") => Exact,
            (Condition(Part::Header), "safe_regex_match" | "safeRegexMatch") => ValueRegex,
            (Condition(Part::Header), "invert_match" | "invertMatch") => False,
            (Condition(Part::Header), "treat_missing_header_as_empty")
            | (Condition(Part::Header), "treatMissingHeaderAsEmpty") => False,
            (StringMatch, "exact") => Exact,
            (StringMatch, "safe_regex" | "safeRegex") => ValueRegex,
            (StringMatch, "ignore_case" | "ignoreCase") => False,
            (PathRegex, "regex") => PathRegexText,
            (ValueRegex, "regex") => ValueRegexText,
            // The engine of an expression.
            (PathRegex | ValueRegex | Neutral, _) => Neutral,
            _ => Foreign,
        }
    }

    /// Returns whether Envoy takes a mapping, or else a list, here.
    pub(super) fn takes(self, mapping: bool) -> bool {
        use MatchField::*;
        match self {
            Condition(_) | Foreign | Neutral => true,
            All | PathRegex | StringMatch | ValueRegex => mapping,
            Prefix | Path | PathRegexText | Name | Exact | ValueRegexText | False => false,
        }
    }
}

/// The conditions of an Envoy route, as far as they have been read.
#[derive(Debug)]
pub(super) struct RouteMatch {
    path: PathMatch,
    conditions: Vec<Partial>,
    /// True if there is a condition that cannot be compared.
    pub(super) is_foreign: bool,
    /// True once its `match` has begun.
    is_begun: bool,
    /// The lists of conditions that it has named.
    lists: Vec<Part>,
}

/// A condition on a header or a parameter, as far as it has been read.
#[derive(Debug)]
struct Partial {
    part: Part,
    name: String,
    value: Option<ValueMatch>,
}

impl RouteMatch {
    /// Makes the conditions of a route of which nothing has been read. `is_foreign` says that it
    /// has others elsewhere.
    pub(super) fn new(is_foreign: bool) -> RouteMatch {
        RouteMatch {
            path: PathMatch::Any,
            conditions: Vec::new(),
            is_foreign,
            is_begun: false,
            lists: Vec::new(),
        }
    }

    /// Begins a `match`. Of two it is not certain which one counts.
    pub(super) fn begin(&mut self) {
        self.is_foreign |= self.is_begun;
        self.is_begun = true;
    }

    /// A key of `match` names this field. Of two lists it is not certain which one counts.
    pub(super) fn name(&mut self, field: MatchField) {
        if let MatchField::Condition(part) = field {
            self.is_foreign |= self.lists.contains(&part);
            self.lists.push(part);
        }
    }

    /// A mapping or a list begins as the value of this field, which may not take one.
    pub(super) fn open(&mut self, field: MatchField, mapping: bool) {
        match field {
            MatchField::Condition(part) if mapping => self.conditions.push(Partial {
                part,
                name: String::new(),
                value: None,
            }),
            _ => self.is_foreign |= field == MatchField::Foreign || !field.takes(mapping),
        }
    }

    /// A scalar is the value of this field.
    pub(super) fn scalar(&mut self, field: MatchField, text: &str) {
        let last = self.conditions.last_mut();
        match (field, last) {
            (MatchField::Prefix, _) => self.path = PathMatch::Prefix(text.to_owned()),
            (MatchField::Path, _) => self.path = PathMatch::Exact(text.to_owned()),
            (MatchField::PathRegexText, _) => self.path = PathMatch::Regex(text.to_owned()),
            (MatchField::Name, Some(last)) => {
                last.name = match last.part {
                    Part::Header => text.to_ascii_lowercase(),
                    Part::Query => text.to_owned(),
                }
            }
            (MatchField::Exact | MatchField::ValueRegexText, Some(last)) => {
                // Of two ways to say it only one can be meant.
                self.is_foreign |= last.value.is_some();
                last.value = Some(match field {
                    MatchField::Exact => ValueMatch::Exact(text.to_owned()),
                    _ => ValueMatch::Regex(text.to_owned()),
                });
            }
            (MatchField::Neutral, _) => {}
            (MatchField::False, _) => self.is_foreign |= text != "false",
            _ => self.is_foreign = true,
        }
    }

    /// Returns what it has come to.
    pub(super) fn to_match(&self) -> Match {
        let condition = |partial: &Partial| {
            Some(Condition {
                part: partial.part,
                name: partial.name.clone(),
                value: partial.value.clone()?,
            })
        };
        // Without a value a condition is on whether a header is there at all.
        let conditions: Option<Vec<Condition>> = self.conditions.iter().map(condition).collect();
        match conditions.filter(|_| !self.is_foreign) {
            Some(conditions) => Match::new(self.path.clone(), conditions),
            None => Match {
                path: self.path.clone(),
                conditions: None,
            },
        }
    }
}
