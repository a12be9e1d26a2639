//! How the claims of a checked token become a user. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::{CREDENTIAL_ID, User};
use super::expression::{Expression, Outcome};

pub type Claims = Map<String, Value>;

pub struct Mapping {
    pub username: Source,
    pub groups: Option<Source>,
    pub uid: Option<Source>,
    pub extra: Vec<(String, Expression)>,
    /// Claims that must be there, with these values.
    pub required: Vec<(String, String)>,
    pub claim_rules: Vec<Condition>,
    pub user_rules: Vec<Condition>,
}

pub enum Source {
    Claim { name: String, prefix: String },
    Expression(Expression),
}

/// What must be true.
pub struct Condition {
    pub expression: Expression,
    /// Empty: the expression says it.
    pub message: String,
}

impl Mapping {
    pub fn user(&self, claims: Claims) -> Result<User, String> {
        let claims = Value::Object(claims);
        let name = self.username(&claims)?;
        let groups = self.groups(&claims)?;
        let uid = self.uid(&claims)?;
        let user = User { name, uid, groups, extra: self.extra(&claims)? };
        for (claim, wanted) in &self.required {
            let found = claims.get(claim).ok_or_else(|| format!("required claim {claim} not present in ID token"))?;
            let found = found.as_str().ok_or_else(|| format!("parse claim {claim}: it is not a string"))?;
            if found != wanted {
                return Err(format!("required claim {claim} value does not match. Got = {found}, want = {wanted}"));
            }
        }
        let failed = |why| format!("error evaluating claim validation expression: {why}");
        self.claim_rules.iter().try_for_each(|rule| rule.check(&claims)).map_err(failed)?;
        let shown = json!({ "username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra });
        let failed = |why| format!("error evaluating user info validation rule: {why}");
        self.user_rules.iter().try_for_each(|rule| rule.check(&shown)).map_err(failed)?;
        Ok(user)
    }

    fn username(&self, claims: &Value) -> Result<String, String> {
        match &self.username {
            Source::Expression(expression) => {
                let failed = |why: String| format!("error evaluating username claim expression: {why}");
                match expression.evaluate(claims).map_err(failed)? {
                    Outcome::Text(name) if name.is_empty() => {
                        Err("empty username via CEL expression is not allowed".to_owned())
                    }
                    Outcome::Text(name) => Ok(name),
                    _ => Err(failed("username claim expression must return a string".to_owned())),
                }
            }
            Source::Claim { name, prefix } => {
                let found = claims.get(name).ok_or("claim not present");
                let found = found.and_then(|value| value.as_str().ok_or("it is not a string"));
                let found = found.map_err(|why| format!("parse username claims {name:?}: {why}"))?;
                // An address that the issuer has not verified could be anyone's.
                if name == "email" {
                    match claims.get("email_verified") {
                        None | Some(Value::Bool(true)) => {}
                        Some(Value::Bool(false)) => return Err("email not verified".to_owned()),
                        Some(_) => return Err("parse 'email_verified' claim: it is not a boolean".to_owned()),
                    }
                }
                Ok(format!("{prefix}{found}"))
            }
        }
    }

    fn groups(&self, claims: &Value) -> Result<Vec<String>, String> {
        match &self.groups {
            None => Ok(Vec::new()),
            Some(Source::Expression(expression)) => {
                let texts = expression.evaluate(claims).and_then(Outcome::texts);
                texts.map_err(|why| format!("error evaluating group claim expression: {why}"))
            }
            Some(Source::Claim { name, prefix }) => {
                let groups = match claims.get(name) {
                    None | Some(Value::Null) => Some(Vec::new()),
                    Some(Value::String(one)) => Some(vec![one.as_str()]),
                    Some(Value::Array(all)) => all.iter().map(Value::as_str).collect(),
                    Some(_) => None,
                };
                let groups = groups.ok_or_else(|| format!("parse groups claim {name:?}: it is no list of strings"))?;
                Ok(groups.into_iter().map(|group| format!("{prefix}{group}")).collect())
            }
        }
    }

    fn uid(&self, claims: &Value) -> Result<String, String> {
        match &self.uid {
            None => Ok(String::new()),
            Some(Source::Claim { name, .. }) => {
                let found = claims.get(name).and_then(Value::as_str);
                found.map(str::to_owned).ok_or_else(|| format!("parse uid claim {name:?}: claim not present"))
            }
            Some(Source::Expression(expression)) => {
                let failed = |why: String| format!("error evaluating uid claim expression: {why}");
                match expression.evaluate(claims).map_err(failed)? {
                    Outcome::Text(uid) => Ok(uid),
                    _ => Err(failed("uid claim expression must return a string".to_owned())),
                }
            }
        }
    }

    fn extra(&self, claims: &Value) -> Result<BTreeMap<String, Vec<String>>, String> {
        let mut extra = BTreeMap::new();
        if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
        }
        for (key, expression) in &self.extra {
            let texts = expression.evaluate(claims).and_then(Outcome::texts);
            let failed = |why| format!("error evaluating extra claim expression: {}: {why}", expression.text());
            let texts = texts.map_err(failed)?;
            if !texts.is_empty() {
                extra.insert(key.clone(), texts);
            }
        }
        Ok(extra)
    }
}

impl Condition {
    fn check(&self, value: &Value) -> Result<(), String> {
        match self.expression.evaluate(value)? {
            Outcome::Truth(true) => Ok(()),
            Outcome::Truth(false) if self.message.is_empty() => {
                Err(format!("validation expression '{}' failed", self.expression.text()))
            }
            Outcome::Truth(false) => {
                Err(format!("validation expression '{}' failed: {}", self.expression.text(), self.message))
            }
            _ => Err("validation expression must return a boolean".to_owned()),
        }
    }
}
