//! How old endorsements may get, and when they are renewed.

use serde::{Deserialize, Serialize};

use super::key::Key;

const HOUR_S: u64 = 3600;

/// How old endorsements of a kind may get. The maker's own end, where it sets one, holds besides: the earlier one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Age {
    /// Most hours since it was last had from its source. When that was is the word of whoever fetched it.
    pub fetched_hours: u32,
    /// Most hours since its maker issued it, by what the maker signed. Left out where makers issue rarely.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_hours: Option<u32>,
}

impl Age {
    const fn fetched(days: u32) -> Self {
        Self { fetched_hours: days * 24, issued_hours: None }
    }

    const fn issued(fetched_days: u32, issued_days: u32) -> Self {
        Self { fetched_hours: fetched_days * 24, issued_hours: Some(issued_days * 24) }
    }
}

/// How old endorsements may get, by kind. The defaults are below what makers grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ages {
    /// Certificates of AMD's: VCEKs, VLEKs and those above them. 180 days by default; they are valid for years.
    pub amd_certificates: Age,
    /// AMD's revocation lists. 7 days by default; AMD's own counts for about 45.
    pub amd_crl: Age,
    /// Intel's TCB info. 7 days, and 21 since it was issued, by default; Intel's own counts for 30.
    pub intel_tcb_info: Age,
    /// Intel's identities of quoting enclaves. As TCB info by default.
    pub intel_qe_identity: Age,
    /// Intel's revocation lists. 7 days by default; Intel's own count for 30 days, the root's for a year.
    pub intel_crl: Age,
    /// Intermediate authorities of TPM makers. 180 days by default.
    pub tpm_authority: Age,
    /// Revocation lists of TPM makers. 7 days by default.
    pub tpm_crl: Age,
    /// NVIDIA's manifests. 180 days by default: what is signed of a driver does not change.
    pub nvidia_rim: Age,
    /// Answers of NVIDIA's OCSP responder. 1 day by default.
    pub nvidia_ocsp: Age,
    /// After what part of the time for which an endorsement can be used it is renewed, in percent from 1 to 90. 50 by default.
    #[serde(deserialize_with = "percent")]
    pub refresh_percent: u8,
}

impl Default for Ages {
    fn default() -> Self {
        Self {
            amd_certificates: Age::fetched(180),
            amd_crl: Age::fetched(7),
            intel_tcb_info: Age::issued(7, 21),
            intel_qe_identity: Age::issued(7, 21),
            intel_crl: Age::fetched(7),
            tpm_authority: Age::fetched(180),
            tpm_crl: Age::fetched(7),
            nvidia_rim: Age::fetched(180),
            nvidia_ocsp: Age::issued(1, 1),
            refresh_percent: 50,
        }
    }
}

fn percent<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let percent = u8::deserialize(deserializer)?;
    if (1..=90).contains(&percent) {
        return Ok(percent);
    }
    Err(serde::de::Error::custom("refresh_percent is from 1 to 90"))
}

impl Ages {
    /// That of a kind.
    #[must_use]
    pub const fn of(&self, key: &Key) -> Age {
        match key {
            Key::AmdVcek { .. } | Key::AmdVlek { .. } | Key::AmdChain { .. } => self.amd_certificates,
            Key::AmdCrl { .. } => self.amd_crl,
            Key::IntelTcbInfo { .. } => self.intel_tcb_info,
            Key::IntelQeIdentity { .. } => self.intel_qe_identity,
            Key::IntelPckCrl { .. } | Key::IntelRootCrl => self.intel_crl,
            Key::TpmAuthority { .. } => self.tpm_authority,
            Key::TpmCrl { .. } => self.tpm_crl,
            Key::NvidiaRim { .. } => self.nvidia_rim,
            Key::NvidiaOcsp { .. } => self.nvidia_ocsp,
        }
    }

    /// The last second at which something can be used: its maker's own end, or ours.
    pub(super) fn until_s(&self, key: &Key, fetched_s: u64, issued_s: Option<u64>, signed_until_s: u64) -> u64 {
        let age = self.of(key);
        let after = |start_s: u64, hours: u32| start_s.saturating_add(u64::from(hours) * HOUR_S);
        let by_issue = issued_s.zip(age.issued_hours).map_or(u64::MAX, |(issued_s, hours)| after(issued_s, hours));
        signed_until_s.min(after(fetched_s, age.fetched_hours)).min(by_issue)
    }

    /// When it is renewed.
    pub(super) fn refresh_s(&self, fetched_s: u64, until_s: u64) -> u64 {
        let span_s = until_s.saturating_sub(fetched_s);
        fetched_s.saturating_add(span_s / 100 * u64::from(self.refresh_percent.clamp(1, 90)))
    }
}
