//! The flags about who may do what, under upstream's names.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct AccessOptions {
    /// Whether requests may come without credentials
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub anonymous_auth: bool,
    /// A CSV file of static tokens: token,user,uid,"group1,group2"
    #[arg(long, value_name = "FILE")]
    pub token_auth_file: Option<PathBuf>,
    /// A file that says whose JSON Web Tokens are believed (AuthenticationConfiguration); read anew when it changes
    #[arg(long, value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,
    /// Whether Secrets of type bootstrap.kubernetes.io/token let machines join
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub enable_bootstrap_token_auth: bool,
    /// Further authorities whose client certificates are believed, in PEM; read anew when the file changes
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// A serving certificate of your own, in PEM; read anew when it changes
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// The key of --tls-cert-file
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub oidc: OidcOptions,
    #[command(flatten)]
    pub request_header: RequestHeaderOptions,
    #[command(flatten)]
    pub service_account: ServiceAccountOptions,
    #[command(flatten)]
    pub audit: AuditOptions,
    /// A file that says which objects are stored encrypted (EncryptionConfiguration)
    #[arg(long, value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Whether that file is read anew when it changes
    #[arg(long, default_value_t = false, action = ArgAction::Set, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub encryption_provider_config_automatic_reload: bool,
    /// How many requests that only read may run at the same time
    #[arg(long, default_value_t = 400, value_name = "NUMBER")]
    pub max_requests_inflight: usize,
    /// How many requests that write may run at the same time
    #[arg(long, default_value_t = 200, value_name = "NUMBER")]
    pub max_mutating_requests_inflight: usize,
    /// Whether requests share these numbers by priority and fairness
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub enable_priority_and_fairness: bool,
}

/// One OpenID Connect issuer, for those who need no file.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct OidcOptions {
    /// The issuer of OpenID Connect tokens
    #[arg(long, value_name = "URL", requires = "oidc_client_id", conflicts_with = "authentication_config")]
    pub oidc_issuer_url: Option<String>,
    /// For whom its tokens must be
    #[arg(long, value_name = "ID")]
    pub oidc_client_id: Option<String>,
    /// The authority of its certificate, in PEM
    #[arg(long, value_name = "FILE")]
    pub oidc_ca_file: Option<PathBuf>,
    /// The claim that names the user
    #[arg(long, default_value = "sub", value_name = "CLAIM")]
    pub oidc_username_claim: String,
    /// What stands in front of users' names; - for nothing
    #[arg(long, value_name = "PREFIX")]
    pub oidc_username_prefix: Option<String>,
    /// The claim that holds the user's groups
    #[arg(long, value_name = "CLAIM")]
    pub oidc_groups_claim: Option<String>,
    /// What stands in front of groups' names
    #[arg(long, default_value = "", value_name = "PREFIX", hide_default_value = true)]
    pub oidc_groups_prefix: String,
    /// claim=value pairs that tokens must have
    #[arg(long, value_delimiter = ',', value_name = "PAIRS", value_parser = pair)]
    pub oidc_required_claim: Vec<(String, String)>,
    /// The algorithms that tokens may be signed with
    #[arg(long, default_value = "RS256", value_delimiter = ',', value_name = "ALGORITHMS")]
    pub oidc_signing_algs: Vec<String>,
}

/// A proxy in front of the server that names users in headers.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct RequestHeaderOptions {
    /// The authority of the proxy's client certificate, in PEM; read anew when the file changes
    #[arg(long, value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of the certificates that may speak for users; all of the authority's if there are none
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub requestheader_allowed_names: Vec<String>,
    /// The headers that hold the user's name
    #[arg(long, default_value = "X-Remote-User", value_delimiter = ',', value_name = "HEADERS")]
    pub requestheader_username_headers: Vec<String>,
    /// The headers that hold the user's uid
    #[arg(long, default_value = "X-Remote-Uid", value_delimiter = ',', value_name = "HEADERS")]
    pub requestheader_uid_headers: Vec<String>,
    /// The headers that hold the user's groups
    #[arg(long, default_value = "X-Remote-Group", value_delimiter = ',', value_name = "HEADERS")]
    pub requestheader_group_headers: Vec<String>,
    /// What the headers with the rest about the user begin with
    #[arg(long, default_value = "X-Remote-Extra-", value_delimiter = ',', value_name = "PREFIXES")]
    pub requestheader_extra_headers_prefix: Vec<String>,
}

/// The tokens that the server issues.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct ServiceAccountOptions {
    /// Who issues the tokens of service accounts; may be given several times, the first signs and all are believed
    #[arg(long, value_name = "URL")]
    pub service_account_issuer: Vec<String>,
    /// Further keys whose tokens are believed, in PEM; may be given several times
    #[arg(long, value_name = "FILE")]
    pub service_account_key_file: Vec<PathBuf>,
    /// The private key that signs tokens, in PEM; by default one of the server's own
    #[arg(long, value_name = "FILE")]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// For whom tokens are unless they say otherwise; by default the issuers
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub api_audiences: Vec<String>,
    /// Where the public keys are, as clients are told; by default on this server
    #[arg(long, value_name = "URL")]
    pub service_account_jwks_uri: Option<String>,
    /// The longest life of a token (1h, 30m, 3600s); 0 for no limit
    #[arg(long, default_value = "0", value_parser = duration, value_name = "DURATION")]
    pub service_account_max_token_expiration: Duration,
    /// Whether Pods' tokens outlive their time, for clients that never read them again
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub service_account_extend_token_expiration: bool,
}

#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct AuditOptions {
    /// A file that says which requests are recorded (audit.k8s.io/v1 Policy); without it none are
    #[arg(long, value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// The file that records are written to; - for the standard output
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    pub audit_log_path: Option<PathBuf>,
    /// So many days old files are kept; 0 for ever
    #[arg(long, default_value_t = 0, value_name = "DAYS")]
    pub audit_log_maxage: u64,
    /// So many old files are kept; 0 for all
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub audit_log_maxbackup: usize,
    /// The size at which a file is put aside, in megabytes; 0 for 100
    #[arg(long, default_value_t = 0, value_name = "MEGABYTES")]
    pub audit_log_maxsize: u64,
    /// Compress files that are put aside
    #[arg(long)]
    pub audit_log_compress: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (claim, value) = text.split_once('=').ok_or("it is not claim=value")?;
    Ok((claim.to_owned(), value.to_owned()))
}

/// Durations as Go writes them, of hours, minutes and seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let (mut seconds, mut number) = (0_u64, String::new());
    for c in text.chars() {
        let unit = match c {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            '0'..='9' => {
                number.push(c);
                continue;
            }
            _ => return Err(format!("{c:?} is no unit of time here; use h, m and s")),
        };
        seconds += unit * number.parse::<u64>().map_err(|error| error.to_string())?;
        number.clear();
    }
    if !(number.is_empty() || number == "0") {
        return Err("a unit is missing".to_owned());
    }
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(duration(text).ok().map(|found| found.as_secs()), expected, "{text}");
        };
        check("0", Some(0));
        check("1h30m", Some(5400));
        check("24h0m0s", Some(86_400));
        check("90", None);
        check("5d", None);
    }
}
