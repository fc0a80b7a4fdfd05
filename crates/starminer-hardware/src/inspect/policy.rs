//! The policy file of `starminer appraise --policy`: one section a kind of evidence, each of that module's own type.

use serde::Deserialize;

use super::{File, InputError};
use crate::{dcap, event_log, ima, nvidia, snp, tpm};

/// The longest policy that is read: lists of files for IMA are long.
pub const MAX_POLICY_BYTES: usize = 32 * 1024 * 1024;

/// How much of a line that is wrong is shown.
const SHOWN_CHARS: usize = 60;

const REMEDY: &str = "see examples/policy/hardware.toml, which has every option";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sections {
    snp: Option<snp::Policy>,
    dcap: Option<Box<dcap::Policy>>,
    tpm: Option<tpm::Policy>,
    tpm_ek: Option<tpm::ek::Policy>,
    eventlog: Option<event_log::Policy>,
    ima: Option<ima::Policy>,
    nvidia: Option<nvidia::Policy>,
}

/// A policy for any of the kinds. What a section leaves out is as strict as its kind's default; a section that is missing is no policy for
/// that kind, and a command that needs it cannot be called with this file.
#[derive(Debug, Clone)]
pub struct PolicyFile {
    name: String,
    sections: Sections,
}

impl PolicyFile {
    /// Reads TOML.
    ///
    /// # Errors
    /// Where it is none, or has a section or an option that is not known.
    pub fn parse(file: &File) -> Result<Self, InputError> {
        let wrong = |reason: String| InputError::new("policy.malformed", &*file.name, reason.trim_end(), REMEDY);
        if file.bytes.len() > MAX_POLICY_BYTES {
            return Err(wrong(format!("longer than {MAX_POLICY_BYTES} bytes")));
        }
        let text = str::from_utf8(&file.bytes).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
        let sections = toml::from_str(text).map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let shown: String =
                text.lines().nth(line - 1).unwrap_or_default().trim().chars().take(SHOWN_CHARS).collect();
            wrong(format!("line {line} ({shown}): {}", error.message().replace('\n', " ")))
        })?;
        Ok(Self { name: file.name.clone(), sections })
    }

    fn section<'a, T>(&self, name: &str, section: Option<&'a T>) -> Result<&'a T, InputError> {
        section.ok_or_else(|| {
            InputError::new("policy.section", &*self.name, format!("it has no section [{name}]"), REMEDY)
        })
    }

    pub(super) fn snp(&self) -> Result<&snp::Policy, InputError> {
        self.section("snp", self.sections.snp.as_ref())
    }

    pub(super) fn dcap(&self) -> Result<&dcap::Policy, InputError> {
        self.section("dcap", self.sections.dcap.as_deref())
    }

    pub(super) fn tpm(&self) -> Result<&tpm::Policy, InputError> {
        self.section("tpm", self.sections.tpm.as_ref())
    }

    pub(super) fn tpm_ek(&self) -> Result<&tpm::ek::Policy, InputError> {
        self.section("tpm_ek", self.sections.tpm_ek.as_ref())
    }

    pub(super) fn eventlog(&self) -> Result<&event_log::Policy, InputError> {
        self.section("eventlog", self.sections.eventlog.as_ref())
    }

    pub(super) fn ima(&self) -> Result<&ima::Policy, InputError> {
        self.section("ima", self.sections.ima.as_ref())
    }

    pub(super) fn nvidia(&self) -> Result<&nvidia::Policy, InputError> {
        self.section("nvidia", self.sections.nvidia.as_ref())
    }

    /// Whether it asks for anything of an event log.
    pub(super) const fn has_eventlog(&self) -> bool {
        self.sections.eventlog.is_some()
    }

    /// Whether it asks for anything of an IMA list.
    pub(super) const fn has_ima(&self) -> bool {
        self.sections.ima.is_some()
    }
}
