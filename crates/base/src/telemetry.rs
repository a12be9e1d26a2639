//! Logging set-up: one line a record on stderr, filtered by `XEBEC_LOG` (directives of tracing's `EnvFilter`).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Installs the process's log writer; a second call changes nothing. `default` is used when `XEBEC_LOG` is not set.
pub fn init(default: &str) {
    let filter = EnvFilter::try_from_env("XEBEC_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}
