//! The versions of a defined kind: schemas, subresources, columns, selectable fields.
//!
//! Upstream's internal type holds what all versions have alike once, beside the versions, and errors name it there.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionVersion,
    CustomResourceSubresources, JSONSchemaProps, JSONSchemaPropsOrArray, SelectableField,
};
use serde::Serialize;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::schema;
use crate::resources::validation::{required, text};

const COLUMN_TYPES: &str = "boolean,date,integer,number,string";
const COLUMN_FORMATS: &str = "byte,date,date-time,double,float,int32,int64,password";
const MAX_SELECTABLE: usize = 8;
const MAX_WARNING: usize = 256;

type Version = CustomResourceDefinitionVersion;

pub fn deprecation(errors: &mut FieldErrors, path: &Path, version: &Version) {
    let Some(warning) = version.deprecation_warning.as_deref() else { return };
    let mut wrong = |is: bool, about: String| {
        if is {
            errors.push(FieldError::invalid(path, warning, about));
        }
    };
    if version.deprecated != Some(true) {
        return wrong(true, "can only be set for deprecated versions".to_owned());
    }
    wrong(warning.len() > MAX_WARNING, format!("must be <= {MAX_WARNING} characters long"));
    wrong(warning.is_empty(), "must not be an empty string".to_owned());
    if let Some((index, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        let about = "must only contain printable UTF-8 characters; non-printable character found at index";
        wrong(true, format!("{about} {index}"));
    }
}

/// The parts of all versions, each at the place where upstream's internal type has it.
pub fn parts(errors: &mut FieldErrors, path: &Path, versions: &[Version]) {
    let has_status = |version: &Version| version.subresources.as_ref().is_some_and(|all| all.status.is_some());
    let own = path.child("versions");
    each(
        versions,
        |version| &version.schema,
        path,
        |index, shared| {
            let Some(schema) = &versions[index].schema else { return };
            let (path, status) = match shared {
                Some(path) => (path.child("validation"), versions.iter().any(has_status)),
                None => (own.index(index).child("schema"), has_status(&versions[index])),
            };
            if let Some(schema) = &schema.open_api_v3_schema {
                schema::root(errors, &path.child("openAPIV3Schema"), schema, status);
            }
        },
    );
    each(
        versions,
        |version| &version.subresources,
        path,
        |index, shared| {
            if let Some(subresources) = &versions[index].subresources {
                let path = shared.cloned().unwrap_or_else(|| own.index(index)).child("subresources");
                self::subresources(errors, &path, subresources);
            }
        },
    );
    each(
        versions,
        |version| &version.additional_printer_columns,
        path,
        |index, shared| {
            let path = shared.cloned().unwrap_or_else(|| own.index(index)).child("additionalPrinterColumns");
            for (index, column) in versions[index].additional_printer_columns.iter().flatten().enumerate() {
                self::column(errors, &path.index(index), column);
            }
        },
    );
    each(
        versions,
        |version| &version.selectable_fields,
        path,
        |index, shared| {
            let path = shared.cloned().unwrap_or_else(|| own.index(index)).child("selectableFields");
            let schema = versions[index].schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
            let fields = versions[index].selectable_fields.as_deref().unwrap_or_default();
            if let Some(schema) = schema {
                selectable(errors, &path, fields, schema);
            }
        },
    );
}

/// Calls `check` once with the shared place if all versions have the part and have it alike, else for each version.
fn each<T: Serialize + PartialEq>(
    versions: &[Version],
    part: fn(&Version) -> &Option<T>,
    path: &Path,
    mut check: impl FnMut(usize, Option<&Path>),
) {
    let alike = versions
        .first()
        .is_some_and(|first| part(first).is_some() && versions.iter().all(|version| part(version) == part(first)));
    if alike {
        return check(0, Some(path));
    }
    (0..versions.len()).for_each(|index| check(index, None));
}

fn subresources(errors: &mut FieldErrors, path: &Path, subresources: &CustomResourceSubresources) {
    let Some(scale) = &subresources.scale else { return };
    let path = path.child("scale");
    let about = "should be a json path under";
    for (field, value, root) in [
        ("specReplicasPath", &scale.spec_replicas_path, ".spec"),
        ("statusReplicasPath", &scale.status_replicas_path, ".status"),
    ] {
        let path = path.child(field);
        if required(errors, &path, value)
            && simple_path(errors, &path, value)
            && !value.starts_with(&format!("{root}."))
        {
            errors.push(FieldError::invalid(&path, value.as_str(), format!("{about} {root}")));
        }
    }
    let (path, value) = (path.child("labelSelectorPath"), text(&scale.label_selector_path));
    if !value.is_empty()
        && simple_path(errors, &path, value)
        && !value.starts_with(".spec.")
        && !value.starts_with(".status.")
    {
        errors.push(FieldError::invalid(&path, value, format!("{about} either .spec or .status")));
    }
}

fn simple_path(errors: &mut FieldErrors, path: &Path, value: &str) -> bool {
    if !value.starts_with('.') {
        errors.push(FieldError::invalid(path, value, "must be a simple json path starting with ."));
    }
    value.starts_with('.')
}

fn column(errors: &mut FieldErrors, path: &Path, column: &CustomResourceColumnDefinition) {
    required(errors, &path.child("name"), &column.name);
    let (at, about) = (path.child("type"), format!("must be one of {COLUMN_TYPES}"));
    if column.type_.is_empty() {
        errors.push(FieldError::required(&at, about));
    } else if !COLUMN_TYPES.split(',').any(|known| known == column.type_) {
        errors.push(FieldError::invalid(&at, column.type_.as_str(), about));
    }
    let format = text(&column.format);
    if !format.is_empty() && !COLUMN_FORMATS.split(',').any(|known| known == format) {
        let about = format!("must be one of {COLUMN_FORMATS}");
        errors.push(FieldError::invalid(&path.child("format"), format, about));
    }
    let at = path.child("JSONPath");
    if required(errors, &at, &column.json_path) {
        simple_path(errors, &at, &column.json_path);
    }
}

fn selectable(errors: &mut FieldErrors, path: &Path, fields: &[SelectableField], schema: &JSONSchemaProps) {
    let mut seen = BTreeSet::new();
    for (index, field) in fields.iter().enumerate() {
        let (path, value) = (path.index(index).child("jsonPath"), field.json_path.as_str());
        if !required(errors, &path, value) {
            continue;
        }
        let found = match find(schema, value) {
            Ok(found) => found,
            Err(why) => {
                errors.push(FieldError::invalid(&path, value, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if value.split('.').nth(1) == Some("metadata") {
            errors.push(FieldError::invalid(&path, value, "must not point to fields in metadata"));
        }
        if !["string", "boolean", "integer"].contains(&text(&found.type_)) {
            let about = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                         formats are allowed.";
            errors.push(FieldError::invalid(&path, value, about));
        }
        if !seen.insert(value) {
            errors.push(FieldError::duplicate(&path, value));
        }
    }
    if seen.len() > MAX_SELECTABLE {
        errors.push(FieldError::too_many(path, seen.len(), MAX_SELECTABLE));
    }
}

/// The schema of the field that a path of names leads to.
fn find<'a>(schema: &'a JSONSchemaProps, path: &str) -> Result<&'a JSONSchemaProps, String> {
    let Some(names) = path.strip_prefix('.').filter(|names| !names.is_empty()) else {
        return Err(format!("expected [ or . but got: {}", path.chars().next().unwrap_or_default()));
    };
    names.split('.').try_fold(schema, |schema, name| {
        let found = schema.properties.as_ref().and_then(|all| all.get(name));
        found.ok_or_else(|| "does not refer to a valid field".to_owned())
    })
}

/// The formats that values are held against; others say nothing.
const FORMATS: &str = "bsonobjectid uri email hostname ipv4 ipv6 cidr mac uuid uuid3 uuid4 uuid5 isbn isbn10 isbn13 \
                       creditcard ssn hexcolor rgbcolor byte password date duration datetime k8sshortname k8slongname";

fn is_known_format(schema: &JSONSchemaProps) -> bool {
    let format = text(&schema.format);
    match text(&schema.type_) {
        _ if format.is_empty() => true,
        "" | "string" => FORMATS.split(' ').any(|known| known == format.replace('-', "")),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Formats that nothing checks, and lists that are sets of something that cannot be told apart by its value.
pub fn warnings(definition: &CustomResourceDefinition) -> Vec<String> {
    let mut found = BTreeSet::new();
    for schema in definition.spec.versions.iter().filter_map(|version| version.schema.as_ref()) {
        if let Some(schema) = &schema.open_api_v3_schema {
            schema::visit(schema, &mut |one| {
                if !is_known_format(one) {
                    found.insert(format!("unrecognized format {:?}", text(&one.format)));
                }
                let Some(JSONSchemaPropsOrArray::Schema(items)) = &one.items else { return };
                let kind = text(&items.type_);
                if one.x_kubernetes_list_type.as_deref() == Some("set") && matches!(kind, "object" | "array") {
                    found.insert(format!(
                        "x-kubernetes-list-type: set for items of type {kind:?} is not supported by server-side apply or \
                         CEL validation rules"
                    ));
                }
            });
        }
    }
    found.into_iter().collect()
}
