//! A watch that is followed as clients follow one: a server may end it at any time (upstream does so to watchers that fall
//! behind), and it is then resumed from the last revision seen.
use std::net::SocketAddr;

use anyhow::{Context, Result};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use xebec_e2e::{Api, TOKEN};

pub struct Feed {
    address: SocketAddr,
    path: String,
    body: Incoming,
    // The connection ends when it is dropped.
    _client: Api,
    /// What has come of a line that is not complete.
    rest: Vec<u8>,
    /// The last complete line, or the LIST before the first one.
    last: Vec<u8>,
}

impl Feed {
    /// Watches the collection `path` from its present state on.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn open(address: SocketAddr, path: &str) -> Result<Self> {
        let mut client = Api::connect(address, TOKEN).await?;
        let list = client.get(&format!("{path}?limit=1")).await?.success()?.to_vec();
        let (body, client) = watch(address, path, &list).await?;
        Ok(Self { address, path: path.to_owned(), body, _client: client, rest: Vec::new(), last: list })
    }

    /// Hands the next complete lines, one event each, to `take`.
    ///
    /// # Errors
    /// The connection broke, or the watch cannot be resumed.
    pub async fn next(&mut self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Some(frame) = self.body.frame().await else {
            self.rest.clear();
            (self.body, self._client) = watch(self.address, &self.path, &self.last).await?;
            return Ok(());
        };
        let frame = frame?;
        self.rest.extend_from_slice(frame.data_ref().map(AsRef::<[u8]>::as_ref).unwrap_or_default());
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let lines: Vec<&[u8]> = self.rest[..end].split(|byte| *byte == b'\n').collect();
        lines.iter().try_for_each(|line| take(line))?;
        self.last = lines.last().map(|line| line.to_vec()).unwrap_or_default();
        self.rest.drain(..=end);
        Ok(())
    }
}

/// Opens a watch at the revision of `line`: a list, or an event with an object.
async fn watch(address: SocketAddr, path: &str, line: &[u8]) -> Result<(Incoming, Api)> {
    let value: Value = serde_json::from_slice(line)?;
    let object = value.get("object").unwrap_or(&value);
    let revision = object["metadata"]["resourceVersion"].as_str().with_context(|| format!("no revision in {value}"))?;
    let mut client = Api::connect(address, TOKEN).await?;
    Ok((client.watch(&format!("{path}?watch=true&resourceVersion={revision}")).await?, client))
}
