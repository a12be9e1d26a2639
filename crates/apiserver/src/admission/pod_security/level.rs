//! What a namespace's labels say: which level of the Pod Security Standards Pods are held to, and in which version. Pure.

use std::collections::BTreeMap;
use std::fmt;

use xebec_api::field::{FieldError, FieldErrors, Path};

const PREFIX: &str = "pod-security.kubernetes.io/";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Level> {
        Some(match text {
            "privileged" => Level::Privileged,
            "baseline" => Level::Baseline,
            "restricted" => Level::Restricted,
            _ => return None,
        })
    }
}

/// A level as of a minor version; `None` for the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard {
    pub level: Level,
    pub version: Option<u32>,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            None => write!(f, "{level}:latest"),
            Some(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

/// What is refused and what is only warned of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Standard,
    pub warn: Standard,
}

const OPEN: Standard = Standard { level: Level::Privileged, version: None };

impl Policy {
    /// The policy of a namespace with these labels, and what is wrong with them. A level that is not understood enforces
    /// the strictest.
    pub fn of(labels: Option<&BTreeMap<String, String>>) -> (Policy, FieldErrors) {
        let mut policy = Policy { enforce: OPEN, warn: OPEN };
        let mut errors = FieldErrors::new();
        let Some(labels) = labels else { return (policy, errors) };
        let get = |name: &str| labels.get(&format!("{PREFIX}{name}")).map(String::as_str);
        let mut level = |name: &str, otherwise: Level| {
            let text = get(name)?;
            let parsed = Level::parse(text);
            if parsed.is_none() {
                let about = "must be one of privileged, baseline, restricted";
                errors.push(FieldError::invalid(&path(name), text, about));
            }
            Some((parsed.unwrap_or(otherwise), parsed.is_some()))
        };
        let enforce = level("enforce", Level::Restricted);
        level("audit", Level::Privileged);
        let warn = level("warn", Level::Privileged);
        let mut version = |name: &str| {
            let text = get(name)?;
            let parsed = parse_version(text);
            if parsed.is_none() {
                errors.push(FieldError::invalid(&path(name), text, "must be \"latest\" or \"v1.x\""));
            }
            Some(parsed.flatten())
        };
        policy.enforce.version = version("enforce-version").flatten();
        version("audit-version");
        let warn_version = version("warn-version");
        policy.warn.version = warn_version.flatten();
        // Upstream looks at the labels mode by mode.
        let modes = ["enforce", "audit", "warn"];
        errors.sort_by_key(|error| modes.iter().position(|mode| error.field.contains(&format!("/{mode}"))));
        if let Some((level, _)) = enforce {
            policy.enforce.level = level;
        }
        match (warn, enforce) {
            (Some((level, _)), _) => policy.warn.level = level,
            // Who enforces a level is warned of it too.
            (None, Some((level, true))) if level > policy.warn.level => {
                policy.warn.level = level;
                if warn_version.is_none() {
                    policy.warn.version = policy.enforce.version;
                }
            }
            _ => {}
        }
        (policy, errors)
    }
}

fn path(label: &str) -> Path {
    Path::new("metadata").child("labels").key(&format!("{PREFIX}{label}"))
}

/// The outer `None` for what is no version, the inner one for the latest.
fn parse_version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let plain = minor == "0" || (!minor.starts_with('0') && minor.bytes().all(|byte| byte.is_ascii_digit()));
    if plain && !minor.is_empty() { minor.parse().ok().map(Some) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(labels: &[(&str, &str)], enforce: &str, warn: &str, errors: usize) {
        let labels = labels.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect();
        let (policy, found) = Policy::of(Some(&labels));
        let shown = (policy.enforce.to_string(), policy.warn.to_string(), found.len());
        assert_eq!(shown, (enforce.to_owned(), warn.to_owned(), errors), "{labels:?}");
    }

    #[test]
    fn labels_are_read_as_upstream_reads_them() {
        check(&[], "privileged:latest", "privileged:latest", 0);
        check(&[("enforce", "baseline")], "baseline:latest", "baseline:latest", 0);
        let versioned = [("enforce", "baseline"), ("enforce-version", "v1.25")];
        check(&versioned, "baseline:v1.25", "baseline:v1.25", 0);
        check(&[("enforce", "restricted"), ("warn", "privileged")], "restricted:latest", "privileged:latest", 0);
        check(&[("warn", "restricted"), ("warn-version", "v1.30")], "privileged:latest", "restricted:v1.30", 0);
        check(&[("enforce", "strict"), ("warn", "lax")], "restricted:latest", "privileged:latest", 2);
        check(&[("enforce-version", "v1.01"), ("audit-version", "1.2")], "privileged:latest", "privileged:latest", 2);
    }
}
