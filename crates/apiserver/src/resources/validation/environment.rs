//! Environment variables and where their values come from; the field references that the downward API shares with them.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector};
use xebec_api::Quantity;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{dns, report, required, text, volumes};

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of a Pod that exist under that name but may not be exposed everywhere.
const KNOWN_FIELDS: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCE_FIELDS: [&str; 6] = [
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
];
const BYTE_DIVISORS: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub fn env(errors: &mut FieldErrors, path: &Path, variables: Option<&[EnvVar]>) {
    for (index, variable) in variables.unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        if required(errors, &path.child("name"), &variable.name) {
            report(errors, &path.child("name"), &variable.name, dns::env_name(&variable.name));
        }
        if let Some(source) = &variable.value_from {
            value_from(errors, &path.child("valueFrom"), source, text(&variable.value));
        }
    }
}

fn value_from(errors: &mut FieldErrors, path: &Path, source: &EnvVarSource, value: &str) {
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        field_ref(errors, &path.child("fieldRef"), field, &ENV_FIELDS);
    }
    if let Some(field) = &source.resource_field_ref {
        sources += 1;
        resource_field_ref(errors, &path.child("resourceFieldRef"), field, false);
    }
    if let Some(key) = &source.config_map_key_ref {
        sources += 1;
        key_ref(errors, &path.child("configMapKeyRef"), &key.name, &key.key);
    }
    if let Some(key) = &source.secret_key_ref {
        sources += 1;
        key_ref(errors, &path.child("secretKeyRef"), &key.name, &key.key);
    }
    if let Some(file) = &source.file_key_ref {
        sources += 1;
        let path = path.child("fileKeyRef");
        if required(errors, &path.child("key"), &file.key) {
            report(errors, &path.child("key"), &file.key, dns::env_name(&file.key));
        }
        if required(errors, &path.child("volumeName"), &file.volume_name) {
            report(errors, &path.child("volumeName"), &file.volume_name, dns::label(&file.volume_name));
        }
        if required(errors, &path.child("path"), &file.path) {
            volumes::no_backsteps(errors, &path.child("path"), &file.path);
        }
    }
    let about = match sources {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if !value.is_empty() => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(FieldError::invalid(path, "", about));
}

fn key_ref(errors: &mut FieldErrors, path: &Path, name: &str, key: &str) {
    report(errors, &path.child("name"), name, dns::subdomain(name));
    if required(errors, &path.child("key"), key) {
        report(errors, &path.child("key"), key, dns::data_key(key));
    }
}

/// A field of the Pod itself; volumes and variables may expose different ones.
pub fn field_ref(errors: &mut FieldErrors, path: &Path, field: &ObjectFieldSelector, exposed: &[&str]) {
    let version = text(&field.api_version);
    if !required(errors, &path.child("apiVersion"), version)
        || !required(errors, &path.child("fieldPath"), &field.field_path)
    {
        return;
    }
    let at = path.child("fieldPath");
    let unconvertible =
        |why: String| FieldError::invalid(&at, field.field_path.as_str(), format!("error converting fieldPath: {why}"));
    if version != "v1" {
        return errors.push(unconvertible(format!("unsupported pod version: {version}")));
    }
    if let Some((name, key)) = subscripted(&field.field_path) {
        return match name {
            "metadata.annotations" => report(errors, path, &key.to_lowercase(), dns::label_key(&key.to_lowercase())),
            "metadata.labels" => report(errors, path, key, dns::label_key(key)),
            _ => errors.push(unconvertible(format!("field label does not support subscript: {}", field.field_path))),
        };
    }
    // `spec.host` is how the first clients called the node's name.
    let name = if field.field_path == "spec.host" { "spec.nodeName" } else { field.field_path.as_str() };
    if !KNOWN_FIELDS.contains(&name) {
        errors.push(unconvertible(format!("field label not supported: {name}")));
    } else if !exposed.contains(&name) {
        errors.push(FieldError::not_supported(&at, name, exposed));
    }
}

/// `metadata.labels['key']` in its two parts.
fn subscripted(path: &str) -> Option<(&str, &str)> {
    let (name, key) = path.strip_suffix("']")?.split_once("['")?;
    (!name.is_empty()).then_some((name, key))
}

/// A request or a limit of a container.
pub fn resource_field_ref(errors: &mut FieldErrors, path: &Path, field: &ResourceFieldSelector, in_volume: bool) {
    let name = field.resource.as_str();
    let huge = name.starts_with("requests.hugepages-") || name.starts_with("limits.hugepages-");
    if in_volume && text(&field.container_name).is_empty() {
        errors.push(FieldError::required(&path.child("containerName"), ""));
    } else if required(errors, &path.child("resource"), name) && !RESOURCE_FIELDS.contains(&name) && !huge {
        errors.push(FieldError::not_supported(&path.child("resource"), name, &RESOURCE_FIELDS));
    }
    let divisor = Quantity::of(field.divisor.as_ref());
    if divisor.is_zero() {
        return;
    }
    let written = divisor.to_string();
    let bytes = BYTE_DIVISORS.contains(&written.as_str());
    let (fits, about) = match name {
        "limits.cpu" | "requests.cpu" => {
            (written == "1m" || written == "1", "1m and 1 are supported with the cpu resource")
        }
        "limits.memory" | "requests.memory" => {
            (bytes, "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource")
        }
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => (
            bytes,
            "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the local ephemeral storage resource",
        ),
        _ if huge => {
            (bytes, "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the hugepages resource")
        }
        _ => return,
    };
    if !fits {
        errors.push(FieldError::invalid(&path.child("divisor"), name, format!("only divisor's values {about}")));
    }
}

pub fn env_from(errors: &mut FieldErrors, path: &Path, sources: Option<&[EnvFromSource]>) {
    for (index, source) in sources.unwrap_or_default().iter().enumerate() {
        let item = path.index(index);
        let prefix = text(&source.prefix);
        if !prefix.is_empty() {
            report(errors, &item.child("prefix"), prefix, dns::env_name(prefix));
        }
        let named = [
            ("configMapRef", source.config_map_ref.as_ref().map(|one| one.name.as_str())),
            ("secretRef", source.secret_ref.as_ref().map(|one| one.name.as_str())),
        ];
        for (field, name) in named.iter().filter_map(|(field, name)| Some((field, (*name)?))) {
            let path = item.child(field).child("name");
            if required(errors, &path, name) {
                report(errors, &path, name, dns::as_prefix(dns::subdomain, &Some(name.to_owned())));
            }
        }
        match named.iter().filter(|(_, name)| name.is_some()).count() {
            1 => {}
            0 => errors.push(FieldError::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")),
            _ => errors.push(FieldError::invalid(path, "", "may not have more than one field specified at a time")),
        }
    }
}
