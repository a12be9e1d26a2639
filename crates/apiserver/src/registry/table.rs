//! Texts that Table cells share: ages, lists, counts. Behaviour: upstream's `duration.HumanDuration`.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

/// The age cell of an object.
pub fn age(since: Option<&Time>, now: Timestamp) -> Value {
    Value::from(match since {
        None => "<unknown>".to_owned(),
        Some(time) => human_duration(now.as_second() - time.0.as_second()),
    })
}

/// `45s`, `3m20s`, `5h`, `2d3h`, `1y20d`: as short as upstream prints a duration given in seconds.
pub fn human_duration(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let pair = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        pair(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        pair(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 192 {
        pair(hours / 24, "d", hours % 24, "h")
    } else if hours < 24 * 365 * 2 {
        format!("{}d", hours / 24)
    } else if hours < 24 * 365 * 8 {
        pair(hours / 24 / 365, "y", (hours / 24) % 365, "d")
    } else {
        format!("{}y", hours / 24 / 365)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_upstream_prints_them() {
        let check = |seconds: i64, text: &str| assert_eq!(human_duration(seconds), text);
        check(0, "0s");
        check(119, "119s");
        check(200, "3m20s");
        check(3600, "60m");
        check(4 * 3600, "4h");
        check(5 * 3600 + 60, "5h1m");
        check(51 * 3600, "2d3h");
        check(30 * 86400, "30d");
        check(800 * 86400, "2y70d");
    }
}
