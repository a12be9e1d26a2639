//! ServiceCIDRs: from where Services get their addresses.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{ServiceCIDR, ServiceCIDRStatus};
use serde_json::{Value, json};
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::metadata;
use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{IMMUTABLE, address, shown};

#[derive(Default)]
pub struct ServiceCidrStrategy;

impl Strategy for ServiceCidrStrategy {
    type Object = ServiceCIDR;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn prepare_create(&self, range: &mut ServiceCIDR) {
        range.status = Some(ServiceCIDRStatus::default());
    }

    fn prepare_status_update(&self, new: &mut ServiceCIDR, old: &ServiceCIDR) {
        metadata::keep_for_status(&mut new.metadata, &old.metadata);
    }

    fn validate(&self, range: &ServiceCIDR) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, cidrs) = (Path::new("spec.cidrs"), blocks(range));
        match cidrs.len() {
            0 => errors.push(FieldError::required(&path, "at least one CIDR required")),
            1 | 2 => {
                for (index, cidr) in cidrs.iter().enumerate() {
                    address::canonical_cidr(&mut errors, &path.index(index), cidr);
                }
                let family = |cidr: &String| address::lenient_cidr(cidr).map(|(ip, _)| ip.is_ipv4());
                if let [one, other] = cidrs
                    && family(one).is_some()
                    && family(one) == family(other)
                {
                    let about =
                        "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
                    errors.push(FieldError::invalid(&path, shown(&cidrs), about));
                }
            }
            // Upstream's internal type has no JSON names.
            _ => errors.push(FieldError::invalid(&path, json!({ "CIDRs": cidrs }), "may only hold up to 2 values")),
        }
        errors
    }

    /// A second family may be added, and nothing else changed.
    fn validate_update(&self, new: &ServiceCIDR, old: &ServiceCIDR) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, now, before) = (Path::new("spec.cidrs"), blocks(new), blocks(old));
        let grows = before.len() == 1 && now.len() == 2;
        if now.len() != before.len() && !grows {
            errors.push(FieldError::invalid(&path, shown(&now), IMMUTABLE));
            return errors;
        }
        for (index, (cidr, _)) in now.iter().zip(before).enumerate().filter(|(_, (now, before))| now != before) {
            errors.push(FieldError::invalid(&path.index(index), cidr.as_str(), IMMUTABLE));
        }
        if grows {
            errors.extend(self.validate(new));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME_COLUMN, column("CIDRs", "string", "The blocks of addresses."), AGE_COLUMN];
        COLUMNS
    }

    fn cells(&self, range: &ServiceCIDR, now: Timestamp) -> Vec<Value> {
        let cidrs = Value::from(blocks(range).join(","));
        vec![columns::name(&range.metadata), cidrs, columns::age(&range.metadata, now)]
    }
}

/// The blocks of a range.
pub fn blocks(range: &ServiceCIDR) -> &[String] {
    range.spec.as_ref().and_then(|spec| spec.cidrs.as_deref()).unwrap_or_default()
}
