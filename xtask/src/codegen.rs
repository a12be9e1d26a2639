//! `cargo xtask codegen`: writes `crates/api/src/schema/schema.table`, the one source of facts about built-in kinds.
//!
//! The facts come from the Go modules of the Kubernetes release: the Go struct declarations (field order, JSON presence,
//! patch tags), the published OpenAPI documents (required, defaults, list and map types), the published discovery
//! documents (resources) and the `generated.proto` files (field numbers, checked against the struct tags). Prose is left
//! behind. The format is described in `crates/api/src/schema/table.rs`, which reads it.

mod go;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use sha2::{Digest, Sha256};

/// The release whose facts the table holds.
const VERSION: &str = "1.37.2";
const TABLE: &str = "crates/api/src/schema/schema.table";

#[derive(Parser)]
#[command(name = "cargo xtask codegen", about = "Write the schema table from the Kubernetes release's own documents")]
struct Arguments {
    /// Directory of the Go module k8s.io/kubernetes; its sibling modules are expected beside it
    #[arg(long)]
    kube: Option<PathBuf>,
    /// Write nothing, fail if the committed table is not what would be written
    #[arg(long)]
    check: bool,
}

/// Runs with the arguments that follow `codegen` on the command line.
pub fn run(arguments: &[String]) -> Result<()> {
    let arguments = Arguments::parse_from(std::iter::once("codegen").chain(arguments.iter().map(String::as_str)));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(TABLE);
    let kube = arguments.kube.or_else(default_kube);
    if arguments.check {
        return check(&path, kube.as_deref());
    }
    let kube = kube.context(
        "no Go module of Kubernetes found: run `go mod download k8s.io/kubernetes@v1.37.2` or give --kube DIR",
    )?;
    let text = render(&kube)?;
    fs::write(&path, &text).with_context(|| format!("writing {}", path.display()))?;
    println!("{TABLE}: {} bytes, {} lines", text.len(), text.lines().count());
    Ok(())
}

/// Compares with a fresh rendering where the sources are at hand; elsewhere the checksum still finds edits by hand.
fn check(path: &Path, kube: Option<&Path>) -> Result<()> {
    let committed = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let (header, body) = committed.split_once('\n').context("the schema table is empty")?;
    if header != header_of(body) {
        bail!("{TABLE} was changed by hand: run `cargo xtask codegen`");
    }
    if let Some(kube) = kube
        && render(kube)? != committed
    {
        bail!("{TABLE} is stale: run `cargo xtask codegen`");
    }
    Ok(())
}

fn render(kube: &Path) -> Result<String> {
    let body = table::render(kube, VERSION)?;
    Ok(format!("{}\n{body}", header_of(&body)))
}

fn header_of(body: &str) -> String {
    format!("# schema table 1, kubernetes {VERSION}, sha256 {}", hex::encode(Sha256::digest(body.as_bytes())))
}

fn default_kube() -> Option<PathBuf> {
    let cache = std::env::var_os("GOMODCACHE").map(PathBuf::from).or_else(|| {
        let gopath = std::env::var_os("GOPATH").map(PathBuf::from);
        let home = std::env::var_os("HOME").map(|home| Path::new(&home).join("go"));
        Some(gopath.or(home)?.join("pkg/mod"))
    })?;
    let kube = cache.join(format!("k8s.io/kubernetes@v{VERSION}"));
    kube.is_dir().then_some(kube)
}
