//! IP addresses and CIDR blocks.
//!
//! Upstream's older fields were once read by a lenient parser (leading zeros, IPv4-mapped IPv6); new values must be plain.
//! The three texts of that rule are kept apart here because clients see them.

use std::net::{IpAddr, Ipv4Addr};

use xebec_api::field::{FieldError, FieldErrors, Path};

/// An address in a field that once was read leniently.
pub fn ip(errors: &mut FieldErrors, path: &Path, value: &str) {
    let wrong = |errors: &mut FieldErrors, about: &str| errors.push(FieldError::invalid(path, value, about));
    if lenient_ip(value).is_none() {
        return wrong(errors, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
    match value.parse::<IpAddr>() {
        Err(_) => wrong(errors, "must not have leading 0s"),
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => wrong(errors, "must not be an IPv4-mapped IPv6 address"),
        Ok(_) => {}
    }
}

/// An address that must be in its canonical form.
pub fn canonical_ip(errors: &mut FieldErrors, path: &Path, value: &str) {
    let before = errors.len();
    ip(errors, path, value);
    if errors.len() == before
        && let Ok(address) = value.parse::<IpAddr>()
        && address.to_string() != value
    {
        errors.push(FieldError::invalid(path, value, format!("must be in canonical form (\"{address}\")")));
    }
}

/// A block in a field that once was read leniently.
pub fn cidr(errors: &mut FieldErrors, path: &Path, value: &str) {
    let wrong = |errors: &mut FieldErrors, about: &str| errors.push(FieldError::invalid(path, value, about));
    let Some((address, length)) = lenient_cidr(value) else {
        return wrong(errors, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    };
    let (text, bits) = value.split_once('/').unwrap_or((value, ""));
    if text.parse::<IpAddr>().is_err() || (bits.len() > 1 && bits.starts_with('0')) {
        return wrong(errors, "must not have leading 0s in IP or prefix length");
    }
    if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return wrong(errors, "must not have an IPv4-mapped IPv6 address");
    }
    if masked(address, length) != address {
        wrong(errors, "must not have bits set beyond the prefix length");
    }
}

/// A block that must be in its canonical form.
pub fn canonical_cidr(errors: &mut FieldErrors, path: &Path, value: &str) {
    let before = errors.len();
    cidr(errors, path, value);
    if errors.len() == before
        && let Some((address, length)) = lenient_cidr(value)
        && format!("{address}/{length}") != value
    {
        let about = format!("must be in canonical form (\"{address}/{length}\")");
        errors.push(FieldError::invalid(path, value, about));
    }
}

/// An address of an interface with the length of its network, in canonical form.
pub fn interface(errors: &mut FieldErrors, path: &Path, value: &str) {
    let Some((address, length)) = lenient_cidr(value) else {
        let about = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
        return errors.push(FieldError::invalid(path, value, about));
    };
    let canonical = format!("{address}/{length}");
    if canonical != value {
        let about = format!("must be in canonical form ({canonical:?})");
        errors.push(FieldError::invalid(path, value, about));
    }
}

/// An address that traffic can be sent to: not unspecified, loopback or link-local.
pub fn endpoint_ip(errors: &mut FieldErrors, path: &Path, value: &str) {
    let Some(address) = lenient_ip(value) else {
        return errors.push(FieldError::invalid(path, value, "must be a valid IP address"));
    };
    let mut check = |wrong: bool, about: String| {
        if wrong {
            errors.push(FieldError::invalid(path, value, about));
        }
    };
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    check(address.is_unspecified(), format!("may not be unspecified ({value})"));
    check(address.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned());
    check(link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned());
    check(link_local_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned());
}

/// Whether the texts are one address of each family.
pub fn is_dual_stack<'a>(mut values: impl Iterator<Item = &'a str>) -> bool {
    let (mut v4, mut v6) = (false, false);
    values.all(|value| match lenient_ip(value.split('/').next().unwrap_or(value)) {
        Some(IpAddr::V4(_)) => {
            v4 = true;
            true
        }
        Some(IpAddr::V6(_)) => {
            v6 = true;
            true
        }
        None => false,
    }) && v4
        && v6
}

pub fn is_ipv6(value: &str) -> bool {
    matches!(lenient_ip(value), Some(IpAddr::V6(_)))
}

/// The warning about an address that is accepted but not written as it should be.
pub fn ip_warning(path: &Path, value: &str) -> Option<String> {
    let IpAddr::V6(address) = value.parse::<IpAddr>().ok()? else { return None };
    let canonical = address.to_string();
    (canonical != value)
        .then(|| format!("{path}: IPv6 address {value:?} should be in RFC 5952 canonical format ({canonical:?})"))
}

/// What upstream's old parser took: decimal parts with leading zeros too.
fn lenient_ip(value: &str) -> Option<IpAddr> {
    if let Ok(address) = value.parse::<IpAddr>() {
        return Some(address);
    }
    let mut parts = [0u8; 4];
    let mut texts = value.split('.');
    for part in &mut parts {
        let text = texts.next().filter(|text| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()))?;
        *part = text.parse().ok()?;
    }
    texts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(parts)))
}

pub fn lenient_cidr(value: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = value.split_once('/')?;
    let address = lenient_ip(address)?;
    let length: u32 = length.bytes().all(|c| c.is_ascii_digit()).then(|| length.parse().ok()).flatten()?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

fn masked(address: IpAddr, length: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

/// The block's own address with its length, as upstream prints a network.
pub fn network_of(value: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = lenient_cidr(value)?;
    Some((masked(address, length), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_strictly() {
        let check = |test: fn(&mut FieldErrors, &Path, &str), value: &str, expected: &[&str]| {
            let mut errors = FieldErrors::new();
            test(&mut errors, &Path::new("x"), value);
            assert_eq!(errors.iter().map(|error| error.detail.as_str()).collect::<Vec<_>>(), expected, "{value}");
        };
        check(ip, "10.0.0.1", &[]);
        check(ip, "10.0.0.01", &["must not have leading 0s"]);
        check(ip, "::ffff:1.2.3.4", &["must not be an IPv4-mapped IPv6 address"]);
        check(ip, "1.2.3", &["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]);
        check(cidr, "10.0.0.0/8", &[]);
        check(cidr, "10.0.0.1/8", &["must not have bits set beyond the prefix length"]);
        check(cidr, "10.0.0.0/33", &["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]);
        check(endpoint_ip, "127.0.0.1", &["may not be in the loopback range (127.0.0.0/8, ::1/128)"]);
        check(canonical_ip, "2001:DB8::1", &["must be in canonical form (\"2001:db8::1\")"]);
    }
}
