//! Lifecycle hooks: `postStart` and `preStop`, as a command, an HTTP request or a pause.
//! Source: "Container Lifecycle Hooks" in the Kubernetes documentation.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;
use xebec_base::Clock;

use crate::http_get;
use crate::probe::action::{Place, http_request};

/// Runs a hook to its end. The error is what the container's status says; it may show the command's output.
pub async fn run(place: &Place<'_>, clock: &dyn Clock, handler: &LifecycleHandler) -> Result<(), String> {
    let format = crate::pod::identity::format(place.pod);
    if let Some(action) = &handler.exec {
        let command = action.command.clone().unwrap_or_default();
        let shown = command.join(" ");
        return match place.runtime.exec_sync(place.container_id, &command, None).await {
            Ok(answer) if answer.exit_code == 0 => Ok(()),
            Ok(answer) => {
                let mut output = answer.stdout;
                output.extend_from_slice(&answer.stderr);
                let output = String::from_utf8_lossy(&output).into_owned();
                Err(format!(
                    "Exec lifecycle hook ([{shown}]) for Container {:?} in Pod {format:?} failed - error: command '{shown}' exited \
                     with {}: {output}, message: {output:?}",
                    place.container.name, answer.exit_code
                ))
            }
            Err(error) => Err(format!(
                "Exec lifecycle hook ([{shown}]) for Container {:?} in Pod {format:?} failed - error: {error}, message: \"\"",
                place.container.name
            )),
        };
    }
    if let Some(action) = &handler.http_get {
        let failed = |error: String| {
            format!(
                "HTTP lifecycle hook ({}) for Container {:?} in Pod {format:?} failed - error: {error}",
                action.path.as_deref().unwrap_or_default(),
                place.container.name
            )
        };
        let request = http_request(place, action).map_err(failed)?;
        // Whatever the answer says, the hook has been heard: upstream looks at no status code here.
        return http_get::get(&request).await.map(drop).map_err(failed);
    }
    if let Some(action) = &handler.sleep {
        clock.sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or_default())).await;
        return Ok(());
    }
    // tcpSocket is accepted by the API and has never done anything in a hook.
    Ok(())
}
