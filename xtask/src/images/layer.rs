//! One image layer as a map from path to entry, written as a tar with sorted paths and one fixed time, so that the same
//! content has the same digest. Folders on the way to an entry come by themselves.
use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result};
use tar::{Archive, Builder, EntryType, Header};

/// Debian ships some paths under these and links them into `usr/`; a layer has the merged form from the start.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
/// What a container never reads: documents, translations and character-set modules.
const UNUSED: [&str; 8] = [
    "usr/share/doc/",
    "usr/share/man/",
    "usr/share/locale/",
    "usr/share/info/",
    "usr/share/lintian/",
    "usr/share/bug/",
    "usr/lib/x86_64-linux-gnu/gconv/",
    "usr/lib/systemd/",
];
/// The time of every entry: 2024-01-01, for some programs take the epoch itself for a broken clock.
const TIME: u64 = 1_704_067_200;

#[derive(Default)]
pub struct Layer {
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    kind: EntryType,
    mode: u32,
    owner: (u64, u64),
    /// Where a symbolic or a hard link leads.
    link: Option<String>,
    content: Vec<u8>,
}

impl Layer {
    pub fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        self.put(path, Entry { kind: EntryType::Regular, mode, owner: (0, 0), link: None, content });
    }

    pub fn folder(&mut self, path: &str, mode: u32) {
        self.put(path, Entry { kind: EntryType::Directory, mode, owner: (0, 0), link: None, content: Vec::new() });
    }

    pub fn symlink(&mut self, path: &str, to: &str) {
        let link = Some(to.to_owned());
        self.put(path, Entry { kind: EntryType::Symlink, mode: 0o777, owner: (0, 0), link, content: Vec::new() });
    }

    /// Takes over the entries of a package's tar.
    ///
    /// # Errors
    /// The stream is no tar.
    pub fn unpack(&mut self, stream: impl Read) -> Result<()> {
        for entry in Archive::new(stream).entries()? {
            let mut entry = entry.context("reading the package's files")?;
            let path = merged(entry.path()?.to_string_lossy().trim_start_matches("./").trim_end_matches('/'));
            if path.is_empty()
                || MERGED.contains(&path.as_str())
                || UNUSED.iter().any(|unused| format!("{path}/").starts_with(unused))
            {
                continue;
            }
            let kind = entry.header().entry_type();
            let link = entry.link_name()?.map(|to| to.to_string_lossy().into_owned());
            let link = if kind == EntryType::Link { link.map(|to| merged(to.trim_start_matches("./"))) } else { link };
            let (mode, owner) = (entry.header().mode()?, (entry.header().uid()?, entry.header().gid()?));
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            self.put(&path, Entry { kind, mode, owner, link, content });
        }
        Ok(())
    }

    /// The layer as an uncompressed tar.
    ///
    /// # Errors
    /// A path is longer than a tar can hold.
    pub fn tar(&self) -> Result<Vec<u8>> {
        let mut builder = Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(entry.kind);
            header.set_mode(entry.mode & 0o7777);
            header.set_uid(entry.owner.0);
            header.set_gid(entry.owner.1);
            header.set_mtime(TIME);
            header.set_size(entry.content.len() as u64);
            match &entry.link {
                Some(to) => builder.append_link(&mut header, path, to)?,
                None => builder.append_data(&mut header, path, entry.content.as_slice())?,
            }
        }
        Ok(builder.into_inner()?)
    }

    /// A folder that two packages bring keeps the first one's mode; any other entry is the last one's.
    fn put(&mut self, path: &str, entry: Entry) {
        if let Some((parent, _)) = path.rsplit_once('/')
            && !self.entries.contains_key(parent)
        {
            self.folder(parent, 0o755);
        }
        if entry.kind != EntryType::Directory || !self.entries.contains_key(path) {
            self.entries.insert(path.to_owned(), entry);
        }
    }
}

fn merged(path: &str) -> String {
    match path.split_once('/') {
        Some((first, _)) if MERGED.contains(&first) => format!("usr/{path}"),
        _ => path.to_owned(),
    }
}

/// The links that a merged layer needs in place of the folders.
pub fn merged_links() -> impl Iterator<Item = (&'static str, String)> {
    MERGED.iter().map(|name| (*name, format!("usr/{name}")))
}
