//! HTTPRoutes as weights: what one of them asks of Envoy's routes. Owns: which HTTPRoutes are ours,
//! and which cannot be applied. Pure.

use crate::kube::http_route::{HttpRouteSpec, MatchSpec, ObjectRef, RuleSpec, ValueSpec};
use crate::snapshot::ObjectName;
use crate::xds::weights::{
    Backend, Condition, HostName, HostWeights, Match, Naming, Part, PathMatch, Rule, Unmet,
    ValueMatch, WeightKind, WeightSource,
};

/// Returns whether an HTTPRoute of `namespace` is ours to follow where all of the namespace are
/// asked for: it is attached to one of the ConfigMaps, or to a Service. Any other is a Gateway's.
pub fn is_ours(spec: &HttpRouteSpec, namespace: &str, configmaps: &[ObjectName]) -> bool {
    spec.parents.iter().any(|parent| {
        let is_configmap = |object: &ObjectName| {
            let of = parent.namespace.as_deref().unwrap_or(namespace);
            (object.namespace.as_str(), &object.name) == (of, &parent.name)
        };
        match (is_core(parent), parent.kind.as_str()) {
            (true, "Service") => true,
            (true, "ConfigMap") => configmaps.iter().any(is_configmap),
            _ => false,
        }
    })
}

/// Returns whether the group is the core one, which the mesh's documents call so.
fn is_core(object: &ObjectRef) -> bool {
    matches!(object.group.as_str(), "" | "core")
}

/// Brings an HTTPRoute to weights, or says why it has none.
pub fn to_weights(
    name: ObjectName,
    spec: &HttpRouteSpec,
    is_named: bool,
) -> Result<HostWeights, String> {
    let namespace = &name.namespace;
    let rules: Vec<Rule> = spec.rules.iter().map(|r| rule(r, namespace)).collect();
    if rules.iter().all(|rule| rule.backends.is_empty()) {
        return Err("it names no backend".to_owned());
    }
    if rules
        .iter()
        .any(|rule| rule.backends.iter().any(|b| b.service.is_empty()))
    {
        return Err("a backend has no name".to_owned());
    }
    Ok(HostWeights {
        hosts: hosts(&name, spec),
        unmet: Unmet {
            sets_cookie: spec.rules.iter().any(|rule| rule.sets_cookie),
            mirrors_to: mirrors(spec),
        },
        source: WeightSource {
            kind: WeightKind::HttpRoute,
            name,
        },
        rules,
        is_named,
    })
}

/// Returns the hosts that it is for: its own name, its hostnames, and the Services it is attached
/// to.
fn hosts(name: &ObjectName, spec: &HttpRouteSpec) -> Vec<HostName> {
    let own = |name: &String| HostName {
        name: name.clone(),
        namespace: None,
    };
    let mut hosts = Vec::new();
    let services = spec
        .parents
        .iter()
        .filter(|p| is_core(p) && p.kind == "Service");
    let services = services.map(|parent| HostName {
        name: parent.name.clone(),
        namespace: other_namespace(parent, &name.namespace),
    });
    let names = std::iter::once(&name.name).chain(&spec.hostnames);
    for host in names.map(own).chain(services) {
        if !host.name.is_empty() && !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

/// Returns the namespace of an object if it is another one.
fn other_namespace(object: &ObjectRef, own: &str) -> Option<String> {
    object.namespace.clone().filter(|other| other != own)
}

/// Returns the backends of a rule that it mirrors requests to.
fn mirrors(spec: &HttpRouteSpec) -> Vec<String> {
    let mut found = Vec::new();
    for rule in &spec.rules {
        for mirror in &rule.mirrors {
            let is_own = |(backend, _): &(ObjectRef, u64)| {
                (&backend.name, &backend.namespace) == (&mirror.name, &mirror.namespace)
            };
            if rule.backends.iter().any(is_own) && !found.contains(&mirror.name) {
                found.push(mirror.name.clone());
            }
        }
    }
    found
}

fn rule(spec: &RuleSpec, namespace: &str) -> Rule {
    // With the object that each was first named by.
    let mut backends: Vec<(&ObjectRef, Backend)> = Vec::with_capacity(spec.backends.len());
    for (object, weight) in &spec.backends {
        let naming = other_namespace(object, namespace).map_or(Naming::Own, Naming::In);
        let same = |(_, b): &&mut (_, Backend)| b.service == object.name && b.naming == naming;
        match backends.iter_mut().find(same) {
            Some((first, backend)) => {
                let kind =
                    |object: &ObjectRef| (object.group.clone(), object.kind.clone(), object.port);
                backend.is_ambiguous |= kind(first) != kind(object);
                backend.weight = backend.weight.saturating_add(*weight);
            }
            None => {
                let backend = Backend {
                    service: object.name.clone(),
                    naming,
                    weight: *weight,
                    is_ambiguous: false,
                };
                backends.push((object, backend));
            }
        }
    }
    Rule {
        matches: spec.matches.iter().map(to_match).collect(),
        backends: backends.into_iter().map(|(_, backend)| backend).collect(),
    }
}

fn to_match(spec: &MatchSpec) -> Match {
    let (kind, path) = &spec.path;
    let path = match kind.as_str() {
        "Exact" => Some(PathMatch::Exact(path.clone())),
        "PathPrefix" => Some(PathMatch::Prefix(path.clone())),
        "RegularExpression" => Some(PathMatch::Regex(path.clone())),
        _ => None,
    };
    let method = spec.method.as_ref().map(|method| Condition {
        part: Part::Header,
        name: ":method".to_owned(),
        value: ValueMatch::Exact(method.clone()),
    });
    let headers = first_of_each(&spec.headers, |name| name.to_ascii_lowercase());
    let headers = headers.map(|(name, spec)| condition(Part::Header, name, spec));
    let query = first_of_each(&spec.query, ToOwned::to_owned);
    let query = query.map(|(name, spec)| condition(Part::Query, name, spec));
    let all = method.map(Some).into_iter().chain(headers).chain(query);
    let all = all.collect::<Option<Vec<_>>>().filter(|_| !spec.is_unknown);
    match (path, all) {
        (Some(path), Some(conditions)) => Match::new(path, conditions),
        // Of a type, or with a field, that we do not know.
        (path, _) => Match {
            path: path.unwrap_or_default(),
            conditions: None,
        },
    }
}

/// Returns the first condition of each name, with the form in which names are compared.
fn first_of_each<'s>(
    conditions: &'s [ValueSpec],
    form: impl Fn(&str) -> String + 's,
) -> impl Iterator<Item = (String, &'s ValueSpec)> {
    conditions.iter().enumerate().filter_map(move |(at, spec)| {
        let name = form(&spec.name);
        let before = conditions[..at].iter();
        let is_first = before
            .map(|other| form(&other.name))
            .all(|other| other != name);
        is_first.then_some((name, spec))
    })
}

fn condition(part: Part, name: String, spec: &ValueSpec) -> Option<Condition> {
    let value = match spec.kind.as_str() {
        "Exact" => ValueMatch::Exact(spec.value.clone()),
        "RegularExpression" => ValueMatch::Regex(spec.value.clone()),
        _ => return None,
    };
    Some(Condition { part, name, value })
}

/// Returns whether `new` has lost its weights against `old`: in a rule of several backends that
/// were weighed otherwise, every weight is the API's default. A tool that applies a manifest
/// without weights does that, and the tool that owns them writes them again at once.
pub fn has_lost_weights(old: &HostWeights, new: &HostWeights) -> bool {
    let weights = |rule: &Rule| rule.backends.iter().map(|b| b.weight).collect::<Vec<_>>();
    let is_default = |rule: &Rule| rule.backends.len() > 1 && weights(rule).iter().all(|w| *w == 1);
    let names = |rule: &Rule| {
        let backends = rule.backends.iter();
        backends
            .map(|b| (b.service.clone(), b.naming.clone()))
            .collect::<Vec<_>>()
    };
    new.rules
        .iter()
        .filter(|rule| is_default(rule))
        .any(|rule| {
            let mut before = old.rules.iter().filter(|old| names(old) == names(rule));
            before.any(|old| {
                let weights = weights(old);
                weights.iter().any(|weight| *weight != weights[0])
            })
        })
}
