//! The program, and the kit that proves it, on real input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by a panic.

#[path = "../kit/mod.rs"]
mod kit;

mod absent;
mod addresses;
mod apiserver;
mod bench;
mod canary;
mod chart;
mod chart_cluster;
mod chart_docs;
mod chart_examples;
mod chart_modes;
mod chart_refusals;
mod chart_run;
mod chart_security;
mod chart_started;
mod chart_values;
mod clock;
mod cluster_domain;
mod command;
mod command_line;
mod connecting;
mod crash;
mod credentials;
mod demo;
mod disk;
mod documents;
mod dry_run;
mod environment;
mod envoy;
mod examples;
mod faults;
mod figures;
mod foreign;
mod http_limits;
mod http_routes;
mod judged;
mod keep;
mod keys;
mod kubectl;
mod layout;
mod linger;
mod listwatch;
#[allow(clippy::duplicate_mod)] // On the wire format of older releases.
#[path = "listwatch.rs"]
mod listwatch_old;
mod lock;
mod logging;
mod looks;
#[allow(clippy::duplicate_mod)]
#[path = "looks.rs"]
mod looks_old;
mod merged;
mod mirror;
mod names;
mod network;
mod once;
mod one_container;
mod order;
mod order_inline;
mod order_kept;
mod order_slow;
mod outages;
mod pages;
mod patience;
mod probes;
mod process;
mod readme;
mod recorded;
mod refusals;
mod scale;
mod scene;
mod semantics;
mod setup;
mod signals;
mod splits;
mod steady;
mod storage;
mod tls;
mod traffic;
mod trust;
mod tty;
mod union;
mod unserved;
mod usage;
mod verdict;
mod versions;
mod weights;
mod wire;
