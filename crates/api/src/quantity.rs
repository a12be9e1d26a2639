//! Resource quantities: `100m`, `1.5Gi`, `2e3`, exact, with upstream's canonical form.
//!
//! Source: the `Quantity` section of the API reference. Values are held in billionths, the finest that upstream keeps;
//! what is finer is rounded up, as there.

use std::fmt;
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Format {
    BinarySi,
    DecimalSi,
    DecimalExponent,
}

/// An exact amount with the notation it was written in. Comparison looks at the amount only.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct QuantityError;

impl Quantity {
    pub const ZERO: Quantity = Quantity { nano: 0, format: Format::DecimalSi };

    pub fn from_integer(value: i64) -> Self {
        Quantity { nano: i128::from(value) * NANO, format: Format::DecimalSi }
    }

    pub fn from_milli(value: i64) -> Self {
        Quantity { nano: i128::from(value) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// Bytes, printed with binary suffixes.
    pub fn from_bytes(value: i64) -> Self {
        Quantity { nano: i128::from(value) * NANO, format: Format::BinarySi }
    }

    /// Parses what an object holds; an absent or bad one counts as nothing.
    pub fn of(value: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> Self {
        value.and_then(|value| value.0.parse().ok()).unwrap_or(Self::ZERO)
    }

    /// Whole units, rounded up.
    pub fn value(&self) -> i64 {
        saturate(div_up(self.nano, NANO))
    }

    /// Thousandths, rounded up.
    pub fn milli_value(&self) -> i64 {
        saturate(div_up(self.nano, NANO / 1000))
    }

    pub fn as_f64(&self) -> f64 {
        self.nano as f64 / NANO as f64
    }

    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    pub fn is_negative(&self) -> bool {
        self.nano < 0
    }

    /// The sum, in the notation of the first that is not zero.
    pub fn plus(self, other: Quantity) -> Quantity {
        let format = if self.nano == 0 { other.format } else { self.format };
        Quantity { nano: self.nano.saturating_add(other.nano), format }
    }

    pub fn minus(self, other: Quantity) -> Quantity {
        Quantity { nano: self.nano.saturating_sub(other.nano), format: self.format }
    }

    pub fn to_api(self) -> k8s_openapi::apimachinery::pkg::api::resource::Quantity {
        k8s_openapi::apimachinery::pkg::api::resource::Quantity(self.to_string())
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nano.cmp(&other.nano)
    }
}

fn div_up(value: i128, by: i128) -> i128 {
    // Upstream rounds away from zero.
    if value >= 0 { (value + by - 1) / by } else { -((-value + by - 1) / by) }
}

fn saturate(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError);
        }
        let (format, scale) = parse_suffix(suffix)?;
        let nano = scaled(whole, fraction, scale)?;
        Ok(Quantity { nano: if negative { -nano } else { nano }, format })
    }
}

enum Scale {
    Ten(i32),
    Two(u32),
}

fn parse_suffix(suffix: &str) -> Result<(Format, Scale), QuantityError> {
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::BinarySi, Scale::Two(*power)));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::DecimalSi, Scale::Ten(*power)));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError)?;
    Ok((Format::DecimalExponent, Scale::Ten(exponent.parse().map_err(|_| QuantityError)?)))
}

/// The digits times the scale, in billionths, rounded up and capped as upstream caps it.
fn scaled(whole: &str, fraction: &str, scale: Scale) -> Result<i128, QuantityError> {
    const MAX: i128 = i64::MAX as i128 * NANO;
    let digits: String = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.len() > 36 {
        return Ok(MAX);
    }
    let mantissa: i128 = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| QuantityError)? };
    let mut power = 9 - fraction.len() as i32;
    let mut value = mantissa;
    match scale {
        Scale::Ten(ten) => power += ten,
        Scale::Two(two) => value = value.checked_mul(1i128 << two).unwrap_or(MAX),
    }
    if value == 0 {
        return Ok(0);
    }
    let value = match power {
        0.. => 10i128.checked_pow(power as u32).and_then(|ten| value.checked_mul(ten)).unwrap_or(MAX),
        _ => 10i128.checked_pow(power.unsigned_abs()).map_or(1, |ten| div_up(value, ten)),
    };
    Ok(value.min(MAX))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let sign = if self.nano < 0 { "-" } else { "" };
        let nano = self.nano.unsigned_abs();
        let unit = NANO as u128;
        // As upstream, binary notation is kept only for whole amounts of at least 1024.
        if self.format == Format::BinarySi && nano.is_multiple_of(unit) && nano / unit >= 1024 {
            let value = nano / unit;
            let (name, power) =
                BINARY.iter().rev().find(|(_, p)| value.is_multiple_of(1 << p)).copied().unwrap_or(("", 0));
            return write!(f, "{sign}{}{name}", value >> power);
        }
        let (mut mantissa, mut power) = (nano, -9i32);
        while power < 18 && mantissa.is_multiple_of(1000) {
            mantissa /= 1000;
            power += 3;
        }
        if self.format == Format::DecimalExponent {
            return if power == 0 { write!(f, "{sign}{mantissa}") } else { write!(f, "{sign}{mantissa}e{power}") };
        }
        let name = DECIMAL.iter().find(|(_, p)| *p == power).map_or("", |(name, _)| name);
        write!(f, "{sign}{mantissa}{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        let check = |text: &str, canonical: &str, value: i64, milli: i64| {
            let quantity: Quantity = text.parse().unwrap();
            assert_eq!(quantity.to_string(), canonical, "{text}");
            assert_eq!((quantity.value(), quantity.milli_value()), (value, milli), "{text}");
        };
        check("100m", "100m", 1, 100);
        check("0.5", "500m", 1, 500);
        check("1.5Gi", "1536Mi", 1610612736, 1610612736000);
        check("1000k", "1M", 1_000_000, 1_000_000_000);
        check("2e3", "2e3", 2000, 2_000_000);
        check("1024Ki", "1Mi", 1048576, 1048576000);
        check("0", "0", 0, 0);
        check("-1", "-1", -1, -1000);
        check("512", "512", 512, 512_000);
    }

    #[test]
    fn bad_quantities_are_refused() {
        for bad in ["", "x", "1x", "1.2.3", "1 Gi", "."] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }
}
