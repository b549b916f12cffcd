//! Error answers of the API server, with what the operator can do about them. Pure.

use std::time::Duration;

use crate::error::{Error, Target};
use crate::kube::api;

/// The feature that a request serves, which decides the rights that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Objects are followed.
    Read,
    /// `<configmap>-gen` is written.
    Mirror,
}

impl Purpose {
    /// Returns the verbs that a Role must grant, except `create`.
    fn verbs(self) -> &'static str {
        match self {
            Purpose::Read => r#"["list", "watch"]"#,
            Purpose::Mirror => r#"["get", "update"]"#,
        }
    }
}

/// Makes the error of an answer with an error code.
pub fn refusal(
    purpose: Purpose,
    target: &Target,
    code: u16,
    body: &[u8],
    retry_after: Option<Duration>,
) -> Error {
    Error::Status {
        target: Box::new(target.clone()),
        code,
        message: api::status(body).message,
        hint: match code {
            401 => "check that the token has not expired and was issued by this cluster".to_owned(),
            403 => role(purpose, target),
            _ => String::new(),
        },
        retry_after,
    }
}

/// Describes the Role that grants the request.
fn role(purpose: Purpose, target: &Target) -> String {
    let Target {
        resource,
        group,
        namespace,
        name,
        ..
    } = target;
    let mut hint = format!(
        "grant it with a Role in namespace {namespace}: apiGroups [\"{group}\"], resources \
         [\"{resource}\"], verbs {}",
        purpose.verbs()
    );
    if let Some(name) = name {
        hint += &format!(", resourceNames [\"{name}\"]");
    }
    if purpose == Purpose::Mirror {
        // RBAC cannot restrict a create to a name: a request to create has none in its path.
        hint += "; and verbs [\"create\"] in a rule without resourceNames; or set -publish=false";
    }
    hint
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Verb;

    fn hint(purpose: Purpose, verb: Verb, code: u16) -> String {
        let target = Target {
            verb,
            resource: "configmaps",
            group: "",
            namespace: "n".to_owned(),
            name: Some("a".to_owned()),
        };
        refusal(purpose, &target, code, b"no", None).to_string()
    }

    #[test]
    fn a_403_names_the_role_that_the_purpose_needs() {
        assert_eq!(
            hint(Purpose::Read, Verb::Watch, 403),
            "failed to watch configmaps n/a: the API server answered 403: no (grant it with a \
             Role in namespace n: apiGroups [\"\"], resources [\"configmaps\"], verbs [\"list\", \
             \"watch\"], resourceNames [\"a\"])"
        );
        assert_eq!(
            hint(Purpose::Mirror, Verb::Create, 403),
            "failed to create configmaps n/a: the API server answered 403: no (grant it with a \
             Role in namespace n: apiGroups [\"\"], resources [\"configmaps\"], verbs [\"get\", \
             \"update\"], resourceNames [\"a\"]; and verbs [\"create\"] in a rule without \
             resourceNames; or set -publish=false)"
        );
        assert_eq!(
            hint(Purpose::Mirror, Verb::Get, 500),
            "failed to get configmaps n/a: the API server answered 500: no"
        );
    }
}
