//! A Pod's host name and its `/etc/hosts`. Source: "Adding entries to Pod /etc/hosts with HostAliases" and "Pod's hostname and
//! subdomain fields" in the Kubernetes documentation.

use k8s_openapi::api::core::v1::{HostAlias, Pod};

/// The kernel's limit on a host name.
const LONGEST: usize = 63;

/// The host name and the domain, which is empty unless the Pod has a subdomain.
pub fn name_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = pod.spec.as_ref();
    let given = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
    if let Some(name) = given(spec.and_then(|spec| spec.hostname_override.as_ref())) {
        return (shortened(&name), String::new());
    }
    let name = given(spec.and_then(|spec| spec.hostname.as_ref())).or(pod.metadata.name.clone()).unwrap_or_default();
    let domain = given(spec.and_then(|spec| spec.subdomain.as_ref())).map(|subdomain| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        format!("{subdomain}.{namespace}.svc.{cluster_domain}")
    });
    (shortened(&name), domain.unwrap_or_default())
}

/// What `hostname` prints in the Pod: the full name where `setHostnameAsFQDN` asks for it.
pub fn kernel_name(pod: &Pod, name: &str, domain: &str) -> Result<String, String> {
    let full = pod.spec.as_ref().and_then(|spec| spec.set_hostname_as_fqdn) == Some(true);
    if !full || domain.is_empty() {
        return Ok(name.to_owned());
    }
    let fqdn = format!("{name}.{domain}");
    if fqdn.len() > LONGEST + 1 {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long (64 characters is the max, {} \
             characters requested)",
            fqdn.len()
        ));
    }
    Ok(fqdn)
}

fn shortened(name: &str) -> String {
    match name.get(..LONGEST) {
        Some(start) => start.trim_end_matches(['-', '.']).to_owned(),
        None => name.to_owned(),
    }
}

/// The file of a Pod with a network of its own.
pub fn file_of_pod(ips: &[String], name: &str, domain: &str, aliases: Option<&[HostAlias]>) -> String {
    let mut text = "# Kubernetes-managed hosts file.\n\
                    127.0.0.1\tlocalhost\n\
                    ::1\tlocalhost ip6-localhost ip6-loopback\n\
                    fe00::0\tip6-localnet\n\
                    fe00::0\tip6-mcastprefix\n\
                    fe00::1\tip6-allnodes\n\
                    fe00::2\tip6-allrouters\n"
        .to_owned();
    for ip in ips {
        match domain {
            "" => text.push_str(&format!("{ip}\t{name}\n")),
            _ => text.push_str(&format!("{ip}\t{name}.{domain}\t{name}\n")),
        }
    }
    text + &alias_lines(aliases)
}

/// The file of a Pod in the node's network: the node's own, with the aliases.
pub fn file_of_node(content: &str, aliases: Option<&[HostAlias]>) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{content}{}", alias_lines(aliases))
}

fn alias_lines(aliases: Option<&[HostAlias]>) -> String {
    let Some(aliases) = aliases.filter(|aliases| !aliases.is_empty()) else { return String::new() };
    let lines = aliases.iter().map(|alias| {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        format!("{}\t{names}\n", alias.ip)
    });
    format!("\n# Entries added by HostAliases.\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(spec: serde_json::Value, name: &str, domain: &str, kernel: &str) {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n"}, "spec": spec})).unwrap();
        let found = name_and_domain(&pod, "cluster.local");
        assert_eq!((found.0.as_str(), found.1.as_str()), (name, domain));
        assert_eq!(kernel_name(&pod, &found.0, &found.1).unwrap(), kernel);
    }

    #[test]
    fn names() {
        check(json!({}), "web", "", "web");
        check(json!({"hostname": "h", "subdomain": "s"}), "h", "s.n.svc.cluster.local", "h");
        check(
            json!({"subdomain": "s", "setHostnameAsFQDN": true}),
            "web",
            "s.n.svc.cluster.local",
            "web.s.n.svc.cluster.local",
        );
        check(json!({"hostnameOverride": "o.example.org", "subdomain": "s"}), "o.example.org", "", "o.example.org");
        check(json!({"hostname": format!("{}-x", "a".repeat(62))}), &"a".repeat(62), "", &"a".repeat(62));
    }

    #[test]
    fn files() {
        let alias = HostAlias { ip: "1.2.3.4".into(), hostnames: Some(vec!["a".into(), "b".into()]) };
        let text = file_of_pod(&["10.0.0.1".into()], "h", "d", Some(&[alias]));
        assert!(text.ends_with("10.0.0.1\th.d\th\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
        assert_eq!(file_of_node("x\n", None), "# Kubernetes-managed hosts file (host network).\nx\n");
    }
}
