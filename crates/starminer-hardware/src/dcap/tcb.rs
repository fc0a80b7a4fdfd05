//! How up to date a platform is: its security versions against the levels of Intel's TCB data, and the quoting enclave's against its identity.
//!
//! Levels, shortfalls and the merging of statuses are `dcap-qvl`'s; the order in which levels are tried and the refusal of statuses that do not
//! belong in a structure follow Intel's quote verification library.

use std::cmp::Reverse;

use dcap_qvl::{QeIdentity, SvnComponent, SvnShortfall, TcbInfo, TcbStatus, TcbStatusWithAdvisory};

use super::body::{SgxReport, TdReport, Tee};
use super::time::seconds;

/// A level that was reached: what Intel says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// Its status.
    pub status: TcbStatus,
    /// The security advisories that it leaves open.
    pub advisories: Vec<String>,
    /// The date of the TCB that it stands for, in seconds since 1970.
    pub date_s: u64,
}

impl Level {
    pub(super) fn merged(self, other: &Self) -> Self {
        let merged = TcbStatusWithAdvisory::new(self.status, self.advisories)
            .merge(&TcbStatusWithAdvisory::new(other.status, other.advisories.clone()));
        Self { status: merged.status, advisories: merged.advisory_ids, date_s: self.date_s.min(other.date_s) }
    }
}

/// What a platform has, by its PCK certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlatformSvns {
    pub(super) cpu_svn: [u8; 16],
    pub(super) pce_svn: u16,
}

/// Puts levels in the order in which Intel's library tries them, whatever order they came in.
pub(super) fn order_levels(info: &mut TcbInfo) {
    info.tcb_levels.sort_by_cached_key(|level| {
        let svns = |components: &[dcap_qvl::TcbComponents]| components.iter().map(|one| one.svn).collect::<Vec<_>>();
        Reverse((svns(&level.tcb.sgx_components), level.tcb.pce_svn, svns(&level.tcb.tdx_components)))
    });
    for identity in &mut info.tdx_module_identities {
        identity.tcb_levels.sort_by_key(|level| Reverse(level.tcb.isvsvn));
    }
}

/// Likewise for those of a quoting enclave.
pub(super) fn order_qe_levels(identity: &mut QeIdentity) {
    identity.tcb_levels.sort_by_key(|level| Reverse(level.tcb.isvsvn));
}

/// The first level that the platform reaches, merged with that of the TDX module.
pub(super) fn platform_level(
    info: &TcbInfo,
    platform: &PlatformSvns,
    tee_tcb_svn: Option<&[u8; 16]>,
) -> Result<Level, String> {
    let mut nearest = None;
    let mut found = None;
    for level in &info.tcb_levels {
        let shortfalls = level
            .shortfalls(&platform.cpu_svn, platform.pce_svn, tee_tcb_svn)
            .map_err(|error| format!("the TCB info is malformed: {error}"))?;
        if shortfalls.is_empty() {
            found = Some(level);
            break;
        }
        nearest = Some((level, shortfalls));
    }
    let Some(level) = found else {
        return Err(match nearest {
            None => "the TCB info has no level".into(),
            Some((level, shortfalls)) => format!(
                "the platform reaches no TCB level; the lowest, {} of {}, needs {}: firmware and microcode have to be updated",
                level.tcb_status,
                level.tcb_date,
                shortfalls.iter().map(describe).collect::<Vec<_>>().join(", "),
            ),
        });
    };
    if matches!(level.tcb_status, TcbStatus::TDRelaunchAdvised | TcbStatus::TDRelaunchAdvisedConfigurationNeeded) {
        return Err(format!("status {} does not belong in TCB info", level.tcb_status));
    }
    let reached = Level {
        status: level.tcb_status,
        advisories: level.advisory_ids.clone(),
        date_s: seconds(&level.tcb_date).ok_or("the TCB level has no readable date")?,
    };
    match tee_tcb_svn.map(|svn| module_level(info, svn)).transpose()?.flatten() {
        None => Ok(reached),
        Some(module) => Ok(reached.merged(&module)),
    }
}

/// The level of the TDX module, where its version has an identity of its own.
fn module_level(info: &TcbInfo, tee_tcb_svn: &[u8; 16]) -> Result<Option<Level>, String> {
    let Some(identity) = info.tdx_module_identity(tee_tcb_svn).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let level = identity.tcb_levels.iter().find(|level| level.shortfall(tee_tcb_svn).is_none()).ok_or_else(|| {
        format!("the TDX module's security version {} reaches no level of {}", tee_tcb_svn[0], identity.id)
    })?;
    if !matches!(level.tcb_status, TcbStatus::UpToDate | TcbStatus::OutOfDate | TcbStatus::Revoked) {
        return Err(format!("status {} does not belong in a TDX module's identity", level.tcb_status));
    }
    Ok(Some(Level {
        status: level.tcb_status,
        advisories: level.advisory_ids.clone(),
        date_s: seconds(&level.tcb_date).ok_or("the TDX module's level has no readable date")?,
    }))
}

fn describe(shortfall: &SvnShortfall) -> String {
    let name = match shortfall.component {
        SvnComponent::Sgx(number) => format!("SGX component {number}"),
        SvnComponent::Tdx(number) => format!("TDX component {number}"),
        SvnComponent::PceSvn => "PCE".into(),
        SvnComponent::TdxModuleIsvSvn => "TDX module".into(),
    };
    format!("{name} at {} (it is at {})", shortfall.needs, shortfall.have)
}

/// A trust domain that was launched on an outdated module which has been updated since.
pub(super) const fn relaunch(launch: TcbStatus, current: TcbStatus) -> TcbStatus {
    use TcbStatus::{
        ConfigurationAndSWHardeningNeeded, ConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded,
        SWHardeningNeeded, TDRelaunchAdvised, TDRelaunchAdvisedConfigurationNeeded, UpToDate,
    };
    match (launch, current) {
        (OutOfDate, UpToDate | SWHardeningNeeded) => TDRelaunchAdvised,
        (OutOfDate, ConfigurationNeeded | ConfigurationAndSWHardeningNeeded)
        | (
            OutOfDateConfigurationNeeded,
            UpToDate | SWHardeningNeeded | ConfigurationNeeded | ConfigurationAndSWHardeningNeeded,
        ) => TDRelaunchAdvisedConfigurationNeeded,
        _ => launch,
    }
}

/// Whether the TDX module is one that the TCB info knows: by signer and attributes.
pub(super) fn module_matches(info: &TcbInfo, td: &TdReport) -> Result<String, String> {
    let (who, signer, attributes, mask) =
        match info.tdx_module_identity(&td.tee_tcb_svn).map_err(|error| error.to_string())? {
            Some(identity) => (&*identity.id, &identity.mrsigner, &identity.attributes, &identity.attributes_mask),
            None => {
                let module = info.tdx_module.as_ref().ok_or("the TCB info names no TDX module")?;
                ("the TDX module", &module.mrsigner, &module.attributes, &module.attributes_mask)
            }
        };
    let malformed = || format!("the identity of {who} is malformed");
    let signer: [u8; 48] = bytes(signer).ok_or_else(malformed)?;
    let attributes: [u8; 8] = bytes(attributes).ok_or_else(malformed)?;
    let mask: [u8; 8] = bytes(mask).ok_or_else(malformed)?;
    if td.mr_signer_seam != signer {
        return Err(format!("MRSIGNERSEAM is not the signer of {who}"));
    }
    let differs = (0..8).any(|at| {
        let actual = td.seam_attributes[at];
        actual & mask[at] != attributes[at] & mask[at] || actual & !mask[at] != 0
    });
    if differs {
        return Err(format!("SEAMATTRIBUTES are not those of {who}"));
    }
    Ok(format!("signer and attributes are those of {who}"))
}

/// Whether the quoting enclave is the one of the identity.
pub(super) fn qe_matches(identity: &QeIdentity, tee: Tee, qe: &SgxReport) -> Result<String, String> {
    if identity.id != tee.qe_identity() {
        return Err(format!(
            "the identity given is that of {}, a quote of {} needs {}",
            identity.id,
            tee.name(),
            tee.qe_identity()
        ));
    }
    let known = match tee {
        Tee::Sgx => 2..=2,
        Tee::Tdx => 2..=3,
    };
    if !known.contains(&identity.version) {
        return Err(format!("the identity of {} has version {}, which is not known", identity.id, identity.version));
    }
    if qe.mr_signer != identity.mrsigner {
        return Err("the quoting enclave's MRSIGNER is not that of its identity".into());
    }
    if qe.isv_prod_id != identity.isvprodid {
        return Err(format!("the quoting enclave's product id is {}, not {}", qe.isv_prod_id, identity.isvprodid));
    }
    let masked = |value: u32| value & u32::from_le_bytes(identity.miscselect_mask);
    if masked(qe.misc_select) != masked(u32::from_le_bytes(identity.miscselect)) {
        return Err("the quoting enclave's MISCSELECT is not that of its identity".into());
    }
    let masked = |value: &[u8; 16], at: usize| value[at] & identity.attributes_mask[at];
    if (0..16).any(|at| masked(&qe.attributes, at) != masked(&identity.attributes, at)) {
        return Err("the quoting enclave's ATTRIBUTES are not those of its identity".into());
    }
    Ok(format!("signer, product, MISCSELECT and ATTRIBUTES are those of {}", identity.id))
}

/// The first level that the quoting enclave reaches.
pub(super) fn qe_level(identity: &QeIdentity, isv_svn: u16) -> Result<Level, String> {
    let level =
        identity.tcb_levels.iter().find(|level| isv_svn >= level.tcb.isvsvn).ok_or_else(|| {
            format!("the quoting enclave's security version {isv_svn} reaches no level of its identity")
        })?;
    if !matches!(
        level.tcb_status,
        TcbStatus::UpToDate
            | TcbStatus::OutOfDate
            | TcbStatus::ConfigurationNeeded
            | TcbStatus::OutOfDateConfigurationNeeded
            | TcbStatus::Revoked
    ) {
        return Err(format!("status {} does not belong in a quoting enclave's identity", level.tcb_status));
    }
    Ok(Level {
        status: level.tcb_status,
        advisories: level.advisory_ids.clone(),
        date_s: seconds(&level.tcb_date).ok_or("the quoting enclave's level has no readable date")?,
    })
}

/// The bytes of a hexadecimal text of this length.
pub(super) fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?.try_into().ok()
}
