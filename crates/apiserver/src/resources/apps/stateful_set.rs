//! StatefulSets.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::counts::{self, Counts};
use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Scale, Strategy};
use crate::resources::columns;
use crate::resources::core::pod_defaults::{self, default_text};
use crate::resources::core::{persistent_volume_claim, pod_warnings};
use crate::resources::validation::numbers::{self, at_most_all, count_or_percent, is_zero};
use crate::resources::validation::pod_template::{self, Keeper};
use crate::resources::validation::{claims, dns, immutable, one_of, report, shown, text};

const HISTORY: i32 = 10;

const KEEPS_ALL: &str =
    "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended";

#[derive(Default)]
pub struct StatefulSetStrategy;

impl Strategy for StatefulSetStrategy {
    type Object = StatefulSet;

    fn default(&self, set: &mut StatefulSet) {
        let spec = &mut set.spec;
        default_text(&mut spec.pod_management_policy, "OrderedReady");
        let update = spec.update_strategy.get_or_insert_default();
        if text(&update.type_).is_empty() {
            update.type_ = Some("RollingUpdate".to_owned());
            update.rolling_update.get_or_insert_default();
        }
        if let Some(rolling) = update.rolling_update.as_mut().filter(|_| text(&update.type_) == "RollingUpdate") {
            rolling.partition.get_or_insert(0);
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
        }
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        default_text(&mut retention.when_deleted, "Retain");
        default_text(&mut retention.when_scaled, "Retain");
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(HISTORY);
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            persistent_volume_claim::default_spec(claim.spec.get_or_insert_default());
            default_text(&mut claim.status.get_or_insert_default().phase, "Pending");
        }
        pod_defaults::template(&mut spec.template);
        let status = set.status.get_or_insert_default();
        status.available_replicas.get_or_insert(0);
    }

    fn prepare_create(&self, set: &mut StatefulSet) {
        set.status = Some(Default::default());
        set.status.get_or_insert_default().available_replicas = Some(0);
    }

    fn validate(&self, set: &StatefulSet) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, spec) = (Path::new("spec"), &set.spec);
        for (index, claim) in spec.volume_claim_templates.iter().flatten().enumerate() {
            let path = path.child("volumeClaimTemplates").index(index).child("spec");
            claims::claim_spec(&mut errors, &path, &claim.spec.clone().unwrap_or_default());
        }
        let name = text(&spec.service_name);
        if !name.is_empty() {
            report(&mut errors, &path.child("serviceName"), name, dns::label(name));
        }
        validate_spec(&mut errors, spec);
        errors
    }

    fn validate_update(&self, new: &StatefulSet, old: &StatefulSet) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (spec, before) = (&new.spec, &old.spec);
        let path = Path::new("spec");
        validate_spec(&mut errors, spec);
        immutable(&mut errors, &path.child("selector"), &spec.selector, &before.selector);
        let (now, old) = (&spec.volume_claim_templates, &before.volume_claim_templates);
        immutable(&mut errors, &path.child("volumeClaimTemplates"), now, old);
        immutable(&mut errors, &path.child("serviceName"), &spec.service_name, &before.service_name);
        let (now, old) = (&spec.pod_management_policy, &before.pod_management_policy);
        immutable(&mut errors, &path.child("podManagementPolicy"), now, old);
        errors
    }

    fn validate_status_update(&self, new: &StatefulSet, old: &StatefulSet) -> FieldErrors {
        let status = new.status.clone().unwrap_or_default();
        let counts = Counts {
            replicas: status.replicas,
            others: &[
                ("readyReplicas", status.ready_replicas),
                ("currentReplicas", status.current_replicas),
                ("updatedReplicas", status.updated_replicas),
                ("availableReplicas", status.available_replicas),
            ],
            ready: status.ready_replicas,
            available: status.available_replicas,
            observed_generation: status.observed_generation,
            terminating: None,
            collisions: status.collision_count,
        };
        let mut errors = counts::validate(&counts, old.status.as_ref().and_then(|status| status.collision_count));
        for error in errors.iter_mut().filter(|error| error.detail == counts::MORE_THAN_READY) {
            error.detail = "cannot be greater than status.readyReplicas".to_owned();
        }
        errors
    }

    fn warnings(&self, set: &StatefulSet, old: Option<&StatefulSet>) -> Vec<String> {
        let mut warnings = Vec::new();
        if old.is_none() {
            warnings.extend(pod_warnings::name_warning(&set.metadata, "Pod names and hostnames"));
        }
        if old.is_none_or(|old| old.spec != set.spec) {
            warnings.extend(pod_warnings::template_warnings(Some(&set.spec.template)));
        }
        if set.spec.revision_history_limit.is_some_and(|limit| limit < 0) {
            warnings.push(KEEPS_ALL.to_owned());
        }
        warnings
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME_COLUMN, columns::READY, AGE_COLUMN, columns::CONTAINERS, columns::IMAGES];
        COLUMNS
    }

    fn cells(&self, set: &StatefulSet, now: Timestamp) -> Vec<Value> {
        let ready = set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        let [names, images] = columns::containers(Some(&set.spec.template));
        vec![
            columns::name(&set.metadata),
            Value::from(format!("{ready}/{}", set.spec.replicas.unwrap_or(0))),
            columns::age(&set.metadata, now),
            names,
            images,
        ]
    }

    fn scale(&self) -> Option<Scale<StatefulSet>> {
        Some(Scale {
            replicas: |one| one.spec.replicas.unwrap_or(0),
            set_replicas: |one, replicas| one.spec.replicas = Some(replicas),
            status_replicas: |one| one.status.as_ref().map_or(0, |status| status.replicas),
            selector: |one| columns::selector_text(Some(&one.spec.selector)),
        })
    }
}

/// What can change, and so is looked at in updates too.
fn validate_spec(errors: &mut FieldErrors, spec: &StatefulSetSpec) {
    let path = Path::new("spec");
    let policies = ["OrderedReady", "Parallel"];
    if !policies.contains(&text(&spec.pod_management_policy)) {
        let value = text(&spec.pod_management_policy);
        let about = "must be 'OrderedReady' or 'Parallel'";
        errors.push(FieldError::invalid(&path.child("podManagementPolicy"), value, about));
    }
    update_strategy(errors, &path.child("updateStrategy"), spec);
    if let Some(retention) = &spec.persistent_volume_claim_retention_policy {
        let path = path.child("persistentVolumeClaimRetentionPolicy");
        for (name, value) in [("whenDeleted", &retention.when_deleted), ("whenScaled", &retention.when_scaled)] {
            one_of(errors, &path.child(name), text(value), &["Retain", "Delete"]);
        }
    }
    numbers::not_negative(errors, &path.child("replicas"), spec.replicas.unwrap_or(0));
    numbers::not_negative(errors, &path.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0));
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    numbers::not_negative(errors, &path.child("ordinals.start"), start);
    pod_template::selector(errors, &path.child("selector"), &spec.selector);
    let keeper = Keeper { kind: "StatefulSet", selector: &spec.selector };
    pod_template::kept_running(errors, &path.child("template"), &with_claims(spec), keeper);
}

/// The template as the controller fills it: a volume for each claim, names of host and subdomain its own.
fn with_claims(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let Some(pod) = &mut template.spec else { return template };
    pod.subdomain = None;
    pod.hostname = None;
    let claims = spec.volume_claim_templates.iter().flatten();
    let names: BTreeSet<String> = claims.map(|claim| claim.metadata.name.clone().unwrap_or_default()).collect();
    if !names.is_empty() {
        let own = pod.volumes.take().unwrap_or_default().into_iter().filter(|volume| !names.contains(&volume.name));
        let claim = |name: &String| Volume {
            name: name.clone(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: name.clone(),
                read_only: None,
            }),
            ..Volume::default()
        };
        pod.volumes = Some(names.iter().map(claim).chain(own).collect());
    }
    template
}

fn update_strategy(errors: &mut FieldErrors, path: &Path, spec: &StatefulSetSpec) {
    let strategy = spec.update_strategy.clone().unwrap_or_default();
    let (at, rolling) = (path.child("rollingUpdate"), strategy.rolling_update.as_ref());
    match text(&strategy.type_) {
        "RollingUpdate" => {
            let Some(rolling) = rolling else { return };
            numbers::not_negative(errors, &at.child("partition"), rolling.partition.unwrap_or(0));
            if let Some(count) = &rolling.max_unavailable {
                let at = at.child("maxUnavailable");
                count_or_percent(errors, &at, count);
                if is_zero(Some(count)) {
                    errors.push(FieldError::invalid(&at, shown(count), "cannot be 0"));
                }
                at_most_all(errors, &at, count);
            }
        }
        "OnDelete" => {
            if let Some(rolling) = rolling {
                let value =
                    json!({"Partition": rolling.partition.unwrap_or(0), "MaxUnavailable": rolling.max_unavailable});
                errors.push(FieldError::invalid(&at, value, "only allowed for updateStrategy 'RollingUpdate'"));
            }
        }
        other => {
            let value = json!({"Type": other, "RollingUpdate": null});
            errors.push(FieldError::invalid(path, value, "must be 'RollingUpdate' or 'OnDelete'"));
        }
    }
}
