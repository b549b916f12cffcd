//! The cluster's domain, from the resolver's configuration.

use std::fs;

const PATH: &str = "/etc/resolv.conf";

/// The domain of a cluster that was not given another.
const DEFAULT_DOMAIN: &str = "cluster.local";

/// Returns the domain of the cluster: names in a pod are looked up in `svc.DOMAIN`, too.
pub fn cluster_domain() -> String {
    let text = fs::read_to_string(PATH).unwrap_or_default();
    domain_in(&text).unwrap_or(DEFAULT_DOMAIN).to_owned()
}

/// Reads the last `search` line, as the resolver does.
fn domain_in(text: &str) -> Option<&str> {
    let searches = text.lines().rev().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("search")).then_some(words)
    });
    let mut domains = searches?.filter_map(|search| search.strip_prefix("svc."));
    let domain = domains.next()?.trim_end_matches('.');
    (!domain.is_empty()).then_some(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<&str>) {
        assert_eq!(domain_in(text), want, "{text}");
    }

    #[test]
    fn the_search_list_of_a_pod_has_the_clusters_domain() {
        let pod = "search a.svc.corp.example svc.corp.example corp.example example\n";
        check(pod, Some("corp.example"));
        check(
            &format!("nameserver 10.0.0.10\n{pod}options ndots:5\n"),
            Some("corp.example"),
        );
        check("search\ta.svc.k8s.\t svc.k8s.  k8s.", Some("k8s"));
        check("search svc.first\nsearch svc.last\n", Some("last"));
        check("search svc.first\nsearch example\n", None);
        for none in [
            "",
            "search\n",
            "search svc.\n",
            "search example.com\n",
            "# search svc.x\n",
        ] {
            check(none, None);
        }
    }
}
