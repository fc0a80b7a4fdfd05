//! The opaque data of a report: what NVIDIA states beside the measurements, as fields of type, length and value.
//!
//! Types and encodings are those of NVIDIA's own verifiers. A type that is not known is kept as it is: the GPU signed it, and nothing is decided by it.

use std::collections::BTreeMap;

use super::evidence::ParseError;
use super::spdm::Reader;

/// Most fields that are read.
pub const MAX_FIELDS: usize = 64;

const DRIVER_VERSION: u16 = 3;
const GPU_INFO: u16 = 4;
const VBIOS_VERSION: u16 = 6;
const NVDEC0: u16 = 11;
const MEASUREMENT_COUNT: u16 = 12;
const CPR_INFO: u16 = 13;
const BOARD_ID: u16 = 14;
const CHIP_SKU: u16 = 15;
const CHIP_SKU_MOD: u16 = 16;
const PROJECT: u16 = 17;
const PROJECT_SKU: u16 = 18;
const PROJECT_SKU_MOD: u16 = 19;
const FWID: u16 = 20;
const PROTECTED_PCIE: u16 = 21;
const SWITCH_PDI: u16 = 22;
const OPAQUE_DATA_VERSION: u16 = 34;
const CHIP_INFO: u16 = 35;
const FEATURE_FLAG: u16 = 36;

/// Bytes of a firmware id: one SHA-384.
pub const FWID_LEN: usize = 48;

/// A thing that a GPU states to be on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    /// 0xaa.
    On,
    /// 0x55.
    Off,
}

/// How confidential computing is set up on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// One GPU passed through to one confidential VM, its links closed.
    SinglePassthrough,
    /// Several GPUs passed through to one confidential VM, the links between them encrypted.
    MultiPassthrough,
    /// Protected PCIe: the link to the CPU is protected, the links between GPUs are open.
    ProtectedPcie,
}

impl Mode {
    /// The name in JSON and policies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SinglePassthrough => "single-passthrough",
            Self::MultiPassthrough => "multi-passthrough",
            Self::ProtectedPcie => "protected-pcie",
        }
    }
}

/// Parsed opaque data. What a report does not state is `None`: older drivers state less.
#[derive(Debug, Clone, Default)]
pub(super) struct Opaque {
    pub driver_version: Option<String>,
    /// As people write it: `96.00.a5.00.01`.
    pub vbios_version: Option<String>,
    pub board_id: Option<u32>,
    pub chip_sku: Option<String>,
    pub chip_sku_mod: Option<String>,
    pub project: Option<String>,
    pub project_sku: Option<String>,
    pub project_sku_mod: Option<String>,
    pub fwid: Option<[u8; FWID_LEN]>,
    pub gpu_info: Option<Vec<u8>>,
    pub cpr_info: Option<Vec<u8>>,
    pub measurement_counts: Option<Vec<u32>>,
    pub nvdec0: Option<Switch>,
    pub protected_pcie: Option<Switch>,
    pub switch_pdis: Option<Vec<[u8; 8]>>,
    pub version: Option<u16>,
    pub chip: Option<String>,
    pub mode: Option<Mode>,
    /// Fields of types that are not known, as they are.
    pub others: BTreeMap<u16, Vec<u8>>,
}

impl Opaque {
    /// Reads all fields. A type may stand once.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader(bytes);
        let mut fields = BTreeMap::new();
        while !reader.0.is_empty() {
            let kind = reader.u16("opaque field")?;
            let len = usize::from(reader.u16("opaque field")?);
            let value = reader.take("opaque field", len)?;
            if fields.insert(kind, value).is_some() {
                return Err(ParseError::Opaque { kind, problem: "it stands twice" });
            }
            if fields.len() > MAX_FIELDS {
                return Err(ParseError::TooLarge { what: "opaque data (fields)", limit: MAX_FIELDS });
            }
        }
        let mut opaque = Self::default();
        for (kind, value) in fields {
            opaque.set(kind, value).map_err(|problem| ParseError::Opaque { kind, problem })?;
        }
        Ok(opaque)
    }

    fn set(&mut self, kind: u16, value: &[u8]) -> Result<(), &'static str> {
        match kind {
            DRIVER_VERSION => self.driver_version = Some(text(value)?),
            VBIOS_VERSION => self.vbios_version = Some(vbios_version(array(value)?)?),
            BOARD_ID => self.board_id = Some(u32::from_le_bytes(array(value)?)),
            CHIP_SKU => self.chip_sku = Some(text(value)?),
            CHIP_SKU_MOD => self.chip_sku_mod = Some(text(value)?),
            PROJECT => self.project = Some(text(value)?),
            PROJECT_SKU => self.project_sku = Some(text(value)?),
            PROJECT_SKU_MOD => self.project_sku_mod = Some(text(value)?),
            FWID => self.fwid = Some(array(value)?),
            GPU_INFO => self.gpu_info = Some(value.to_vec()),
            CPR_INFO => self.cpr_info = Some(value.to_vec()),
            MEASUREMENT_COUNT => {
                self.measurement_counts = Some(chunks(value)?.into_iter().map(u32::from_le_bytes).collect());
            }
            NVDEC0 => self.nvdec0 = Some(switch(value)?),
            PROTECTED_PCIE => self.protected_pcie = Some(switch(value)?),
            SWITCH_PDI => self.switch_pdis = Some(chunks(value)?),
            OPAQUE_DATA_VERSION => self.version = Some(u16::from_le_bytes(array(value)?)),
            CHIP_INFO => self.chip = Some(text(value)?),
            FEATURE_FLAG => self.mode = Some(mode(u16::from_le_bytes(array(value)?))?),
            other => {
                self.others.insert(other, value.to_vec());
            }
        }
        Ok(())
    }
}

fn array<const N: usize>(value: &[u8]) -> Result<[u8; N], &'static str> {
    value.try_into().map_err(|_| "it has another length than its type")
}

fn chunks<const N: usize>(value: &[u8]) -> Result<Vec<[u8; N]>, &'static str> {
    let (chunks, rest) = value.as_chunks();
    if rest.is_empty() { Ok(chunks.to_vec()) } else { Err("its length is no multiple of its elements'") }
}

/// ASCII up to the first NUL; after it, only NULs.
fn text(value: &[u8]) -> Result<String, &'static str> {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    let (text, padding) = value.split_at(end);
    if padding.iter().any(|&byte| byte != 0) {
        return Err("bytes follow the end of its text");
    }
    if !text.iter().all(|&byte| byte.is_ascii_graphic() || byte == b' ') {
        return Err("it is not printable ASCII");
    }
    Ok(text.iter().map(|&byte| char::from(byte)).collect())
}

fn switch(value: &[u8]) -> Result<Switch, &'static str> {
    match value {
        [0xaa] => Ok(Switch::On),
        [0x55] => Ok(Switch::Off),
        _ => Err("it is neither on (aa) nor off (55)"),
    }
}

fn mode(value: u16) -> Result<Mode, &'static str> {
    match value {
        0 => Ok(Mode::SinglePassthrough),
        1 => Ok(Mode::MultiPassthrough),
        2 => Ok(Mode::ProtectedPcie),
        _ => Err("it is no mode that is known"),
    }
}

/// Two little-endian words: four parts of the version in the first, the fifth in the lowest byte of the second.
fn vbios_version(value: [u8; 8]) -> Result<String, &'static str> {
    let [d, c, b, a, e, 0, 0, 0] = value else { return Err("its reserved bytes are not zero") };
    Ok(format!("{a:02x}.{b:02x}.{c:02x}.{d:02x}.{e:02x}"))
}
