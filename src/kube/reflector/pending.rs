//! The requests of a list-watch that are being answered, and the pages of its lists so far. A watch
//! and a consistency check can be under way beside each other.

use std::time::Instant;

use crate::error::{Target, Verb};
use crate::kube::list_watch::{Failure, Input, Request};
use crate::kube::object::{ObjectKind, Projection};
use crate::kube::pages::Pages;
use crate::kube::{list_path, watch_path};
use crate::net::response::Response;
use crate::poll::Changed;

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

    /// Returns the list-watch's event of a failed request.
    pub fn failed(self, failure: Failure) -> Input {
        match self {
            Purpose::List | Purpose::Watch => Input::Failed(failure),
            Purpose::Check => Input::CheckFailed(failure),
        }
    }

    /// Returns the index of its track: a list and a watch share one.
    fn track(self) -> usize {
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
struct Track {
    pending: Option<Pending>,
    /// The pages that have arrived.
    pages: Pages,
}

/// The requests of one list-watch: what they ask for, and which are under way.
pub struct Requests {
    /// The objects that they cover. The verb is that of a list.
    target: Target,
    /// The version of the API group, without which nothing can be asked.
    version: Option<String>,
    /// The requests that are under way; see [`Purpose::track`].
    tracks: [Track; 2],
}

impl Requests {
    /// Makes the requests for one object, or without a `name` for all of its kind in the namespace.
    pub fn new(kind: ObjectKind, namespace: String, name: Option<String>) -> Requests {
        Requests {
            target: Target {
                verb: Verb::List,
                resource: kind.plural(),
                group: kind.group(),
                namespace,
                name,
            },
            version: (kind == ObjectKind::ConfigMap).then(|| "v1".to_owned()),
            tracks: Default::default(),
        }
    }

    /// Sets the version of the API group from now on.
    pub fn set_version(&mut self, version: Option<&str>) -> Changed {
        if self.version.as_deref() == version {
            return Changed::No;
        }
        self.version = version.map(str::to_owned);
        Changed::Yes
    }

    /// Returns whether requests can be made, as the version of the API group is known.
    pub fn are_possible(&self) -> bool {
        self.version.is_some()
    }

    /// Returns the path of a request, if requests can be made.
    pub fn path(&self, request: &Request) -> Option<String> {
        let version = self.version.as_ref()?;
        Some(match request {
            Request::List | Request::Check => {
                let pages = &self.tracks[Purpose::of(request).track()].pages;
                list_path(&self.target, version, pages)
            }
            Request::Watch(from, lasts) => watch_path(&self.target, version, from, *lasts),
        })
    }

    /// Names a request in errors and logs.
    pub fn target(&self, purpose: Purpose) -> Target {
        Target {
            verb: purpose.verb(),
            ..self.target.clone()
        }
    }

    /// Names all requests in logs.
    pub fn objects(&self) -> &Target {
        &self.target
    }

    /// Returns whether they are for a single object.
    pub fn is_single(&self) -> bool {
        self.target.name.is_some()
    }

    /// Returns whether they are for the object of this name, too.
    pub fn cover(&self, name: &str) -> bool {
        self.target.name.as_deref().is_none_or(|mine| mine == name)
    }

    /// Returns the answers that are under way.
    pub fn responses(&self) -> impl Iterator<Item = &Response> {
        let pending = self
            .tracks
            .iter()
            .filter_map(|track| track.pending.as_ref());
        pending.map(|pending| &pending.response)
    }

    /// Returns the same, to be marked as readable.
    pub fn responses_mut(&mut self) -> impl Iterator<Item = &mut Response> {
        let tracks = self.tracks.iter_mut();
        let pending = tracks.filter_map(|track| track.pending.as_mut());
        pending.map(|pending| &mut pending.response)
    }

    /// Returns whether a request of this purpose, or one that shares its track, is under way.
    pub fn is_pending(&self, purpose: Purpose) -> bool {
        self.tracks[purpose.track()].pending.is_some()
    }

    /// Puts a request under way.
    pub fn add(&mut self, pending: Pending) {
        let track = &mut self.tracks[pending.purpose.track()];
        track.pending = Some(pending);
    }

    /// Gives up the request that is under way.
    pub fn cancel(&mut self, purpose: Purpose) {
        self.tracks[purpose.track()].pending = None;
    }

    /// Takes the requests whose answers may have bytes to read.
    pub fn take_readable(&mut self) -> Vec<Pending> {
        self.take_if(|response| response.readable)
    }

    /// Takes the requests whose answers take too long.
    pub fn take_late(&mut self, now: Instant) -> Vec<Pending> {
        self.take_if(|response| response.deadline.is_some_and(|at| at <= now))
    }

    fn take_if(&mut self, is_wanted: impl Fn(&Response) -> bool) -> Vec<Pending> {
        let tracks = self.tracks.each_mut();
        let taken = tracks.map(|track| {
            let is_wanted = |pending: &mut Pending| is_wanted(&pending.response);
            track.pending.take_if(is_wanted)
        });
        taken.into_iter().flatten().collect()
    }

    /// Returns the pages of this purpose's lists.
    pub fn pages(&self, purpose: Purpose) -> &Pages {
        &self.tracks[purpose.track()].pages
    }

    /// Returns the same, to be changed.
    pub fn pages_mut(&mut self, purpose: Purpose) -> &mut Pages {
        &mut self.tracks[purpose.track()].pages
    }
}
