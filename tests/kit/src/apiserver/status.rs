//! The server's refusals: Status objects, with the real messages.

use super::kinds::Kind;
use super::store::Continue;
use serde_json::{Value, json};

/// A refusal: the HTTP status and the Status object.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The HTTP status code, also in the Status.
    pub code: u16,
    /// The Status object.
    pub status: Value,
}

/// One reason why an object is invalid: the field, and what is said of it.
pub type Cause = (String, String);

impl Failure {
    fn new(code: u16, reason: &str, message: String, details: Option<Value>) -> Failure {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code,
        });
        if let Some(details) = details {
            status["details"] = details;
        }
        Failure { code, status }
    }

    fn of(code: u16, reason: &str, kind: &Kind, name: &str, said: &str) -> Failure {
        let message = format!("{} \"{name}\" {said}", kind.resource());
        Failure::new(
            code,
            reason,
            message,
            Some(details(&kind.group, &kind.plural, name)),
        )
    }

    /// Returns the failure for an object that does not exist.
    pub fn not_found(kind: &Kind, name: &str) -> Failure {
        Failure::of(404, "NotFound", kind, name, "not found")
    }

    /// It is there already.
    pub fn already_exists(kind: &Kind, name: &str) -> Failure {
        Failure::of(409, "AlreadyExists", kind, name, "already exists")
    }

    /// Returns the failure for a resourceVersion that is not the newest.
    pub fn conflict(kind: &Kind, name: &str) -> Failure {
        let mut failure = Failure::of(409, "Conflict", kind, name, "");
        failure.status["message"] = json!(format!(
            "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please \
             apply your changes to the latest version and try again",
            kind.resource()
        ));
        failure
    }

    /// Returns the conflict of a server-side apply with fields that others own: manager and field
    /// each.
    pub fn apply_conflict(kind: &Kind, version: &str, conflicts: &[(String, String)]) -> Failure {
        let said = |(manager, field): &(String, String)| {
            format!(
                "conflict with \"{manager}\" using {}: {field}",
                kind.api_version(version)
            )
        };
        let causes: Vec<Value> = conflicts
            .iter()
            .map(|conflict| {
                let manager = format!("conflict with \"{}\"", conflict.0);
                json!({"reason": "FieldManagerConflict", "message": manager, "field": conflict.1})
            })
            .collect();
        let plural = if conflicts.len() == 1 {
            "conflict"
        } else {
            "conflicts"
        };
        let all: Vec<String> = conflicts.iter().map(said).collect();
        let message = format!(
            "Apply failed with {} {plural}: {}",
            all.len(),
            all.join("\n")
        );
        Failure::new(409, "Conflict", message, Some(json!({"causes": causes})))
    }

    /// Returns the failure for an object that breaks a rule of its kind.
    pub fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Failure {
        let lines: Vec<String> = causes
            .iter()
            .map(|(field, said)| format!("{field}: {said}"))
            .collect();
        let all = match lines.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{name}\" is invalid: {all}", kind.qualified());
        let mut details = details(&kind.group, &kind.kind, name);
        details["causes"] = causes
            .iter()
            .map(|(field, said)| {
                json!({"reason": "FieldValueInvalid", "message": said, "field": field})
            })
            .collect();
        Failure::new(422, "Invalid", message, Some(details))
    }

    /// Returns the failure for a request that makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(400, "BadRequest", message.into(), None)
    }

    /// Makes the refusal of a verb that does not exist here.
    pub fn method_not_allowed() -> Failure {
        let message = "the server does not allow this method on the requested resource".into();
        Failure::new(405, "MethodNotAllowed", message, Some(json!({})))
    }

    /// Returns the failure for a patch of a type that is not known.
    pub fn unsupported_media_type(content_type: &str) -> Failure {
        let message = format!("the body of the request was in an unknown format - {content_type}");
        Failure::new(415, "UnsupportedMediaType", message, Some(json!({})))
    }

    /// Makes the refusal of a missing or wrong token.
    pub fn unauthorized() -> Failure {
        Failure::new(401, "Unauthorized", "Unauthorized".into(), None)
    }

    /// Makes the refusal of a request that no role allows.
    pub fn forbidden(
        user: &str,
        verb: &str,
        (group, plural): (&str, &str),
        name: &str,
        namespace: &str,
    ) -> Failure {
        let mut object = if group.is_empty() {
            plural.to_string()
        } else {
            format!("{plural}.{group}")
        };
        if !name.is_empty() {
            object.push_str(&format!(" \"{name}\""));
        }
        let scope = if namespace.is_empty() {
            "at the cluster scope".to_string()
        } else {
            format!("in the namespace \"{namespace}\"")
        };
        let message = format!(
            "{object} is forbidden: User \"{user}\" cannot {verb} resource \"{plural}\" in API \
             group \"{group}\" {scope}"
        );
        Failure::new(
            403,
            "Forbidden",
            message,
            Some(details(group, plural, name)),
        )
    }

    /// Returns the failure for a watch from a resourceVersion that is gone.
    pub fn expired(asked: u64, oldest: u64) -> Failure {
        Failure::new(
            410,
            "Expired",
            format!("too old resource version: {asked} ({oldest})"),
            None,
        )
    }

    /// Returns the failure for a page of a list whose resourceVersion is gone; the rest can be had
    /// as it is now.
    pub fn expired_page(token: Option<&Continue>) -> Failure {
        let message = "The provided continue parameter is too old to display a consistent list \
                       result. You can start a new list without the continue parameter, or use the \
                       continue token in this response to retrieve the remainder of the results. \
                       Continuing with the provided token results in an inconsistent list - objects \
                       that were created, modified, or deleted between the time the first chunk was \
                       returned and now may show up in the list.";
        let mut failure = Failure::new(410, "Expired", message.into(), None);
        if let Some(token) = token {
            let after = token.after.clone();
            let now = Continue {
                version: None,
                after,
            };
            failure.status["metadata"]["continue"] = json!(now.token());
        }
        failure
    }

    /// Returns the failure for a streaming list if the store lacks a feature.
    pub fn no_streaming_list() -> Failure {
        let message = "a watch stream was requested by the client but the required storage feature \
                       RequestWatchProgress is disabled";
        Failure::new(500, "InternalError", message.into(), None)
    }

    /// Returns the failure for a streaming list if the server does not know such a request.
    pub fn unknown_streaming_list() -> Failure {
        let said = |why: &str| format!("Forbidden: resourceVersionMatch is forbidden {why}");
        let said = [
            said("for watch"),
            said("unless resourceVersion is provided"),
        ];
        let causes: Vec<Value> = said
            .iter()
            .map(|message| {
                json!({
                    "reason": "FieldValueForbidden", "message": message,
                    "field": "resourceVersionMatch",
                })
            })
            .collect();
        let all: Vec<String> = said
            .iter()
            .map(|message| format!("resourceVersionMatch: {message}"))
            .collect();
        let message = format!(
            "ListOptions.meta.k8s.io \"\" is invalid: [{}]",
            all.join(", ")
        );
        let details = json!({"group": "meta.k8s.io", "kind": "ListOptions", "causes": causes});
        Failure::new(422, "Invalid", message, Some(details))
    }
}

/// Makes the answer to DELETE.
pub fn deleted(kind: &Kind, name: &str, uid: &Value) -> Value {
    let mut details = details(&kind.group, &kind.plural, name);
    details["uid"] = uid.clone();
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details,
    })
}

fn details(group: &str, kind: &str, name: &str) -> Value {
    let mut details = json!({"kind": kind});
    if !name.is_empty() {
        details["name"] = json!(name);
    }
    if !group.is_empty() {
        details["group"] = json!(group);
    }
    details
}
