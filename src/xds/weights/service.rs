//! Names of services as clients write them. Owns: which host names say the same service. Must not:
//! know splits or texts.

/// Returns a host name without its port (`:80`, `:*`) and without the dot that ends an absolute
/// name.
pub(super) fn bare(host: &str) -> &str {
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port == "*" || port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => host,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// Returns the service that a host name says: the first label of `podinfo.NAMESPACE`,
/// `podinfo.NAMESPACE.svc` and `podinfo.NAMESPACE.svc.DOMAIN`, else all of it. Case does not count
/// in it. The host is bare: what is left of `podinfo.test..` is not a service's name.
pub(super) fn of<'h>(host: &'h str, namespace: &str, domain: &str) -> &'h str {
    let absolute = without(host, domain).and_then(|host| without(host, "svc"));
    [absolute, without(host, "svc"), Some(host)]
        .into_iter()
        .flatten()
        .find_map(|host| without(host, namespace))
        .unwrap_or(host)
}

/// Returns `host` without `labels` at its end, if it ends in them.
fn without<'h>(host: &'h str, labels: &str) -> Option<&'h str> {
    let at = host.len().checked_sub(labels.len())?;
    let (rest, end) = host.split_at_checked(at)?;
    let rest = rest.strip_suffix('.')?;
    end.eq_ignore_ascii_case(labels).then_some(rest)
}

/// Returns whether `host` begins with `word`.
pub(super) fn begins(host: &str, word: &str) -> bool {
    let start = host.get(..word.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// Returns whether `word` is anywhere in `text`.
pub(super) fn is_in(text: &str, word: &str) -> bool {
    let same = |bytes: &[u8]| bytes.eq_ignore_ascii_case(word.as_bytes());
    word.is_empty() || text.contains(word) || text.as_bytes().windows(word.len()).any(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(host: &str, want: &str) {
        assert_eq!(of(bare(host), "test", "corp.example"), want, "{host}");
    }

    #[test]
    fn every_way_to_write_a_service_is_one() {
        for host in [
            "podinfo",
            "podinfo.",
            "podinfo:80",
            "podinfo:*",
            "podinfo.:80",
            "podinfo.test",
            "podinfo.TEST",
            "podinfo.test.svc",
            "podinfo.test.svc.:8080",
            "podinfo.test.svc.corp.example",
            "podinfo.test.SVC.Corp.Example.:*",
        ] {
            check(host, "podinfo");
        }
    }

    #[test]
    fn what_is_not_of_this_namespace_and_cluster_is_itself() {
        for host in [
            "podinfo.other",
            "podinfo.svc",
            "podinfo.other.svc.corp.example",
            "podinfo.test.svc.cluster.local",
            "podinfo.test.corp.example",
            "podinfo.testing",
            "podinfo:x",
            "*",
            "[::1]",
            "test",
            "",
            "größe",
        ] {
            check(host, host);
        }
        for host in ["podinfo.test..", "podinfo.test:80:80", "podinfo.test.:*."] {
            check(host, bare(host));
        }
        check("a.example.com.test.svc", "a.example.com");
        assert_eq!(of("podinfo.svc", "svc", "corp.example"), "podinfo");
    }
}
