//! Times in JSON: upstream accepts RFC 3339 as Go's `time.Parse` does and writes it in UTC, `Time` in seconds, `MicroTime` in
//! microseconds. The errors are Go's, because clients see them.

use std::ops::RangeInclusive;

use jiff::{Timestamp, civil, tz::Offset};

const SECONDS: &str = "2006-01-02T15:04:05Z07:00";
const MICROSECONDS: &str = "2006-01-02T15:04:05.000000Z07:00";

const NANOSECONDS: i128 = 1_000_000_000;

/// The text as upstream would write it back. The zero time is the empty string.
pub fn normalize(text: &str, micro: bool) -> Result<String, String> {
    let at = parse(text, micro)?;
    if at == zero() {
        return Ok(String::new());
    }
    Ok(format(at, micro))
}

/// Seconds and nanoseconds since 1970, `None` for the zero time and for the empty text that stands for it.
pub fn instant(text: &str) -> Result<Option<(i64, u32)>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let at = parse(text, false)?;
    let nanoseconds = at.as_nanosecond();
    let (seconds, rest) = (nanoseconds.div_euclid(NANOSECONDS), nanoseconds.rem_euclid(NANOSECONDS));
    Ok((at != zero()).then_some((seconds as i64, rest as u32)))
}

/// RFC 3339 in UTC with upstream's precision.
pub fn format(at: Timestamp, micro: bool) -> String {
    let at = at.strftime(if micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" });
    at.to_string()
}

/// Go's zero time, which is how upstream spells "not set".
fn zero() -> Timestamp {
    Offset::UTC.to_timestamp(civil::date(1, 1, 1).at(0, 0, 0, 0)).unwrap_or(Timestamp::MIN)
}

fn parse(text: &str, micro: bool) -> Result<Timestamp, String> {
    let layout = if micro { MICROSECONDS } else { SECONDS };
    let mut scan = Scan { text, rest: text, layout };
    let year = scan.number("2006", 0..=9999, "year")?;
    scan.literal("-")?;
    let month = scan.number("01", 1..=12, "month")?;
    scan.literal("-")?;
    let day = scan.number("02", 1..=31, "day")?;
    scan.literal("T")?;
    let hour = scan.number("15", 0..=23, "hour")?;
    scan.literal(":")?;
    let minute = scan.number("04", 0..=59, "minute")?;
    scan.literal(":")?;
    let second = scan.number("05", 0..=59, "second")?;
    let nanosecond = scan.fraction(micro)?;
    let offset = scan.offset()?;
    if !scan.rest.is_empty() {
        return Err(format!("parsing time {text:?}: extra text: {:?}", scan.rest));
    }
    let date = civil::Date::new(year as i16, month as i8, day as i8).map_err(|_| scan.out_of_range("day"))?;
    let at = date.at(hour as i8, minute as i8, second as i8, nanosecond);
    offset.to_timestamp(at).map_err(|_| scan.out_of_range("year"))
}

struct Scan<'a> {
    text: &'a str,
    rest: &'a str,
    layout: &'static str,
}

impl Scan<'_> {
    fn fail(&self, element: &str) -> String {
        format!("parsing time {:?} as {:?}: cannot parse {:?} as {element:?}", self.text, self.layout, self.rest)
    }

    fn out_of_range(&self, what: &str) -> String {
        format!("parsing time {:?}: {what} out of range", self.text)
    }

    fn literal(&mut self, literal: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(literal).ok_or_else(|| self.fail(literal))?;
        Ok(())
    }

    /// As many digits as `element`, the layout's own, has.
    fn number(&mut self, element: &str, range: RangeInclusive<u16>, what: &str) -> Result<u16, String> {
        let digits = element.len();
        let head = self.rest.get(..digits).filter(|head| head.bytes().all(|b| b.is_ascii_digit()));
        let number: u16 = head.and_then(|head| head.parse().ok()).ok_or_else(|| self.fail(element))?;
        self.rest = &self.rest[digits..];
        if !range.contains(&number) {
            return Err(self.out_of_range(what));
        }
        Ok(number)
    }

    /// Go takes any fraction after the seconds, but exactly six digits where the layout names them.
    fn fraction(&mut self, micro: bool) -> Result<i32, String> {
        let digits =
            self.rest.strip_prefix(['.', ',']).map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
        if digits == 0 {
            return if micro { Err(self.fail(".000000")) } else { Ok(0) };
        }
        if micro && digits < 6 {
            return Err(self.fail(".000000"));
        }
        let taken = if micro { 6 } else { digits };
        let number: String = self.rest[1..=taken].chars().chain("000000000".chars()).take(9).collect();
        self.rest = &self.rest[1 + taken..];
        Ok(number.parse().unwrap_or(0))
    }

    fn offset(&mut self) -> Result<Offset, String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(Offset::UTC);
        }
        let bytes = self.rest.as_bytes();
        let pair = |at: usize| -> Option<i32> {
            let pair = self.rest.get(at..at + 2)?;
            pair.bytes().all(|b| b.is_ascii_digit()).then(|| pair.parse().ok())?
        };
        let sign = match bytes.first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(self.fail("Z07:00")),
        };
        let (Some(hours), Some(b':'), Some(minutes)) = (pair(1), bytes.get(3), pair(4)) else {
            return Err(self.fail("Z07:00"));
        };
        if hours > 24 || minutes > 60 {
            return Err(self.out_of_range("time zone offset"));
        }
        let offset = Offset::from_seconds(sign * (hours * 3600 + minutes * 60));
        let offset = offset.map_err(|_| self.out_of_range("time zone offset"))?;
        self.rest = &self.rest[6..];
        Ok(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_and_write_as_in_go() {
        let check = |text: &str, micro: bool, expected: Result<&str, &str>| {
            assert_eq!(normalize(text, micro).as_deref().map_err(String::as_str), expected, "{text}");
        };
        check("2024-02-03T04:05:06Z", false, Ok("2024-02-03T04:05:06Z"));
        check("2024-02-03T04:05:06.789+02:00", false, Ok("2024-02-03T02:05:06Z"));
        check("2024-02-03T04:05:06.789012Z", true, Ok("2024-02-03T04:05:06.789012Z"));
        check("0001-01-01T00:00:00Z", false, Ok(""));
        check(
            "soon",
            false,
            Err(r#"parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006""#),
        );
        check(
            "2024-02-03T04:05:06Z",
            true,
            Err(
                r#"parsing time "2024-02-03T04:05:06Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000""#,
            ),
        );
        check("2024-13-03T04:05:06Z", false, Err(r#"parsing time "2024-13-03T04:05:06Z": month out of range"#));
        check("2024-02-30T04:05:06Z", false, Err(r#"parsing time "2024-02-30T04:05:06Z": day out of range"#));
    }
}
