//! Every case under `tests/data/httproute`: `config.yaml` with the HTTPRoutes and TrafficSplits of
//! `objects.json`, in namespace `demo`, becomes `want.yaml` with the warnings of `warnings.txt`.
//! And random ones, held against an oracle that knows the rule in words only.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::super::*;
use crate::kube::http_route::HttpRouteSpec;
use crate::snapshot::ObjectName;
use crate::source::http_route::to_weights;
use crate::source::traffic_split::to_weights as to_split;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/httproute");
const DOMAIN: &str = "cluster.local";

/// Returns what an object asks for, or why it cannot be applied.
fn input(object: &Value) -> Result<HostWeights, String> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap().to_owned();
    let name = ObjectName {
        namespace: text("namespace"),
        name: text("name"),
    };
    match object["kind"].as_str().unwrap() {
        "TrafficSplit" => {
            let spec = serde_json::from_value(object["spec"].clone()).unwrap();
            to_split(name, &spec).map_err(|why| why.to_string())
        }
        kind => {
            let spec = HttpRouteSpec::read(&object["spec"])?;
            let not_applied = |why| format!("{kind} {name} is not applied: {why}");
            to_weights(name.clone(), &spec, false).map_err(not_applied)
        }
    }
}

fn check(case: &Path) -> Result<(), String> {
    let read = |file: &str| fs::read_to_string(case.join(file)).ok();
    let objects: Vec<Value> = serde_json::from_str(&read("objects.json").unwrap()).unwrap();
    let (mut inputs, mut warnings) = (Vec::new(), Vec::new());
    for object in &objects {
        match input(object) {
            Ok(input) => inputs.push(input),
            Err(why) => warnings.push(why),
        }
    }
    let inputs: Vec<&HostWeights> = inputs.iter().collect();
    let (inputs, _) = resolve_conflicts(&inputs, DOMAIN);
    let (config, want) = (read("config.yaml").unwrap(), read("want.yaml").unwrap());
    let name = FileName::new("config.yaml").unwrap();
    let merged = merge(&name, &config, &inputs, DOMAIN).map_err(|refused| refused.to_string())?;
    let found = merged.text.clone().unwrap_or(config.clone());
    if found != want {
        return Err(format!("want:\n{want}\nfound:\n{found}"));
    }
    if merged.text.is_some() == (found == config) || !merged.left_out.is_empty() {
        return Err(format!("copied or left out: {:?}", merged.left_out));
    }
    warnings.extend(merged.warnings.iter().map(ToString::to_string));
    for (input, applied) in inputs.iter().zip(&merged.applied) {
        warnings.extend(applied.warnings(input).iter().map(ToString::to_string));
    }
    let want = read("warnings.txt").unwrap_or_default();
    if want.lines().ne(warnings.iter().map(String::as_str)) {
        return Err(format!("want warnings:\n{want}\nfound: {warnings:#?}"));
    }
    let again = merge(&name, &found, &inputs, DOMAIN).map(|merged| merged.text);
    if again != Ok(None) {
        return Err(format!("merging again gives {again:?}"));
    }
    Ok(())
}

#[test]
fn every_http_route_gives_the_weights_and_warnings_that_are_wanted() {
    let (mut wrong, mut numbers) = (Vec::new(), BTreeSet::new());
    for case in fs::read_dir(DATA).unwrap() {
        let case = case.unwrap().path();
        let name = case.file_name().unwrap().to_str().unwrap();
        numbers.extend(name.split('_').next().unwrap().parse::<u32>().ok());
        if let Err(error) = check(&case) {
            wrong.push(format!("{}: {error}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(numbers.into_iter().eq(1..=25));
}

/// An HTTPRoute for host `shop` with these rules.
fn route(name: &str, rules: Value) -> Value {
    json!({"kind": "HTTPRoute", "metadata": {"namespace": "demo", "name": name},
        "spec": {"hostnames": ["shop"], "rules": rules}})
}

/// Merges into the routes of virtual host `shop`; returns the weights of each.
fn weights_of(objects: &[Value], routes: &[Value]) -> Vec<Vec<u64>> {
    let inputs: Vec<HostWeights> = objects.iter().map(|o| input(o).unwrap()).collect();
    let inputs: Vec<&HostWeights> = inputs.iter().collect();
    let config = json!({"resources": [{"virtual_hosts": [
        {"name": "x", "domains": ["shop"], "routes": routes}]}]});
    let text = config.to_string();
    let name = FileName::new("config.json").unwrap();
    let merged = merge(&name, &text, &inputs, DOMAIN).unwrap();
    assert_eq!(merged.left_out, []);
    let text = merged.text.unwrap_or(text);
    let again = merge(&name, &text, &inputs, DOMAIN).map(|merged| merged.text);
    assert_eq!(again, Ok(None), "{text}");
    let merged: Value = serde_json::from_str(&text).unwrap();
    let routes = merged["resources"][0]["virtual_hosts"][0]["routes"].as_array();
    routes.unwrap().iter().map(own_weights).collect()
}

fn clusters(route: &Value) -> &Vec<Value> {
    let clusters = &route["route"]["weighted_clusters"]["clusters"];
    clusters.as_array().unwrap()
}

fn own_weights(route: &Value) -> Vec<u64> {
    let weights = clusters(route)
        .iter()
        .map(|c| c["weight"].as_u64().unwrap());
    weights.collect()
}

/// In A/B testing the rule of those who test gives all to the canary.
#[test]
fn the_weights_of_a_conditional_rule_never_reach_a_route_without_conditions() {
    let backends = |primary: u64, canary: u64| json!([{"name": "primary", "weight": primary}, {"name": "canary", "weight": canary}]);
    let conditional = json!({"matches": [{"headers": [{"name": "x-canary", "value": "yes"}]}],
        "backendRefs": backends(0, 100)});
    let general = json!({"backendRefs": backends(100, 0)});
    let clusters = json!({"weighted_clusters": {"clusters": [
        {"name": "primary", "weight": 70}, {"name": "canary", "weight": 30}]}});
    let plain = json!({"match": {"prefix": "/"}, "route": clusters});
    let header = |name: &str, value: &str| {
        json!({"match": {"prefix": "/", "headers": [
            {"name": name, "string_match": {"exact": value}}]}, "route": clusters})
    };
    let foreign = json!({"match": {"prefix": "/", "grpc": {}}, "route": clusters});
    let routes = [
        header("X-Canary", "yes"),
        header("x-canary", "no"),
        header("x-other", "yes"),
        foreign,
        plain,
    ];
    let own = [vec![70, 30], vec![70, 30], vec![70, 30], vec![70, 30]];
    // Alone, in both orders, and in an object of its own.
    let alone = weights_of(&[route("a", json!([conditional]))], &routes);
    assert_eq!((&alone[0], &alone[1..]), (&vec![0, 100], &own[..]));
    let both = [
        vec![route("a", json!([conditional, general]))],
        vec![route("a", json!([general, conditional]))],
        vec![
            route("a", json!([conditional])),
            route("b", json!([general])),
        ],
        vec![
            route("a", json!([general])),
            route("b", json!([conditional])),
        ],
    ];
    for objects in both {
        let found = weights_of(&objects, &routes);
        let general = vec![vec![100, 0]; 4];
        assert_eq!((&found[0], &found[1..]), (&vec![0, 100], &general[..]));
    }
}

/// The conditions of one match: on headers `a` and `b`, and on the query `q`.
type Conditions = BTreeSet<(&'static str, bool, &'static str)>;

fn conditions() -> impl Strategy<Value = Conditions> {
    let one = (
        select(vec!["a", "b", "q"]),
        any::<bool>(),
        select(vec!["1", "2"]),
    );
    prop_oneof![
        2 => Just(Conditions::new()),
        3 => prop::collection::vec(one, 1..3).prop_map(|all| {
            // Of two for one name only the first would count.
            let mut seen = BTreeSet::new();
            all.into_iter().filter(|(name, ..)| seen.insert(*name)).collect()
        }),
    ]
}

fn path() -> impl Strategy<Value = (&'static str, &'static str)> {
    let kind = select(vec![
        "PathPrefix",
        "PathPrefix",
        "Exact",
        "RegularExpression",
    ]);
    (kind, select(vec!["/", "/", "/a", "/a/b", "/ab", "/a/"]))
}

#[derive(Clone, Debug)]
struct RandomRule {
    matches: Vec<((&'static str, &'static str), Conditions)>,
    backends: Vec<(&'static str, u64)>,
}

fn rule() -> impl Strategy<Value = RandomRule> {
    let weight = select(vec![0, 0, 1, 2, 10, 100]);
    let backend = (select(vec!["x", "y", "z"]), weight);
    (
        prop::collection::vec((path(), conditions()), 1..3),
        prop::collection::vec(backend, 1..4),
    )
        .prop_map(|(matches, backends)| RandomRule { matches, backends })
}

#[derive(Clone, Debug)]
struct RandomRoute {
    path: (&'static str, &'static str),
    conditions: Conditions,
    is_foreign: bool,
    clusters: BTreeSet<&'static str>,
}

fn envoy_route() -> impl Strategy<Value = RandomRoute> {
    let clusters = prop::collection::btree_set(select(vec!["x", "y", "w"]), 1..4);
    let foreign = prop::bool::weighted(0.1);
    (path(), conditions(), foreign, clusters).prop_map(
        |(path, conditions, is_foreign, clusters)| RandomRoute {
            path,
            conditions,
            is_foreign,
            clusters,
        },
    )
}

impl RandomRule {
    fn to_json(&self) -> Value {
        let matches = self.matches.iter().map(|((kind, path), conditions)| {
            let of = |query: bool| -> Vec<Value> {
                let own = conditions
                    .iter()
                    .filter(|(name, ..)| (*name == "q") == query);
                let json = |(name, is_exact, value): &(&str, bool, &str)| {
                    let kind = if *is_exact {
                        "Exact"
                    } else {
                        "RegularExpression"
                    };
                    json!({"type": kind, "name": name.to_uppercase(), "value": value})
                };
                own.map(json).collect()
            };
            json!({"path": {"type": kind, "value": path}, "headers": of(false),
                "queryParams": of(true)})
        });
        let backends = self.backends.iter();
        let backends = backends.map(|(name, weight)| json!({"name": name, "weight": weight}));
        json!({"matches": matches.collect::<Vec<_>>(), "backendRefs": backends.collect::<Vec<_>>()})
    }

    /// The weight of each cluster by this rule; `None` if they cannot be applied.
    fn weights(&self, clusters: &BTreeSet<&str>) -> Option<Vec<u64>> {
        let of = |cluster: &&str| {
            let own = self.backends.iter().filter(|(name, _)| name == cluster);
            own.map(|(_, weight)| *weight).sum()
        };
        let weights: Vec<u64> = clusters.iter().map(of).collect();
        (weights.iter().sum::<u64>() > 0).then_some(weights)
    }

    fn names_any(&self, clusters: &BTreeSet<&str>) -> bool {
        self.backends
            .iter()
            .any(|(name, _)| clusters.contains(name))
    }
}

impl RandomRoute {
    fn to_json(&self) -> Value {
        let (kind, path) = self.path;
        let mut matching = match kind {
            "PathPrefix" => json!({"prefix": path}),
            "Exact" => json!({"path": path}),
            _ => json!({"safe_regex": {"regex": path}}),
        };
        let condition = |(name, is_exact, value): &(&str, bool, &str)| {
            let value = match is_exact {
                true => json!({"exact": value}),
                false => json!({"safe_regex": {"regex": value}}),
            };
            let name = if *name == "q" { "Q" } else { name };
            json!({"name": name, "string_match": value})
        };
        let (query, headers): (Vec<_>, Vec<_>) =
            self.conditions.iter().partition(|(name, ..)| *name == "q");
        if !headers.is_empty() {
            matching["headers"] = headers.into_iter().map(condition).collect();
        }
        if !query.is_empty() {
            matching["query_parameters"] = query.into_iter().map(condition).collect();
        }
        if self.is_foreign {
            matching["runtime_fraction"] = json!({"default_value": {"numerator": 5}});
        }
        let clusters = self.clusters.iter();
        let clusters: Vec<Value> = clusters.map(|c| json!({"name": c, "weight": 7})).collect();
        json!({"route": {"weighted_clusters": {"clusters": clusters}}, "match": matching})
    }

    /// Whether a match of a rule speaks of this route's conditions.
    fn is_equal(&self, conditions: &Conditions) -> bool {
        !self.is_foreign && self.conditions == *conditions
    }

    /// The rank of a path that covers this route's.
    fn rank(&self, (kind, path): (&str, &str)) -> Option<(usize, bool)> {
        let (own_kind, own) = self.path;
        if kind != "PathPrefix" {
            return (kind == own_kind && path == own).then_some((path.len(), true));
        }
        let segments = |path: &str| -> Vec<String> {
            let all = path.split('/').filter(|segment| !segment.is_empty());
            all.map(str::to_owned).collect()
        };
        let prefix = segments(path);
        let length = prefix.iter().map(|segment| segment.len() + 1).sum();
        let is_text = own_kind == "RegularExpression";
        let covers = prefix.is_empty() || !is_text && segments(own).starts_with(&prefix);
        covers.then_some((length, false))
    }

    /// The weights that the rule in words gives.
    fn want(&self, rules: &[RandomRule]) -> Vec<u64> {
        let own = vec![7; self.clusters.len()];
        let pool = rules.iter().filter(|rule| rule.names_any(&self.clusters));
        let with = |is: &dyn Fn(&Conditions) -> bool| -> Vec<(&RandomRule, Option<(usize, bool)>)> {
            let matching = |rule: &&RandomRule| rule.matches.iter().any(|(_, c)| is(c));
            let found = pool.clone().filter(matching);
            let rank = |rule: &RandomRule| {
                let counting = rule.matches.iter().filter(|(_, c)| is(c));
                counting.filter_map(|(path, _)| self.rank(*path)).max()
            };
            found.map(|rule| (rule, rank(rule))).collect()
        };
        let mut found = with(&|conditions| self.is_equal(conditions));
        if found.is_empty() {
            found = with(&Conditions::is_empty);
        }
        let parts = |rule: &RandomRule| -> Option<Vec<u64>> {
            let weights = rule.weights(&self.clusters)?;
            let sum: u64 = weights.iter().sum();
            // Of a multiple of every sum that there is.
            Some(
                weights
                    .iter()
                    .map(|weight| weight * 1_000_000_007 / sum)
                    .collect(),
            )
        };
        let differ = found
            .iter()
            .any(|(rule, _)| parts(rule) != parts(found[0].0));
        let best = found.iter().filter_map(|(_, rank)| *rank).max();
        let chosen = match differ {
            false => found.first(),
            true => best.and_then(|best| found.iter().find(|(_, rank)| *rank == Some(best))),
        };
        let weights = chosen.and_then(|(rule, _)| rule.weights(&self.clusters));
        weights.unwrap_or(own)
    }
}

proptest! {
    #![proptest_config(super::properties::config())]

    #[test]
    fn a_random_http_route_gives_what_the_rule_in_words_gives(
        rules in prop::collection::vec(rule(), 1..5),
        routes in prop::collection::vec(envoy_route(), 1..4),
        first in 0_usize..5,
    ) {
        let (of_old, of_new) = rules.split_at(first.min(rules.len()));
        let object = |name: &str, rules: &[RandomRule]| {
            let rules: Vec<Value> = rules.iter().map(RandomRule::to_json).collect();
            route(name, json!(rules))
        };
        let objects = [object("old", of_old), object("new", of_new)];
        let objects = objects.into_iter();
        let objects: Vec<Value> = objects
            .filter(|object| object["spec"]["rules"] != json!([]))
            .collect();
        let text: Vec<Value> = routes.iter().map(RandomRoute::to_json).collect();
        let found = weights_of(&objects, &text);
        for (route, found) in routes.iter().zip(&found) {
            prop_assert_eq!(&route.want(&rules), found, "{:?}", route);
            // Said once more by itself, as it must hold whatever the rest of the rule is.
            if route.conditions.is_empty() {
                let general = rules.iter().filter(|rule| {
                    rule.matches.iter().any(|(_, conditions)| conditions.is_empty())
                });
                let mut allowed = general.filter_map(|rule| rule.weights(&route.clusters));
                let own = found.iter().all(|weight| *weight == 7);
                prop_assert!(own || allowed.any(|weights| weights == *found), "{:?}", route);
            }
        }
    }
}
