//! Registers of a TPM that follow from files: 4 from boot programs, 7 from Secure Boot's variables, 11 from a unified kernel image.
//!
//! Sources: TCG PC Client Platform Firmware Profile 1.06, sections 2.3.4 and 7.2; `Tcg2Dxe` of edk2 for the order of events; systemd's
//! `TPM2 PCR Measurements` for register 11. Real firmware may measure more (option ROMs, other boot attempts): a prediction holds for a boot that goes
//! straight to the programs named. Registers 0 to 3, 5 and 6 are the machine's, and come from a recorded log or a list of values.

use super::pe::{PeImage, PeSection};
use crate::event_log::{Bank, Digest, Guid, Variable};

/// What firmware measures when it is done with itself.
pub const SEPARATOR: &[u8] = &[0; 4];
/// What firmware measures before it tries a boot option.
pub const CALLING_BOOT_OPTION: &[u8] = b"Calling EFI Application from Boot Option";
/// What firmware measures when the kernel takes over.
pub const EXIT_BOOT_SERVICES: &[u8] = b"Exit Boot Services Invocation";
/// What firmware measures when that went well.
pub const EXIT_BOOT_SERVICES_DONE: &[u8] = b"Exit Boot Services Returned with Success";

/// Sections of a unified kernel image that systemd's stub measures, in its order. `.pcrsig` signs what results, so it is not measured.
const MEASURED_SECTIONS: [&str; 10] =
    [".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey"];
/// Those of them that stubs before [`FIRST_OF_ALL_SECTIONS`] pass over. Such stubs have a `.sbat` of their own.
const LATER_SECTIONS: [&str; 2] = [".uname", ".sbat"];
/// The first version of the stub that measures all of [`MEASURED_SECTIONS`].
const FIRST_OF_ALL_SECTIONS: u32 = 254;
/// What stands before the version in a stub's section `.sdmagic`.
const STUB_MARK: &[u8] = b"LoaderInfo: systemd-stub ";
/// Sections of which an image may have several to choose from when it starts, so that the file does not say what will be measured.
const CHOSEN_SECTIONS: [&str; 4] = [".profile", ".dtbauto", ".hwids", ".efifw"];

/// The words that systemd extends into register 11 as a boot goes on.
pub const PHASES: [&str; 4] = ["enter-initrd", "leave-initrd", "sysinit", "ready"];

/// Longest run of zeroes behind a section.
const MAX_ZEROES: usize = 64 << 20;

/// Why an image gives no value of register 11.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UkiError {
    /// Without `.linux`.
    #[error("no unified kernel image: it has no section .linux")]
    NoKernel,
    /// A measured section comes twice.
    #[error("section {0} comes twice")]
    Twice(&'static str),
    /// The stub chooses among its sections when it starts.
    #[error("section {0} is chosen by the machine, so that what is measured is not in the file alone")]
    Chosen(&'static str),
    /// Far larger in memory than in the file.
    #[error("section {0} is too large in memory")]
    TooLarge(&'static str),
}

impl UkiError {
    /// A stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoKernel => "uki.no-kernel",
            Self::Twice(_) => "uki.twice",
            Self::Chosen(_) => "uki.chosen",
            Self::TooLarge(_) => "uki.too-large",
        }
    }
}

/// What a register holds once these digests are extended into it, in order; it starts from zeroes.
#[must_use]
pub fn extend_all(bank: Bank, digests: &[Digest]) -> Digest {
    digests.iter().fold(Digest::filled(bank, 0), |register, digest| register.extended(digest.as_bytes()))
}

/// Register 4: that a boot option is tried, the separator, and each boot program by its Authenticode digest, in the order in which they are started.
/// A unified kernel image counts once, and once more for the kernel within (`.linux`) where its stub has the firmware load it.
#[must_use]
pub fn boot_programs(bank: Bank, programs: &[&PeImage<'_>]) -> Digest {
    let marks = [CALLING_BOOT_OPTION, SEPARATOR].map(|mark| bank.hash(&[mark]));
    let programs = programs.iter().map(|image| image.authenticode(bank));
    extend_all(bank, &marks.into_iter().chain(programs).collect::<Vec<_>>())
}

/// Register 11: each measured section of a unified kernel image by name and contents, then the phases of the boot.
///
/// # Errors
/// Every variant of [`UkiError`].
pub fn unified_kernel_image(bank: Bank, image: &PeImage<'_>, phases: &[&str]) -> Result<Digest, UkiError> {
    let find = |name: &'static str| {
        let mut found = image.sections().iter().filter(move |section| section.name() == name.as_bytes());
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(UkiError::Twice(name)),
            (section, None) => Ok(section),
        }
    };
    for name in CHOSEN_SECTIONS {
        if image.sections().iter().any(|section| section.name() == name.as_bytes()) {
            return Err(UkiError::Chosen(name));
        }
    }
    if find(".linux")?.is_none() {
        return Err(UkiError::NoKernel);
    }
    // An image that does not say which stub it has is taken for a recent one.
    let measures_all = stub_version(image).is_none_or(|version| version >= FIRST_OF_ALL_SECTIONS);
    let mut digests = Vec::new();
    for name in MEASURED_SECTIONS.into_iter().filter(|name| measures_all || !LATER_SECTIONS.contains(name)) {
        if let Some(section) = find(name)? {
            digests.extend([bank.hash(&[name.as_bytes(), &[0]]), in_memory(bank, section, name)?]);
        }
    }
    digests.extend(phases.iter().map(|phase| bank.hash(&[phase.as_bytes()])));
    Ok(extend_all(bank, &digests))
}

/// The version of the stub, before the first dot, where it says one.
#[must_use]
pub fn stub_version(image: &PeImage<'_>) -> Option<u32> {
    let magic = image.sections().iter().find(|section| section.name() == b".sdmagic")?.contents();
    let at = magic.windows(STUB_MARK.len()).position(|window| window == STUB_MARK)? + STUB_MARK.len();
    let digits: Vec<u8> = magic[at..].iter().copied().take_while(u8::is_ascii_digit).take(6).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

/// The digest of a section as it stands in memory.
fn in_memory(bank: Bank, section: &PeSection<'_>, name: &'static str) -> Result<Digest, UkiError> {
    const ZEROES: [u8; 4096] = [0; 4096];
    let mut zeroes = section.zeroes();
    if zeroes > MAX_ZEROES {
        return Err(UkiError::TooLarge(name));
    }
    let mut parts = vec![section.contents()];
    while zeroes > 0 {
        let run = zeroes.min(ZEROES.len());
        parts.push(&ZEROES[..run]);
        zeroes -= run;
    }
    Ok(bank.hash(&parts))
}

/// Secure Boot's variables, as they stand in the firmware; empty where one is not set.
#[derive(Debug, Clone, Copy, Default)]
pub struct SecureBootVariables<'a> {
    /// `SecureBoot`: one byte, 1 where it is on; empty where the firmware has no such variable.
    pub secure_boot: &'a [u8],
    /// `PK`.
    pub pk: &'a [u8],
    /// `KEK`.
    pub kek: &'a [u8],
    /// `db`.
    pub db: &'a [u8],
    /// `dbx`.
    pub dbx: &'a [u8],
}

/// Register 7: the variables, the separator, and each entry of a database that let a boot program start, once, in the order in which they did
/// (`EFI_SIGNATURE_DATA`: owner and certificate; shim adds `Shim`, `MokList` and its own variables alike).
#[must_use]
pub fn secure_boot(bank: Bank, variables: &SecureBootVariables<'_>, authorities: &[Variable<'_>]) -> Digest {
    let configured = [
        (Guid::GLOBAL_VARIABLE, "SecureBoot", variables.secure_boot),
        (Guid::GLOBAL_VARIABLE, "PK", variables.pk),
        (Guid::GLOBAL_VARIABLE, "KEK", variables.kek),
        (Guid::IMAGE_SECURITY_DATABASE, "db", variables.db),
        (Guid::IMAGE_SECURITY_DATABASE, "dbx", variables.dbx),
    ];
    let measured = |vendor, name: &str, contents| bank.hash(&[&Variable::encode(vendor, name, contents)]);
    let mut digests: Vec<_> = configured.into_iter().map(|(vendor, name, held)| measured(vendor, name, held)).collect();
    digests.push(bank.hash(&[SEPARATOR]));
    digests.extend(authorities.iter().map(|entry| measured(entry.vendor, &entry.name, entry.contents)));
    extend_all(bank, &digests)
}
