//! The real rule engine, through the `nft` program.
//!
//! One process per transaction; the kernel takes the file as one batch. Does not hold any state.

use std::process::Stdio;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::table::{Family, Name, TableId};
use crate::{Error, Listing, Netfilter, Transaction};

/// Runs `nft`, by default in the caller's own network namespace.
#[derive(Clone, Debug)]
pub struct Nft {
    command: Vec<String>,
}

impl Default for Nft {
    fn default() -> Self {
        Self { command: vec!["nft".into()] }
    }
}

impl Nft {
    /// Works on the network namespace that is mounted at `path` (`/run/netns/NAME`).
    pub fn in_namespace(path: &str) -> Self {
        Self { command: vec!["nsenter".into(), format!("--net={path}"), "nft".into()] }
    }

    async fn run(&self, operation: &'static str, arguments: &[&str], input: &str) -> Result<Vec<u8>, Error> {
        let program = self.command[0].clone();
        let mut child = Command::new(&program)
            .args(&self.command[1..])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::Start { program, source })?;
        if let Some(mut stdin) = child.stdin.take() {
            // nft ends without reading where it dislikes its arguments; its own words then say more than the broken pipe.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(Error::Talk)?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(Error::Refused { operation, message: first_lines(&output.stderr) }),
        }
    }
}

#[async_trait]
impl Netfilter for Nft {
    async fn apply(&self, transaction: &Transaction) -> Result<(), Error> {
        if transaction.is_empty() {
            return Ok(());
        }
        self.run("apply the transaction", &["-f", "-"], &transaction.render()).await.map(drop)
    }

    async fn list(&self, table: &TableId) -> Result<Option<Listing>, Error> {
        let arguments = ["-j", "list", "table", table.family.as_str(), table.name.as_str()];
        match self.run("list the table", &arguments, "").await {
            Ok(json) => Listing::parse(&json).map(Some).map_err(Error::Output),
            Err(Error::Refused { message, .. }) if message.contains("No such file or directory") => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn tables(&self) -> Result<Vec<TableId>, Error> {
        let json = self.run("list the tables", &["-j", "list", "tables"], "").await?;
        let output: Tables = serde_json::from_slice(&json).map_err(Error::Output)?;
        // A name that we could not have given is not ours, so it may be left out.
        let id = |table: ListedTable| Some(TableId::new(Family::parse(&table.family)?, Name::new(table.name).ok()?));
        Ok(output.nftables.into_iter().filter_map(|item| item.table).filter_map(id).collect())
    }
}

/// nft repeats the offending line, which may be very long, and marks the place below it.
fn first_lines(stderr: &[u8]) -> String {
    const LIMIT: usize = 600;
    let text = String::from_utf8_lossy(stderr);
    let text = text.trim();
    let end = text.char_indices().nth(LIMIT).map_or(text.len(), |(i, _)| i);
    text[..end].to_owned()
}

#[derive(Deserialize)]
struct Tables {
    nftables: Vec<TableItem>,
}

#[derive(Deserialize)]
struct TableItem {
    table: Option<ListedTable>,
}

#[derive(Deserialize)]
struct ListedTable {
    family: String,
    name: String,
}
