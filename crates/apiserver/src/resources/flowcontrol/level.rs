//! PriorityLevelConfigurations: how much of the server the requests of a level may take.

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{
    LimitResponse, LimitedPriorityLevelConfiguration, PriorityLevelConfiguration, PriorityLevelConfigurationSpec,
    PriorityLevelConfigurationStatus, QueuingConfiguration,
};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::flow_schema::condition_types;
use super::standard;
use crate::registry::metadata;
use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{required, semantically_equal, shown, text, unsupported};

const DEFAULT_SHARES: i32 = 30;
const DEFAULT_HAND_SIZE: i32 = 8;
const DEFAULT_QUEUES: i32 = 64;
const DEFAULT_QUEUE_LENGTH: i32 = 50;
const MAX_QUEUES: i32 = 10_000_000;
/// How many bits of a hash can deal hands of queues evenly.
const MAX_ENTROPY: i32 = 60;
/// Meant for an older version of the kind, from which it never gets here.
const OLD_VERSIONS_OWN: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";

#[derive(Default)]
pub struct PriorityLevelStrategy;

impl Strategy for PriorityLevelStrategy {
    type Object = PriorityLevelConfiguration;

    fn default(&self, level: &mut PriorityLevelConfiguration) {
        if let Some(exempt) = &mut level.spec.exempt {
            exempt.nominal_concurrency_shares.get_or_insert(0);
            exempt.lendable_percent.get_or_insert(0);
        }
        if let Some(limited) = &mut level.spec.limited {
            limited.nominal_concurrency_shares.get_or_insert(DEFAULT_SHARES);
            limited.lendable_percent.get_or_insert(0);
            if let Some(queuing) = &mut limited.limit_response.queuing {
                let or = |value: &mut Option<i32>, default| *value = value.filter(|one| *one != 0).or(Some(default));
                or(&mut queuing.hand_size, DEFAULT_HAND_SIZE);
                or(&mut queuing.queues, DEFAULT_QUEUES);
                or(&mut queuing.queue_length_limit, DEFAULT_QUEUE_LENGTH);
            }
        }
    }

    fn prepare_create(&self, level: &mut PriorityLevelConfiguration) {
        level.status = Some(PriorityLevelConfigurationStatus::default());
    }

    fn prepare_status_update(&self, new: &mut PriorityLevelConfiguration, old: &PriorityLevelConfiguration) {
        metadata::keep_for_status(&mut new.metadata, &old.metadata);
    }

    fn validate(&self, level: &PriorityLevelConfiguration) -> FieldErrors {
        let mut errors = FieldErrors::new();
        if level.metadata.annotations.iter().flatten().any(|(key, _)| key == OLD_VERSIONS_OWN) {
            let about = format!("annotation '{OLD_VERSIONS_OWN}' is forbidden");
            errors.push(FieldError::forbidden(&Path::new("metadata.annotations"), about));
        }
        let (path, name) = (Path::new("spec"), text(&level.metadata.name));
        specification(&mut errors, &path, &level.spec, name);
        mandatory(&mut errors, &path, &level.spec, name);
        errors
    }

    fn validate_status_update(
        &self,
        new: &PriorityLevelConfiguration,
        _old: &PriorityLevelConfiguration,
    ) -> FieldErrors {
        let conditions = new.status.iter().flat_map(|status| status.conditions.iter().flatten());
        condition_types(conditions.map(|one| one.type_.as_str()))
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Type", "string", "Whether it is limited."),
            column("NominalConcurrencyShares", "string", "Its part of the server."),
            column("Queues", "string", "Into how many queues requests are put."),
            column("HandSize", "string", "How many queues a flow has to choose from."),
            column("QueueLengthLimit", "string", "How many requests a queue takes."),
            AGE_COLUMN,
        ];
        COLUMNS
    }

    fn cells(&self, level: &PriorityLevelConfiguration, now: Timestamp) -> Vec<Value> {
        let limited = level.spec.limited.as_ref();
        let queuing = limited.and_then(|limited| limited.limit_response.queuing.as_ref());
        let number = |value: Option<i32>| value.map_or_else(|| Value::from("<none>"), Value::from);
        let of = |field: fn(&QueuingConfiguration) -> Option<i32>| number(queuing.map(|one| field(one).unwrap_or(0)));
        vec![
            columns::name(&level.metadata),
            Value::from(level.spec.type_.as_str()),
            number(limited.map(|limited| limited.nominal_concurrency_shares.unwrap_or(0))),
            of(|queuing| queuing.queues),
            of(|queuing| queuing.hand_size),
            of(|queuing| queuing.queue_length_limit),
            columns::age(&level.metadata, now),
        ]
    }
}

fn specification(errors: &mut FieldErrors, path: &Path, spec: &PriorityLevelConfigurationSpec, name: &str) {
    if (name == standard::EXEMPT) != (spec.type_ == "Exempt") {
        let about = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(FieldError::invalid(&path.child("type"), spec.type_.as_str(), about));
    }
    if required(errors, &path.child("type"), &spec.type_) && !["Exempt", "Limited"].contains(&&*spec.type_) {
        errors.push(unsupported(&path.child("type"), spec.type_.as_str(), &["Exempt", "Limited"]));
    }
    let at = path.child("exempt");
    match &spec.exempt {
        Some(exempt) if spec.type_ == "Exempt" => {
            let shares = exempt.nominal_concurrency_shares.unwrap_or(0);
            not_negative(errors, &at.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
            percent(errors, &at.child("lendablePercent"), exempt.lendable_percent);
        }
        Some(_) => errors.push(FieldError::forbidden(&at, "")),
        None => {}
    }
    let at = path.child("limited");
    match &spec.limited {
        Some(limited) if spec.type_ == "Limited" => limits(errors, &at, limited),
        Some(_) => errors.push(FieldError::forbidden(&at, "")),
        None if spec.type_ == "Limited" => errors.push(FieldError::required(&at, "")),
        None => {}
    }
}

/// The two that the server itself rests on stay as they are, but for the shares of the exempt one.
fn mandatory(errors: &mut FieldErrors, path: &Path, spec: &PriorityLevelConfigurationSpec, name: &str) {
    let mut fixed =
        standard::levels().into_iter().filter(|one| standard::is_mandatory(name) && text(&one.metadata.name) == name);
    let Some(mut fixed) = fixed.next().map(|one| one.spec) else { return };
    let mut about = format!("spec of '{name}' must equal the fixed value");
    if name == standard::EXEMPT {
        about = format!("spec of '{name}' except the 'spec.exempt' field must equal the fixed value");
        fixed.exempt = spec.exempt.clone();
    }
    if !semantically_equal(&fixed, spec) {
        errors.push(FieldError::invalid(path, shown(spec), about));
    }
}

fn not_negative(errors: &mut FieldErrors, path: &Path, value: i32, about: &str) {
    if value < 0 {
        errors.push(FieldError::invalid(path, value, about));
    }
}

fn percent(errors: &mut FieldErrors, path: &Path, value: Option<i32>) {
    if let Some(value) = value.filter(|value| !(0..=100).contains(value)) {
        errors.push(FieldError::invalid(path, value, "must be between 0 and 100, inclusive"));
    }
}

fn limits(errors: &mut FieldErrors, path: &Path, limited: &LimitedPriorityLevelConfiguration) {
    let shares = limited.nominal_concurrency_shares.unwrap_or(0);
    not_negative(errors, &path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    response(errors, &path.child("limitResponse"), &limited.limit_response);
    percent(errors, &path.child("lendablePercent"), limited.lendable_percent);
    let (at, most) = (path.child("borrowingLimitPercent"), limited.borrowing_limit_percent.unwrap_or(0));
    not_negative(errors, &at, most, "if specified, must be a non-negative integer");
}

fn response(errors: &mut FieldErrors, path: &Path, response: &LimitResponse) {
    let (kind, at) = (path.child("type"), path.child("queuing"));
    if required(errors, &kind, &response.type_) && !["Queue", "Reject"].contains(&&*response.type_) {
        errors.push(unsupported(&kind, response.type_.as_str(), &["Queue", "Reject"]));
    }
    match &response.queuing {
        Some(queuing) if response.type_ == "Queue" => queues(errors, &at, queuing),
        Some(_) => errors.push(FieldError::forbidden(&at, "")),
        None if response.type_ == "Queue" => errors.push(FieldError::required(&at, "")),
        None => {}
    }
}

fn queues(errors: &mut FieldErrors, path: &Path, queuing: &QueuingConfiguration) {
    let [length, queues, hand] =
        [queuing.queue_length_limit, queuing.queues, queuing.hand_size].map(Option::unwrap_or_default);
    let mut wrong = |field: &str, value: i32, about: String| {
        errors.push(FieldError::invalid(&path.child(field), value, about));
    };
    if length <= 0 {
        wrong("queueLengthLimit", length, "must be positive".to_owned());
    }
    if queues <= 0 {
        wrong("queues", queues, "must be positive".to_owned());
    } else if queues > MAX_QUEUES {
        wrong("queues", queues, format!("must not be greater than {MAX_QUEUES}"));
    }
    if hand <= 0 {
        wrong("handSize", hand, "must be positive".to_owned());
    } else if hand > queues {
        wrong("handSize", hand, format!("should not be greater than queues ({queues})"));
    } else if (f64::from(queues).log2() * f64::from(hand)).ceil() > f64::from(MAX_ENTROPY) {
        let about = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_ENTROPY}"
        );
        wrong("handSize", hand, about);
    }
}
