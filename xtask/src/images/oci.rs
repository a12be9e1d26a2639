//! The OCI image layout of one image with one layer, as an archive that runtimes import. The image's names stand in the
//! annotation that containerd reads.
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An archive of the image `layer` + `configuration`, known by `names`.
///
/// # Errors
/// A name has no tag.
pub fn archive(names: &[&str], layer: &[u8], configuration: &Value) -> Result<Vec<u8>> {
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": configuration,
        "rootfs": { "type": "layers", "diff_ids": [digest(layer)] },
    });
    let config = serde_json::to_vec(&config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": [descriptor(LAYER, layer)],
    });
    let manifest = serde_json::to_vec(&manifest)?;
    let mut manifests = Vec::new();
    for name in names {
        let (_, tag) = name.rsplit_once(':').with_context(|| format!("{name} has no tag"))?;
        let mut entry = descriptor(MANIFEST, &manifest);
        entry["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
        manifests.push(entry);
    }
    let index = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": manifests }))?;
    let mut builder = Builder::new(Vec::new());
    append(&mut builder, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut builder, "index.json", &index)?;
    for blob in [layer, &config, &manifest] {
        append(&mut builder, &format!("blobs/sha256/{}", hex::encode(Sha256::digest(blob))), blob)?;
    }
    Ok(builder.into_inner()?)
}

/// `sha256:` and the digest in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn descriptor(kind: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": digest(blob), "size": blob.len() })
}

fn append(builder: &mut Builder<Vec<u8>>, path: &str, content: &[u8]) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    Ok(builder.append_data(&mut header, path, content)?)
}
