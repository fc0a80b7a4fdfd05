//! What verified evidence says.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::evidence::{Architecture, Gpu};
use super::opaque::{FWID_LEN, Mode, Switch};
use super::rim::{Rim, RimKind};
use super::spdm::NONCE_LEN;
use crate::cert::{Chain, Provenance};

/// What verified evidence says, for all GPUs in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Each GPU, in the order of the evidence.
    pub gpus: Vec<GpuClaims>,
    /// The manifests that were given and verified.
    pub rims: Vec<RimClaims>,
    /// Simulated where any GPU's or manifest's is.
    pub provenance: Provenance,
}

/// What one GPU says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuClaims {
    /// The family.
    pub architecture: Architecture,
    /// The chip: `GH100`.
    pub chip: String,
    /// Chip, stepping and the part of it that attests, as the maker certified it: `GH100 A01 GSP BROM`.
    pub model: String,
    /// The device's serial number, by which its certificate names it: `48B02DF44660DA06`.
    pub device: String,
    /// Serial number of the attestation certificate: NVIDIA's tools call it `ueid`.
    pub ueid: Vec<u8>,
    /// The nonce that the report was asked with.
    pub nonce: [u8; NONCE_LEN],
    /// Version of the driver.
    pub driver_version: Option<String>,
    /// Version of the VBIOS, in lower case.
    pub vbios_version: Option<String>,
    /// The board's project.
    pub project: Option<String>,
    /// Its variant.
    pub project_sku: Option<String>,
    /// The chip's variant.
    pub chip_sku: Option<String>,
    /// The board.
    pub board_id: Option<u32>,
    /// Digest of the firmware that holds the attestation key. Equal in certificate and report where both state it.
    pub fwid: Option<[u8; FWID_LEN]>,
    /// How confidential computing is set up. Older drivers do not say.
    pub mode: Option<Mode>,
    /// Whether protected PCIe is on.
    pub protected_pcie: Option<bool>,
    /// Whether the video decoder whose measurement has index 35 is on.
    pub nvdec0: Option<bool>,
    /// The switches that the GPU is linked with.
    pub switch_devices: Vec<[u8; 8]>,
    /// Measurements by the index of the report, which begins at 1.
    pub measurements: BTreeMap<u8, Vec<u8>>,
    /// Seconds since 1970 until which all certificates are valid.
    pub not_after_s: i64,
    /// Who stands behind the root.
    pub provenance: Provenance,
}

/// What one manifest is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RimClaims {
    /// Driver or VBIOS.
    pub kind: RimKind,
    /// The version that it is for, in lower case.
    pub version: String,
    /// The chip that it is for.
    pub product: String,
    /// The identity of the tag.
    pub tag_id: String,
    /// Seconds since 1970 until which all certificates are valid.
    pub not_after_s: i64,
    /// Who stands behind the root.
    pub provenance: Provenance,
}

impl GpuClaims {
    pub(super) fn new(gpu: &Gpu, chain: &Chain, name: &super::dice::DeviceName, model: String) -> Self {
        let opaque = &gpu.report.opaque;
        let on = |switch: Option<Switch>| switch.map(|switch| switch == Switch::On);
        Self {
            architecture: gpu.architecture,
            chip: name.chip.clone(),
            model,
            device: name.serial.clone(),
            ueid: chain.leaf().serial().to_vec(),
            nonce: gpu.report.request_nonce,
            driver_version: opaque.driver_version.clone(),
            vbios_version: opaque.vbios_version.clone(),
            project: opaque.project.clone(),
            project_sku: opaque.project_sku.clone(),
            chip_sku: opaque.chip_sku.clone(),
            board_id: opaque.board_id,
            fwid: opaque.fwid,
            mode: opaque.mode,
            protected_pcie: on(opaque.protected_pcie),
            nvdec0: on(opaque.nvdec0),
            switch_devices: opaque.switch_pdis.clone().unwrap_or_default(),
            measurements: gpu.report.measurements.iter().map(|(index, block)| (*index, block.value.clone())).collect(),
            not_after_s: chain.not_after_s(),
            provenance: chain.provenance(),
        }
    }

    fn to_json(&self) -> Value {
        let measurements: serde_json::Map<String, Value> =
            self.measurements.iter().map(|(index, value)| (index.to_string(), HEXLOWER.encode(value).into())).collect();
        json!({
            "arch": self.architecture.name(),
            "chip": self.chip,
            "model": self.model,
            "device": self.device,
            "ueid": HEXLOWER.encode(&self.ueid),
            "nonce": HEXLOWER.encode(&self.nonce),
            "driver_version": self.driver_version,
            "vbios_version": self.vbios_version,
            "project": self.project,
            "project_sku": self.project_sku,
            "chip_sku": self.chip_sku,
            "board_id": self.board_id,
            "fwid": self.fwid.map(|fwid| HEXLOWER.encode(&fwid)),
            "cc_mode": self.mode.map(Mode::name),
            "protected_pcie": self.protected_pcie,
            "nvdec0": self.nvdec0,
            "switch_devices": self.switch_devices.iter().map(|device| HEXLOWER.encode(device)).collect::<Vec<_>>(),
            "measurements": measurements,
            "not_after_s": self.not_after_s,
            "provenance": self.provenance.name(),
        })
    }
}

impl RimClaims {
    pub(super) fn new(rim: &Rim, chain: &Chain) -> Self {
        Self {
            kind: rim.kind,
            version: rim.version.clone(),
            product: rim.product.clone(),
            tag_id: rim.tag_id.clone(),
            not_after_s: chain.not_after_s(),
            provenance: chain.provenance(),
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "kind": self.kind.name(),
            "version": self.version,
            "product": self.product,
            "tag_id": self.tag_id,
            "not_after_s": self.not_after_s,
            "provenance": self.provenance.name(),
        })
    }
}

impl Claims {
    /// The claims as JSON: hexadecimal in lower case, what is not stated `null`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut json = json!({
            "gpus": self.gpus.iter().map(GpuClaims::to_json).collect::<Vec<_>>(),
            "rims": self.rims.iter().map(RimClaims::to_json).collect::<Vec<_>>(),
            "provenance": self.provenance.name(),
        });
        if let Provenance::Simulated { root } = self.provenance {
            json["simulated_root"] = HEXLOWER.encode(&root).into();
        }
        json
    }
}
