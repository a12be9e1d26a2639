//! Images: present before a container is created, by the container's pull policy; unused ones removed when the disk fills.
//!
//! A failed pull is waited out with a growing delay; meanwhile the first error stays in the message, so that a user sees the cause
//! and not only the waiting. Reasons and texts are upstream's.

pub mod collect;
mod credentials;
pub mod imported;
mod name;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Secret};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use xebec_base::SharedClock;
use xebec_cri::Images;
use xebec_cri::v1::{AuthConfig, Image, ImageSpec, PodSandboxConfig};
use xebec_runtime::EventRecorder;

use crate::pod::backoff::Backoffs;
use crate::pod::status::Failure;
use crate::security::ImageUser;

/// More pulls at once only share the same line; upstream pulls one after the other.
const PULLS_AT_ONCE: usize = 4;

/// How long a pull's own error stands in the status before that of waiting takes its place.
const SHOWN: Duration = Duration::from_secs(3);

/// An image that is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// What the runtime calls it.
    pub id: String,
    pub user: ImageUser,
}

/// Why it is not, and when to try again; `None` leaves the moment to the caller.
#[derive(Clone, Debug)]
pub struct Absent {
    pub failure: Failure,
    pub retry: Option<Timestamp>,
    /// The same failure has been told already.
    pub told: bool,
}

pub struct Puller {
    images: Arc<dyn Images>,
    imported: imported::Record,
    clock: SharedClock,
    events: EventRecorder,
    pulls: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    backoffs: Backoffs,
    /// When the last pull failed and what it said, by Pod and image.
    failed: HashMap<String, (Timestamp, String)>,
}

/// For whom an image is wanted.
pub struct Wanted<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    /// The container, for events.
    pub regarding: &'a ObjectReference,
    pub sandbox: &'a PodSandboxConfig,
    pub secrets: &'a [Arc<Secret>],
}

impl Puller {
    pub fn new(
        images: Arc<dyn Images>,
        imported: imported::Record,
        clock: SharedClock,
        events: EventRecorder,
    ) -> Puller {
        Puller { images, imported, clock, events, pulls: Semaphore::new(PULLS_AT_ONCE), state: Mutex::default() }
    }

    pub fn images(&self) -> &Arc<dyn Images> {
        &self.images
    }

    /// Makes sure that the container's image is there.
    pub async fn ensure(&self, wanted: &Wanted<'_>) -> Result<Present, Absent> {
        let given = wanted.container.image.as_deref().unwrap_or_default();
        let fail = |reason, message: String| Absent { failure: Failure { reason, message }, retry: None, told: false };
        let full = name::with_default_tag(given).map_err(|error| {
            let message = format!("Failed to apply default image tag {given:?}: {error}");
            self.events.warning(wanted.regarding, "InspectFailed", message.clone());
            fail("InvalidImageName", message)
        })?;
        let policy = match wanted.container.image_pull_policy.as_deref() {
            Some(policy) if !policy.is_empty() => policy,
            _ if full.ends_with(":latest") => "Always",
            _ => "IfNotPresent",
        };
        // An image that was loaded by hand has no registry that could have a newer one.
        if policy != "Always" || self.imported.holds(&full) {
            let found = self.images.image_status(&full).await.map_err(|error| {
                let message = format!("Failed to inspect image {full:?}: {error}");
                self.events.warning(wanted.regarding, "InspectFailed", message.clone());
                fail("ImageInspectError", message)
            })?;
            if let Some(image) = found {
                let message =
                    format!("Container image {given:?} already present on machine and can be accessed by the pod");
                self.events.normal(wanted.regarding, "Pulled", message);
                return Ok(present(&image));
            }
            if policy == "Never" {
                let message = format!("Container image {given:?} is not present with pull policy of Never");
                self.events.warning(wanted.regarding, "ErrImageNeverPull", message.clone());
                return Err(fail("ErrImageNeverPull", message));
            }
        }
        self.pull(wanted, given, &full).await
    }

    async fn pull(&self, wanted: &Wanted<'_>, given: &str, full: &str) -> Result<Present, Absent> {
        let key = format!("{}_{full}", crate::pod::identity::uid(wanted.pod));
        if let Some(absent) = self.waiting(&key, given) {
            if !absent.told {
                self.events.normal(wanted.regarding, "BackOff", format!("Back-off pulling image {given:?}"));
            }
            return Err(absent);
        }
        self.events.normal(wanted.regarding, "Pulling", format!("Pulling image {given:?}"));
        let began = self.clock.elapsed();
        let _turn = self.pulls.acquire().await;
        let waited = self.clock.elapsed();
        match self.pull_with_credentials(wanted, full).await {
            Ok(image) => {
                let (pulled, all) = (self.clock.elapsed() - waited, self.clock.elapsed() - began);
                let message = format!(
                    "Successfully pulled image {given:?} in {} ({} including waiting). Image size: {} bytes.",
                    go_milliseconds(pulled),
                    go_milliseconds(all),
                    image.size
                );
                self.events.normal(wanted.regarding, "Pulled", message);
                let mut state = self.state.lock();
                state.backoffs.forget(&key);
                state.failed.remove(&key);
                Ok(present(&image))
            }
            Err(error) => {
                let message = error.to_string();
                self.events.warning(wanted.regarding, "Failed", format!("Failed to pull image {given:?}: {message}"));
                let now = self.clock.now();
                let mut state = self.state.lock();
                state.backoffs.advance(&key, now, now);
                state.failed.insert(key, (now, message.clone()));
                let retry = Some(now + SHOWN);
                Err(Absent { failure: Failure { reason: "ErrImagePull", message }, retry, told: false })
            }
        }
    }

    fn waiting(&self, key: &str, given: &str) -> Option<Absent> {
        let state = self.state.lock();
        let (failed, first) = state.failed.get(key)?;
        let now = self.clock.now();
        let (_, until) = state.backoffs.waiting(key, *failed, now)?;
        if now < *failed + SHOWN {
            let failure = Failure { reason: "ErrImagePull", message: first.clone() };
            return Some(Absent { failure, retry: Some(*failed + SHOWN), told: true });
        }
        let message = format!("Back-off pulling image {given:?}: ErrImagePull: {first}");
        Some(Absent { failure: Failure { reason: "ImagePullBackOff", message }, retry: Some(until), told: false })
    }

    /// Tries the credentials that fit one after the other; without any, anonymously.
    async fn pull_with_credentials(&self, wanted: &Wanted<'_>, full: &str) -> Result<Image, xebec_cri::Error> {
        let spec = ImageSpec { image: full.to_owned(), ..ImageSpec::default() };
        let mut tries: Vec<Option<AuthConfig>> =
            credentials::matching(wanted.secrets, full).into_iter().map(Some).collect();
        if tries.is_empty() {
            tries.push(None);
        }
        let mut last = None;
        for auth in tries {
            match self.images.pull(spec.clone(), auth, wanted.sandbox.clone()).await {
                Ok(id) => {
                    let image = self.images.image_status(&id).await?;
                    return Ok(image.unwrap_or(Image { id, ..Image::default() }));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("at least one try was made"))
    }

    /// The Pod is gone, and with it what its pulls waited for.
    pub fn forget(&self, uid: &str) {
        let prefix = format!("{uid}_");
        let mut state = self.state.lock();
        let gone: Vec<String> = state.failed.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
        for key in gone {
            state.backoffs.forget(&key);
            state.failed.remove(&key);
        }
    }
}

fn present(image: &Image) -> Present {
    let uid = image.uid.as_ref().map(|uid| uid.value);
    // An image that names nobody runs as root.
    let uid = uid.or(image.username.is_empty().then_some(0));
    Present { id: image.id.clone(), user: ImageUser { uid, name: image.username.clone() } }
}

/// A duration as Go prints it, in milliseconds at the finest.
fn go_milliseconds(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds < 1000 {
        return if milliseconds == 0 { "0s".to_owned() } else { format!("{milliseconds}ms") };
    }
    let (minutes, rest) = (milliseconds / 60_000, milliseconds % 60_000);
    let seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    if minutes > 0 { format!("{minutes}m{seconds}s") } else { format!("{seconds}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        let check =
            |milliseconds: u64, text: &str| assert_eq!(go_milliseconds(Duration::from_millis(milliseconds)), text);
        check(0, "0s");
        check(234, "234ms");
        check(1234, "1.234s");
        check(2000, "2s");
        check(61_500, "1m1.5s");
    }
}
