//! Key and certificate files: written whole or not at all, keys readable by their owner alone.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::{Error, Result};

/// Who may read a file.
#[derive(Clone, Copy)]
pub enum Access {
    Owner,
    Everyone,
}

/// What a power cut may do to a file that was just written.
#[derive(Clone, Copy)]
pub enum Lasting {
    /// Nothing: what was signed with it has to stay valid.
    Yes,
    /// It may be lost or empty: it would be issued anew at the next start. Saves a start from waiting for the disk.
    Replaceable,
}

/// The file's text, if there is such a file.
pub fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// Puts a file in place of an older one. Readers see either of them, never a part.
pub fn write(path: &Path, text: &str, access: Access, lasting: Lasting) -> Result<()> {
    replace(path, text, access, lasting).map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn replace(path: &Path, text: &str, access: Access, lasting: Lasting) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mode = match access {
        Access::Owner => 0o600,
        Access::Everyone => 0o644,
    };
    let temporary = path.with_extension("new");
    // A left-over of an interrupted write may have other permissions than those that are wanted now.
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    if let Lasting::Yes = lasting {
        file.sync_all()?;
    }
    fs::rename(&temporary, path)?;
    if let Lasting::Yes = lasting {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}
