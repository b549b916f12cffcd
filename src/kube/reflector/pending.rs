//! The requests of a list-watch that are being answered, and the pages of its lists so far. A watch
//! and a consistency check can be under way beside each other.

use crate::error::Verb;
use crate::kube::list_watch::{Failure, Input, Request};
use crate::kube::object::Projection;
use crate::kube::pages::Pages;
use crate::net::response::Response;

/// The kind of a list-watch's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A list of whole objects.
    List,
    /// A watch, whose lines arrive one by one.
    Watch,
    /// A consistency check, which lists metadata.
    Check,
}

impl Purpose {
    /// Returns the purpose of a request.
    pub fn of(request: &Request) -> Purpose {
        match request {
            Request::List => Purpose::List,
            Request::Watch(..) => Purpose::Watch,
            Request::Check => Purpose::Check,
        }
    }

    /// Returns the verb of its requests.
    pub fn verb(self) -> Verb {
        match self {
            Purpose::List | Purpose::Check => Verb::List,
            Purpose::Watch => Verb::Watch,
        }
    }

    /// Returns how much of the objects its answers hold.
    pub fn projection(self) -> Projection {
        match self {
            Purpose::List | Purpose::Watch => Projection::Full,
            Purpose::Check => Projection::MetadataOnly,
        }
    }

    /// Tells the list-watch that the request failed.
    pub fn failed(self, failure: Failure) -> Input {
        match self {
            Purpose::List | Purpose::Watch => Input::Failed(failure),
            Purpose::Check => Input::CheckFailed(failure),
        }
    }

    /// Returns the index of its track: a list and a watch share one.
    pub fn track(self) -> usize {
        match self {
            Purpose::List | Purpose::Watch => 0,
            Purpose::Check => 1,
        }
    }
}

/// A request that is being answered.
pub struct Pending {
    /// The kind of the request.
    pub purpose: Purpose,
    /// Its answer, as far as it has arrived.
    pub response: Response,
}

/// One request at a time, with the pages of its list.
#[derive(Default)]
pub struct Track {
    /// The request that is being answered.
    pub pending: Option<Pending>,
    /// The pages that have arrived.
    pub pages: Pages,
}
