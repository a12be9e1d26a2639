//! Reading, writing and listing files: what a volume mounted into a container holds, and with what modes and owners.
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use crate::{Options, Outcome};

pub fn cat(arguments: &[String]) -> Outcome {
    for path in arguments {
        let content = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        std::io::stdout().write_all(&content).map_err(|error| error.to_string())?;
    }
    Ok(0)
}

pub fn write(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &[], &["append"])?;
    let [path, text] = options.positional.as_slice() else { return Err("give a file and a text".into()) };
    let append = options.get("append").is_some();
    let file = std::fs::OpenOptions::new().create(true).write(true).append(append).truncate(!append).open(path);
    file.and_then(|mut file| writeln!(file, "{text}")).map_err(|error| format!("{path}: {error}"))?;
    Ok(0)
}

pub fn list(arguments: &[String]) -> Outcome {
    for path in arguments {
        let failed = |error: std::io::Error| format!("{path}: {error}");
        let mut entries = std::fs::read_dir(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let file = entry.metadata().map_err(failed)?;
            let link = std::fs::read_link(entry.path()).map(|to| format!(" -> {}", to.display())).unwrap_or_default();
            let name = entry.file_name();
            let (mode, uid, gid, size) = (file.mode(), file.uid(), file.gid(), file.size());
            println!("{mode:06o} {uid}:{gid} {size} {}{link}", name.to_string_lossy());
        }
    }
    Ok(0)
}
