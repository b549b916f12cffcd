//! The domain of the cluster, as a pod's resolver has it, in the names of virtual hosts.

use std::fs;
use std::path::Path;
use testkit::crossover::Crossover;
use testkit::namespace::Namespace;
use testkit::setup::Setup;
use testkit::weights::{FILE, routes, routes_of, split_of};

/// The routes of service `podinfo`, of a virtual host that only its domain tells.
fn routes_to(domain: &str, weights: [u64; 2]) -> String {
    routes(weights)
        .replace("- name: podinfo\n", "- name: any\n")
        .replace("[\"*\"]", &format!("[\"{domain}\"]"))
}

#[track_caller]
fn follows(resolv_conf: &str, domain: &str, weights: [u64; 2]) {
    let setup = Setup::new();
    setup.put("a", &[(FILE, &routes_to(domain, [100, 0]))]);
    // What is published with it says that the split was there.
    setup.put("b", &[("other.yaml", &routes_of("podinfo", [100, 0]))]);
    setup.server.apply(split_of("podinfo", "podinfo", [60, 40]));
    let pod = Namespace::new(&["--mount"]);
    let ours = setup.path("resolv.conf");
    fs::write(&ours, resolv_conf).unwrap();
    pod.cover(Path::new("/etc/resolv.conf"), Path::new(&ours));
    let flags = [
        "-onetime",
        "-configmap=a",
        "-configmap=b",
        "-trafficsplit=podinfo",
    ];
    let inner = setup.command(&[&flags[..], &["-publish=false"]].concat());
    let finished = Crossover::spawn(pod.command(&inner)).finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    setup.assert_found(&[
        ("other.yaml", &routes([60, 40])),
        (FILE, &routes_to(domain, weights)),
    ]);
}

const POD: &str = "nameserver 10.96.0.10\n\
    search default.svc.corp.example svc.corp.example corp.example\noptions ndots:5\n";

#[test]
fn a_virtual_host_in_the_clusters_own_domain_follows_its_split() {
    follows(POD, "podinfo.default.svc.corp.example", [60, 40]);
    follows(POD, "podinfo.default.svc.cluster.local", [100, 0]);
    follows(
        "nameserver 10.96.0.10\n",
        "podinfo.default.svc.cluster.local",
        [60, 40],
    );
    follows("", "podinfo.default.svc.corp.example", [100, 0]);
}
