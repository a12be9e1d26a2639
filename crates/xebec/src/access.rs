//! Who may do what, put together from the flags: authenticators, policies, the audit log, encryption, and the files behind
//! them that are read anew when they change.

pub mod options;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use xebec_apiserver::audit::{Audit, LogFile, Policy, Rotation};
use xebec_apiserver::authn::{self, Anonymous, Authenticator, jwt};
use xebec_apiserver::bootstrap::{self, PublishedTrust};
use xebec_apiserver::encryption::{EncryptedStore, Encryption};
use xebec_apiserver::flow_control::Limits;
use xebec_apiserver::{Registry, resources};
use xebec_base::{Chain, SharedClock, Shutdown};
use xebec_pki::{ClientTrust, Identity, RotatingIdentity, ServiceAccountKey};
use xebec_store::Store;

use options::{AccessOptions, AuditOptions, OidcOptions, RequestHeaderOptions};

/// Between looks at the files: an exchanged certificate is in use within that time, and nobody waits for it.
const LOOK: Duration = Duration::from_secs(10);
const MEGABYTE: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Files that are read again when they have changed.
#[derive(Default)]
pub struct Reloads(Vec<Reload>);

struct Reload {
    files: Vec<PathBuf>,
    seen: Vec<Option<Stamp>>,
    read: Box<dyn Fn() -> anyhow::Result<()> + Send>,
}

/// By which a change of a file is noticed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: std::time::SystemTime,
    size: u64,
    inode: u64,
}

impl Stamp {
    fn of(path: &PathBuf) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let facts = std::fs::metadata(path).ok()?;
        Some(Stamp { modified: facts.modified().ok()?, size: facts.size(), inode: facts.ino() })
    }
}

impl Reloads {
    /// `read` is called when one of the files is not what it was. What it refuses stays as it was.
    pub fn add(&mut self, files: &[&Path], read: impl Fn() -> anyhow::Result<()> + Send + 'static) {
        let files: Vec<PathBuf> = files.iter().map(|path| path.to_path_buf()).collect();
        let seen = files.iter().map(Stamp::of).collect();
        self.0.push(Reload { files, seen, read: Box::new(read) });
    }

    /// Looks at the files until shutdown; not at all if there are none.
    pub fn start(mut self, clock: SharedClock, shutdown: &Shutdown) {
        if self.0.is_empty() {
            return;
        }
        shutdown.spawn(async move {
            loop {
                clock.sleep(LOOK).await;
                self.look();
            }
        });
    }

    fn look(&mut self) {
        for one in &mut self.0 {
            let now: Vec<_> = one.files.iter().map(Stamp::of).collect();
            if now == one.seen {
                continue;
            }
            one.seen = now;
            let files: Vec<_> = one.files.iter().map(|path| path.display().to_string()).collect();
            match (one.read)() {
                Ok(()) => tracing::info!(?files, "read anew"),
                Err(error) => {
                    tracing::error!(?files, error = %Chain(&*error), "cannot be read anew; the old state stays")
                }
            }
        }
    }
}

pub fn limits(options: &AccessOptions) -> Limits {
    Limits {
        reading: options.max_requests_inflight,
        writing: options.max_mutating_requests_inflight,
        fair: options.enable_priority_and_fairness,
    }
}

/// The store, with what the configuration names encrypted.
pub fn encrypted(
    store: Arc<dyn Store>,
    options: &AccessOptions,
    reloads: &mut Reloads,
) -> anyhow::Result<Arc<dyn Store>> {
    let Some(path) = &options.encryption_provider_config else { return Ok(store) };
    let encryption = Arc::new(Encryption::load(path)?);
    if options.encryption_provider_config_automatic_reload {
        let encryption = encryption.clone();
        reloads.add(&[path], move || Ok(encryption.reload()?));
    }
    Ok(Arc::new(EncryptedStore::new(store, encryption, &resources::rows())))
}

/// The certificate that the server shows: the one that was given, or its own.
pub fn serving(
    options: &AccessOptions,
    own: &Identity,
    reloads: &mut Reloads,
) -> anyhow::Result<Arc<RotatingIdentity>> {
    let (Some(certificate), Some(key)) = (&options.tls_cert_file, &options.tls_private_key_file) else {
        return Ok(RotatingIdentity::new(own)?);
    };
    let rotating = RotatingIdentity::new(&identity(certificate, key)?)?;
    let (files, target) = ((certificate.clone(), key.clone()), rotating.clone());
    reloads.add(&[certificate, key], move || Ok(target.replace(&identity(&files.0, &files.1)?)?));
    Ok(rotating)
}

fn identity(certificate: &Path, key: &Path) -> anyhow::Result<Identity> {
    Ok(Identity { certificate_pem: text(certificate)?, key_pem: text(key)? })
}

fn text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The authorities of client certificates: our own and those of the file.
pub fn client_trust(
    options: &AccessOptions,
    own: String,
    clock: &SharedClock,
    reloads: &mut Reloads,
) -> anyhow::Result<ClientTrust> {
    let Some(path) = options.client_ca_file.clone() else { return Ok(ClientTrust::new(&own, clock.clone())?) };
    let all = move |path: &Path| Ok::<_, anyhow::Error>(format!("{own}\n{}", text(path)?));
    let trust = ClientTrust::new(&all(&path)?, clock.clone())?;
    let target = trust.clone();
    reloads.add(&[&path.clone()], move || Ok(target.replace(&all(&path)?)?));
    Ok(trust)
}

/// The parts that prove identities, and what the server state wants to know of them.
pub struct Authentication {
    pub authenticator: Arc<dyn Authenticator>,
    pub anonymous: Arc<ArcSwap<Anonymous>>,
    pub accounts: Arc<authn::ServiceAccounts>,
}

/// What authenticators are made with.
pub struct Parts<'a> {
    pub registry: &'a Arc<Registry>,
    pub trust: &'a ClientTrust,
    pub own_key: &'a ServiceAccountKey,
    pub settings: authn::TokenSettings,
    pub clock: &'a SharedClock,
}

/// In upstream's order: the proxy's word, certificates, tokens.
pub fn authentication(
    options: &AccessOptions,
    parts: Parts<'_>,
    reloads: &mut Reloads,
) -> anyhow::Result<Authentication> {
    let Parts { registry, trust, own_key, settings, clock } = parts;
    let mut ways: Vec<Arc<dyn Authenticator>> = Vec::new();
    ways.extend(request_headers(&options.request_header, clock, reloads)?);
    ways.push(Arc::new(authn::Certificates::new(trust.clone())));
    let audiences = settings.audiences.clone();
    if let Some(path) = &options.token_auth_file {
        ways.push(Arc::new(authn::TokenFile::read(path, audiences.clone())?));
    }
    let keys = token_keys(options, own_key)?;
    let own_issuers = settings.issuers.clone();
    let accounts = Arc::new(authn::ServiceAccounts::new(registry.clone(), keys, settings));
    ways.push(accounts.clone());
    if options.enable_bootstrap_token_auth {
        ways.push(Arc::new(authn::BootstrapTokens::new(registry.clone(), audiences.clone())));
    }
    let default = if options.anonymous_auth { Anonymous::Everywhere } else { Anonymous::Nowhere };
    let anonymous = Arc::new(ArcSwap::from_pointee(default));
    let setting = jwt::Setting { own_issuers, audiences, anonymous: anonymous.clone(), clock: clock.clone() };
    if let Some(path) = &options.authentication_config {
        let tokens = Arc::new(jwt::JwtAuthenticator::load(path, setting)?);
        ways.push(tokens.clone());
        reloads.add(&[path], move || Ok(tokens.reload()?));
    } else if let Some(flags) = oidc_flags(&options.oidc) {
        ways.push(Arc::new(jwt::JwtAuthenticator::from_flags(&flags, setting)?));
    }
    Ok(Authentication { authenticator: Arc::new(authn::Union(ways)), anonymous, accounts })
}

fn request_headers(
    options: &RequestHeaderOptions,
    clock: &SharedClock,
    reloads: &mut Reloads,
) -> anyhow::Result<Option<Arc<dyn Authenticator>>> {
    let Some(path) = options.requestheader_client_ca_file.clone() else { return Ok(None) };
    let trust = ClientTrust::new(&text(&path)?, clock.clone())?;
    let target = trust.clone();
    reloads.add(&[&path.clone()], move || Ok(target.replace(&text(&path)?)?));
    Ok(Some(Arc::new(authn::RequestHeaders::new(trust, header_settings(options)))))
}

fn header_settings(options: &RequestHeaderOptions) -> authn::RequestHeaderSettings {
    authn::RequestHeaderSettings {
        username: options.requestheader_username_headers.clone(),
        uid: options.requestheader_uid_headers.clone(),
        group: options.requestheader_group_headers.clone(),
        extra_prefix: options.requestheader_extra_headers_prefix.clone(),
        allowed_names: options.requestheader_allowed_names.clone(),
    }
}

/// Tells the cluster whose certificates are believed, now and whenever the files change.
pub async fn publish_trust(
    options: &AccessOptions,
    own: String,
    registry: &Arc<Registry>,
    reloads: &mut Reloads,
) -> anyhow::Result<()> {
    let (client, proxy) = (options.client_ca_file.clone(), options.request_header.clone());
    let files: Vec<PathBuf> = client.iter().chain(&proxy.requestheader_client_ca_file).cloned().collect();
    let made = move || -> anyhow::Result<PublishedTrust> {
        let more = client.as_deref().map(text).transpose()?.unwrap_or_default();
        let authority = proxy.requestheader_client_ca_file.as_deref().map(text).transpose()?;
        let request_header = authority.map(|authority| (authority, header_settings(&proxy)));
        Ok(PublishedTrust { client_ca: format!("{own}{more}"), request_header })
    };
    bootstrap::publish(registry, &made()?).await?;
    if !files.is_empty() {
        let registry = registry.clone();
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        reloads.add(&files, move || {
            let (trust, registry) = (made()?, registry.clone());
            tokio::spawn(async move {
                if let Err(error) = bootstrap::publish(&registry, &trust).await {
                    tracing::error!(%error, "cannot tell the cluster whose certificates are believed");
                }
            });
            Ok(())
        });
    }
    Ok(())
}

/// The signing key and all that are believed: the server's own among them, so that a change of keys cuts nobody off.
fn token_keys(options: &AccessOptions, own: &ServiceAccountKey) -> anyhow::Result<authn::TokenKeys> {
    let own = authn::SigningKey::of(own).context("the server's own key for tokens cannot be used")?;
    let mut others = vec![own.public.clone()];
    for path in &options.service_account.service_account_key_file {
        others.extend(authn::read_public(path)?);
    }
    let signing = match &options.service_account.service_account_signing_key_file {
        Some(path) => authn::read_signing(path)?,
        None => own,
    };
    Ok(authn::TokenKeys::new(signing, others))
}

/// `address`: host and port under which clients reach the server; `domain`: that of the cluster.
pub fn token_settings(options: &AccessOptions, address: &str, domain: &str) -> authn::TokenSettings {
    let accounts = &options.service_account;
    let given = |list: &[String], default: &[String]| if list.is_empty() { default.to_vec() } else { list.to_vec() };
    let issuers = given(&accounts.service_account_issuer, &[format!("https://kubernetes.default.svc.{domain}")]);
    let longest = accounts.service_account_max_token_expiration;
    let defaults = authn::TokenSettings::default_for(address);
    authn::TokenSettings {
        audiences: given(&accounts.api_audiences, &issuers),
        issuers,
        key_set_url: accounts.service_account_jwks_uri.clone().unwrap_or(defaults.key_set_url),
        max_life: (!longest.is_zero()).then_some(longest),
        extends: accounts.service_account_extend_token_expiration,
    }
}

fn oidc_flags(options: &OidcOptions) -> Option<jwt::Flags> {
    Some(jwt::Flags {
        issuer_url: options.oidc_issuer_url.clone()?,
        client_id: options.oidc_client_id.clone().unwrap_or_default(),
        ca_file: options.oidc_ca_file.clone(),
        username_claim: options.oidc_username_claim.clone(),
        username_prefix: options.oidc_username_prefix.clone(),
        groups_claim: options.oidc_groups_claim.clone(),
        groups_prefix: options.oidc_groups_prefix.clone(),
        required_claims: options.oidc_required_claim.clone(),
        signing_algs: options.oidc_signing_algs.clone(),
    })
}

pub fn audit(options: &AuditOptions, clock: &SharedClock) -> anyhow::Result<Option<Arc<Audit>>> {
    let (Some(policy), Some(path)) = (&options.audit_policy_file, &options.audit_log_path) else { return Ok(None) };
    let defaults = Rotation::default();
    let rotation = Rotation {
        size: Some(options.audit_log_maxsize * MEGABYTE).filter(|size| *size > 0).unwrap_or(defaults.size),
        age: (options.audit_log_maxage > 0).then(|| DAY * options.audit_log_maxage as u32),
        backups: options.audit_log_maxbackup,
        compress: options.audit_log_compress,
    };
    let file = LogFile::open(path, rotation, clock.clone());
    let file = file.with_context(|| format!("cannot open the audit log {}", path.display()))?;
    Ok(Some(Audit::new(Policy::read(policy)?, vec![Arc::new(file)], clock.clone())))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use jiff::Timestamp;
    use xebec_base::SimulatedClock;

    use super::*;

    /// A file that changes is read once; one that cannot be used is told of and tried again when it changes again.
    #[tokio::test]
    async fn files_are_read_when_they_have_changed() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "0").unwrap();
        let clock = SimulatedClock::starting_at(Timestamp::UNIX_EPOCH);
        let (tries, value) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let shutdown = Shutdown::new();
        let mut reloads = Reloads::default();
        let (counted, kept, file) = (tries.clone(), value.clone(), path.clone());
        reloads.add(&[&path], move || {
            counted.fetch_add(1, Ordering::Relaxed);
            kept.store(text(&file)?.parse()?, Ordering::Relaxed);
            Ok(())
        });
        reloads.start(clock.clone(), &shutdown);
        let look = async || {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            clock.advance(LOOK);
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            (tries.load(Ordering::Relaxed), value.load(Ordering::Relaxed))
        };
        assert_eq!(look().await, (0, 0));
        std::fs::write(&path, "17").unwrap();
        assert_eq!(look().await, (1, 17));
        assert_eq!(look().await, (1, 17));
        std::fs::write(&path, "nonsense").unwrap();
        assert_eq!(look().await, (2, 17));
        std::fs::write(&path, "5").unwrap();
        assert_eq!(look().await, (3, 5));
        shutdown.trigger();
    }
}
