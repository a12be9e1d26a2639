//! Who a certificate is about: the user and groups in its subject, and the hosts in its alternative names.

use std::net::IpAddr;

use x509_parser::der_parser::oid;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::der;
use crate::{Error, Result};

const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
const ORGANIZATION: &[u64] = &[2, 5, 4, 10];

/// A subject as Kubernetes reads it (API reference, "X509 client certificates").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The common name; empty if there is none.
    pub user: String,
    /// The organizations in their order.
    pub groups: Vec<String>,
    /// The attribute 1.3.6.1.4.1.57683.2. It is read, never written: an authority gives out no UIDs.
    pub uid: Option<String>,
}

impl Subject {
    pub fn new(user: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Subject { user: user.into(), groups: groups.into_iter().map(Into::into).collect(), uid: None }
    }

    pub(crate) fn parse(name: &X509Name<'_>) -> Result<Self> {
        let text = |attribute: &AttributeTypeAndValue<'_>| match attribute.as_str() {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(Error::Subject { reason: error.to_string() }),
        };
        // Of several common names the last one counts, as with Go's parser and so with upstream.
        let user = name.iter_common_name().last().map(text).transpose()?.unwrap_or_default();
        let groups = name.iter_organization().map(text).collect::<Result<_>>()?;
        let uid = oid!(1.3.6.1.4.1.57683.2);
        let uids: Vec<String> = name.iter_by_oid(&uid).map(text).collect::<Result<_>>()?;
        match &uids[..] {
            [] => Ok(Subject { user, groups, uid: None }),
            [uid] if !uid.is_empty() => Ok(Subject { user, groups, uid: Some(uid.clone()) }),
            _ => Err(Error::Subject { reason: format!("expected one non-empty UID, but found {uids:?}") }),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let attribute = |kind: &[u64], value: &String| {
            let pair = [der::object_identifier(kind), der::element(der::UTF8_STRING, value.as_bytes())];
            der::element(der::SET, &der::sequence(&pair))
        };
        let groups = self.groups.iter().map(|group| attribute(ORGANIZATION, group));
        let user = (!self.user.is_empty()).then(|| attribute(COMMON_NAME, &self.user));
        der::sequence(&groups.chain(user).collect::<Vec<_>>())
    }
}

/// The subject's alternative names: where it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub dns: Vec<String>,
    pub ips: Vec<IpAddr>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
}

impl Names {
    pub fn is_empty(&self) -> bool {
        *self == Names::default()
    }

    /// Fails on kinds of names that Kubernetes does not know: they must not slip through a signature unseen.
    pub(crate) fn parse(names: &[GeneralName<'_>]) -> Result<Self, String> {
        let mut parsed = Names::default();
        for name in names {
            match name {
                GeneralName::DNSName(dns) => parsed.dns.push(dns.to_string()),
                GeneralName::RFC822Name(email) => parsed.emails.push(email.to_string()),
                GeneralName::URI(uri) => parsed.uris.push(uri.to_string()),
                GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                    (Ok(v4), _) => parsed.ips.push(v4.into()),
                    (_, Ok(v6)) => parsed.ips.push(v6.into()),
                    _ => return Err(format!("an IP address of {} bytes", bytes.len())),
                },
                other => return Err(format!("unsupported alternative name {other}")),
            }
        }
        Ok(parsed)
    }

    /// The content of the extension (RFC 5280 section 4.2.1.6).
    pub(crate) fn encode(&self) -> Vec<u8> {
        let dns = self.dns.iter().map(|name| der::implicit(2, name.as_bytes()));
        let emails = self.emails.iter().map(|name| der::implicit(1, name.as_bytes()));
        let uris = self.uris.iter().map(|name| der::implicit(6, name.as_bytes()));
        let ips = self.ips.iter().map(|ip| match ip {
            IpAddr::V4(ip) => der::implicit(7, &ip.octets()),
            IpAddr::V6(ip) => der::implicit(7, &ip.octets()),
        });
        der::sequence(&dns.chain(emails).chain(ips).chain(uris).collect::<Vec<_>>())
    }
}
