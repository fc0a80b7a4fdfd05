//! Claims of a list against what a policy expects.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::{Deserialize, Deserializer, Error as _};

use super::parse::{Entry, FileDigest};
use super::replay::Form;
use super::signature::{FileSignature, SigningKey};
use super::verify::{BOOT_AGGREGATE, BootAggregate, IMA_REGISTER, Verified};
use crate::cert::Certificate;
use crate::event_log::{Bank, Expected, Permission, Requirement};
use crate::{Checks, Verdict, Weight};

/// The most digests that an allow-list holds.
pub const MAX_LISTED_FILES: usize = 1 << 20;
/// The most keys that sign files.
pub const MAX_SIGNERS: usize = 64;
/// Entries that are named in a reason.
const MAX_NAMED: usize = 5;

/// Files that may have been measured: by path, or anywhere under `"*"`, with digests as `"sha256:hex"`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList(BTreeMap<String, BTreeSet<String>>);

impl AllowList {
    fn allows(&self, path: &str, digest: &str) -> bool {
        [path, "*"].into_iter().any(|path| self.0.get(path).is_some_and(|digests| digests.contains(digest)))
    }
}

impl<'de> Deserialize<'de> for AllowList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = BTreeMap::<String, BTreeSet<String>>::deserialize(deserializer)?;
        if list.values().map(BTreeSet::len).sum::<usize>() > MAX_LISTED_FILES {
            return Err(D::Error::custom(format_args!("more than {MAX_LISTED_FILES} digests")));
        }
        for digest in list.values().flatten() {
            let (verity, bare) = digest.strip_prefix("verity:").map_or((false, &**digest), |bare| (true, bare));
            let valid = bare.split_once(':').is_some_and(|(algorithm, hex)| {
                let size_bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).map(|bytes| bytes.len());
                let bank = Bank::from_name(algorithm);
                bank.is_some_and(|bank| size_bytes == Ok(bank.size_bytes()) && !(verity && bank == Bank::Sha1))
            });
            if !valid {
                return Err(D::Error::custom(format_args!("{digest:?} is no digest like sha256:hex")));
            }
        }
        Ok(Self(list))
    }
}

/// Certificates of keys that sign files, in PEM in TOML. They are trusted as they are: no chain is built over them, and their dates say nothing,
/// since the kernel does not look at them either.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signers(Vec<SigningKey>);

impl Signers {
    /// The keys of these certificates.
    #[must_use]
    pub fn new(certificates: &[Certificate]) -> Self {
        Self(certificates.iter().take(MAX_SIGNERS).map(SigningKey::new).collect())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Signers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        if texts.len() > MAX_SIGNERS {
            return Err(D::Error::custom(format_args!("more than {MAX_SIGNERS} signers")));
        }
        let certificates: Result<Vec<_>, _> = texts.iter().map(|text| Certificate::read_one(text.as_bytes())).collect();
        certificates.map(|certificates| Self::new(&certificates)).map_err(D::Error::custom)
    }
}

/// What a list has to prove. What is not written is as in [`Policy::default`], which is strict: without files or signers it denies.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// A value of register 10 was given and the list leads to it.
    pub registers: Requirement,
    /// A register that only SHA-1 vouches for counts, and so does SHA-1 of a file.
    pub sha1: Permission,
    /// Files that changed while they were measured.
    pub violations: Permission,
    /// The first entry is a hash of the registers that were given.
    pub boot_aggregate: Requirement,
    /// Files that may have been measured.
    pub files: Expected<AllowList>,
    /// Who may sign the others. Without files, everything has to be signed.
    pub signers: Signers,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            registers: Requirement::Required,
            sha1: Permission::Denied,
            violations: Permission::Denied,
            boot_aggregate: Requirement::Required,
            files: Expected::Unset,
            signers: Signers::default(),
        }
    }
}

/// Holds the claims against the policy.
#[must_use]
pub fn appraise(verified: &Verified<'_>, policy: &Policy) -> Checks {
    let mut checks = Checks::new();
    let strong = policy.sha1 == Permission::Allowed
        || verified.readings.iter().any(|(bank, form, _)| *bank != Bank::Sha1 && *form == Form::Own);
    let result = match (verified.anchored, strong) {
        (false, _) => Err("no value of register 10 was given"),
        (true, false) => Err("only SHA-1 vouches for the list, which the policy does not take"),
        (true, true) => Ok("register 10 vouches for the list"),
    };
    require(&mut checks, "ima.policy.registers", policy.registers, result);
    let result = match verified.boot_aggregate {
        BootAggregate::Agrees => Ok("the boot aggregate is of the registers that were given"),
        BootAggregate::Absent => Err("there is no boot aggregate"),
        BootAggregate::Empty => Err("the boot aggregate is zero"),
        BootAggregate::NotChecked => Err("the boot aggregate was not checked"),
    };
    require(&mut checks, "ima.policy.boot-aggregate", policy.boot_aggregate, result);
    let violations = verified.violations;
    match policy.violations {
        Permission::Allowed => checks.not_checked("ima.policy.violations", "the policy allows them"),
        Permission::Denied => drop(checks.require(
            "ima.policy.violations",
            if violations == 0 { Ok("there are none".to_owned()) } else { Err(format!("there are {violations}")) },
        )),
    }
    check_files(&mut checks, verified, policy);
    checks
}

fn require(
    checks: &mut Checks,
    name: &'static str,
    requirement: Requirement,
    result: Result<&'static str, &'static str>,
) {
    match requirement {
        Requirement::Any => checks.not_checked(name, "the policy does not ask for it"),
        Requirement::Required => drop(checks.require(name, result)),
    }
}

fn check_files(checks: &mut Checks, verified: &Verified<'_>, policy: &Policy) {
    let name = "ima.policy.files";
    let list = match &policy.files {
        Expected::Any => return checks.not_checked(name, "the policy allows any files"),
        Expected::Unset if policy.signers.is_empty() => {
            let reason = "the policy names neither files nor signers: write them, or files = \"any\"";
            checks.push(name, Verdict::NotChecked, Weight::Required, reason);
            return;
        }
        Expected::Unset => &AllowList::default(),
        Expected::Is(list) => list,
    };
    let (mut listed, mut signed, mut strangers) = (0_usize, 0_usize, 0_usize);
    let mut named = Vec::new();
    for entry in verified.entries() {
        if entry.register != IMA_REGISTER
            || entry.is_violation()
            || entry.path.as_deref() == Some(BOOT_AGGREGATE) && entry.index == 0
        {
            continue;
        }
        if is_listed(&entry, list, policy.sha1) {
            listed += 1;
        } else if is_signed(&entry, &policy.signers) {
            signed += 1;
        } else {
            strangers += 1;
            if named.len() < MAX_NAMED {
                let path = entry.path.as_deref().unwrap_or_default();
                named.push(format!("{} ({})", entry.index, String::from_utf8_lossy(path).escape_debug()));
            }
        }
    }
    let result = if strangers == 0 {
        Ok(format!("{listed} entries are listed, {signed} signed"))
    } else {
        Err(format!("{strangers} entries are neither listed nor signed, first of all {}", named.join(", ")))
    };
    checks.require(name, result);
}

fn is_listed(entry: &Entry<'_>, list: &AllowList, sha1: Permission) -> bool {
    let (Some(file), Some(path)) = (&entry.file_digest, &entry.path) else { return false };
    if file.algorithm == Bank::Sha1.name() && sha1 == Permission::Denied {
        return false;
    }
    std::str::from_utf8(path).is_ok_and(|path| list.allows(path, &written(file)))
}

fn written(file: &FileDigest<'_>) -> String {
    let verity = if file.verity { "verity:" } else { "" };
    format!("{verity}{}:{}", file.algorithm, data_encoding::HEXLOWER.encode(&file.digest))
}

fn is_signed(entry: &Entry<'_>, signers: &Signers) -> bool {
    let (Some(file), Some(signature)) = (&entry.file_digest, &entry.signature) else { return false };
    FileSignature::parse(signature).is_some_and(|signature| signature.verify(file, &signers.0))
}
