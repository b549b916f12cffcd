//! Where in a configuration a node stands. Owns: the proto field names on the way from a resource
//! to a weight. Must not: look at values.
//!
//! Only typed messages are on that way, so nothing below a free-form Struct (an access log's
//! `json_format`, `filter_metadata`) is ever taken for a route.

/// What a node is, by the keys above it. Envoy takes one item for a list of it, and a list within a
/// list for its items: so a list has the role of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
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

impl Role {
    /// The role of a key's value in a mapping of this role. Keys are proto names, as they are or in
    /// lowerCamelCase.
    pub(super) fn value_of(self, key: &str) -> Role {
        match (self, key) {
            (Role::Root, "resources" | "static_resources" | "staticResources") => Role::Way,
            // Of a resource: what a `Resource` wraps, a listener's and a route configuration's.
            (Role::Way, "resource" | "listeners" | "filters" | "value")
            | (Role::Way, "filter_chains" | "filterChains")
            | (Role::Way, "default_filter_chain" | "defaultFilterChain")
            | (Role::Way, "api_listener" | "apiListener")
            | (Role::Way, "typed_config" | "typedConfig")
            | (Role::Way, "config_discovery" | "configDiscovery")
            | (Role::Way, "default_config" | "defaultConfig")
            | (Role::Way, "route_config" | "routeConfig")
            | (Role::Way, "route_configuration" | "routeConfiguration")
            | (Role::Way, "scoped_routes" | "scopedRoutes")
            | (Role::Way, "scoped_route_configurations" | "scopedRouteConfigurations")
            | (Role::Way, "scoped_route_configurations_list" | "scopedRouteConfigurationsList") => {
                Role::Way
            }
            (Role::Way, "virtual_hosts" | "virtualHosts") => Role::VirtualHost,
            (Role::VirtualHost, "name") => Role::HostName,
            (Role::VirtualHost, "domains") => Role::Domain,
            (Role::VirtualHost, "routes") => Role::Route,
            (Role::VirtualHost, "matcher") | (Role::MatchMap, _) => Role::Matcher,
            (Role::Matcher, "matcher" | "matchers")
            | (Role::Matcher, "matcher_list" | "matcherList")
            | (Role::Matcher, "matcher_tree" | "matcherTree")
            | (Role::Matcher, "on_match" | "onMatch" | "on_no_match" | "onNoMatch")
            | (Role::Matcher, "exact_match_map" | "exactMatchMap")
            | (Role::Matcher, "prefix_match_map" | "prefixMatchMap")
            | (Role::Matcher, "custom_match" | "customMatch" | "typed_config" | "typedConfig")
            | (Role::Matcher, "range_matchers" | "rangeMatchers")
            | (Role::Matcher, "domain_matchers" | "domainMatchers") => Role::Matcher,
            (Role::Matcher, "map") => Role::MatchMap,
            (Role::Matcher, "action") => Role::MatchAction,
            (Role::MatchAction, "typed_config" | "typedConfig") => Role::Route,
            // Of a RouteList, and of a Route in a TypedStruct.
            (Role::Route, "routes" | "value") => Role::Route,
            (Role::Route, "route") => Role::Action,
            (Role::Action, "weighted_clusters" | "weightedClusters") => Role::WeightedClusters,
            (Role::WeightedClusters, "clusters") => Role::Cluster,
            (Role::WeightedClusters, "total_weight" | "totalWeight") => Role::TotalWeight,
            (Role::TotalWeight, "value") => Role::TotalValue,
            (Role::Cluster, "name") => Role::ClusterName,
            (Role::Cluster, "cluster_header" | "clusterHeader") => Role::ClusterHeader,
            (Role::Cluster, "weight") => Role::Weight,
            (Role::Weight, "value") => Role::WeightValue,
            _ => Role::Opaque,
        }
    }

    /// Whether Envoy takes a mapping, or else a list, here. What it does not take is nothing that
    /// we would edit.
    pub(super) fn takes(self, mapping: bool) -> bool {
        match self {
            Role::Way | Role::VirtualHost | Role::Matcher | Role::Route | Role::Cluster => true,
            Role::Root
            | Role::MatchMap
            | Role::MatchAction
            | Role::Action
            | Role::WeightedClusters
            | Role::TotalWeight
            | Role::Weight => mapping,
            Role::Domain => !mapping,
            Role::HostName
            | Role::ClusterName
            | Role::ClusterHeader
            | Role::TotalValue
            | Role::WeightValue => false,
            Role::Opaque => true,
        }
    }
}
