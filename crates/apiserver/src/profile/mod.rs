//! `/debug/pprof`: where the processor's time and the memory go, in the form that `go tool pprof` and its kin read.
//!
//! Who may ask is for the policies to say: no role but the administrators' names these paths. One profile of the processor
//! is taken at a time; memory is sampled by the binary's allocator, if it says how ([`set_heap_source`]).

mod encode;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::CONTENT_DISPOSITION;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use xebec_api::status::StatusError;

use crate::body::{self, Body};
pub use encode::{Frame, Profile, Sample};

/// Samples a second: one that no timer of the program is likely to beat with.
const FREQUENCY: i32 = 99;
const DEFAULT_SECONDS: u64 = 30;
/// A profile takes no longer, whatever is asked.
const MAX_SECONDS: u64 = 300;

static HEAP: OnceLock<fn() -> Profile> = OnceLock::new();
static BUSY: AtomicBool = AtomicBool::new(false);

/// Says how what is in memory is told.
pub fn set_heap_source(source: fn() -> Profile) {
    let _ = HEAP.set(source);
}

/// `rest` is the path behind `/debug/pprof`.
pub async fn answer(parts: &Parts, rest: &[&str]) -> Result<Response<Body>, StatusError> {
    let query = parts.uri.query().unwrap_or("");
    let number = |name: &str| {
        let found = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
        found.and_then(|(_, value)| value.parse::<u64>().ok())
    };
    match rest {
        [] => {
            let heap = if HEAP.get().is_some() { "heap\n" } else { "" };
            Ok(body::text(StatusCode::OK, format!("cmdline\n{heap}profile\n")))
        }
        ["cmdline"] => {
            let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
            Ok(body::text(StatusCode::OK, words.join("\0")))
        }
        ["heap"] => {
            let source = HEAP.get().ok_or_else(StatusError::no_such_path)?;
            let profile = tokio::task::spawn_blocking(*source).await.map_err(StatusError::internal)?;
            respond("heap", &profile)
        }
        ["profile"] => {
            let seconds = number("seconds").filter(|seconds| *seconds > 0).unwrap_or(DEFAULT_SECONDS).min(MAX_SECONDS);
            respond("profile", &processor(Duration::from_secs(seconds)).await?)
        }
        _ => Err(StatusError::no_such_path()),
    }
}

fn respond(name: &'static str, profile: &Profile) -> Result<Response<Body>, StatusError> {
    let bytes = profile.gzipped().map_err(StatusError::internal)?;
    let media_type = HeaderValue::from_static("application/octet-stream");
    let mut response = body::typed(StatusCode::OK, body::full(bytes), media_type);
    let file = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")).map_err(StatusError::internal)?;
    response.headers_mut().insert(CONTENT_DISPOSITION, file);
    Ok(response)
}

/// Given back when a profile is done, however it ends.
struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        (!BUSY.swap(true, Ordering::AcqRel)).then_some(Turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        BUSY.store(false, Ordering::Release);
    }
}

/// Samples all threads for a while.
async fn processor(time: Duration) -> Result<Profile, StatusError> {
    let busy = || StatusError::too_many_requests("a profile is being taken already", 1);
    let _turn = Turn::take().ok_or_else(busy)?;
    // A signal within these libraries could find their locks held.
    let guard = pprof::ProfilerGuardBuilder::default()
        .frequency(FREQUENCY)
        .blocklist(&["libc", "libgcc", "pthread", "vdso"])
        .build()
        .map_err(StatusError::internal)?;
    // It is the machine's time that is measured.
    tokio::time::sleep(time).await;
    let made = tokio::task::spawn_blocking(move || {
        let report = guard.report().build()?;
        // The symbols of the whole program are several times its size; the next profile reads them again.
        backtrace::clear_symbol_cache();
        let period = 1_000_000_000 / i64::from(FREQUENCY);
        let samples = report.data.iter().map(|(stack, count)| {
            let frames = stack.frames.iter().flatten().map(|symbol| Frame {
                address: symbol.addr.map_or(0, |address| address as u64),
                function: symbol.name(),
                file: symbol.filename().into_owned(),
                line: i64::from(symbol.lineno()),
            });
            let count = *count as i64;
            Sample { stack: frames.collect(), values: vec![count, count * period] }
        });
        Ok::<_, pprof::Error>(Profile {
            kinds: vec![("samples", "count"), ("cpu", "nanoseconds")],
            period: (("cpu", "nanoseconds"), period),
            duration: time,
            samples: samples.collect(),
        })
    });
    made.await.map_err(StatusError::internal)?.map_err(StatusError::internal)
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http_body_util::BodyExt;

    use super::*;

    async fn ask(path: &str) -> Result<Response<Body>, StatusError> {
        let (parts, ()) = Request::get(path).body(()).unwrap().into_parts();
        let path = parts.uri.path().to_owned();
        let rest: Vec<&str> =
            path.trim_start_matches("/debug/pprof").split('/').filter(|one| !one.is_empty()).collect();
        answer(&parts, &rest).await
    }

    /// A thread that does nothing but compute is found in the profile.
    #[tokio::test]
    async fn the_processor_is_sampled() {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let worker = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut number = 1_u64;
                while !stop.load(Ordering::Relaxed) {
                    number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
                }
                number
            }
        });
        let (first, second) =
            tokio::join!(ask("/debug/pprof/profile?seconds=1"), ask("/debug/pprof/profile?seconds=1"));
        stop.store(true, Ordering::Relaxed);
        worker.join().unwrap();
        let bytes = first.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(second.err().map(|error| error.code()), Some(429), "one at a time");
        let mut raw = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut raw).unwrap();
        let has = |text: &str| raw.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(has("nanoseconds") && has("the_processor_is_sampled"), "the stack of the worker is not there");
        assert_eq!(ask("/debug/pprof/goroutine").await.err().map(|error| error.code()), Some(404));
    }
}
