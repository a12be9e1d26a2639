//! The SQLite file and the folder it lies in: one table with the live keys, one with the reserved revision.
//!
//! The folder is locked for as long as the file is open. Tables and settings are this module's affair; what is committed
//! when is the writer's. The file can be read with the `sqlite3` program, also while the server runs.

use std::fs::{self, DirBuilder, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::writer::Row;
use crate::key::{KeyValue, Revision};
use crate::state::{FIRST_REVISION, Keys};

const FILE_NAME: &str = "store.db";
const LOCK_NAME: &str = "LOCK";
/// "Xebe" in ASCII: tells our file from any other SQLite file.
const APPLICATION_ID: i32 = 0x5865_6265;
/// The layout of the tables. A file with a higher number was written by a newer version.
const FORMAT: i32 = 1;
const PAGE_BYTES: u64 = 4096;
/// The write-ahead log is folded into the file when it has grown by about this much: small enough to be read back in
/// milliseconds at the next start, large enough to fold a page once for many writes to it.
const CHECKPOINT_BYTES: u64 = 4 << 20;
/// A commit waits this long for someone who reads the file with a program that locks it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const CREATE: &str = "
    CREATE TABLE kv (
        key BLOB NOT NULL UNIQUE, value BLOB NOT NULL,
        create_revision INTEGER NOT NULL, mod_revision INTEGER NOT NULL, version INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;";
/// Updates in place: the row keeps its place in the table and the index on keys is left alone.
const PUT: &str = "
    INSERT INTO kv (key, value, create_revision, mod_revision, version) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (key) DO UPDATE SET value = ?2, create_revision = ?3, mod_revision = ?4, version = ?5";
const DELETE: &str = "DELETE FROM kv WHERE key = ?1";
const RESERVE: &str = "INSERT OR REPLACE INTO meta (name, value) VALUES ('reserved_revision', ?1)";
const RESERVED: &str = "SELECT value FROM meta WHERE name = 'reserved_revision'";
const LOAD: &str = "SELECT key, value, create_revision, mod_revision, version FROM kv";

/// Why a store could not be opened. Each names the place where to look.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another xebec server uses {}{}", folder.display(), process.map(|id| format!(" (process {id})")).unwrap_or_default())]
    InUse { folder: PathBuf, process: Option<u32> },
    #[error("cannot make or use the data folder {}", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    #[error("cannot open the store {}", path.display())]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("the store {} cannot be written to: the file or its disk is read-only", path.display())]
    ReadOnly { path: PathBuf },
    #[error("the store {} is damaged or is not a store; put a backup in its place or move it away", path.display())]
    Damaged { path: PathBuf, source: Option<rusqlite::Error> },
    #[error("the store {} has format {found}, written by a newer version; this one knows format {FORMAT}", path.display())]
    Newer { path: PathBuf, found: i32 },
    #[error("cannot start the store's writer thread")]
    Thread { source: io::Error },
}

/// What the file held when it was opened.
pub(super) struct Loaded {
    pub keys: Keys,
    pub revision: Revision,
}

pub(super) struct File {
    connection: Connection,
    path: PathBuf,
    /// About how much the write-ahead log has grown since it was last folded in.
    logged: u64,
    /// Released when everything above it is closed.
    _lock: fs::File,
}

impl File {
    pub fn open(folder: &Path, max_bytes: Option<u64>) -> Result<(Self, Loaded), OpenError> {
        let path = folder.join(FILE_NAME);
        let lock = take_folder(folder, &path)?;
        let explain = |source: rusqlite::Error| explain(&path, source);
        let connection = connect(&path).map_err(explain)?;
        if connection.is_readonly("main").map_err(explain)? {
            return Err(OpenError::ReadOnly { path });
        }
        let is_new = is_new(&connection, &path)?;
        configure(&connection, max_bytes).map_err(explain)?;
        if is_new {
            create_tables(&connection).map_err(explain)?;
        }
        let loaded = load(&connection).map_err(explain)?;
        Ok((File { connection, path, logged: 0, _lock: lock }, loaded))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns once all rows are on disk, or none of them are.
    pub fn commit(&mut self, rows: &[Row], reserve: Option<Revision>) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut logged = 2 * PAGE_BYTES;
        {
            let mut put = transaction.prepare_cached(PUT)?;
            let mut delete = transaction.prepare_cached(DELETE)?;
            for (key, kv) in rows {
                let (value, numbers) = match kv {
                    Some(kv) => (&kv.value[..], (kv.create_revision, kv.mod_revision, kv.version)),
                    None => {
                        delete.execute([&key[..]])?;
                        logged += 2 * PAGE_BYTES;
                        continue;
                    }
                };
                let (created, modified, version) = numbers;
                put.execute((&key[..], value, created as i64, modified as i64, version as i64))?;
                logged += (value.len() as u64).next_multiple_of(PAGE_BYTES) + PAGE_BYTES;
            }
            if let Some(revision) = reserve {
                transaction.prepare_cached(RESERVE)?.execute([revision as i64])?;
            }
        }
        transaction.commit()?;
        self.logged += logged;
        Ok(())
    }

    /// Folds the write-ahead log into the file once it has grown long. Not left to SQLite, which does it within a commit:
    /// there the writers would wait for it, and its failure would go unnoticed.
    pub fn checkpoint_if_due(&mut self) -> rusqlite::Result<()> {
        if self.logged >= CHECKPOINT_BYTES {
            self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
            self.logged = 0;
        }
        Ok(())
    }

    pub fn close(self) -> rusqlite::Result<()> {
        self.connection.close().map_err(|(_, error)| error)
    }
}

/// Makes the folder and an empty file where there are none, readable by their owner alone since the store holds Secrets,
/// and locks the folder.
fn take_folder(folder: &Path, path: &Path) -> Result<fs::File, OpenError> {
    let failed = |source| OpenError::Folder { folder: folder.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let mut private = OpenOptions::new();
    private.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut lock = private.open(folder.join(LOCK_NAME)).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let process = lock.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
            return Err(OpenError::InUse { folder: folder.to_owned(), process });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
    if !path.exists() {
        private.open(path).and_then(|_| fs::File::open(folder)?.sync_all()).map_err(failed)?;
    }
    Ok(lock)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Whether the file is empty. One that has content has to be ours; it is asked before anything in it is changed.
fn is_new(connection: &Connection, path: &Path) -> Result<bool, OpenError> {
    let number = |sql: &str| {
        let found = connection.query_row(sql, [], |row| row.get::<_, i32>(0));
        found.map_err(|source| explain(path, source))
    };
    if number("SELECT count(*) FROM sqlite_schema")? == 0 {
        return Ok(true);
    }
    if number("PRAGMA application_id")? != APPLICATION_ID {
        return Err(OpenError::Damaged { path: path.to_owned(), source: None });
    }
    match number("PRAGMA user_version")? {
        FORMAT => Ok(false),
        found => Err(OpenError::Newer { path: path.to_owned(), found }),
    }
}

fn configure(connection: &Connection, max_bytes: Option<u64>) -> rusqlite::Result<()> {
    connection.pragma_update(None, "page_size", PAGE_BYTES as i64)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    if let Some(max_bytes) = max_bytes {
        connection.pragma_update(None, "max_page_count", (max_bytes / PAGE_BYTES) as i64)?;
    }
    Ok(())
}

fn create_tables(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {CREATE} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
    ))
}

fn load(connection: &Connection) -> rusqlite::Result<Loaded> {
    let reserved = match connection.query_row(RESERVED, [], |row| row.get::<_, i64>(0)) {
        Err(rusqlite::Error::QueryReturnedNoRows) => FIRST_REVISION,
        found => found? as Revision,
    };
    let mut loaded = Loaded { keys: Keys::new(), revision: reserved };
    let mut statement = connection.prepare(LOAD)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
        let kv = KeyValue {
            key: Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?),
            value: Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?),
            create_revision: number(2)?,
            mod_revision: number(3)?,
            version: number(4)?,
        };
        loaded.revision = loaded.revision.max(kv.mod_revision);
        loaded.keys.insert(kv.key.clone(), Arc::new(kv));
    }
    Ok(loaded)
}

fn explain(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, source: Some(source) },
        Some(ErrorCode::ReadOnly) => OpenError::ReadOnly { path },
        _ => OpenError::Open { path, source },
    }
}
