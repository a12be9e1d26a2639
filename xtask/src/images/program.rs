//! Our own static programs, compiled by rustc itself: they have no dependencies, so cargo would add nothing but a second
//! profile to build. The pause program is linked without a C library and then cut down to what the kernel loads.
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::oci::digest;
use crate::workspace::{output, root};

pub struct Program {
    pub name: &'static str,
    source: &'static str,
    flags: &'static [&'static str],
    /// Whether section headers and all that follows the loaded segments is cut off.
    cut: bool,
}

pub const PAUSE: Program = Program {
    name: "pause",
    source: "testtool/pause/pause.rs",
    flags: &[
        "-Copt-level=z",
        "-Cpanic=abort",
        "-Cstrip=symbols",
        "-Crelocation-model=static",
        "-Clink-arg=-nostartfiles",
        "-Clink-arg=-nostdlib",
        "-Clink-arg=-static",
        "-Clink-arg=-Wl,-n,--build-id=none,--gc-sections,-z,norelro,-z,noseparate-code,--no-eh-frame-hdr",
    ],
    cut: true,
};

pub const TESTTOOL: Program = Program {
    name: "testtool",
    source: "testtool/src/main.rs",
    flags: &[
        "-Copt-level=s",
        "-Cpanic=abort",
        "-Cstrip=symbols",
        "-Clto=thin",
        "-Ccodegen-units=1",
        "-Ctarget-feature=+crt-static",
    ],
    cut: false,
};

impl Program {
    /// What the compiled bytes depend on.
    pub fn inputs(&self) -> Result<String> {
        let mut lines = vec![output(Command::new("rustc").arg("-V"))?, self.flags.join(" ")];
        let mut sources = Vec::new();
        let folder = root().join(self.source).parent().map(Path::to_path_buf).unwrap_or_default();
        for entry in std::fs::read_dir(folder)? {
            sources.push(entry?.path());
        }
        sources.sort();
        for path in sources {
            lines.push(digest(&std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?));
        }
        Ok(lines.join("\n"))
    }

    /// Compiles the program in `cache` and returns it.
    pub fn compile(&self, cache: &Path) -> Result<Vec<u8>> {
        std::fs::create_dir_all(cache)?;
        let file: PathBuf = cache.join(self.name);
        // The tree's own path would otherwise become part of the bytes.
        let remap = format!("--remap-path-prefix={}=.", root().display());
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2024", "--crate-name", self.name, &remap, self.source, "-o"]).arg(&file);
        output(rustc.args(self.flags).current_dir(root()))?;
        let bytes = std::fs::read(&file)?;
        if self.cut { cut(bytes) } else { Ok(bytes) }
    }
}

/// Drops the section headers of a 64-bit little-endian ELF file and all that lies behind its loaded segments.
fn cut(mut file: Vec<u8>) -> Result<Vec<u8>> {
    ensure!(file.len() > 64 && file[..6] == [0x7f, b'E', b'L', b'F', 2, 1], "this is no 64-bit ELF file");
    let number = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap_or_default()) as usize;
    let (table, size, count) = (number(32), usize::from(file[54]), usize::from(file[56]));
    ensure!(table + size * count <= file.len(), "the program headers are cut short");
    let end =
        (0..count).map(|index| table + size * index).map(|at| number(at + 8) + number(at + 32)).max().unwrap_or(0);
    ensure!(end <= file.len() && end > 64, "the segments lie outside of the file");
    file.truncate(end);
    // e_shoff, then e_shentsize, e_shnum and e_shstrndx.
    file[40..48].fill(0);
    file[58..64].fill(0);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_program_is_a_few_hundred_bytes() {
        let cache = tempfile::tempdir().expect("folder");
        let size = PAUSE.compile(cache.path()).expect("compiles").len();
        assert!(size < 1000, "{size} bytes");
    }
}
