//! A request is routed to its answer: authentication, authorization, reads and watches. Must not
//! touch sockets.

use super::access;
use super::encode::{self, View};
use super::request::{Place, Request};
use super::status::Failure;
use super::store::Continue;
use super::watches::{Part, WatchRequest, refusal};
use super::write::{Patch, Target};
use super::{Dialect, State};
use super::{kinds, openapi, protobuf};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

/// The time of a watch without `timeoutSeconds`; the real server takes 30 to 60 minutes.
const DEFAULT_WATCH_TIME: Duration = Duration::from_secs(45 * 60);

/// The right answer to a request.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// JSON, or plain text for paths that nobody serves.
    pub content_type: &'static str,
    /// The part that follows the headers.
    pub body: Reply,
}

/// An answer's body.
pub enum Reply {
    /// All at once, with a Content-Length.
    Whole(Vec<u8>),
    /// A stream of chunks.
    Stream {
        /// The chunks.
        parts: UnboundedReceiver<Part>,
        /// The store's number of this watch; none where it was refused by an event.
        watch: Option<u64>,
        /// After which the server ends it.
        time: Duration,
    },
}

impl Answer {
    fn json(status: u16, body: Vec<u8>) -> Answer {
        Answer {
            status,
            content_type: "application/json",
            body: Reply::Whole(body),
        }
    }

    fn unserved() -> Answer {
        let body = Reply::Whole(b"404 page not found\n".to_vec());
        Answer {
            status: 404,
            content_type: "text/plain; charset=utf-8",
            body,
        }
    }
}

/// Answers a request as the real server would.
pub fn answer(state: &mut State, request: &Request) -> Answer {
    let answered = match access::check(&state.accounts, request) {
        Err(failure) => Err(failure),
        Ok(()) => match request.place() {
            Some(place) => resource(state, request, &place),
            None => Ok(discovery(state, request)),
        },
    };
    answered.unwrap_or_else(|f| Answer::json(f.code, encode::answer(&f.status)))
}

fn discovery(state: &State, request: &Request) -> Answer {
    let kinds = &state.store.kinds;
    let parts: Vec<&str> = request.path().trim_matches('/').split('/').collect();
    let found = match parts.as_slice() {
        ["version"] => Some(json!({
            "major": "1", "minor": "34", "gitVersion": "v1.34.0", "gitCommit": "",
            "gitTreeState": "clean", "buildDate": "2025-08-27T00:00:00Z", "goVersion": "go1.24",
            "compiler": "gc", "platform": "linux/amd64",
        })),
        ["api"] => Some(kinds::core_versions()),
        ["apis"] => Some(kinds::groups(kinds)),
        ["apis", group] => kinds::group(kinds, group),
        ["api", version] => kinds::resources(kinds, "", version),
        ["apis", group, version] => kinds::resources(kinds, group, version),
        ["openapi", "v3"] => Some(openapi::index(kinds)),
        ["openapi", "v3", "api", version] => openapi::document(kinds, "", version),
        ["openapi", "v3", "apis", group, version] => openapi::document(kinds, group, version),
        ["healthz" | "readyz" | "livez"] => {
            let body = Reply::Whole(b"ok".to_vec());
            return Answer {
                status: 200,
                content_type: "text/plain; charset=utf-8",
                body,
            };
        }
        _ => None,
    };
    found.map_or_else(Answer::unserved, |found| {
        Answer::json(200, encode::answer(&found))
    })
}

fn resource(state: &mut State, request: &Request, place: &Place) -> Result<Answer, Failure> {
    let Some(kind) = state
        .store
        .served(&place.group, &place.version, &place.plural)
    else {
        return Ok(Answer::unserved());
    };
    let selected = request.selected_name().map_err(Failure::bad_request)?;
    let selection = place.selection(kind.resource(), selected);
    let metadata_only = request.is_metadata_only();
    let view = View {
        kind: kind.clone(),
        version: place.version.clone(),
        metadata_only,
        dialect: state.dialect,
    };
    if request.is_watch() {
        let watch = WatchRequest {
            target: request.target.clone(),
            connection: request.connection,
            selection,
            view,
            from: version(request)?,
            bookmarks: request.flag("allowWatchBookmarks"),
        };
        return open_watch(state, request, watch);
    }
    if request.is_list() {
        let limit = request.query("limit").and_then(|text| text.parse().ok());
        let token = request
            .query("continue")
            .filter(|token| !token.is_empty())
            .map(|token| Continue::parse(&token).ok_or("continue key is not valid"))
            .transpose()
            .map_err(Failure::bad_request)?;
        let limit = limit.filter(|limit| *limit > 0);
        let selects = |object: &Value| request.selects(object);
        let page = state.store.page(&selection, selects, limit, token)?;
        return Ok(Answer::json(200, view.list(&page)));
    }
    let manager = manager(request);
    let (namespace, version) = (place.namespace.as_str(), place.version.as_str());
    let target = Target {
        kind: &kind,
        version,
        namespace,
        manager: &manager,
    };
    let store = &mut state.store;
    let name = place.name.as_str();
    match (request.method.as_str(), name.is_empty()) {
        ("GET", false) => {
            let object = store.get(&target.key(name));
            let object = object.ok_or_else(|| Failure::not_found(&kind, name))?;
            Ok(Answer::json(200, view.object(object)))
        }
        ("POST", true) => {
            let object = target.create(store, body(request)?)?;
            Ok(Answer::json(201, view.object(&object)))
        }
        ("PUT", false) => {
            let object = target.replace(store, name, body(request)?)?;
            Ok(Answer::json(200, view.object(&object)))
        }
        ("PATCH", false) => {
            let status = if store.get(&target.key(name)).is_some() {
                200
            } else {
                201
            };
            let object = target.patch(store, name, patch(request)?, body(request)?)?;
            Ok(Answer::json(status, view.object(&object)))
        }
        ("DELETE", false) => Ok(Answer::json(
            200,
            encode::answer(&target.delete(store, name)?),
        )),
        _ => Err(Failure::method_not_allowed()),
    }
}

fn open_watch(
    state: &mut State,
    request: &Request,
    watch: WatchRequest,
) -> Result<Answer, Failure> {
    let opened = match (request.flag("sendInitialEvents"), state.dialect) {
        (false, _) => state.store.watch(watch),
        (true, Dialect::V1_34) => Err(Failure::no_streaming_list()),
        (true, Dialect::V1_20) => return Err(Failure::unknown_streaming_list()),
    };
    let seconds = request
        .query("timeoutSeconds")
        .and_then(|text| text.parse().ok());
    let time = seconds.map_or(DEFAULT_WATCH_TIME, Duration::from_secs);
    let body = match opened {
        Ok((id, parts)) => Reply::Stream {
            parts,
            watch: Some(id),
            time,
        },
        Err(failure) => Reply::Stream {
            parts: refusal(&failure),
            watch: None,
            time,
        },
    };
    Ok(Answer {
        status: 200,
        content_type: "application/json",
        body,
    })
}

fn version(request: &Request) -> Result<u64, Failure> {
    let sent = request
        .query("resourceVersion")
        .filter(|sent| !sent.is_empty());
    let parsed = sent.map_or(Ok(0), |sent| sent.parse());
    parsed.map_err(|_| Failure::bad_request("invalid resource version"))
}

/// Returns the fieldManager, or else the program's name out of the User-Agent.
fn manager(request: &Request) -> String {
    let agent = request.user_agent.split('/').next().unwrap_or_default();
    let agent = if agent.is_empty() { "unknown" } else { agent };
    request
        .query("fieldManager")
        .unwrap_or_else(|| agent.to_string())
}

fn patch(request: &Request) -> Result<Patch, Failure> {
    let content_type = request
        .content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    match content_type {
        "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
            Ok(Patch::Merge)
        }
        "application/apply-patch+yaml" => Ok(Patch::Apply {
            force: request.flag("force"),
        }),
        other => Err(Failure::unsupported_media_type(other)),
    }
}

fn body(request: &Request) -> Result<Value, Failure> {
    if request.content_type.contains("protobuf") {
        let object = protobuf::config_map(&request.body);
        return object.ok_or_else(|| Failure::bad_request("the body is not a ConfigMap"));
    }
    let yaml = request.content_type.contains("yaml");
    let parsed = if yaml {
        serde_yaml::from_slice(&request.body).map_err(|error| error.to_string())
    } else {
        serde_json::from_slice(&request.body).map_err(|error| error.to_string())
    };
    parsed.map_err(Failure::bad_request)
}
