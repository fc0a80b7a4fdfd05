//! What a verified log proves, as JSON and one by one.

use serde_json::{Map, Value, json};

use super::coverage::Coverage;
use super::facts::{Layout, Measured, Section};
use super::parse::Format;
use super::pcrs::PcrValues;
use super::secure_boot::{Authority, Database, Databases, SecureBoot, SecureBootState};
use super::signature_list::Entry;
use super::verify::Verified;

impl Verified {
    /// Values of registers that the log leads to.
    #[must_use]
    pub const fn pcrs(&self) -> &PcrValues {
        &self.replayed
    }

    /// Register 0 as a TPM holds it that was started from the locality that the log names, where [`Self::pcrs`] has the other reading.
    #[must_use]
    pub const fn pcrs_with_startup_locality(&self) -> &PcrValues {
        &self.profile_register_0
    }

    /// Whether registers were given that the log leads to; else it is its own word.
    #[must_use]
    pub const fn anchored(&self) -> bool {
        self.anchored.is_some()
    }

    /// Secure Boot, as register 7 proves it.
    #[must_use]
    pub const fn secure_boot(&self) -> &SecureBoot {
        &self.facts.secure_boot
    }

    /// The key databases.
    #[must_use]
    pub const fn databases(&self) -> &Databases {
        &self.facts.databases
    }

    /// What verified the images that were started.
    #[must_use]
    pub fn authorities(&self) -> &[Authority] {
        &self.facts.authorities
    }

    /// What was started: everything in register 4 that could be an image.
    #[must_use]
    pub fn boot_applications(&self) -> &[Measured] {
        &self.facts.applications
    }

    /// Drivers and option ROMs: everything in register 2 that could be an image.
    #[must_use]
    pub fn option_roms(&self) -> &[Measured] {
        &self.facts.option_roms
    }

    /// What firmware measured of itself, register 0: volumes, by their digests.
    #[must_use]
    pub fn firmware(&self) -> &[Measured] {
        &self.facts.firmware
    }

    /// Sections of a unified kernel image, register 11.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.facts.sections
    }

    /// The claims in JSON; `specs/hardware.md` lists them.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let facts = &self.facts;
        let boot = &facts.secure_boot;
        let exit = &facts.exit_boot_services;
        json!({
            "format": match self.format { Format::Legacy => "legacy", Format::CryptoAgile => "crypto-agile" },
            "registers": match self.layout { Layout::Tpm => "tpm", Layout::ConfidentialVm => "confidential-vm" },
            "pcrs": self.replayed.to_json(),
            "pcrs_with_startup_locality": self.profile_register_0.to_json(),
            "anchored": self.anchored.as_ref().map_or(Value::Null, |anchored| {
                anchored.iter().map(|(register, banks)| {
                    let banks: Vec<_> = banks.iter().map(|bank| bank.name()).collect();
                    (register.to_string(), banks.into())
                }).collect::<Map<_, _>>().into()
            }),
            "startup_locality": self.startup_locality,
            "padding_bytes": self.padding_bytes,
            "secure_boot": match boot.state {
                SecureBootState::Enabled => Value::Bool(true),
                SecureBootState::Disabled => Value::Bool(false),
                SecureBootState::Unknown => Value::Null,
            },
            "secure_boot_reason": boot.reason,
            "audit_mode": boot.audit_mode,
            "deployed_mode": boot.deployed_mode,
            "setup_mode": boot.setup_mode,
            "firmware_debugger": boot.firmware_debugger,
            "dma_protection_disabled": boot.dma_protection_disabled,
            "shim_insecure": boot.shim_insecure,
            "databases": {
                "PK": database(&facts.databases.pk),
                "KEK": database(&facts.databases.kek),
                "db": database(&facts.databases.db),
                "dbx": database(&facts.databases.dbx),
            },
            "authorities": facts.authorities.iter().map(|authority| json!({
                "event": authority.event,
                "vendor": authority.vendor.to_string(),
                "variable": authority.variable,
                "sha256": authority.sha256,
                "in_db": authority.in_db,
                "after_separator": authority.after_separator,
                "text": authority.text,
            })).collect::<Vec<_>>(),
            "boot_applications": measured(&facts.applications),
            "option_roms": measured(&facts.option_roms),
            "crtm_version": facts.crtm_version,
            "firmware": measured(&facts.firmware),
            "separators": facts.separators.iter().map(|(register, found)| {
                (register.to_string(), json!({ "count": found.count, "error": found.error }))
            }).collect::<Map<_, _>>(),
            "exit_boot_services": {
                "invocations": exit.invocations, "failures": exit.failures, "successes": exit.successes,
            },
            "kernel_image_sections": facts.sections.iter().map(|section| {
                json!({ "name": section.name, "digests": digests(&section.contents) })
            }).collect::<Vec<_>>(),
            "boot_phases": self.boot_phases,
            "command_lines": facts.command_lines.iter().map(|line| json!({
                "event": line.event, "pcr": line.register, "text": line.text, "hint": line.label,
            })).collect::<Vec<_>>(),
            "loader_files": measured(&facts.loader_files),
            "extensions": measured(&facts.extensions),
            "mok": measured(&facts.mok),
            "event_counts": self.counts(),
            "events": facts.events.iter().map(|event| json!({
                "event": event.index,
                "pcr": event.register,
                "type": event.kind.to_string(),
                "vouched": event.coverage.vouched(),
                "why": event.coverage.name(),
            })).collect::<Vec<_>>(),
        })
    }

    fn counts(&self) -> Value {
        const ALL: [Coverage; 8] = [
            Coverage::Data,
            Coverage::Content,
            Coverage::Name,
            Coverage::Known,
            Coverage::DigestOnly,
            Coverage::Mismatch,
            Coverage::NotExtended,
            Coverage::Unanchored,
        ];
        let events = &self.facts.events;
        ALL.iter()
            .map(|coverage| {
                let count = events.iter().filter(|event| event.coverage == *coverage).count();
                (coverage.name().to_owned(), count.into())
            })
            .collect::<Map<_, _>>()
            .into()
    }
}

fn digests(measured: &Measured) -> Value {
    measured
        .digests
        .iter()
        .map(|digest| (digest.bank().name().to_owned(), digest.to_hex().into()))
        .collect::<Map<_, _>>()
        .into()
}

/// Those that a digest which counts stands for.
fn measured(all: &[Measured]) -> Vec<Value> {
    all.iter()
        .filter(|measured| !measured.digests.is_empty())
        .map(|measured| {
            json!({
                "event": measured.event,
                "pcr": measured.register,
                "type": measured.kind.to_string(),
                "digests": digests(measured),
                "hint": measured.hint,
            })
        })
        .collect()
}

fn database(database: &Database) -> Value {
    let Database::Known(signatures) = database else { return Value::Null };
    signatures
        .iter()
        .map(|signature| {
            let (kind, hash) = match &signature.entry {
                Entry::Certificate { .. } => ("x509", "sha256"),
                Entry::Image { hash, .. } => ("image", *hash),
                Entry::RevokedCertificate { hash, .. } => ("revoked-x509", *hash),
                Entry::Other { .. } => ("other", "sha256"),
            };
            json!({ "type": kind, "hash": hash, "digest": signature.fingerprint(), "owner": signature.owner.to_string() })
        })
        .collect()
}
