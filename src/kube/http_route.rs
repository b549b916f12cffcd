//! An HTTPRoute's `spec` as values: the fields that we read, in v1 and v1beta1 alike. Nothing in
//! them has been checked against each other. As in Go, `null` is the same as absent. Pure.

use serde_json::Value;

/// `spec` of an HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRouteSpec {
    /// The objects that the route is for.
    pub parents: Vec<ObjectRef>,
    /// The hosts whose requests it takes.
    pub hostnames: Vec<String>,
    /// Its rules.
    pub rules: Vec<RuleSpec>,
}

/// A reference to another object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    /// The API group, which is empty for the core one.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The namespace, if it is given.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// The port, if it is given.
    pub port: Option<u64>,
}

/// One of `spec.rules`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSpec {
    /// The requests that it is for, in alternatives; never empty.
    pub matches: Vec<MatchSpec>,
    /// The objects that share its traffic, and their weights.
    pub backends: Vec<(ObjectRef, u64)>,
    /// The objects that get a copy of its requests.
    pub mirrors: Vec<ObjectRef>,
    /// True if a filter sets a cookie.
    pub sets_cookie: bool,
}

/// One of a rule's `matches`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatchSpec {
    /// The type and the value of its `path`.
    pub path: (String, String),
    /// Its `method`.
    pub method: Option<String>,
    /// Its `headers`.
    pub headers: Vec<ValueSpec>,
    /// Its `queryParams`.
    pub query: Vec<ValueSpec>,
    /// True if it has a field that we do not know, which may narrow it.
    pub is_unknown: bool,
}

/// A condition on a header or on a parameter of the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueSpec {
    /// The type of the comparison: `Exact` or `RegularExpression`.
    pub kind: String,
    /// The name of the header or parameter.
    pub name: String,
    /// The value.
    pub value: String,
}

/// The default of a parent's `group`.
const GROUP: &str = "gateway.networking.k8s.io";

impl HttpRouteSpec {
    /// Reads a `spec`. An error says what stands where something else should.
    pub fn read(spec: &Value) -> Result<HttpRouteSpec, String> {
        Ok(HttpRouteSpec {
            parents: list(spec, "parentRefs", |parent| {
                object_ref(parent, GROUP, "Gateway")
            })?,
            hostnames: list(spec, "hostnames", |name| {
                name.as_str()
                    .map(str::to_owned)
                    .ok_or_else(odd("hostnames"))
            })?,
            rules: list(spec, "rules", rule)?,
        })
    }
}

fn rule(rule: &Value) -> Result<RuleSpec, String> {
    let mut read = RuleSpec {
        matches: list(rule, "matches", one_match)?,
        backends: list(rule, "backendRefs", |backend| {
            let weight = number(backend, "weight")?.unwrap_or(1);
            Ok((object_ref(backend, "", "Service")?, weight))
        })?,
        ..RuleSpec::default()
    };
    if read.matches.is_empty() {
        read.matches.push(one_match(&Value::Null)?);
    }
    filters(rule, &mut read)?;
    for backend in field(rule, "backendRefs")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        filters(backend, &mut read)?;
    }
    Ok(read)
}

/// Takes note of the filters of a rule, or of one of its backends.
fn filters(value: &Value, rule: &mut RuleSpec) -> Result<(), String> {
    for filter in list(value, "filters", |filter| Ok(filter.clone()))? {
        if let Some(backend) = inner(&filter, &["requestMirror", "backendRef"]) {
            rule.mirrors.push(object_ref(backend, "", "Service")?);
        }
        let set = ["add", "set"].map(|list| inner(&filter, &["responseHeaderModifier", list]));
        let mut set = set
            .into_iter()
            .flatten()
            .filter_map(Value::as_array)
            .flatten();
        rule.sets_cookie |= set.any(|header| {
            let name = field(header, "name").and_then(Value::as_str);
            name.is_some_and(|name| name.eq_ignore_ascii_case("set-cookie"))
        });
    }
    Ok(())
}

fn one_match(value: &Value) -> Result<MatchSpec, String> {
    let path = field(value, "path").unwrap_or(&Value::Null);
    let mut is_unknown = has_others(value, &["path", "headers", "queryParams", "method"]);
    is_unknown |= has_others(path, &["type", "value"]);
    let mut conditions = |list_of, condition: &'static str| {
        list(value, list_of, |header| {
            is_unknown |= has_others(header, &["type", "name", "value"]);
            Ok(ValueSpec {
                kind: text(header, "type")?.unwrap_or("Exact").to_owned(),
                name: text(header, "name")?.ok_or_else(odd(condition))?.to_owned(),
                value: text(header, "value")?.unwrap_or_default().to_owned(),
            })
        })
    };
    let headers = conditions("headers", "name of a header")?;
    let query = conditions("queryParams", "name of a query parameter")?;
    let kind = text(path, "type")?.unwrap_or("PathPrefix");
    Ok(MatchSpec {
        path: (
            kind.to_owned(),
            text(path, "value")?.unwrap_or("/").to_owned(),
        ),
        method: text(value, "method")?.map(str::to_owned),
        headers,
        query,
        is_unknown,
    })
}

fn object_ref(value: &Value, group: &str, kind: &str) -> Result<ObjectRef, String> {
    Ok(ObjectRef {
        group: text(value, "group")?.unwrap_or(group).to_owned(),
        kind: text(value, "kind")?.unwrap_or(kind).to_owned(),
        namespace: text(value, "namespace")?.map(str::to_owned),
        name: text(value, "name")?.unwrap_or_default().to_owned(),
        port: number(value, "port")?,
    })
}

/// Returns a field of an object, unless it is `null`.
fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    value.get(name).filter(|found| !found.is_null())
}

/// Returns whether an object has a field besides these.
fn has_others(value: &Value, known: &[&str]) -> bool {
    let mut fields = value.as_object().into_iter().flatten();
    fields.any(|(name, value)| !value.is_null() && !known.contains(&name.as_str()))
}

fn inner<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter()
        .try_fold(value, |value, name| field(value, name))
}

fn list<T>(
    value: &Value,
    name: &'static str,
    mut each: impl FnMut(&Value) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    match field(value, name) {
        None => Ok(Vec::new()),
        // An item that is null is one without fields.
        Some(Value::Array(items)) => items.iter().map(&mut each).collect(),
        Some(_) => Err(odd(name)()),
    }
}

fn text<'v>(value: &'v Value, name: &'static str) -> Result<Option<&'v str>, String> {
    let found = field(value, name);
    found
        .map(|found| found.as_str().ok_or_else(odd(name)))
        .transpose()
}

fn number(value: &Value, name: &'static str) -> Result<Option<u64>, String> {
    let found = field(value, name);
    found
        .map(|found| found.as_u64().ok_or_else(odd(name)))
        .transpose()
}

/// Says that a field is missing, or holds a value of another type.
fn odd(name: &'static str) -> impl Fn() -> String {
    move || format!("its {name} cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Every field that is read, with something other than its default.
    fn every_field() -> Value {
        let backend = json!({"group": "g", "kind": "K", "namespace": "n", "name": "b", "port": 80,
            "weight": 7, "filters": [{"type": "ResponseHeaderModifier",
                "responseHeaderModifier": {"add": [{"name": "Set-Cookie", "value": "v"}]}}]});
        json!({
            "parentRefs": [{"group": "g", "kind": "K", "namespace": "n", "name": "p", "port": 1,
                "sectionName": "s"}],
            "hostnames": ["a.example.com"],
            "rules": [{
                "name": "r",
                "matches": [{
                    "path": {"type": "Exact", "value": "/a"},
                    "headers": [{"type": "RegularExpression", "name": "h", "value": "v"}],
                    "queryParams": [{"type": "RegularExpression", "name": "q", "value": "v"}],
                    "method": "GET",
                }],
                "filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": backend}}],
                "backendRefs": [backend],
                "timeouts": {"request": "1s"},
            }],
        })
    }

    /// `value` with `with` in one place, or without the place, for each field in it.
    fn variants(value: &Value, with: Option<&Value>, path: &str, found: &mut Vec<(String, Value)>) {
        let mut add = |place: String, variant: Value| found.push((place, variant));
        match value {
            Value::Object(fields) => {
                for (key, inner) in fields {
                    let mut changed = fields.clone();
                    match with {
                        Some(with) => changed.insert(key.clone(), with.clone()),
                        None => changed.remove(key),
                    };
                    add(format!("{path}/{key}"), Value::Object(changed));
                    let mut below = Vec::new();
                    variants(inner, with, &format!("{path}/{key}"), &mut below);
                    for (place, variant) in below {
                        let mut fields = fields.clone();
                        fields.insert(key.clone(), variant);
                        add(place, Value::Object(fields));
                    }
                }
            }
            Value::Array(items) => {
                let mut below = Vec::new();
                variants(&items[0], with, &format!("{path}/0"), &mut below);
                for (place, variant) in below {
                    add(place, json!([variant]));
                }
            }
            _ => {}
        }
    }

    fn all_variants(with: Option<&Value>) -> Vec<(String, Value)> {
        let mut found = Vec::new();
        variants(&every_field(), with, "", &mut found);
        assert!(found.len() > 40, "{}", found.len());
        found
    }

    #[test]
    fn null_is_the_same_as_absent_in_every_field() {
        let null = all_variants(Some(&Value::Null));
        for ((place, null), (_, absent)) in null.iter().zip(all_variants(None)) {
            assert_eq!(
                HttpRouteSpec::read(null),
                HttpRouteSpec::read(&absent),
                "{place}"
            );
        }
    }

    #[test]
    fn another_type_is_refused_by_the_name_of_its_field_and_not_by_its_value() {
        let mut refused = 0;
        for odd in [
            json!({"secret": 1}),
            json!(["secret"]),
            json!(true),
            json!(-1),
        ] {
            for (place, variant) in all_variants(Some(&odd)) {
                if let Err(why) = HttpRouteSpec::read(&variant) {
                    assert!(why.starts_with("its "), "{place}: {why}");
                    assert!(!why.contains("secret"), "{place}: {why}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 80, "{refused}");
    }

    #[test]
    fn what_is_left_out_has_the_defaults_of_the_api() {
        let spec = json!({"parentRefs": [{"name": "gw"}], "rules": [
            {"backendRefs": [{"name": "a"}]}, {"matches": [{"headers": [{"name": "h"}]}]}]});
        let spec = HttpRouteSpec::read(&spec).unwrap();
        let parent = &spec.parents[0];
        assert_eq!(
            (parent.group.as_str(), parent.kind.as_str()),
            (GROUP, "Gateway")
        );
        let (backend, weight) = &spec.rules[0].backends[0];
        assert_eq!(
            (backend.group.as_str(), backend.kind.as_str()),
            ("", "Service")
        );
        assert_eq!(*weight, 1);
        let path = ("PathPrefix".to_owned(), "/".to_owned());
        assert_eq!(spec.rules[0].matches[0].path, path);
        assert_eq!(spec.rules[1].matches[0].path, path);
        assert_eq!(spec.rules[1].matches[0].headers[0].kind, "Exact");
    }
}
