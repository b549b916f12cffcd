//! The values that go into a list-watch and come out of it.

use std::time::Duration;

use crate::snapshot::{ResourceVersion, Version};
use crate::sorted::SortedMap;

/// The objects that a list-watch covers, by name: none or one, where it is for a single object.
pub type ObjectVersions = SortedMap<String, Version>;

/// The way in which changes are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Changes are not followed; only missing objects are asked for again.
    Once,
    /// A consistency check at an interval.
    Poll(Duration),
    /// A watch, with a consistency check at an interval.
    Watch(Duration),
}

/// A request to make.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// List whole objects.
    List,
    /// Watch from this resourceVersion on, for so long.
    Watch(ResourceVersion, Duration),
    /// List metadata.
    Check,
}

/// An event that the list-watch reacts to.
#[derive(Debug)]
pub enum Input {
    /// A list has arrived, whole.
    Listed(ResourceVersion, ObjectVersions),
    /// A watch has been granted for so long.
    Opened(Duration),
    /// The stream reports an object.
    Changed(String, Version),
    /// The stream reports that an object is gone, as of this resourceVersion.
    Deleted(String, ResourceVersion),
    /// The stream reports how far it has come.
    Bookmark(ResourceVersion),
    /// A consistency check has arrived, whole.
    Checked(ObjectVersions),
    /// A consistency check failed.
    CheckFailed(Failure),
    /// The stream ended, by rule or not.
    Ended,
    /// A request or a stream failed.
    Failed(Failure),
    /// Time passes.
    Tick,
}

/// The failure of a request or a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The reason holds for all requests: the circuit breaker decides when to go on.
    Server,
    /// The server is busy, and wants to be left alone for so long.
    Busy(Duration),
    /// The resourceVersion is too old.
    Gone,
    /// The reason is this object's own, or the answer cannot be used.
    Object,
}

/// The fate of the stream after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The stream is read on, or there is none.
    Stays,
    /// The stream is to be closed.
    Closes,
}
