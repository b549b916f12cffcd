//! Where in a configuration a node stands. Owns: the proto field names on the way from a resource
//! to a weight. Must not: look at values.

/// What a node is, by the keys above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The document.
    Root,
    /// `resources`.
    Resources,
    /// One of them, or what a `Resource` wraps.
    Resource,
    /// A place below which a `route_config` may stand: all that is not named here.
    Elsewhere,
    /// A RouteConfiguration that is no resource: a listener's own.
    RouteConfig,
    /// `virtual_hosts`.
    VirtualHosts,
    /// One of them.
    VirtualHost,
    /// A virtual host's `name`.
    HostName,
    /// A virtual host's `domains`.
    Domains,
    /// One of them.
    Domain,
    /// A virtual host's `routes`.
    Routes,
    /// One of them.
    Route,
    /// A route's `route`.
    Action,
    /// `weighted_clusters`.
    WeightedClusters,
    /// Its `total_weight`.
    TotalWeight,
    /// Its `total_weight: {value: n}`.
    TotalValue,
    /// Its `clusters`.
    Clusters,
    /// One of them.
    Cluster,
    /// A cluster's `name`.
    ClusterName,
    /// A cluster's `weight`.
    Weight,
    /// A cluster's `weight: {value: n}`.
    WeightValue,
    /// A place that holds nothing for us.
    Opaque,
}

/// What kind of node belongs somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Mapping,
    Sequence,
    Scalar,
    /// A scalar, or a mapping with its `value`.
    Number,
    Any,
}

impl Role {
    /// The role of a key's value in a mapping of this role. Keys are proto names, as they are or in
    /// lowerCamelCase.
    pub(super) fn value_of(self, key: &str) -> Role {
        match (self, key) {
            (Role::Root, "resources") => Role::Resources,
            (Role::Resource, "resource") => Role::Resource,
            (Role::Resource | Role::RouteConfig, "virtual_hosts" | "virtualHosts") => {
                Role::VirtualHosts
            }
            // Free-form: what looks like a route there is none.
            (Role::Root | Role::Resource | Role::Elsewhere, "filter_metadata")
            | (Role::Root | Role::Resource | Role::Elsewhere, "filterMetadata") => Role::Opaque,
            (
                Role::Root | Role::Resource | Role::Elsewhere,
                "route_config" | "routeConfig" | "route_configuration" | "routeConfiguration",
            ) => Role::RouteConfig,
            (Role::Root | Role::Resource | Role::Elsewhere, _) => Role::Elsewhere,
            (Role::VirtualHost, "name") => Role::HostName,
            (Role::VirtualHost, "domains") => Role::Domains,
            (Role::VirtualHost, "routes") => Role::Routes,
            (Role::Route, "route") => Role::Action,
            (Role::Action, "weighted_clusters" | "weightedClusters") => Role::WeightedClusters,
            (Role::WeightedClusters, "clusters") => Role::Clusters,
            (Role::WeightedClusters, "total_weight" | "totalWeight") => Role::TotalWeight,
            (Role::TotalWeight, "value") => Role::TotalValue,
            (Role::Cluster, "name") => Role::ClusterName,
            (Role::Cluster, "weight") => Role::Weight,
            (Role::Weight, "value") => Role::WeightValue,
            _ => Role::Opaque,
        }
    }

    /// The role of an item in a sequence of this role.
    pub(super) fn item(self) -> Role {
        match self {
            Role::Resources => Role::Resource,
            Role::VirtualHosts => Role::VirtualHost,
            Role::Domains => Role::Domain,
            Role::Routes => Role::Route,
            Role::Clusters => Role::Cluster,
            Role::Elsewhere => Role::Elsewhere,
            _ => Role::Opaque,
        }
    }

    /// What Envoy takes here; anything else is nothing that we would edit.
    pub(super) fn shape(self) -> Shape {
        match self {
            Role::Root
            | Role::Resource
            | Role::RouteConfig
            | Role::VirtualHost
            | Role::Route
            | Role::Action
            | Role::WeightedClusters
            | Role::Cluster => Shape::Mapping,
            Role::Resources
            | Role::VirtualHosts
            | Role::Domains
            | Role::Routes
            | Role::Clusters => Shape::Sequence,
            Role::HostName
            | Role::Domain
            | Role::ClusterName
            | Role::TotalValue
            | Role::WeightValue => Shape::Scalar,
            Role::TotalWeight | Role::Weight => Shape::Number,
            Role::Elsewhere | Role::Opaque => Shape::Any,
        }
    }
}
