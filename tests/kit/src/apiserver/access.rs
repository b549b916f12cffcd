//! Access control: tokens, and RBAC rules with the real rule for `resourceNames`.

use super::request::{Place, Request};
use super::status::Failure;
use serde_json::Value;

/// Someone who may talk to the server.
#[derive(Clone, Debug)]
pub struct Account {
    /// The token; `None` is for requests without a token.
    pub token: Option<String>,
    /// The name in messages.
    pub user: String,
    /// The rules; with `None`, everything is allowed.
    pub rules: Option<Vec<Rule>>,
}

/// One rule of a Role.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`; `*`.
    pub verbs: Vec<String>,
    /// Empty for the core group.
    pub group: String,
    /// `configmaps`; `*`.
    pub resources: Vec<String>,
    /// Empty: all names. Else only requests that name one of these, be it by path or by
    /// `fieldSelector=metadata.name=`; never a create.
    pub names: Vec<String>,
}

impl Account {
    /// Returns the account of this token, to which everything is allowed.
    pub fn admin(token: &str) -> Account {
        Account {
            token: Some(token.into()),
            user: "admin".into(),
            rules: None,
        }
    }

    /// Returns a service account of namespace `default`, with the rules of its Roles.
    pub fn service(token: &str, name: &str, rules: Vec<Rule>) -> Account {
        let user = format!("system:serviceaccount:default:{name}");
        Account {
            token: Some(token.into()),
            user,
            rules: Some(rules),
        }
    }

    /// Makes the account of requests without a token, with these rules.
    pub fn anonymous(rules: Vec<Rule>) -> Account {
        Account {
            token: None,
            user: "system:anonymous".into(),
            rules: Some(rules),
        }
    }
}

impl Rule {
    /// Verbs on a resource, all names.
    pub fn new(group: &str, resource: &str, verbs: &[&str]) -> Rule {
        Rule {
            verbs: verbs.iter().map(|verb| verb.to_string()).collect(),
            group: group.into(),
            resources: vec![resource.into()],
            names: Vec::new(),
        }
    }

    /// Returns the rules of a Role, as written in a manifest.
    pub fn of_role(role: &Value) -> Vec<Rule> {
        let texts = |value: &Value| -> Vec<String> {
            let items = value.as_array().into_iter().flatten();
            items
                .filter_map(|item| Some(item.as_str()?.to_string()))
                .collect()
        };
        let rules = role["rules"].as_array().into_iter().flatten();
        rules
            .flat_map(|rule| {
                texts(&rule["apiGroups"])
                    .into_iter()
                    .map(move |group| Rule {
                        verbs: texts(&rule["verbs"]),
                        group,
                        resources: texts(&rule["resources"]),
                        names: texts(&rule["resourceNames"]),
                    })
            })
            .collect()
    }

    /// Restricts the rule to objects of these names.
    pub fn named(mut self, names: &[&str]) -> Rule {
        self.names = names.iter().map(|name| name.to_string()).collect();
        self
    }

    fn allows(&self, verb: &str, place: &Place, name: &str) -> bool {
        let has = |all: &[String], one: &str| all.iter().any(|a| a == one || a == "*");
        has(&self.verbs, verb)
            && self.group == place.group
            && has(&self.resources, &place.plural)
            && (self.names.is_empty() || self.names.iter().any(|n| n == name))
    }
}

/// Checks a request's rights. Without accounts everyone may do everything.
pub fn check(accounts: &[Account], request: &Request) -> Result<(), Failure> {
    if accounts.is_empty() {
        return Ok(());
    }
    let Some(account) = accounts
        .iter()
        .find(|account| account.token == request.token)
    else {
        return Err(Failure::unauthorized());
    };
    let (Some(rules), Some(place)) = (&account.rules, request.place()) else {
        return Ok(());
    };
    let verb = request.verb();
    let name = match request.selected_name() {
        Ok(Some(selected)) if place.name.is_empty() => selected,
        Ok(_) | Err(_) => place.name.clone(),
    };
    if rules.iter().any(|rule| rule.allows(verb, &place, &name)) {
        return Ok(());
    }
    let resource = (place.group.as_str(), place.plural.as_str());
    Err(Failure::forbidden(
        &account.user,
        verb,
        resource,
        &name,
        &place.namespace,
    ))
}
