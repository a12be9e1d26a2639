//! Ingresses.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::TypedLocalObjectReference;
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressSpec};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{address, dns, numbers, report, required, text};

const CLASS: &str = "kubernetes.io/ingress.class";
const NO_ADDRESS: &str = "must be a DNS name, not an IP address";

#[derive(Default)]
pub struct IngressStrategy;

impl Strategy for IngressStrategy {
    type Object = Ingress;

    fn default(&self, ingress: &mut Ingress) {
        ingress.spec.get_or_insert_default();
        ingress.status.get_or_insert_default().load_balancer.get_or_insert_default();
    }

    fn prepare_create(&self, ingress: &mut Ingress) {
        ingress.status = None;
        self.default(ingress);
    }

    fn validate(&self, ingress: &Ingress) -> FieldErrors {
        let spec = ingress.spec.clone().unwrap_or_default();
        let mut errors = validate_spec(&spec);
        let annotation = ingress.metadata.annotations.as_ref().and_then(|all| all.get(CLASS));
        if let (Some(annotation), Some(class)) = (annotation, &spec.ingress_class_name)
            && annotation != class
        {
            let about = "must match `ingressClassName` when both are specified";
            errors.push(FieldError::invalid(&Path::new("annotations").child(CLASS), annotation.as_str(), about));
        }
        errors
    }

    fn validate_update(&self, new: &Ingress, _old: &Ingress) -> FieldErrors {
        validate_spec(&new.spec.clone().unwrap_or_default())
    }

    fn validate_status_update(&self, new: &Ingress, _old: &Ingress) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let balancer = new.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        for (index, one) in balancer.iter().flat_map(|one| one.ingress.iter().flatten()).enumerate() {
            let path = Path::new("status.loadBalancer.ingress").index(index);
            let (ip, name) = (text(&one.ip), text(&one.hostname));
            if !ip.is_empty() {
                address::ip(&mut errors, &path.child("ip"), ip);
            }
            if !name.is_empty() {
                host(&mut errors, &path.child("hostname"), name, dns::subdomain);
            }
        }
        errors
    }

    fn warnings(&self, ingress: &Ingress, old: Option<&Ingress>) -> Vec<String> {
        let annotated = ingress.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(CLASS));
        if !annotated || old.is_some() {
            return Vec::new();
        }
        vec![format!("annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead")]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Class", "string", "Which class of controllers serves it."),
            column("Hosts", "string", "The hosts that it answers for."),
            column("Address", "string", "Where it is reached."),
            column("Ports", "string", "The ports that it opens."),
            AGE_COLUMN,
        ];
        COLUMNS
    }

    fn cells(&self, ingress: &Ingress, now: Timestamp) -> Vec<Value> {
        let spec = ingress.spec.clone().unwrap_or_default();
        let balancer = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let addresses: BTreeSet<String> = balancer
            .iter()
            .flat_map(|balancer| balancer.ingress.iter().flatten())
            .map(|one| if text(&one.ip).is_empty() { text(&one.hostname).to_owned() } else { text(&one.ip).to_owned() })
            .filter(|one| !one.is_empty())
            .collect();
        let encrypted = spec.tls.as_ref().is_some_and(|list| !list.is_empty());
        vec![
            columns::name(&ingress.metadata),
            columns::or(spec.ingress_class_name.as_deref(), "<none>"),
            Value::from(hosts(&spec)),
            Value::from(addresses.into_iter().collect::<Vec<_>>().join(",")),
            Value::from(if encrypted { "80, 443" } else { "80" }),
            columns::age(&ingress.metadata, now),
        ]
    }
}

fn hosts(spec: &IngressSpec) -> String {
    let rules = spec.rules.as_deref().unwrap_or_default();
    let named: Vec<&str> = rules.iter().map(|rule| text(&rule.host)).filter(|host| !host.is_empty()).collect();
    if named.is_empty() {
        return "*".to_owned();
    }
    let shown = named.iter().take(3).copied().collect::<Vec<_>>().join(",");
    // Upstream counts rules without a host among those left out.
    if named.len() > 3 { format!("{shown} + {} more...", rules.len() - 3) } else { shown }
}

fn validate_spec(spec: &IngressSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = Path::new("spec");
    let rules = spec.rules.as_deref().unwrap_or_default();
    if rules.is_empty() && spec.default_backend.is_none() {
        let about = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(&path, Value::Null, about));
    }
    if let Some(given) = &spec.default_backend {
        backend(&mut errors, &path.child("defaultBackend"), given);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.child("rules").index(index);
        let name = text(&rule.host);
        if !name.is_empty() {
            host(&mut errors, &path.child("host"), name, host_rule(name));
        }
        let Some(http) = &rule.http else { continue };
        let path = path.child("http.paths");
        if http.paths.is_empty() {
            errors.push(FieldError::required(&path, ""));
        }
        for (index, one) in http.paths.iter().enumerate() {
            http_path(&mut errors, &path.index(index), one);
        }
    }
    for (index, tls) in spec.tls.iter().flatten().enumerate() {
        let path = path.child("tls").index(index);
        for (index, name) in tls.hosts.iter().flatten().enumerate() {
            report(&mut errors, &path.child("hosts").index(index), name, host_rule(name)(name));
        }
        let secret = text(&tls.secret_name);
        if !secret.is_empty() {
            report(&mut errors, &path.child("secretName"), secret, dns::subdomain(secret));
        }
    }
    if let Some(class) = &spec.ingress_class_name {
        report(&mut errors, &path.child("ingressClassName"), class, dns::subdomain(class));
    }
    errors
}

fn host_rule(name: &str) -> fn(&str) -> dns::Messages {
    if name.contains('*') { dns::wildcard_subdomain } else { dns::subdomain }
}

fn host(errors: &mut FieldErrors, path: &Path, name: &str, rule: fn(&str) -> dns::Messages) {
    if name.parse::<std::net::IpAddr>().is_ok() {
        errors.push(FieldError::invalid(path, name, NO_ADDRESS));
    }
    report(errors, path, name, rule(name));
}

fn http_path(errors: &mut FieldErrors, path: &Path, one: &HTTPIngressPath) {
    let (at, value) = (path.child("path"), text(&one.path));
    let mut wrong = |about: String| errors.push(FieldError::invalid(&at, value, about));
    match one.path_type.as_str() {
        "" => return errors.push(FieldError::required(&path.child("pathType"), "pathType must be specified")),
        "Exact" | "Prefix" => {
            if !value.starts_with('/') {
                wrong("must be an absolute path".to_owned());
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|bad| value.contains(**bad)) {
                wrong(format!("must not contain '{bad}'"));
            }
            for bad in ["/..", "/."].iter().filter(|bad| value.ends_with(**bad)) {
                wrong(format!("cannot end with '{bad}'"));
            }
        }
        "ImplementationSpecific" => {
            if !value.is_empty() && !value.starts_with('/') {
                wrong("must be an absolute path".to_owned());
            }
        }
        other => {
            let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(FieldError::not_supported(&path.child("pathType"), other, &kinds));
        }
    }
    backend(errors, &path.child("backend"), &one.backend);
}

fn backend(errors: &mut FieldErrors, path: &Path, backend: &IngressBackend) {
    let service = match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => {
            let about = "cannot set both resource and service backends";
            return errors.push(FieldError::invalid(path, "", about));
        }
        (Some(resource), None) => return object_reference(errors, &path.child("resource"), resource),
        (None, None) => {
            return errors.push(FieldError::invalid(path, "", "resource or service backend is required"));
        }
        (None, Some(service)) => service,
    };
    let at = path.child("service.name");
    if required(errors, &at, &service.name) {
        report(errors, &at, &service.name, dns::label(&service.name));
    }
    let port = service.port.clone().unwrap_or_default();
    match (text(&port.name), port.number.unwrap_or(0)) {
        ("", 0) => errors.push(FieldError::required(path, "port name or number is required")),
        ("", number) => numbers::port(errors, &path.child("service.port.number"), number),
        (name, 0) => report(errors, &path.child("service.port.name"), name, dns::port_name(name)),
        (_, _) => errors.push(FieldError::invalid(path, "", "cannot set both port name & port number")),
    }
}

pub fn object_reference(errors: &mut FieldErrors, path: &Path, reference: &TypedLocalObjectReference) {
    if let Some(group) = &reference.api_group {
        report(errors, &path.child("apiGroup"), group, dns::subdomain(group));
    }
    for (name, value) in [("kind", &reference.kind), ("name", &reference.name)] {
        if required(errors, &path.child(name), value) {
            report(errors, &path.child(name), value, dns::path_segment(value));
        }
    }
}
