//! What went into an image: the same for the same inputs, wherever they lay.

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde::Serialize;
use starminer_hardware::event_log::Bank;
use starminer_hardware::predict::{PeImage, pcr::unified_kernel_image};
use starminer_hardware::tpm::approval::DiskPolicy;

use crate::ImageError;

/// The first field of a manifest.
pub const MANIFEST_FORMAT: &str = "starminer-image/1";

/// One file that went in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Input {
    /// What it is for.
    pub role: &'static str,
    /// Its name, without the directories that it lay in.
    pub file: String,
    /// Length.
    pub size_bytes: usize,
    /// SHA-256, hex.
    pub sha256: String,
}

impl Input {
    pub(crate) fn new(role: &'static str, path: &Path, contents: &[u8]) -> Self {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { role, file, size_bytes: contents.len(), sha256: sha256(contents) }
    }
}

/// One section that was added to the stub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// Length.
    pub size_bytes: usize,
    /// SHA-256, hex.
    pub sha256: String,
}

/// An image and all that went in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: &'static str,
    /// Version of the program that built it.
    pub builder: &'static str,
    /// SHA-256 of the image without a signature, hex.
    pub sha256: String,
    /// What firmware measures and what a signature is over (Authenticode, SHA-256), hex: the same before and after signing.
    pub authenticode_sha256: String,
    /// The kernel's command line.
    pub command_line: String,
    /// Whose approval lets successors open disks that it sealed, if anybody's: SHA-256 of the key, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_key_sha256: Option<String>,
    /// Holes that were closed before it: disks of images with a higher one do not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_version: Option<u32>,
    /// In their order in the image.
    pub sections: Vec<Section>,
    /// Files that went in; modules in the order in which they are loaded.
    pub inputs: Vec<Input>,
}

impl Manifest {
    pub(crate) fn new(
        image: &[u8],
        sections: &[(&'static str, &[u8])],
        inputs: Vec<Input>,
        command_line: &str,
        policy: Option<&DiskPolicy>,
    ) -> Result<Self, ImageError> {
        let section = |(name, contents): &(&'static str, &[u8])| Section {
            name,
            size_bytes: contents.len(),
            sha256: sha256(contents),
        };
        Ok(Self {
            format: MANIFEST_FORMAT,
            builder: env!("CARGO_PKG_VERSION"),
            sha256: sha256(image),
            authenticode_sha256: authenticode(image)?,
            command_line: command_line.into(),
            policy_key_sha256: policy.map(|policy| sha256(&policy.key.to_spki())),
            security_version: policy.map(|policy| policy.security_version),
            sections: sections.iter().map(section).collect(),
            inputs,
        })
    }

    /// As it is written down.
    ///
    /// # Panics
    /// Never: there is nothing in it that JSON does not have.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string_pretty(self).expect("a manifest is text and numbers") + "\n"
    }
}

/// What the stub measures of an image into register 11.
pub(crate) fn register_11(image: &[u8]) -> Result<[u8; 32], ImageError> {
    let inconsistent = |error: String| ImageError::Inconsistent(error);
    let image = PeImage::parse(image).map_err(|error| inconsistent(error.to_string()))?;
    let value = unified_kernel_image(Bank::Sha256, &image, &[]).map_err(|error| inconsistent(error.to_string()))?;
    value.as_bytes().try_into().map_err(|_| inconsistent("a register of another length".into()))
}

/// What firmware measures of an image.
pub(crate) fn authenticode(image: &[u8]) -> Result<String, ImageError> {
    let image = PeImage::parse(image).map_err(|error| ImageError::Inconsistent(error.to_string()))?;
    Ok(HEXLOWER.encode(image.authenticode(Bank::Sha256).as_bytes()))
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, bytes).as_ref())
}
