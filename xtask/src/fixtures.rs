//! `cargo xtask fixtures DIR`: gathers the filled objects that the Go module `k8s.io/api` ships (`testdata/HEAD`) into one file.
//!
//! Each object is there twice, as JSON and as enveloped protobuf; the protobuf tests of `crates/api` hold the transcoder
//! against them without Go. JSON is stored without its indentation. The file is a zlib stream of records: a line
//! `NAME JSON-LENGTH PROTOBUF-LENGTH`, then the two texts.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use flate2::{Compression, write::ZlibEncoder};
use serde_json::Value;

const FILE: &str = "crates/api/tests/filled-objects.z";

#[derive(Parser)]
pub struct Arguments {
    /// The module's `testdata/HEAD`
    directory: PathBuf,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let dir = &arguments.directory;
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".pb").map(str::to_owned));
    }
    ensure!(!names.is_empty(), "{} holds no objects in protobuf", dir.display());
    // The same kind in several versions side by side packs best.
    names.sort_by_key(|name| (name.rsplit('.').next().unwrap_or_default().to_owned(), name.clone()));
    let mut out = ZlibEncoder::new(Vec::new(), Compression::best());
    for name in &names {
        let read = |extension: &str| {
            let path = dir.join(format!("{name}.{extension}"));
            fs::read(&path).with_context(|| format!("reading {}", path.display()))
        };
        let json: Value = serde_json::from_slice(&read("json")?).with_context(|| format!("parsing {name}.json"))?;
        let (json, protobuf) = (json.to_string(), read("pb")?);
        writeln!(out, "{name} {} {}", json.len(), protobuf.len())?;
        out.write_all(json.as_bytes())?;
        out.write_all(&protobuf)?;
    }
    let bytes = out.finish()?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(FILE);
    fs::write(&path, &bytes).with_context(|| format!("writing {}", path.display()))?;
    println!("{FILE}: {} objects, {} bytes", names.len(), bytes.len());
    Ok(())
}
