//! Compares a mirror as it was read with what it should be. Pure. Owns: whether it may be
//! overwritten.

use crate::kube::api::Mirrored;
use crate::output::manifest;
use crate::snapshot::{File, FileName, ObjectName, Snapshot};

/// The result of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is what it should be.
    UpToDate,
    /// It was written by something else, and stays.
    NotOurs,
    /// It is ours, and is to be overwritten.
    Outdated,
}

/// Compares `existing` with the files in `set` that came from `source`.
pub fn compare(existing: &Mirrored, set: &Snapshot, source: &ObjectName) -> Existing {
    let Mirrored { metadata, files } = existing;
    let mine = || set.iter().filter(|(_, file)| file.origin.object == *source);
    let is_ours = manifest::is_ours(metadata);
    let is_equal = |(name, file): (&FileName, &File)| files.get(name.as_str()) == Some(&file.bytes);
    if is_ours && files.len() == mine().count() && mine().all(is_equal) {
        return Existing::UpToDate;
    }
    // The Go program set no label; what holds other keys is somebody else's.
    let is_mine = |key: &String| mine().any(|(name, _)| name.as_str() == key);
    match is_ours || files.keys().all(is_mine) {
        true => Existing::Outdated,
        false => Existing::NotOurs,
    }
}
