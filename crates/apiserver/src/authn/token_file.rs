//! Users by fixed tokens, listed in a file: upstream's `--token-auth-file`.
//!
//! A line is `token,user,uid,"group,group"`; the groups may be left out. The file is read once, at start.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::{Authenticator, AuthnError, Credentials, GROUP_AUTHENTICATED, Identified, User, bearer_token};

#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("cannot read the token file {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("line {line} of the token file {} is not `token,user,uid[,\"group,group\"]`: {why}", path.display())]
    Line { path: PathBuf, line: usize, why: &'static str },
}

/// Tokens are kept as their digests: looking one up takes a time that says nothing about those in the file.
pub struct TokenFile {
    users: HashMap<[u8; 32], Arc<User>>,
    /// What the tokens are good for.
    audiences: Vec<String>,
}

impl TokenFile {
    pub fn read(path: &Path, audiences: Vec<String>) -> Result<Self, TokenFileError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| TokenFileError::Read { path: path.to_owned(), source })?;
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |why| TokenFileError::Line { path: path.to_owned(), line: index + 1, why };
            let (token, user) = parse_line(line).map_err(wrong)?;
            users.insert(digest(&token), Arc::new(user));
        }
        Ok(TokenFile { users, audiences })
    }

    fn find(&self, token: &str) -> Option<Arc<User>> {
        self.users.get(&digest(token)).cloned()
    }
}

#[async_trait]
impl Authenticator for TokenFile {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Arc<User>>, AuthnError> {
        Ok(bearer_token(credentials.headers).and_then(|token| self.find(&token)))
    }

    async fn review(&self, token: &str, audiences: &[String]) -> Result<Option<Identified>, AuthnError> {
        Ok(self.find(token).and_then(|user| Identified::for_audiences(user, &self.audiences, audiences)))
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn parse_line(line: &str) -> Result<(String, User), &'static str> {
    let fields = fields(line)?;
    let [token, name, uid, rest @ ..] = &fields[..] else { return Err("it has fewer than three fields") };
    if token.is_empty() || name.is_empty() {
        return Err("the token or the user is empty");
    }
    let named = rest.first().map_or("", String::as_str).split(',').map(str::trim).filter(|group| !group.is_empty());
    let mut groups: Vec<String> = named.map(str::to_owned).collect();
    groups.push(GROUP_AUTHENTICATED.to_owned());
    let user = User { name: name.clone(), uid: uid.clone(), groups, ..User::default() };
    Ok((token.clone(), user))
}

/// One line of comma-separated values (RFC 4180); blanks before a field do not count.
fn fields(line: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = line.trim_end_matches(['\r', '\n']);
    loop {
        rest = rest.trim_start();
        let mut field = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let end = quoted.find('"').ok_or("a quote is not closed")?;
                field.push_str(&quoted[..end]);
                quoted = &quoted[end + 1..];
                match quoted.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        quoted = more;
                    }
                    None => break,
                }
            }
            rest = quoted.trim_start();
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field.push_str(rest[..end].trim_end());
            rest = &rest[end..];
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None if rest.is_empty() => return Ok(fields),
            None => return Err("something follows a closing quote"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<(&str, &str, &str, &[&str]), &'static str>) {
        let parsed = parse_line(line);
        let shown = parsed.as_ref().map_err(|why| *why).map(|(token, user)| {
            let groups: Vec<&str> = user.groups.iter().map(String::as_str).collect();
            (token.as_str(), user.name.as_str(), user.uid.as_str(), groups)
        });
        let expected = expected.map(|(token, user, uid, groups)| {
            let mut groups = groups.to_vec();
            groups.push(GROUP_AUTHENTICATED);
            (token, user, uid, groups)
        });
        assert_eq!(shown, expected, "{line}");
    }

    #[test]
    fn lines_are_read_as_upstream_reads_them() {
        check(r#"t,jane,1,"dev,ops""#, Ok(("t", "jane", "1", &["dev", "ops"])));
        check("t,jane,1", Ok(("t", "jane", "1", &[])));
        check("t, jane, 1, dev\r", Ok(("t", "jane", "1", &["dev"])));
        check(r#""a""b",jane,"#, Ok(("a\"b", "jane", "", &[])));
        check("t,jane", Err("it has fewer than three fields"));
        check(",jane,1", Err("the token or the user is empty"));
        check(r#"t,jane,1,"dev"#, Err("a quote is not closed"));
    }
}
