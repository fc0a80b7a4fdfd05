//! What a device says of itself in several places, and whether the places agree. Nothing of it is believed before chain and signature hold.

use super::dice::{ALTERNATIVE_NAME_OID, DeviceName, FWID_OIDS, Firmware};
use super::evidence::Gpu;

/// A reason, for what holds or for what does not.
pub(super) type Outcome = Result<String, String>;

/// What the certificates say of a device, not believed yet.
pub(super) struct Device {
    pub name: DeviceName,
    pub model: String,
}

impl Device {
    /// Reads them from the first two certificates.
    pub fn of(gpu: &Gpu) -> Result<Self, String> {
        let [leaf, issuer, ..] = gpu.certificates.as_slice() else {
            return Err("there are fewer than two certificates".to_owned());
        };
        let name = leaf
            .extension(ALTERNATIVE_NAME_OID)
            .and_then(|name| DeviceName::parse(name.value).ok())
            .ok_or("the attestation certificate does not name a device of NVIDIA")?;
        let model = issuer.common_name().ok_or("the certificate of the chip has no name")?;
        Ok(Self { name, model })
    }
}

/// Versions that stand beside the report are for people, and have to be its own.
pub(super) fn stated_versions(gpu: &Gpu) -> Outcome {
    let opaque = &gpu.report.opaque;
    let pairs =
        [("driver", &gpu.stated_driver, &opaque.driver_version), ("VBIOS", &gpu.stated_vbios, &opaque.vbios_version)];
    for (what, stated, reported) in pairs {
        let Some(stated) = stated else { continue };
        if !reported.as_ref().is_some_and(|reported| reported.eq_ignore_ascii_case(stated)) {
            return Err(format!("the {what} version beside the report is not the report's"));
        }
    }
    Ok("versions beside the report, where there are any, are its own".to_owned())
}

/// Chip and family agree wherever they are named: switches hang on the same root, and their reports look the same.
pub(super) fn architecture(gpu: &Gpu, device: &Device) -> Outcome {
    let chip = &device.name.chip;
    if !gpu.architecture.has_chip(chip) {
        return Err(format!("the device is a {chip}, which is not {}", gpu.architecture.name()));
    }
    if device.model.split(' ').next() != Some(chip) {
        return Err(format!("the maker certified another chip ({}) than the device says ({chip})", device.model));
    }
    match &gpu.report.opaque.chip {
        Some(reported) if !reported.starts_with(chip.as_str()) => {
            Err(format!("the report is of another chip ({reported}) than the certificate ({chip})"))
        }
        _ => Ok(format!("{chip}, {}", gpu.architecture.name())),
    }
}

pub(super) fn firmware(gpu: &Gpu) -> Result<Firmware, String> {
    let leaf = gpu.certificates.first().ok_or("there is no certificate")?;
    let mut found = FWID_OIDS.iter().filter_map(|oid| leaf.extension(oid));
    let (Some(extension), None) = (found.next(), found.next()) else {
        return Err("the attestation certificate does not name its firmware once".to_owned());
    };
    Firmware::parse(extension.value)
        .map_err(|_| "the attestation certificate names its firmware in a form that is not known".to_owned())
}
