//! What a Job's policies say: which failed Pods count (KEP-3329), and when enough indexes succeeded (KEP-3998). Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{
    Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
    SuccessPolicyRule,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::indexes::{self, Index};

/// What a failed Pod means for its Job.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    Counts,
    Ignored,
    FailsIndex,
    /// With the reason to tell.
    FailsJob(String),
}

/// The first rule that matches decides.
pub fn verdict(job: &Job, pod: &Pod) -> Verdict {
    let policy = job.spec.as_ref().and_then(|spec| spec.pod_failure_policy.as_ref());
    for (at, rule) in policy.iter().flat_map(|policy| &policy.rules).enumerate() {
        let Some(matched) = matched(rule, pod) else { continue };
        match rule.action.as_str() {
            "Ignore" => return Verdict::Ignored,
            "FailIndex" => return Verdict::FailsIndex,
            "Count" => return Verdict::Counts,
            "FailJob" => return Verdict::FailsJob(format!("{matched} matching {} rule at index {at}", rule.action)),
            _ => {}
        }
    }
    Verdict::Counts
}

/// In words, what of the Pod matches.
fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let (namespace, name) =
        (pod.metadata.namespace.as_deref().unwrap_or(""), pod.metadata.name.as_deref().unwrap_or(""));
    if let Some(requirement) = &rule.on_exit_codes {
        let mut all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
        let (container, code) =
            all.find_map(|container| exit_code(requirement, container).map(|code| (container, code)))?;
        return Some(format!("Container {} for pod {namespace}/{name} failed with exit code {code}", container.name));
    }
    let patterns = rule.on_pod_conditions.as_ref()?;
    let is_met = |kind: &str, value: &str| {
        let wanted = |pattern: &PodFailurePolicyOnPodConditionsPattern| {
            pattern.type_ == kind && pattern.status.as_deref().unwrap_or("True") == value
        };
        patterns.iter().any(wanted)
    };
    let condition = status.conditions.iter().flatten().find(|condition| is_met(&condition.type_, &condition.status))?;
    Some(format!("Pod {namespace}/{name} has condition {}", condition.type_))
}

fn exit_code(requirement: &PodFailurePolicyOnExitCodesRequirement, container: &ContainerStatus) -> Option<i32> {
    if requirement.container_name.as_ref().is_some_and(|name| *name != container.name) {
        return None;
    }
    let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
    let listed = requirement.values.contains(&code);
    let matches = match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    };
    (code != 0 && matches).then_some(code)
}

/// The rule of the success policy that is met, in words.
pub fn success(job: &Job, succeeded: &BTreeSet<Index>, completions: Index) -> Option<String> {
    let policy = job.spec.as_ref()?.success_policy.as_ref()?;
    let met = |rule: &SuccessPolicyRule| {
        let enough = |count: usize| rule.succeeded_count.is_some_and(|wanted| count >= wanted.max(0) as usize);
        match &rule.succeeded_indexes {
            Some(text) => {
                let wanted = indexes::parse(text, completions);
                let reached = wanted.intersection(succeeded).count();
                !wanted.is_empty() && (reached == wanted.len() || enough(reached))
            }
            None => enough(succeeded.len()),
        }
    };
    let at = policy.rules.iter().position(met).filter(|_| !succeeded.is_empty())?;
    Some(format!("Matched rules at index {at}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check_failure(rule: Value, expected: Verdict) {
        let job = json!({"spec": {"template": {}, "podFailurePolicy": {"rules": [rule]}}});
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "status": {
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 42}}}],
            "conditions": [{"type": "DisruptionTarget", "status": "True"}]}});
        let (job, pod) = (serde_json::from_value(job).unwrap(), serde_json::from_value(pod).unwrap());
        assert_eq!(verdict(&job, &pod), expected, "{rule}");
    }

    #[test]
    fn failures_are_judged() {
        let codes = |operator: &str, action: &str| json!({"action": action, "onExitCodes": {"operator": operator, "values": [42]}});
        check_failure(codes("In", "Ignore"), Verdict::Ignored);
        check_failure(codes("In", "FailIndex"), Verdict::FailsIndex);
        check_failure(codes("NotIn", "FailJob"), Verdict::Counts);
        let why = "Container c for pod n/p failed with exit code 42 matching FailJob rule at index 0";
        check_failure(codes("In", "FailJob"), Verdict::FailsJob(why.to_owned()));
        let why = "Pod n/p has condition DisruptionTarget matching FailJob rule at index 0";
        let rule = json!({"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
        check_failure(rule, Verdict::FailsJob(why.to_owned()));
    }

    #[test]
    fn successes_are_judged() {
        let check = |rule: Value, expected: Option<&str>| {
            let job = json!({"spec": {"template": {}, "successPolicy": {"rules": [rule]}}});
            let told = success(&serde_json::from_value(job).unwrap(), &[1, 3].into(), 5);
            assert_eq!(told.as_deref(), expected, "{rule}");
        };
        check(json!({"succeededCount": 2}), Some("Matched rules at index 0"));
        check(json!({"succeededCount": 3}), None);
        check(json!({"succeededIndexes": "1-3"}), None);
        check(json!({"succeededIndexes": "1,3"}), Some("Matched rules at index 0"));
        check(json!({"succeededIndexes": "1-4", "succeededCount": 2}), Some("Matched rules at index 0"));
    }
}
