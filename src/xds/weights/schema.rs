//! The place of a node in a configuration. Owns: the proto field names on the way from a resource
//! to a weight. Must not: look at values.
//!
//! Only typed messages are on that way, so nothing below a free-form Struct (an access log's
//! `json_format`, `filter_metadata`) is ever taken for a route.

use super::route_match::MatchField;

/// The meaning of a node, by the keys above it. Envoy takes one item for a list of it, and a list
/// within a list for its items: so a list is the field of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// The document.
    Root,
    /// A resource, or a message on the way from one to the virtual hosts.
    Way,
    /// One of `virtual_hosts`.
    VirtualHost,
    /// A virtual host's `name`.
    HostName,
    /// One of a virtual host's `domains`.
    Domain,
    /// A message of a virtual host's `matcher`, down to what it does where it matches.
    Matcher,
    /// A matcher's `map`, whose keys are values to match.
    MatchMap,
    /// A matcher's `action`.
    MatchAction,
    /// One of a virtual host's `routes`, or a matcher's Route or RouteList.
    Route,
    /// A route's `match`, and what is in it.
    Match(MatchField),
    /// A route's `route`.
    Action,
    /// `weighted_clusters`.
    WeightedClusters,
    /// Its `total_weight`.
    TotalWeight,
    /// Its `total_weight: {value: n}`.
    TotalValue,
    /// One of its `clusters`.
    Cluster,
    /// A cluster's `name`.
    ClusterName,
    /// A cluster's `cluster_header`, which stands in for the name.
    ClusterHeader,
    /// A cluster's `weight`.
    Weight,
    /// A cluster's `weight: {value: n}`.
    WeightValue,
    /// A place that holds nothing for us.
    Opaque,
}

impl Field {
    /// Returns the meaning of a key's value in a mapping that is this field. Keys are proto names,
    /// as they are or in lowerCamelCase.
    pub(super) fn value_of(self, key: &str) -> Field {
        match (self, key) {
            (Field::Root, "resources" | "static_resources" | "staticResources") => Field::Way,
            // Of a resource: what a `Resource` wraps, a listener's and a route configuration's.
            (Field::Way, "resource" | "listeners" | "filters" | "value")
            | (Field::Way, "filter_chains" | "filterChains")
            | (Field::Way, "default_filter_chain" | "defaultFilterChain")
            | (Field::Way, "api_listener" | "apiListener")
            | (Field::Way, "typed_config" | "typedConfig")
            | (Field::Way, "config_discovery" | "configDiscovery")
            | (Field::Way, "default_config" | "defaultConfig")
            | (Field::Way, "route_config" | "routeConfig")
            | (Field::Way, "route_configuration" | "routeConfiguration")
            | (Field::Way, "scoped_routes" | "scopedRoutes")
            | (Field::Way, "scoped_route_configurations" | "scopedRouteConfigurations")
            | (Field::Way, "scoped_route_configurations_list" | "scopedRouteConfigurationsList") => {
                Field::Way
            }
            (Field::Way, "virtual_hosts" | "virtualHosts") => Field::VirtualHost,
            (Field::VirtualHost, "name") => Field::HostName,
            (Field::VirtualHost, "domains") => Field::Domain,
            (Field::VirtualHost, "routes") => Field::Route,
            (Field::VirtualHost, "matcher") | (Field::MatchMap, _) => Field::Matcher,
            (Field::Matcher, "matcher" | "matchers")
            | (Field::Matcher, "matcher_list" | "matcherList")
            | (Field::Matcher, "matcher_tree" | "matcherTree")
            | (Field::Matcher, "on_match" | "onMatch" | "on_no_match" | "onNoMatch")
            | (Field::Matcher, "exact_match_map" | "exactMatchMap")
            | (Field::Matcher, "prefix_match_map" | "prefixMatchMap")
            | (Field::Matcher, "custom_match" | "customMatch" | "typed_config" | "typedConfig")
            | (Field::Matcher, "range_matchers" | "rangeMatchers")
            | (Field::Matcher, "domain_matchers" | "domainMatchers") => Field::Matcher,
            (Field::Matcher, "map") => Field::MatchMap,
            (Field::Matcher, "action") => Field::MatchAction,
            (Field::MatchAction, "typed_config" | "typedConfig") => Field::Route,
            // Of a RouteList, and of a Route in a TypedStruct.
            (Field::Route, "routes" | "value") => Field::Route,
            (Field::Route, "route") => Field::Action,
            (Field::Route, "match") => Field::Match(MatchField::All),
            (Field::Match(field), key) => Field::Match(field.value_of(key)),
            (Field::Action, "weighted_clusters" | "weightedClusters") => Field::WeightedClusters,
            (Field::WeightedClusters, "clusters") => Field::Cluster,
            (Field::WeightedClusters, "total_weight" | "totalWeight") => Field::TotalWeight,
            (Field::TotalWeight, "value") => Field::TotalValue,
            (Field::Cluster, "name") => Field::ClusterName,
            (Field::Cluster, "cluster_header" | "clusterHeader") => Field::ClusterHeader,
            (Field::Cluster, "weight") => Field::Weight,
            (Field::Weight, "value") => Field::WeightValue,
            _ => Field::Opaque,
        }
    }

    /// Returns whether Envoy takes a mapping, or else a list, here. What it does not take is
    /// nothing that we would edit.
    pub(super) fn takes(self, mapping: bool) -> bool {
        match self {
            Field::Way | Field::VirtualHost | Field::Matcher | Field::Route | Field::Cluster => {
                true
            }
            Field::Match(field) => field.takes(mapping),
            Field::Root
            | Field::MatchMap
            | Field::MatchAction
            | Field::Action
            | Field::WeightedClusters
            | Field::TotalWeight
            | Field::Weight => mapping,
            Field::Domain => !mapping,
            Field::HostName
            | Field::ClusterName
            | Field::ClusterHeader
            | Field::TotalValue
            | Field::WeightValue => false,
            Field::Opaque => true,
        }
    }
}
