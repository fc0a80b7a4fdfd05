//! All registers of one boot, and the components behind them by which a mismatch is explained.

use std::collections::BTreeMap;

use starminer_hardware::event_log::{Bank, Digest, Guid, Variable};
use starminer_hardware::predict::PeImage;
use starminer_hardware::predict::pcr::{self, UkiError};

use super::credentials::{self, Credentials};
use super::firmware::{FirmwareError, Machine, Volumes};
use super::variables::{Variables, VariablesError};

/// The version of the stub whose register 4, 9 and 12 are known: it enters the kernel by itself, so that firmware measures one program.
pub const STUB_VERSION: u32 = 252;

/// What is started, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub struct Boot<'a> {
    /// The image, signed where register 7 is asked for.
    pub image: &'a PeImage<'a>,
    /// The firmware and the machine that it finds.
    pub firmware: Option<(&'a Volumes, Machine)>,
    /// The firmware's variables.
    pub variables: Option<&'a Variables>,
    /// What the host tells the node.
    pub credentials: Option<&'a Credentials>,
}

/// One thing that is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// The register.
    pub register: u8,
    /// What it is: the name of a section of the image, or words.
    pub name: String,
    /// The digest that is extended into the register.
    pub digest: Digest,
}

/// What is told of a boot, in the bank of SHA-256.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// Registers by number; those that nothing tells are not there.
    pub registers: BTreeMap<u8, Digest>,
    /// What is behind them.
    pub components: Vec<Component>,
}

/// Why a boot cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeasureError {
    /// The image.
    #[error(transparent)]
    Image(#[from] UkiError),
    /// The firmware.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The variables.
    #[error(transparent)]
    Variables(#[from] VariablesError),
}

impl MeasureError {
    /// A stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Image(error) => error.code(),
            Self::Firmware(error) => error.code(),
            Self::Variables(error) => error.code(),
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Image(_) => "give an image that `starminer image build` made",
            Self::Firmware(error) => error.remedy(),
            Self::Variables(error) => error.remedy(),
        }
    }
}

/// Tells what registers will hold.
///
/// # Errors
/// Every variant of [`MeasureError`].
pub fn expect(boot: &Boot<'_>) -> Result<Expected, MeasureError> {
    const BANK: Bank = Bank::Sha256;
    let mut expected = Expected::default();
    let mut component = |register: u8, name: &str, digest: Digest| {
        expected.components.push(Component { register, name: name.to_owned(), digest });
    };
    if let Some((volumes, machine)) = boot.firmware {
        let events = volumes.events(machine)?;
        component(0, "firmware, first volume", events[1]);
        component(0, "firmware, second volume", events[2]);
        expected.registers.insert(0, pcr::extend_all(BANK, &events));
    }
    if boot.firmware.is_some() {
        // No card of such a machine brings firmware of its own: the separator alone.
        expected.registers.insert(2, pcr::extend_all(BANK, &[BANK.hash(&[&[0; 4]])]));
    }
    if let Some(variables) = boot.variables {
        let entry = variables.authority(boot.image)?;
        let authority = Variable { vendor: Guid::IMAGE_SECURITY_DATABASE, name: "db".to_owned(), contents: &entry };
        expected.registers.insert(7, pcr::secure_boot(BANK, &variables.secure_boot()?, &[authority]));
    }
    expected.registers.insert(11, pcr::unified_kernel_image(BANK, boot.image, &[])?);
    let section = |name: &str| {
        let found = boot.image.sections().iter().find(|section| section.name() == name.as_bytes());
        found.map(|section| section.contents())
    };
    for name in [".linux", ".osrel", ".cmdline", ".initrd"] {
        if let Some(contents) = section(name) {
            component(11, name, BANK.hash(&[contents]));
        }
    }
    if pcr::stub_version(boot.image) == Some(STUB_VERSION) {
        component(4, "image", boot.image.authenticode(BANK));
        expected.registers.insert(4, pcr::boot_programs(BANK, &[boot.image]));
        if let Some(told) = boot.credentials {
            let command_line = String::from_utf8_lossy(section(".cmdline").unwrap_or_default());
            let events = credentials::kernel_events(&command_line, section(".initrd").unwrap_or_default(), told);
            expected.registers.insert(9, pcr::extend_all(BANK, &events));
            expected.registers.insert(12, credentials::register_12(told));
        }
    }
    Ok(expected)
}
