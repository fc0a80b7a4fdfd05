//! An image as `image build` left it in a directory.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use starminer_hardware::event_log::Bank;
use starminer_hardware::predict::{MAX_IMAGE_BYTES, PeImage};
use starminer_image::MANIFEST_FORMAT;

use super::{IMAGE, MANIFEST, SIGNED};
use crate::cli::exit::Failure;
use crate::cli::reference::make::pe_failure;
use crate::cli::reference::read;

/// Longest manifest.
const MAX_MANIFEST_BYTES: usize = 1 << 20;

/// An image, held against its manifest.
pub struct Built {
    /// The file: the signed one where there is one.
    pub path: PathBuf,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// SHA-256 of the agent in it.
    pub agent: [u8; 32],
    version: String,
}

/// Of the manifest, what is asked for here.
#[derive(Deserialize)]
struct Manifest {
    format: String,
    builder: String,
    authenticode_sha256: String,
    inputs: Vec<Input>,
}

#[derive(Deserialize)]
struct Input {
    role: String,
    sha256: String,
}

impl Built {
    /// Reads image and manifest. The manifest's word counts for nothing that the image does not show.
    pub fn read(dir: &Path) -> Result<Self, Failure> {
        let place = dir.join(MANIFEST);
        let wrong = |reason: String| {
            let reason = format!("{}: {reason}", place.display());
            Failure::usage("image.manifest", reason, "give a directory that `starminer image build` made")
        };
        let manifest: Manifest =
            serde_json::from_slice(&read(&place, MAX_MANIFEST_BYTES)?).map_err(|error| wrong(error.to_string()))?;
        if manifest.format != MANIFEST_FORMAT {
            return Err(wrong(format!("not of the format {MANIFEST_FORMAT}")));
        }
        let path = Some(dir.join(SIGNED)).filter(|path| path.exists()).unwrap_or_else(|| dir.join(IMAGE));
        let bytes = read(&path, MAX_IMAGE_BYTES)?;
        let image = PeImage::parse(&bytes).map_err(|error| pe_failure(&path, &error))?;
        let measured = image.authenticode(Bank::Sha256);
        if measured.to_hex() != manifest.authenticode_sha256 {
            return Err(wrong(format!("it is of another image than {}", path.display())));
        }
        let section = image.sections().iter().find(|section| section.name() == b".initrd");
        let agent = section.and_then(|section| starminer_image::agent_digest(section.contents()));
        let agent = agent.ok_or_else(|| wrong(format!("there is no agent in {}", path.display())))?;
        let named = manifest.inputs.iter().find(|input| input.role == "agent");
        if named.is_none_or(|input| input.sha256 != data_encoding::HEXLOWER.encode(&agent)) {
            return Err(wrong(format!("it names another agent than the one in {}", path.display())));
        }
        Ok(Self { path, bytes, agent, version: manifest.builder })
    }

    /// What the image is called, for people.
    pub fn name(&self) -> String {
        format!("starminer-node {}", self.version)
    }
}
