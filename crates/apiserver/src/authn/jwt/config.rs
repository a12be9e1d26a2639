//! The configuration file, read and checked: upstream's `apiserver.config.k8s.io` `AuthenticationConfiguration`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::Anonymous;
use super::expression::Expression;
use super::mapping::{Condition, Mapping, Source};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not an AuthenticationConfiguration", path.display())]
    Parse { path: PathBuf, source: serde_saphyr::Error },
    #[error("{place}: {}", errors.join("; "))]
    Invalid { place: String, errors: Vec<String> },
}

/// What is in force.
pub struct Configuration {
    pub issuers: Vec<IssuerRules>,
    /// `None` where the file does not speak of it.
    pub anonymous: Option<Anonymous>,
}

/// One issuer and how its tokens become users.
pub struct IssuerRules {
    pub url: String,
    /// Where its configuration is, if not below its own address.
    pub discovery_url: Option<String>,
    /// PEM; the machine's authorities if there is none.
    pub authority: Option<String>,
    pub audiences: Vec<String>,
    /// Names of the algorithms that tokens may be signed with; empty: any that needs no shared secret.
    pub algorithms: Vec<String>,
    pub mapping: Mapping,
}

/// Upstream's `--oidc-*` flags.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub issuer_url: String,
    pub client_id: String,
    pub ca_file: Option<PathBuf>,
    pub username_claim: String,
    pub username_prefix: Option<String>,
    pub groups_claim: Option<String>,
    pub groups_prefix: String,
    pub required_claims: Vec<(String, String)>,
    pub signing_algs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<Jwt>,
    anonymous: Option<AnonymousRow>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AnonymousRow {
    enabled: bool,
    #[serde(default)]
    conditions: Vec<PathRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PathRow {
    path: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Jwt {
    issuer: IssuerRow,
    claim_validation_rules: Vec<ClaimRule>,
    claim_mappings: Mappings,
    user_validation_rules: Vec<UserRule>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct IssuerRow {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: String,
    certificate_authority: String,
    audiences: Vec<String>,
    audience_match_policy: String,
    egress_selector_type: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ClaimRule {
    claim: String,
    required_value: String,
    expression: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct UserRule {
    expression: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mappings {
    username: ClaimOrExpression,
    groups: ClaimOrExpression,
    uid: ClaimOrExpression,
    extra: Vec<ExtraRow>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ClaimOrExpression {
    claim: String,
    prefix: Option<String>,
    expression: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ExtraRow {
    key: String,
    value_expression: String,
}

impl Configuration {
    pub fn read(path: &Path, own_issuers: &[String]) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let file: File =
            serde_saphyr::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })?;
        checked(file, own_issuers).map_err(|errors| ConfigError::Invalid { place: path.display().to_string(), errors })
    }

    pub fn of_flags(flags: &Flags, own_issuers: &[String]) -> Result<Self, ConfigError> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.clone(), source })
        };
        let authority = flags.ca_file.as_ref().map(read).transpose()?.unwrap_or_default();
        // As upstream: names other than addresses get the issuer in front, unless a dash forbids it.
        let username_prefix = match flags.username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) => prefix.to_owned(),
            None if flags.username_claim == "email" => String::new(),
            None => format!("{}#", flags.issuer_url),
        };
        let claim = |claim: &str, prefix: &str| ClaimOrExpression {
            claim: claim.to_owned(),
            prefix: Some(prefix.to_owned()),
            ..ClaimOrExpression::default()
        };
        let rules = flags.required_claims.iter().map(|(claim, value)| ClaimRule {
            claim: claim.clone(),
            required_value: value.clone(),
            ..ClaimRule::default()
        });
        let jwt = Jwt {
            issuer: IssuerRow {
                url: flags.issuer_url.clone(),
                certificate_authority: authority,
                audiences: vec![flags.client_id.clone()],
                ..IssuerRow::default()
            },
            claim_validation_rules: rules.collect(),
            claim_mappings: Mappings {
                username: claim(&flags.username_claim, &username_prefix),
                groups: flags.groups_claim.as_ref().map(|name| claim(name, &flags.groups_prefix)).unwrap_or_default(),
                ..Mappings::default()
            },
            user_validation_rules: Vec::new(),
        };
        let file = File { api_version: VERSIONS[0].to_owned(), kind: KIND.to_owned(), jwt: vec![jwt], anonymous: None };
        let invalid = |errors| ConfigError::Invalid { place: "--oidc-issuer-url".to_owned(), errors };
        let mut configuration = checked(file, own_issuers).map_err(invalid)?;
        for issuer in &mut configuration.issuers {
            issuer.algorithms = flags.signing_algs.clone();
        }
        Ok(configuration)
    }
}

const KIND: &str = "AuthenticationConfiguration";
const VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];

fn checked(file: File, own_issuers: &[String]) -> Result<Configuration, Vec<String>> {
    if file.kind != KIND || !VERSIONS.contains(&&*file.api_version) {
        return Err(vec![format!("no kind {:?} is known in version {:?}", file.kind, file.api_version)]);
    }
    let (mut errors, mut issuers) = (Vec::new(), Vec::new());
    let (mut urls, mut discovery) = (BTreeSet::new(), BTreeSet::new());
    for (index, jwt) in file.jwt.into_iter().enumerate() {
        let at = format!("jwt[{index}]");
        if !urls.insert(jwt.issuer.url.clone()) {
            errors.push(format!("{at}.issuer.url: Duplicate value: {:?}", jwt.issuer.url));
        }
        let elsewhere = &jwt.issuer.discovery_url;
        if !elsewhere.is_empty() && !discovery.insert(elsewhere.clone()) {
            errors.push(format!("{at}.issuer.discoveryURL: Duplicate value: {elsewhere:?}"));
        }
        let mut check = Check { at, errors: &mut errors };
        issuers.extend(check.jwt(jwt, own_issuers));
    }
    let anonymous = file.anonymous.map(|row| match (row.enabled, row.conditions.is_empty()) {
        (false, false) => {
            errors.push(
                "anonymous.conditions: Invalid value: enabled should be set to true when conditions are defined"
                    .to_owned(),
            );
            Anonymous::Nowhere
        }
        (false, true) => Anonymous::Nowhere,
        (true, true) => Anonymous::Everywhere,
        (true, false) => Anonymous::Paths(row.conditions.into_iter().map(|one| one.path).collect()),
    });
    if errors.is_empty() { Ok(Configuration { issuers, anonymous }) } else { Err(errors) }
}

/// Gathers what is wrong with one issuer.
struct Check<'e> {
    at: String,
    errors: &'e mut Vec<String>,
}

impl Check<'_> {
    fn invalid(&mut self, path: &str, why: impl AsRef<str>) {
        self.errors.push(format!("{}.{path}: Invalid value: {}", self.at, why.as_ref()));
    }

    fn required(&mut self, path: &str, why: &str) {
        let colon = if why.is_empty() { "" } else { ": " };
        self.errors.push(format!("{}.{path}: Required value{colon}{why}", self.at));
    }

    fn jwt(&mut self, jwt: Jwt, own_issuers: &[String]) -> Option<IssuerRules> {
        self.issuer(&jwt.issuer, own_issuers);
        let email = self.uses_unverified_email(&jwt);
        let mappings = jwt.claim_mappings;
        let username = self.source("claimMappings.username", mappings.username, true);
        let groups = self.source("claimMappings.groups", mappings.groups, true);
        let uid = self.source("claimMappings.uid", mappings.uid, false);
        if username.is_none() {
            self.required("claimMappings.username", "claim or expression is required");
        }
        if email {
            self.invalid(
                "claimMappings.username.expression",
                "claims.email_verified must be used in claimMappings.username.expression or \
                 claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in \
                 claimMappings.username.expression",
            );
        }
        let extra = self.extra(mappings.extra);
        let (required, claim_rules) = self.claim_rules(jwt.claim_validation_rules);
        let rules = jwt.user_validation_rules.into_iter().enumerate();
        let user_rules = rules.filter_map(|(index, rule)| {
            let path = format!("userValidationRules[{index}].expression");
            let expression = self.expression(&path, &rule.expression, "user")?;
            Some(Condition { expression, message: rule.message })
        });
        let user_rules = user_rules.collect();
        let mapping = Mapping { username: username?, groups, uid, extra, required, claim_rules, user_rules };
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        Some(IssuerRules {
            url: jwt.issuer.url,
            discovery_url: text(jwt.issuer.discovery_url),
            authority: text(jwt.issuer.certificate_authority),
            audiences: jwt.issuer.audiences,
            algorithms: Vec::new(),
            mapping,
        })
    }

    fn issuer(&mut self, issuer: &IssuerRow, own_issuers: &[String]) {
        if issuer.url.is_empty() {
            self.required("issuer.url", "");
        } else {
            if own_issuers.contains(&issuer.url) {
                let why = format!("{:?}: URL must not overlap with disallowed issuers: {own_issuers:?}", issuer.url);
                self.invalid("issuer.url", why);
            }
            self.url("issuer.url", &issuer.url);
        }
        if !issuer.discovery_url.is_empty() {
            if issuer.discovery_url.trim_end_matches('/') == issuer.url.trim_end_matches('/') {
                self.invalid("issuer.discoveryURL", "discoveryURL must be different from URL");
            }
            self.url("issuer.discoveryURL", &issuer.discovery_url);
        }
        if issuer.audiences.is_empty() {
            self.required(
                "issuer.audiences",
                &format!("at least one {}.issuer.audiences is required", self.at.clone()),
            );
        }
        for (index, audience) in issuer.audiences.iter().enumerate() {
            if audience.is_empty() {
                self.required(&format!("issuer.audiences[{index}]"), "");
            } else if issuer.audiences[..index].contains(audience) {
                self.errors.push(format!("{}.issuer.audiences[{index}]: Duplicate value: {audience:?}", self.at));
            }
        }
        match (issuer.audiences.len(), &*issuer.audience_match_policy) {
            (_, "MatchAny") | (0 | 1, "") => {}
            (0 | 1, _) => self.invalid(
                "issuer.audienceMatchPolicy",
                "audienceMatchPolicy must be empty or MatchAny for single audience",
            ),
            _ => self
                .invalid("issuer.audienceMatchPolicy", "audienceMatchPolicy must be MatchAny for multiple audiences"),
        }
        if !issuer.certificate_authority.is_empty()
            && !issuer.certificate_authority.contains("-----BEGIN CERTIFICATE-----")
        {
            self.invalid(
                "issuer.certificateAuthority",
                "\"<omitted>\": data does not contain any valid RSA or ECDSA certificates",
            );
        }
        if !issuer.egress_selector_type.is_empty() {
            self.invalid("issuer.egressSelectorType", "egress selectors are not supported");
        }
    }

    fn url(&mut self, path: &str, text: &str) {
        let Ok(url) = text.parse::<http::Uri>() else {
            return self.invalid(path, format!("{text:?}: cannot be parsed"));
        };
        if url.scheme_str() != Some("https") {
            self.invalid(path, format!("{text:?}: URL scheme must be https"));
        }
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            self.invalid(path, "URL must not contain a username or password");
        }
        if url.query().is_some_and(|query| !query.is_empty()) {
            self.invalid(path, format!("{text:?}: URL must not contain a query"));
        }
        if text.contains('#') {
            self.invalid(path, format!("{text:?}: URL must not contain a fragment"));
        }
    }

    fn source(&mut self, path: &str, row: ClaimOrExpression, prefixed: bool) -> Option<Source> {
        match (row.claim.is_empty(), row.expression.is_empty()) {
            (false, false) => {
                self.invalid(path, "\"\": claim and expression can't both be set");
                None
            }
            (true, true) => {
                if row.prefix.is_some_and(|prefix| !prefix.is_empty()) {
                    self.invalid(path, "non-empty prefix isn't allowed when claim is not set");
                }
                None
            }
            (true, false) => {
                if row.prefix.is_some() {
                    self.invalid(path, "prefix can't be set when expression is set");
                }
                self.expression(&format!("{path}.expression"), &row.expression, "claims").map(Source::Expression)
            }
            (false, true) => {
                if prefixed && row.prefix.is_none() {
                    self.required(
                        &format!("{path}.prefix"),
                        "prefix is required when claim is set. It can be set to an empty string to disable prefixing",
                    );
                }
                Some(Source::Claim { name: row.claim, prefix: row.prefix.unwrap_or_default() })
            }
        }
    }

    fn extra(&mut self, rows: Vec<ExtraRow>) -> Vec<(String, Expression)> {
        let mut extra: Vec<(String, Expression)> = Vec::new();
        for (index, row) in rows.into_iter().enumerate() {
            let at = format!("claimMappings.extra[{index}]");
            let domain = row.key.split_once('/').map_or("", |(domain, _)| domain);
            if domain.is_empty() {
                self.invalid(
                    &format!("{at}.key"),
                    format!("{:?}: must be a domain-prefixed path (such as \"acme.io/foo\")", row.key),
                );
            }
            if row.key.chars().any(char::is_uppercase) {
                self.invalid(&format!("{at}.key"), format!("{:?}: must be lowercase", row.key));
            }
            if ["kubernetes.io", "k8s.io"].iter().any(|own| domain == *own || domain.ends_with(&format!(".{own}"))) {
                let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
                self.invalid(&format!("{at}.key"), format!("{:?}: {why}", row.key));
            }
            if extra.iter().any(|(key, _)| *key == row.key) {
                self.errors.push(format!("{}.{at}.key: Duplicate value: {:?}", self.at, row.key));
            }
            let expression = self.expression(&format!("{at}.valueExpression"), &row.value_expression, "claims");
            extra.extend(expression.map(|expression| (row.key, expression)));
        }
        extra
    }

    fn claim_rules(&mut self, rules: Vec<ClaimRule>) -> (Vec<(String, String)>, Vec<Condition>) {
        let (mut required, mut conditions) = (Vec::new(), Vec::new());
        for (index, rule) in rules.into_iter().enumerate() {
            let at = format!("claimValidationRules[{index}]");
            match (rule.claim.is_empty(), rule.expression.is_empty()) {
                (false, false) => self.invalid(&at, "claim and expression can't both be set"),
                (true, true) => self.required(&at, "claim or expression is required"),
                (false, true) => {
                    if !rule.message.is_empty() {
                        self.invalid(&format!("{at}.message"), "may not be specified when claim is set");
                    }
                    required.push((rule.claim, rule.required_value));
                }
                (true, false) => {
                    if !rule.required_value.is_empty() {
                        self.invalid(&format!("{at}.requiredValue"), "may not be specified when expression is set");
                    }
                    let expression = self.expression(&format!("{at}.expression"), &rule.expression, "claims");
                    conditions.extend(expression.map(|expression| Condition { expression, message: rule.message }));
                }
            }
        }
        (required, conditions)
    }

    fn expression(&mut self, path: &str, text: &str, variable: &'static str) -> Option<Expression> {
        if text.is_empty() {
            self.required(path, "expression is required");
            return None;
        }
        match Expression::compile(text, variable) {
            Ok(expression) => Some(expression),
            Err(why) => {
                self.invalid(path, format!("{text:?}: compilation failed: {why}"));
                None
            }
        }
    }

    /// A name made of an address that nobody has verified could be anyone's.
    fn uses_unverified_email(&self, jwt: &Jwt) -> bool {
        const VERIFIED: &str = "claims.email_verified";
        let username = &jwt.claim_mappings.username.expression;
        let extra = jwt.claim_mappings.extra.iter().map(|row| &row.value_expression);
        let rules = jwt.claim_validation_rules.iter().map(|rule| &rule.expression);
        let mut all = extra.chain(rules).chain([username]);
        username.replace(VERIFIED, "").contains("claims.email") && !all.any(|text| text.contains("email_verified"))
    }
}
