//! The node's disk, before the agent starts.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context as _, Result};
use starminer_attester::tpm::{TpmAddress, TpmSettings};
use starminer_attester::{DERIVED_KEY_BYTES, SevGuestFile, derived_key, derived_key_device};
use starminer_disk::{MachineKey, Settings, Unlocked};
use zeroize::Zeroizing;

use crate::mounts::{DISK, STATE};
use crate::settings::{NodeSettings, Storage};

/// What the image says about disks, if its maker approves successors. It is part of what is measured.
const POLICY: &str = "/etc/disk-policy.json";
/// Where the stub puts the section `.pcrsig`, which it does not measure.
const APPROVALS: &str = "/.extra/tpm2-pcr-signature.json";
/// Where the agent reads how the last start ended.
const START: &str = "/run/starminer/start.json";
/// How long a driver may take until the disk is there.
const DISK_TIMEOUT: Duration = Duration::from_secs(20);

/// Opens it, where the node's settings ask for one. One that does not open ends the start.
pub fn unlock(node: &NodeSettings) -> Result<Option<Unlocked>> {
    if node.storage == Storage::Memory {
        return Ok(None);
    }
    let refused = |error: starminer_disk::DiskError| {
        let (code, remedy) = (error.code(), error.remedy());
        let reason = anyhow::Error::new(error);
        anyhow::anyhow!("the disk is not opened [{code}]: {reason:#}; {remedy}")
    };
    let device = starminer_disk::find(Path::new("/"), DISK_TIMEOUT).map_err(refused)?;
    let settings = Settings {
        device,
        memory: STATE.into(),
        mount: DISK.into(),
        tpm: TpmSettings::new(TpmAddress::system()),
        machine: chip()?,
        policy: read(POLICY)?,
        approvals: read(APPROVALS)?,
    };
    let began = Instant::now();
    let disk = starminer_disk::unlock(&settings).map_err(refused)?;
    let took_ms = began.elapsed().as_millis();
    let what = if disk.formatted { "formatted" } else { "opened" };
    let taken = if disk.taken_over { ", taken over from an older security version" } else { "" };
    let repaired = if disk.repaired { ", its file system repaired" } else { "" };
    let last = if disk.ended_in_order { "" } else { ", the last start did not end in order" };
    crate::say(&format!("the disk is {what}: start {}{taken}{repaired}{last} (in {took_ms} ms)", disk.start));
    // For the node's posture. No text is in it that would have to be escaped.
    let start = format!("{{\"start\":{},\"last_ended_in_order\":{}}}", disk.start, disk.ended_in_order);
    fs::write(START, start).context(START)?;
    Ok(Some(disk))
}

/// A confidential guest's chip, which derives a key for it.
#[derive(Debug)]
struct SevSnp(SevGuestFile);

impl MachineKey for SevSnp {
    fn name(&self) -> &'static str {
        "sev-snp"
    }

    fn derive(&self) -> Result<Zeroizing<[u8; DERIVED_KEY_BYTES]>, String> {
        derived_key(&self.0).map_err(|error| format!("{:#}", anyhow::Error::new(error)))
    }
}

fn chip() -> Result<Option<Arc<dyn MachineKey>>> {
    let device = derived_key_device(Path::new("/")).context("/dev/sev-guest")?;
    Ok(device.map(|device| Arc::new(SevSnp(device)) as Arc<dyn MachineKey>))
}

fn read(path: &str) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        // Both are the image's, so that no bound is needed.
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(path.to_owned()),
    }
}
