//! CronJobs.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::job;
use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::registry::table;
use crate::resources::columns;
use crate::resources::core::pod_defaults::default_text;
use crate::resources::core::pod_warnings;
use crate::resources::validation::{numbers, required, required_one_of, shown, text, unsupported};

const MAX_NAME: usize = 52;
const FIELDS: [(&str, u32, u32); 5] =
    [("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("week", 0, 6)];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

#[derive(Default)]
pub struct CronJobStrategy;

impl Strategy for CronJobStrategy {
    type Object = CronJob;

    fn default(&self, cron: &mut CronJob) {
        let spec = &mut cron.spec;
        default_text(&mut spec.concurrency_policy, "Allow");
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        spec.job_template.metadata.get_or_insert_default();
        job::template_defaults(spec.job_template.spec.get_or_insert_default());
        cron.status.get_or_insert_default();
    }

    fn prepare_create(&self, cron: &mut CronJob) {
        cron.status = Some(Default::default());
    }

    fn validate(&self, cron: &CronJob) -> FieldErrors {
        let mut errors = self.validate_spec(cron);
        let name = text(&cron.metadata.name);
        if name.len() > MAX_NAME {
            // Names of its Jobs are longer by eleven characters.
            let about = format!("must be no more than {MAX_NAME} characters");
            errors.push(FieldError::invalid(&Path::new("metadata.name"), name, about));
        }
        errors
    }

    fn validate_update(&self, new: &CronJob, _old: &CronJob) -> FieldErrors {
        self.validate_spec(new)
    }

    fn warnings(&self, cron: &CronJob, old: Option<&CronJob>) -> Vec<String> {
        if old.is_some_and(|old| old.spec == cron.spec) {
            return Vec::new();
        }
        let name = pod_warnings::name_warning(&cron.metadata, "Pod names and hostnames").filter(|_| old.is_none());
        let template = cron.spec.job_template.spec.as_ref().map(|spec| &spec.template);
        let path = Path::new("spec.jobTemplate.spec.template");
        name.into_iter().chain(pod_warnings::template_warnings_at(&path, template)).collect()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Schedule", "string", "When it runs, in Cron form."),
            column("Timezone", "string", "The time zone of its schedule."),
            column("Suspend", "boolean", "Whether it is held back."),
            column("Active", "integer", "How many of its Jobs run."),
            column("Last Schedule", "string", "When it ran last."),
            AGE_COLUMN,
            columns::CONTAINERS,
            columns::IMAGES,
            columns::SELECTOR,
        ];
        COLUMNS
    }

    fn cells(&self, cron: &CronJob, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&cron.spec, cron.status.clone().unwrap_or_default());
        let job = spec.job_template.spec.as_ref();
        let [names, images] = columns::containers(job.map(|job| &job.template));
        let last = match &status.last_schedule_time {
            None => Value::from("<none>"),
            time => table::age(time.as_ref(), now),
        };
        let suspend = match spec.suspend {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        vec![
            columns::name(&cron.metadata),
            Value::from(spec.schedule.as_str()),
            columns::or(spec.time_zone.as_deref(), "<none>"),
            Value::from(suspend),
            Value::from(status.active.as_ref().map_or(0, Vec::len)),
            last,
            columns::age(&cron.metadata, now),
            names,
            images,
            columns::selector(job.and_then(|job| job.selector.as_ref())),
        ]
    }
}

impl CronJobStrategy {
    fn validate_spec(&self, cron: &CronJob) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, spec) = (Path::new("spec"), &cron.spec);
        let at = path.child("schedule");
        if required(&mut errors, &at, &spec.schedule) {
            if let Err(why) = check_schedule(&spec.schedule) {
                errors.push(FieldError::invalid(&at, spec.schedule.as_str(), why));
            }
            if spec.schedule.contains("TZ") {
                let about = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
                errors.push(FieldError::invalid(&at, spec.schedule.as_str(), about));
            }
        }
        let deadline = spec.starting_deadline_seconds.unwrap_or(0);
        numbers::not_negative(&mut errors, &path.child("startingDeadlineSeconds"), deadline);
        if let Some(zone) = &spec.time_zone {
            time_zone(&mut errors, &path.child("timeZone"), zone);
        }
        let policies = ["Allow", "Forbid", "Replace"];
        required_one_of(&mut errors, &path.child("concurrencyPolicy"), text(&spec.concurrency_policy), &policies);
        let at = path.child("jobTemplate.spec");
        let job = spec.job_template.spec.clone().unwrap_or_default();
        job::job_spec(&mut errors, &at, &job);
        if let Some(selector) = &job.selector {
            let about = "`selector` will be auto-generated";
            errors.push(FieldError::invalid(&at.child("selector"), shown(selector), about));
        }
        if job.manual_selector == Some(true) {
            errors.push(unsupported(&at.child("manualSelector"), true, &["nil", "false"]));
        }
        for (name, limit) in [
            ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
            ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
        ] {
            numbers::not_negative(&mut errors, &path.child(name), limit.unwrap_or(0));
        }
        errors
    }
}

fn time_zone(errors: &mut FieldErrors, path: &Path, zone: &str) {
    let wrong = |about: String| FieldError::invalid(path, zone, about);
    if zone.is_empty() {
        errors.push(wrong("timeZone must be nil or non-empty string".to_owned()));
    } else if zone.eq_ignore_ascii_case("local") {
        let about = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(wrong(about.to_owned()));
    } else if jiff::tz::TimeZone::get(zone).is_err() {
        errors.push(wrong(format!("unknown time zone {zone}")));
    }
}

/// The five fields of Cron, or one of its words; upstream's parser is `robfig/cron`.
fn check_schedule(schedule: &str) -> Result<(), String> {
    if let Some(word) = schedule.strip_prefix('@') {
        let words = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        let every = word.strip_prefix("every ").is_some_and(|duration| !duration.is_empty());
        return if words.contains(&word) || every {
            Ok(())
        } else {
            Err(format!("unrecognized descriptor: {schedule}"))
        };
    }
    let fields: Vec<&str> = schedule.split_whitespace().filter(|field| !field.contains("TZ=")).collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    for (field, (name, low, high)) in fields.iter().zip(FIELDS) {
        field.split(',').try_for_each(|part| check_range(part, name, low, high))?;
    }
    Ok(())
}

fn check_range(part: &str, name: &str, low: u32, high: u32) -> Result<(), String> {
    let named = |text: &str| match name {
        "month" => MONTHS.iter().position(|month| text.eq_ignore_ascii_case(month)).map(|at| at as u32 + 1),
        "week" => DAYS.iter().position(|day| text.eq_ignore_ascii_case(day)).map(|at| at as u32),
        _ => None,
    };
    let number = |text: &str| {
        let parsed = named(text).map_or_else(|| text.parse::<u32>(), Ok);
        parsed.map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
    };
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, Some(number(step)?)),
        None => (part, None),
    };
    if step == Some(0) {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    if matches!(range, "*" | "?") {
        return Ok(());
    }
    let (from, to) = match range.split_once('-') {
        Some((from, to)) => (number(from)?, number(to)?),
        None => (number(range)?, number(range)?),
    };
    if from < low {
        return Err(format!("beginning of range ({from}) below minimum ({low}): {part}"));
    }
    if to > high {
        return Err(format!("end of range ({to}) above maximum ({high}): {part}"));
    }
    if from > to {
        return Err(format!("beginning of range ({from}) beyond end of range ({to}): {part}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_cron_reads_them() {
        let check = |schedule: &str, expected: Result<(), &str>| {
            assert_eq!(check_schedule(schedule), expected.map_err(str::to_owned), "{schedule}");
        };
        check("*/5 * * * *", Ok(()));
        check("0 0 1 jan sun", Ok(()));
        check("@hourly", Ok(()));
        check("60 * * * *", Err("end of range (60) above maximum (59): 60"));
        check("* * *", Err("expected exactly 5 fields, found 3: [* * *]"));
        check("@never", Err("unrecognized descriptor: @never"));
    }
}
