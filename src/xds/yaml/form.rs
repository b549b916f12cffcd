//! The form in which Envoy reads a file, by its name alone. Owns: the endings. Must not: look into
//! a file.

use crate::snapshot::FileName;

/// The form in which Envoy reads a file. It compares names without case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// YAML: `.yaml`, `.yml`.
    Yaml,
    /// JSON: `.json`.
    Json,
    /// Any other name. If Envoy reads the file, it is JSON to it; if not, it may be anything.
    Unnamed,
    /// A protobuf, which is not looked into: `.pb`, `.pb_text`.
    Protobuf,
}

impl Form {
    /// Returns the form of the file of this name.
    pub fn of(name: &FileName) -> Form {
        let is = |known: &&str| name.extension().eq_ignore_ascii_case(known);
        let named = |extensions: &[&str]| extensions.iter().any(is);
        if named(&["yaml", "yml"]) {
            Form::Yaml
        } else if named(&["json"]) {
            Form::Json
        } else if named(&["pb", "pb_text"]) {
            Form::Protobuf
        } else {
            Form::Unnamed
        }
    }

    /// Returns whether the name alone makes it a configuration.
    pub fn is_named(self) -> bool {
        matches!(self, Form::Yaml | Form::Json)
    }
}
