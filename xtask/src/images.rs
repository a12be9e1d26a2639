//! Container images without a registry: OCI archives made of Debian packages and of our own static programs, under the
//! names that manifests use. Each is reproducible (sorted, one fixed time) and cached by a digest of its inputs. It
//! relies on apt and rustc; it needs neither root nor a container runtime, and it never runs what it packs.
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

mod debian;
mod layer;
mod oci;
mod program;

use layer::Layer;

#[derive(clap::Args)]
pub struct Arguments {
    /// The folder for the archives [default: target/images]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Which images to build, by the name of the archive without .tar [default: all]
    names: Vec<String>,
}

struct Image {
    archive: &'static str,
    /// Every name under which the image is to be known, fully written as runtimes store them.
    names: &'static [&'static str],
    content: Content,
    entrypoint: &'static [&'static str],
    command: &'static [&'static str],
    directory: &'static str,
    user: &'static str,
}

enum Content {
    /// One static program of ours at the root.
    Program(&'static program::Program),
    /// Debian packages and the libraries they need, with our scripts on top.
    Debian {
        packages: &'static [&'static str],
        scripts: &'static [(&'static str, &'static str)],
        folders: &'static [&'static str],
    },
}

/// Debian's shell and core tools come along so that `exec … sh` works.
const REDIS: &[&str] = &["redis-server", "redis-tools", "dash", "coreutils"];
const REDIS_SCRIPT: (&str, &str) = ("entrypoint.sh", include_str!("../images/redis.sh"));
const SLAVE_SCRIPT: (&str, &str) = ("slave.sh", include_str!("../images/redis-slave.sh"));

const IMAGES: &[Image] = &[
    Image {
        archive: "pause",
        names: &["registry.k8s.io/pause:3.10.2"],
        content: Content::Program(&program::PAUSE),
        entrypoint: &["/pause"],
        command: &[],
        directory: "/",
        user: "65535:65535",
    },
    Image {
        archive: "testtool",
        names: &["docker.io/xebec/testtool:latest"],
        content: Content::Program(&program::TESTTOOL),
        entrypoint: &["/testtool"],
        command: &["serve"],
        directory: "/",
        user: "",
    },
    Image {
        archive: "redis",
        names: &["docker.io/library/redis:latest"],
        content: Content::Debian { packages: REDIS, scripts: &[REDIS_SCRIPT], folders: &["data"] },
        entrypoint: &["/entrypoint.sh"],
        command: &["redis-server"],
        directory: "/data",
        user: "",
    },
    Image {
        archive: "redis-slave",
        names: &["docker.io/devopsbq/redis-slave:latest", "docker.io/leader/redis-slave:latest"],
        content: Content::Debian { packages: REDIS, scripts: &[REDIS_SCRIPT, SLAVE_SCRIPT], folders: &["data"] },
        entrypoint: &["/slave.sh"],
        command: &[],
        directory: "/data",
        user: "",
    },
];

pub fn run(arguments: &Arguments) -> Result<()> {
    let out = arguments.out.clone().unwrap_or_else(|| crate::workspace::target().join("images"));
    std::fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
    for name in &arguments.names {
        if !IMAGES.iter().any(|image| image.archive == name) {
            let known: Vec<_> = IMAGES.iter().map(|image| image.archive).collect();
            bail!("there is no image {name}; known are {}", known.join(", "));
        }
    }
    for image in IMAGES {
        if arguments.names.is_empty() || arguments.names.iter().any(|name| name == image.archive) {
            build(image, &out).with_context(|| format!("building the image {}", image.archive))?;
        }
    }
    Ok(())
}

fn build(image: &Image, out: &Path) -> Result<()> {
    let started = Instant::now();
    let archive = out.join(format!("{}.tar", image.archive));
    let stamp = out.join(format!("{}.inputs", image.archive));
    let inputs = inputs(image)?;
    if archive.exists() && std::fs::read_to_string(&stamp).is_ok_and(|known| known == inputs) {
        println!("{}: unchanged", archive.display());
        return Ok(());
    }
    let mut layer = Layer::default();
    match &image.content {
        Content::Program(program) => layer.file(program.name, 0o755, program.compile(&out.join("cache"))?),
        Content::Debian { packages, scripts, folders } => {
            debian::install(&mut layer, packages, &out.join("cache"))?;
            scripts.iter().for_each(|(path, text)| layer.file(path, 0o755, text.as_bytes().to_vec()));
            folders.iter().for_each(|path| layer.folder(path, 0o755));
        }
    }
    let bytes = oci::archive(image.names, &layer.tar()?, &configuration(image))?;
    // Renamed into place, so that an interrupted build leaves the old archive.
    let unfinished = archive.with_extension("new");
    std::fs::write(&unfinished, &bytes).and_then(|()| std::fs::rename(&unfinished, &archive))?;
    std::fs::write(&stamp, inputs)?;
    let (size, time) = (bytes.len().div_ceil(1024), started.elapsed().as_secs_f64());
    println!("{}: {} ({size} KiB, {time:.1} s)", archive.display(), image.names.join(", "));
    Ok(())
}

/// Everything that decides about the archive's bytes, in a form to compare.
fn inputs(image: &Image) -> Result<String> {
    let content = match &image.content {
        Content::Program(program) => program.inputs()?,
        Content::Debian { packages, scripts, folders } => {
            let scripts: Vec<_> =
                scripts.iter().map(|(path, text)| format!("{path}: {}", oci::digest(text.as_bytes()))).collect();
            format!("{}\n{}\n{folders:?}", debian::closure(packages)?.join("\n"), scripts.join("\n"))
        }
    };
    Ok(format!("{:?}\n{}\n{content}\n", image.names, configuration(image)))
}

fn configuration(image: &Image) -> serde_json::Value {
    let mut configuration = serde_json::json!({
        "Entrypoint": image.entrypoint,
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "WorkingDir": image.directory,
    });
    if !image.command.is_empty() {
        configuration["Cmd"] = image.command.into();
    }
    if !image.user.is_empty() {
        configuration["User"] = image.user.into();
    }
    configuration
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_gives_the_same_archive() {
        let make = |first: &str, second: &str| {
            let mut layer = Layer::default();
            layer.file(first, 0o644, b"x".to_vec());
            layer.file(second, 0o644, b"x".to_vec());
            oci::archive(&["docker.io/library/a:latest"], &layer.tar().expect("tar"), &serde_json::json!({}))
                .expect("archive")
        };
        assert_eq!(make("usr/a", "usr/b"), make("usr/b", "usr/a"));
        assert_ne!(make("usr/a", "usr/b"), make("usr/a", "usr/c"));
    }

    #[test]
    fn every_image_is_known_by_a_full_name() {
        for name in IMAGES.iter().flat_map(|image| image.names) {
            let (host, rest) = name.split_once('/').expect("a host");
            assert!(host.contains('.') && rest.contains(':'), "{name}");
        }
    }
}
