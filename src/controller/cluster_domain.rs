//! The domain of the cluster's Services. A name that ends with it resolves for every client; a shorter one only through the search
//! list of its pod, which programs with musl do not use for names with as many dots.

use std::path::Path;

/// Where a pod's search list is.
const RESOLVER: &str = "/etc/resolv.conf";

/// What follows a Service's name and namespace in its host name: `svc.cluster.local`; `svc` where no domain is given and none is
/// known.
pub(super) fn of_services(given: Option<&str>) -> String {
    let found = || std::fs::read_to_string(Path::new(RESOLVER)).ok().as_deref().and_then(searched);
    match given.map(|domain| domain.trim_matches('.').to_owned()).filter(|domain| !domain.is_empty()).or_else(found) {
        Some(domain) => format!("svc.{domain}"),
        None => "svc".to_owned(),
    }
}

/// The domain in the search list that the kubelet writes: `NAMESPACE.svc.DOMAIN svc.DOMAIN DOMAIN`.
fn searched(resolver: &str) -> Option<String> {
    let mut lists = resolver.lines().filter_map(|line| line.trim().strip_prefix("search"));
    // The last one counts (resolv.conf(5)).
    let list = lists.next_back()?;
    list.split_whitespace()
        .find_map(|name| name.strip_prefix("svc."))
        .map(|domain| domain.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_is_what_is_given_or_what_the_search_list_says() {
        let pod =
            "nameserver 10.96.0.10\nsearch shop.svc.k8s.example svc.k8s.example k8s.example corp\noptions ndots:5\n";
        assert_eq!(searched(pod).as_deref(), Some("k8s.example"));
        assert_eq!(searched("search example.com\n"), None);
        assert_eq!(of_services(Some("cluster.local.")), "svc.cluster.local");
    }
}
