//! Probes and lifecycle hooks, and the actions they share.

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, Probe, SleepAction, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{dns, numbers, required, text};

/// Liveness, readiness and startup probes and the hooks of a container that may have them.
pub fn container(errors: &mut FieldErrors, path: &Path, container: &Container, grace_period: Option<i64>) {
    if let Some(lifecycle) = &container.lifecycle {
        for (name, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
            if let Some(hook) = hook {
                Action::of_hook(hook).check(errors, &path.child("lifecycle").child(name), grace_period);
            }
        }
    }
    if let Some(one) = &container.liveness_probe {
        let path = path.child("livenessProbe");
        probe(errors, &path, one, grace_period);
        once_is_enough(errors, &path, one);
    }
    if let Some(one) = &container.readiness_probe {
        let path = path.child("readinessProbe");
        probe(errors, &path, one, grace_period);
        if let Some(seconds) = one.termination_grace_period_seconds {
            let path = path.child("terminationGracePeriodSeconds");
            errors.push(FieldError::invalid(&path, seconds, "must not be set for readinessProbes"));
        }
    }
    if let Some(one) = &container.startup_probe {
        let path = path.child("startupProbe");
        probe(errors, &path, one, grace_period);
        once_is_enough(errors, &path, one);
    }
}

fn once_is_enough(errors: &mut FieldErrors, path: &Path, probe: &Probe) {
    let threshold = probe.success_threshold.unwrap_or(0);
    if threshold != 1 {
        errors.push(FieldError::invalid(&path.child("successThreshold"), threshold, "must be 1"));
    }
}

fn probe(errors: &mut FieldErrors, path: &Path, probe: &Probe, grace_period: Option<i64>) {
    Action::of_probe(probe).check(errors, path, grace_period);
    for (name, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        numbers::not_negative(errors, &path.child(name), value.unwrap_or(0));
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|seconds| *seconds <= 0) {
        let path = path.child("terminationGracePeriodSeconds");
        errors.push(FieldError::invalid(&path, seconds, "must be greater than 0"));
    }
}

/// What a probe or a hook does: exactly one of these.
struct Action<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl<'a> Action<'a> {
    fn of_probe(probe: &'a Probe) -> Self {
        Action {
            exec: probe.exec.as_ref(),
            http_get: probe.http_get.as_ref(),
            tcp_socket: probe.tcp_socket.as_ref(),
            grpc: probe.grpc.as_ref(),
            sleep: None,
        }
    }

    fn of_hook(hook: &'a LifecycleHandler) -> Self {
        Action {
            exec: hook.exec.as_ref(),
            http_get: hook.http_get.as_ref(),
            tcp_socket: hook.tcp_socket.as_ref(),
            grpc: None,
            sleep: hook.sleep.as_ref(),
        }
    }

    fn check(&self, errors: &mut FieldErrors, path: &Path, grace_period: Option<i64>) {
        let mut found = 0;
        let mut first = |errors: &mut FieldErrors, name: &str, present: bool| {
            if present {
                found += 1;
                if found > 1 {
                    errors.push(FieldError::forbidden(&path.child(name), "may not specify more than 1 handler type"));
                }
            }
            present && found == 1
        };
        if first(errors, "exec", self.exec.is_some()) && self.exec.is_some_and(no_command) {
            errors.push(FieldError::required(&path.child("exec.command"), ""));
        }
        if first(errors, "httpGet", self.http_get.is_some())
            && let Some(action) = self.http_get
        {
            http_get(errors, &path.child("httpGet"), action);
        }
        if first(errors, "tcpSocket", self.tcp_socket.is_some())
            && let Some(action) = self.tcp_socket
        {
            numbers::port_or_name(errors, &path.child("tcpSocket.port"), &action.port);
        }
        if first(errors, "grpc", self.grpc.is_some())
            && let Some(action) = self.grpc
        {
            numbers::port_or_name(errors, &path.child("grpc.port"), &IntOrString::Int(action.port));
        }
        if first(errors, "sleep", self.sleep.is_some())
            && let (Some(action), Some(grace)) = (self.sleep, grace_period)
            && !(0..=grace).contains(&action.seconds)
        {
            let about = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
            errors.push(FieldError::invalid(&path.child("sleep"), action.seconds, about));
        }
        if found == 0 {
            errors.push(FieldError::required(path, "must specify a handler type"));
        }
    }
}

fn no_command(exec: &ExecAction) -> bool {
    exec.command.as_ref().is_none_or(Vec::is_empty)
}

fn http_get(errors: &mut FieldErrors, path: &Path, action: &HTTPGetAction) {
    required(errors, &path.child("path"), text(&action.path));
    numbers::port_or_name(errors, &path.child("port"), &action.port);
    super::one_of(errors, &path.child("scheme"), text(&action.scheme), &["HTTP", "HTTPS"]);
    for header in action.http_headers.iter().flatten() {
        super::report(errors, &path.child("httpHeaders"), &header.name, dns::header_name(&header.name));
    }
}
