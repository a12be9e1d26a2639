//! Times for people: how long ago, and when.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use xebec_base::clock::SystemClock;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// `5m30s`, `3h`, `2d4h`: two units while the first is small, as upstream's `HumanDuration`.
pub fn human(seconds: i64) -> String {
    let two = |first: (i64, &str), second: (i64, &str)| match second.0 {
        0 => format!("{}{}", first.0, first.1),
        rest => format!("{}{}{rest}{}", first.0, first.1, second.1),
    };
    match seconds {
        i64::MIN..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two((seconds / MINUTE, "m"), (seconds % MINUTE, "s")),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two((seconds / HOUR, "h"), (seconds / MINUTE % 60, "m")),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two((seconds / DAY, "d"), (seconds / HOUR % 24, "h")),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => two((seconds / YEAR, "y"), (seconds / DAY % 365, "d")),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// How long ago.
pub fn since(time: Option<Timestamp>) -> String {
    match time {
        Some(time) => {
            let nanoseconds = SystemClock::shared().now().as_nanosecond() - time.as_nanosecond();
            human(nanoseconds.div_euclid(1_000_000_000) as i64)
        }
        None => "<unknown>".to_owned(),
    }
}

/// RFC 1123 in the local time zone.
pub fn date(time: Option<Timestamp>) -> String {
    match time {
        Some(time) => time.to_zoned(TimeZone::system()).strftime("%a, %d %b %Y %H:%M:%S %z").to_string(),
        // What Go makes of a time that was never set.
        None => "Mon, 01 Jan 0001 00:00:00 +0000".to_owned(),
    }
}

/// [`date`] of an object's field.
pub fn date_of(time: Option<&Time>) -> String {
    date(time.map(|time| time.0))
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations() {
        let check = |seconds: i64, expected: &str| assert_eq!(super::human(seconds), expected);
        check(-5, "<invalid>");
        check(-1, "0s");
        check(119, "119s");
        check(120, "2m");
        check(151, "2m31s");
        check(3600, "60m");
        check(3 * 3600 + 59, "3h");
        check(4 * 3600 + 120, "4h2m");
        check(47 * 3600, "47h");
        check(49 * 3600, "2d1h");
        check(8 * 86400, "8d");
        check(2 * 365 * 86400 + 86400, "2y1d");
        check(9 * 365 * 86400, "9y");
    }
}
