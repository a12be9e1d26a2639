//! The resolver configuration that a Pod's containers see, by its `dnsPolicy` and `dnsConfig`. Pure but for reading the node's own
//! `resolv.conf`. Source: "DNS for Services and Pods" in the Kubernetes documentation.

use std::net::IpAddr;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use xebec_cri::v1::DnsConfig;

/// What musl, glibc and upstream agree on.
const MOST_SERVERS: usize = 3;
const MOST_SEARCHES: usize = 32;

/// The cluster's resolver and the node's.
pub struct Resolvers {
    pub cluster: Vec<IpAddr>,
    pub domain: String,
    pub host: DnsConfig,
}

impl Resolvers {
    pub fn of_pod(&self, pod: &Pod) -> DnsConfig {
        let Some(spec) = &pod.spec else { return self.host.clone() };
        let host_network = spec.host_network == Some(true);
        let mut config = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
            "None" => DnsConfig::default(),
            "ClusterFirstWithHostNet" => self.cluster_first(pod),
            "ClusterFirst" if !host_network => self.cluster_first(pod),
            _ => self.host.clone(),
        };
        if let Some(own) = &spec.dns_config {
            append_new(&mut config.servers, own.nameservers.iter().flatten().cloned());
            append_new(&mut config.searches, own.searches.iter().flatten().cloned());
            for option in own.options.iter().flatten() {
                let name = option.name.as_deref().unwrap_or_default();
                let text = match option.value.as_deref() {
                    Some(value) => format!("{name}:{value}"),
                    None => name.to_owned(),
                };
                config.options.retain(|other| other.split(':').next() != Some(name));
                config.options.push(text);
            }
        }
        config.servers.truncate(MOST_SERVERS);
        config.searches.truncate(MOST_SEARCHES);
        config
    }

    fn cluster_first(&self, pod: &Pod) -> DnsConfig {
        if self.cluster.is_empty() {
            return self.host.clone();
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let domain = &self.domain;
        let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        append_new(&mut searches, self.host.searches.iter().cloned());
        DnsConfig {
            servers: self.cluster.iter().map(IpAddr::to_string).collect(),
            searches,
            options: vec!["ndots:5".into()],
        }
    }
}

fn append_new(to: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for item in more {
        if !to.contains(&item) {
            to.push(item);
        }
    }
}

/// Reads a `resolv.conf`; a file that is not there is an empty one.
pub fn read(path: Option<&Path>) -> DnsConfig {
    let text = path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    parse(&text)
}

fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            // The last line of either kind wins.
            Some("search" | "domain") => {
                config.searches = words.filter(|word| *word != ".").map(str::to_owned).collect()
            }
            Some("options") => append_new(&mut config.options, words.map(str::to_owned)),
            _ => {}
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(spec: serde_json::Value, servers: &[&str], searches: &[&str], options: &[&str]) {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let pod: Pod = serde_json::from_value(json!({"metadata": {"namespace": "n"}, "spec": spec})).unwrap();
        let resolvers = Resolvers {
            cluster: vec!["10.96.0.10".parse().unwrap()],
            domain: "cluster.local".into(),
            host: parse("# node\nnameserver 192.0.2.1\nsearch example.org\noptions edns0\n"),
        };
        let config = resolvers.of_pod(&pod);
        assert_eq!(config.servers, servers, "{pod:?}");
        assert_eq!(config.searches, searches, "{pod:?}");
        assert_eq!(config.options, options, "{pod:?}");
    }

    #[test]
    fn policies() {
        let cluster = ["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"];
        check(json!({}), &["10.96.0.10"], &cluster, &["ndots:5"]);
        check(json!({"hostNetwork": true}), &["192.0.2.1"], &["example.org"], &["edns0"]);
        check(
            json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
            &["10.96.0.10"],
            &cluster,
            &["ndots:5"],
        );
        check(json!({"dnsPolicy": "Default"}), &["192.0.2.1"], &["example.org"], &["edns0"]);
        check(
            json!({"dnsPolicy": "None", "dnsConfig": {
                "nameservers": ["1.1.1.1"], "searches": ["a"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
            }}),
            &["1.1.1.1"],
            &["a"],
            &["ndots:2", "edns0"],
        );
        check(
            json!({"dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}}),
            &["10.96.0.10"],
            &cluster,
            &["ndots:1"],
        );
    }
}
