//! Claims of a log against what a policy expects.

use std::collections::BTreeSet;

use serde::de::{Deserialize, Deserializer, Error as _};

use super::bank::Bank;
use super::facts::Measured;
use super::pcrs::PcrValues;
use super::secure_boot::SecureBootState;
use super::signature_list::Entry;
use super::verify::Verified;
use crate::{Checks, Verdict, Weight};

/// Whether something has to be so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Requirement {
    /// It has to.
    Required,
    /// It need not; the result says that it was not asked for.
    Any,
}

/// Whether something may be so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    /// It may not.
    Denied,
    /// It may.
    Allowed,
}

/// A reference value. In TOML it is `"any"` or the value; one that is not written denies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Expected<T> {
    /// Not written: denies, and the result says what to write.
    #[default]
    Unset,
    /// Anything, in so many words.
    Any,
    /// This.
    Is(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Expected<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        enum Word {
            Any,
        }
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Either<T> {
            Word(Word),
            Value(T),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Word(Word::Any) => Self::Any,
            Either::Value(value) => Self::Is(value),
        })
    }
}

/// The most digests that a list holds.
pub const MAX_LISTED_DIGESTS: usize = 65_536;

/// Digests, in hex in TOML, of any bank's length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DigestList(BTreeSet<Vec<u8>>);

impl DigestList {
    /// Whether it has these bytes.
    #[must_use]
    pub fn contains(&self, digest: &[u8]) -> bool {
        self.0.contains(digest)
    }

    /// The digests.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for DigestList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        if texts.len() > MAX_LISTED_DIGESTS {
            return Err(D::Error::custom(format_args!("more than {MAX_LISTED_DIGESTS} digests")));
        }
        let mut digests = BTreeSet::new();
        for text in texts {
            match data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()) {
                Ok(bytes) if Bank::ALL.iter().any(|bank| bank.size_bytes() == bytes.len()) => digests.insert(bytes),
                _ => return Err(D::Error::custom(format_args!("{text:?} is no digest in hex"))),
            };
        }
        Ok(Self(digests))
    }
}

/// What a log has to prove. What is not written is as in [`Policy::default`], which is strict: three reference values are unset there, and
/// deny until they are written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Register values were given and the log leads to them.
    pub registers: Requirement,
    /// Registers that only SHA-1 vouches for count.
    pub sha1: Permission,
    /// Secure Boot was on.
    pub secure_boot: Requirement,
    /// A debugger of the firmware could be attached.
    pub firmware_debugger: Permission,
    /// Devices could write to memory during boot.
    pub dma_unprotected: Permission,
    /// Shim was told not to verify what it starts.
    pub shim_insecure: Permission,
    /// Registers 0 to 7 each have a separator, and none reports an error.
    pub separators: Requirement,
    /// The log shows that the operating system took over.
    pub exit_boot_services: Requirement,
    /// Values of registers.
    pub pcrs: Expected<PcrValues>,
    /// Authenticode digests of what may have been started (register 4).
    pub boot_applications: Expected<DigestList>,
    /// Digests of drivers and option ROMs that may have been loaded (register 2). None, if it is not written.
    pub option_roms: Expected<DigestList>,
    /// Digests or certificate fingerprints that `dbx` has to revoke.
    pub revoked: Expected<DigestList>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            registers: Requirement::Required,
            sha1: Permission::Denied,
            secure_boot: Requirement::Required,
            firmware_debugger: Permission::Denied,
            dma_unprotected: Permission::Denied,
            shim_insecure: Permission::Denied,
            separators: Requirement::Required,
            exit_boot_services: Requirement::Any,
            pcrs: Expected::Unset,
            boot_applications: Expected::Unset,
            option_roms: Expected::Is(DigestList::default()),
            revoked: Expected::Unset,
        }
    }
}

/// Holds the claims against the policy.
#[must_use]
pub fn appraise(verified: &Verified, policy: &Policy) -> Checks {
    let mut checks = Checks::new();
    let facts = &verified.facts;
    require(
        &mut checks,
        "eventlog.policy.registers",
        policy.registers,
        verified.anchored.is_some(),
        "register values were given, and the log leads to them",
    );
    let trust = Trust { verified, policy };
    let boot = &facts.secure_boot;
    let on = boot.state == SecureBootState::Enabled && trust.counts(7);
    let reason = if trust.counts(7) { boot.reason } else { "register 7 is not vouched for" };
    require(&mut checks, "eventlog.policy.secure-boot", policy.secure_boot, on, reason);
    for (name, permission, found, what) in [
        (
            "firmware-debugger",
            policy.firmware_debugger,
            boot.firmware_debugger,
            "a debugger of the firmware could be attached",
        ),
        ("dma", policy.dma_unprotected, boot.dma_protection_disabled, "devices could write to memory during boot"),
        ("shim", policy.shim_insecure, boot.shim_insecure, "shim was told not to verify what it starts"),
    ] {
        let name = format!("eventlog.policy.{name}");
        match permission {
            Permission::Allowed => checks.not_checked(name, format!("the policy allows that {what}")),
            Permission::Denied => drop(checks.require(
                name,
                match (trust.counts(7), found) {
                    (false, _) => Err("register 7 is not vouched for".to_owned()),
                    (true, true) => Err(what.to_owned()),
                    (true, false) => Ok(format!("the log does not show that {what}")),
                },
            )),
        }
    }
    let missing: Vec<_> = (0..8_u32).filter(|register| !trust.separated(*register)).map(|r| r.to_string()).collect();
    let reason = format!(
        "without a separator, with one that reports an error, or not vouched for: registers {}",
        missing.join(", ")
    );
    require(
        &mut checks,
        "eventlog.policy.separators",
        policy.separators,
        missing.is_empty(),
        if missing.is_empty() { "registers 0 to 7 have separators" } else { &reason },
    );
    let left = facts.exit_boot_services.successes > 0 && trust.counts(5);
    require(
        &mut checks,
        "eventlog.policy.exit-boot-services",
        policy.exit_boot_services,
        left,
        "an exit from boot services is in register 5",
    );
    check_pcrs(&mut checks, &trust);
    check_images(
        &mut checks,
        "eventlog.policy.boot-applications",
        &trust,
        4,
        &facts.applications,
        &policy.boot_applications,
    );
    check_images(&mut checks, "eventlog.policy.option-roms", &trust, 2, &facts.option_roms, &policy.option_roms);
    check_revoked(&mut checks, &trust);
    checks
}

fn require(checks: &mut Checks, name: &'static str, requirement: Requirement, holds: bool, reason: &str) {
    match requirement {
        Requirement::Any => checks.not_checked(name, "the policy does not ask for it"),
        Requirement::Required if holds => drop(checks.require(name, Ok(reason.to_owned()))),
        Requirement::Required => drop(checks.require(name, Err(format!("not proven: {reason}")))),
    }
}

fn unset(checks: &mut Checks, name: &'static str) {
    checks.push(
        name,
        Verdict::NotChecked,
        Weight::Required,
        "the policy sets no reference value: write one, or \"any\"",
    );
}

/// Which registers a policy takes the log's word for.
struct Trust<'a> {
    verified: &'a Verified,
    policy: &'a Policy,
}

impl Trust<'_> {
    fn counts_bank(&self, bank: Bank) -> bool {
        bank != Bank::Sha1 || self.policy.sha1 == Permission::Allowed
    }

    fn counts(&self, pcr: u32) -> bool {
        match &self.verified.anchored {
            None => self.policy.registers == Requirement::Any,
            Some(anchored) => anchored
                .get(&self.verified.layout.register(pcr))
                .is_some_and(|banks| banks.iter().any(|bank| self.counts_bank(*bank))),
        }
    }

    fn separated(&self, pcr: u32) -> bool {
        let register = self.verified.layout.register(pcr);
        self.counts(pcr)
            && self.verified.facts.separators.get(&register).is_some_and(|found| found.count > 0 && !found.error)
    }
}

fn check_pcrs(checks: &mut Checks, trust: &Trust<'_>) {
    let name = "eventlog.policy.pcrs";
    let expected = match &trust.policy.pcrs {
        Expected::Unset => return unset(checks, name),
        Expected::Any => return checks.not_checked(name, "the policy allows any values"),
        Expected::Is(expected) => expected,
    };
    let mut differing = Vec::new();
    let mut agreeing = 0;
    for bank in expected.banks() {
        for (index, value) in expected.of_bank(bank) {
            let vouched = match &trust.verified.anchored {
                None => trust.policy.registers == Requirement::Any,
                Some(anchored) => anchored.get(&index).is_some_and(|banks| banks.contains(&bank)),
            };
            let found = trust.verified.replayed.value(bank, index) == Some(value)
                || trust.verified.anchored.is_none()
                    && trust.verified.profile_register_0.value(bank, index) == Some(value);
            if vouched && trust.counts_bank(bank) && found {
                agreeing += 1;
            } else {
                differing.push(format!("{}:{index}", bank.name()));
            }
        }
    }
    let result = if !differing.is_empty() {
        Err(format!("not as the policy has them, or not vouched for: {}", differing.join(", ")))
    } else if agreeing == 0 {
        Err("the policy names no register".to_owned())
    } else {
        Ok(format!("{agreeing} registers are as the policy has them"))
    };
    checks.require(name, result);
}

fn check_images(
    checks: &mut Checks,
    name: &'static str,
    trust: &Trust<'_>,
    pcr: u32,
    images: &[Measured],
    expected: &Expected<DigestList>,
) {
    let list = match expected {
        Expected::Unset => return unset(checks, name),
        Expected::Any => return checks.not_checked(name, "the policy allows any"),
        Expected::Is(list) => list,
    };
    if !trust.counts(pcr) {
        checks.require(name, Err(format!("register {pcr} is not vouched for")));
        return;
    }
    let listed = |image: &&Measured| {
        image.digests.iter().any(|digest| trust.counts_bank(digest.bank()) && list.contains(digest.as_bytes()))
    };
    let strangers: Vec<_> = images.iter().filter(|image| !listed(image)).map(|image| image.event.to_string()).collect();
    let result = if strangers.is_empty() {
        Ok(format!("{} measured, all of them listed", images.len()))
    } else {
        Err(format!("not listed: events {}", strangers.join(", ")))
    };
    checks.require(name, result);
}

fn check_revoked(checks: &mut Checks, trust: &Trust<'_>) {
    let name = "eventlog.policy.revoked";
    let list = match &trust.policy.revoked {
        Expected::Unset => return unset(checks, name),
        Expected::Any => return checks.not_checked(name, "the policy asks for no revocations"),
        Expected::Is(list) => list,
    };
    if !trust.counts(7) {
        checks.require(name, Err("register 7 is not vouched for".to_owned()));
        return;
    }
    let mut present = BTreeSet::new();
    for signature in trust.verified.facts.databases.dbx.signatures() {
        match &signature.entry {
            Entry::Image { digest, .. } => drop(present.insert(digest.clone())),
            // From a time on: an image whose signature bears an earlier time stamp still runs.
            Entry::RevokedCertificate { digest, time, .. } if *time == [0; 16] => drop(present.insert(digest.clone())),
            Entry::Certificate { der } => drop(present.insert(Bank::Sha256.hash(&[der]).as_bytes().to_vec())),
            Entry::RevokedCertificate { .. } | Entry::Other { .. } => {}
        }
    }
    let missing = list.iter().filter(|digest| !present.contains(*digest)).count();
    let result = if missing == 0 {
        Ok(format!("dbx revokes all {} that the policy names", list.len()))
    } else {
        Err(format!("dbx lacks {missing} of the {} revocations that the policy names", list.len()))
    };
    checks.require(name, result);
}
