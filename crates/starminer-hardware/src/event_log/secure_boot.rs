//! What register 7 proves about Secure Boot (Platform Firmware Profile, section 3.3.4.8).
//!
//! Firmware measures `SecureBoot` first and the key databases next, and then a separator. After that anybody who runs may extend the register, and
//! before it drivers of the firmware may, so that what counts is the first `SecureBoot` alone, and only if every measurement before it is known.

use super::EventKind;
use super::coverage::{Coverage, Known};
use super::facts::Item;
use super::signature_list::{Signature, parse_signature_lists};
use super::variable::{Guid, Variable};

/// Whether Secure Boot was on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecureBootState {
    /// It was.
    Enabled,
    /// It was not.
    Disabled,
    /// The log does not prove either.
    Unknown,
}

/// Secure Boot, as register 7 proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecureBoot {
    /// On, off, or not known.
    pub state: SecureBootState,
    /// Why.
    pub reason: &'static str,
    /// `AuditMode`, where it was measured: images are recorded, and started whether signed or not.
    pub audit_mode: Option<bool>,
    /// `DeployedMode`, where it was measured.
    pub deployed_mode: Option<bool>,
    /// `SetupMode`, where it was measured.
    pub setup_mode: Option<bool>,
    /// A debugger of the firmware could be attached.
    pub firmware_debugger: bool,
    /// Devices could write to memory during boot.
    pub dma_protection_disabled: bool,
    /// Shim was told not to verify what it starts.
    pub shim_insecure: bool,
}

/// A key database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// No measurement of it is vouched for.
    Unknown,
    /// It was measured, and is not well formed.
    Unreadable,
    /// What it holds.
    Known(Vec<Signature>),
}

impl Database {
    /// What it holds; nothing where that is not known.
    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        match self {
            Self::Known(signatures) => signatures,
            Self::Unknown | Self::Unreadable => &[],
        }
    }
}

/// The key databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Databases {
    /// The platform key.
    pub pk: Database,
    /// Keys that may change `db` and `dbx`.
    pub kek: Database,
    /// What may run.
    pub db: Database,
    /// What may not.
    pub dbx: Database,
}

/// What verified an image: an entry of a database, or a key of shim's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The event.
    pub event: usize,
    /// Whose variable.
    pub vendor: Guid,
    /// The variable's name: `db`, `Shim`, `MokListRT`, `SbatLevel`, …
    pub variable: String,
    /// SHA-256 of the certificate, or of the contents if they are none.
    pub sha256: String,
    /// Whether it is an entry of the measured `db`, where that is known.
    pub in_db: Option<bool>,
    /// Whether firmware measured it after it had measured the databases.
    pub after_separator: bool,
    /// The contents, where they are a line of text (`SbatLevel`).
    pub text: Option<String>,
}

const MODES: [&str; 3] = ["AuditMode", "DeployedMode", "SetupMode"];

/// Whether every measurement of a register so far could be told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Certainty {
    Told,
    Unknown,
}

pub(super) struct Register7 {
    pub secure_boot: SecureBoot,
    pub databases: Databases,
    pub authorities: Vec<Authority>,
}

pub(super) fn examine(items: &[&Item<'_>]) -> Register7 {
    let mut databases =
        Databases { pk: Database::Unknown, kek: Database::Unknown, db: Database::Unknown, dbx: Database::Unknown };
    let mut authorities = Vec::new();
    let mut first: Option<(Option<bool>, Certainty)> = None;
    let mut modes = [None; 3];
    let mut before = Certainty::Told;
    let (mut separated, mut failed, mut contradicted) = (false, false, false);
    let seen = |wanted: Known| items.iter().any(|item| item.known == Some(wanted));
    let (firmware_debugger, dma_protection_disabled, shim_insecure) =
        (seen(Known::FirmwareDebugger), seen(Known::DmaProtectionDisabled), seen(Known::ShimInsecure));
    for item in items {
        match item.known {
            Some(Known::Separator) => separated = true,
            Some(Known::ErrorSeparator) => failed = true,
            None if !item.coverage.vouched() => before = Certainty::Unknown,
            _ => {}
        }
        // Contents alone, without the name, may be those of a variable that anybody can set.
        let whole = item.coverage == Coverage::Data
            || item.coverage == Coverage::Content && item.event.kind == EventKind::EFI_VARIABLE_AUTHORITY;
        let data = if whole { item.covered } else { &[] };
        let Some(variable) = Variable::parse(data) else { continue };
        let config = item.event.kind == EventKind::EFI_VARIABLE_DRIVER_CONFIG;
        if variable.is(Guid::GLOBAL_VARIABLE, "SecureBoot") {
            // Its type is a label, but firmware that means it would give it: a contradiction speaks against the log either way.
            let value = variable.boolean();
            match first {
                None if config && !separated => first = Some((value, before)),
                None => contradicted = true,
                Some((first, _)) => contradicted |= first != value,
            }
        } else if item.event.kind == EventKind::EFI_VARIABLE_AUTHORITY {
            authorities.push((item.event.index, separated, variable));
        } else if config && !separated && before == Certainty::Told {
            if let Some(database) = databases.named(&variable).filter(|database| **database == Database::Unknown) {
                *database = parse_signature_lists(variable.contents).map_or(Database::Unreadable, Database::Known);
            } else if variable.vendor == Guid::GLOBAL_VARIABLE
                && let Some(mode) = MODES.iter().position(|mode| *mode == variable.name)
            {
                modes[mode] = modes[mode].or(variable.boolean());
            }
        }
    }
    let [audit_mode, deployed_mode, setup_mode] = modes;
    let no_platform_key = databases.pk == Database::Known(Vec::new());
    let certain = first.is_none_or(|(_, before)| before == Certainty::Told);
    let (state, reason) = match first.and_then(|(value, _)| value) {
        _ if contradicted => {
            (SecureBootState::Unknown, "measurements of SecureBoot contradict each other or come too late")
        }
        None => (SecureBootState::Unknown, "no measurement of SecureBoot in register 7 is vouched for"),
        _ if !certain => (SecureBootState::Unknown, "before SecureBoot, register 7 got what cannot be told"),
        Some(false) => (SecureBootState::Disabled, "SecureBoot is 0 in register 7"),
        Some(true) if failed => (SecureBootState::Unknown, "firmware reports an error in register 7"),
        Some(true) if !separated => (SecureBootState::Unknown, "no separator follows SecureBoot in register 7"),
        Some(true) if audit_mode == Some(true) || setup_mode == Some(true) || no_platform_key => {
            (SecureBootState::Unknown, "SecureBoot is 1, but so is AuditMode or SetupMode, or there is no platform key")
        }
        Some(true) => (SecureBootState::Enabled, "SecureBoot is 1 in register 7, before the separator"),
    };
    let authorities = authorities
        .into_iter()
        .map(|(event, after_separator, variable)| describe_authority(event, after_separator, &variable, &databases.db))
        .collect();
    let secure_boot = SecureBoot {
        state,
        reason,
        audit_mode,
        deployed_mode,
        setup_mode,
        firmware_debugger,
        dma_protection_disabled,
        shim_insecure,
    };
    Register7 { secure_boot, databases, authorities }
}

impl Databases {
    fn named(&mut self, variable: &Variable<'_>) -> Option<&mut Database> {
        match (variable.vendor, variable.name.as_str()) {
            (Guid::GLOBAL_VARIABLE, "PK") => Some(&mut self.pk),
            (Guid::GLOBAL_VARIABLE, "KEK") => Some(&mut self.kek),
            (Guid::IMAGE_SECURITY_DATABASE, "db") => Some(&mut self.db),
            (Guid::IMAGE_SECURITY_DATABASE, "dbx") => Some(&mut self.dbx),
            _ => None,
        }
    }
}

fn describe_authority(event: usize, after_separator: bool, variable: &Variable<'_>, db: &Database) -> Authority {
    // `EFI_SIGNATURE_DATA`: the owner, then a certificate; shim leaves the owner out for its own.
    let contents = match variable.contents.split_first_chunk::<16>() {
        Some((_, certificate)) if certificate.starts_with(&[0x30, 0x82]) => certificate,
        _ => variable.contents,
    };
    let sha256 = super::Bank::Sha256.hash(&[contents]).to_hex();
    let in_db = match db {
        Database::Known(signatures) => Some(signatures.iter().any(|signature| signature.fingerprint() == sha256)),
        Database::Unknown | Database::Unreadable => None,
    };
    let text = std::str::from_utf8(contents)
        .ok()
        .filter(|text| text.len() <= 256 && text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)))
        .map(|text| text.trim_end().to_owned());
    let variable_name = variable.name.clone();
    Authority { event, vendor: variable.vendor, variable: variable_name, sha256, in_db, after_separator, text }
}
