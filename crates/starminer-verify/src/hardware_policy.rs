//! What a policy demands of hardware: trusted bases, configurations, PCRs, GPUs, chips.
//!
//! The section may be left out of a policy, and then [`HardwarePolicy::strict`] holds; where it is there, each of its fields is written out. It
//! holds rules and no measurements: those are reference values. Rules of one kind say nothing about another. How they are checked is
//! `starminer-hardware`'s affair, whose typed policies this section fills. Source: `specs/policy.md`, section "Hardware".

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use starminer_hardware::dcap::{FlagRule, Hex, SgxAttribute, StatusTable, TdAttribute, TrailingRule};
use starminer_hardware::nvidia::Mode;
use starminer_hardware::snp::{
    Components, Crls, FirmwareVersion, GuestRules, MaskedChip, Names, PlatformRules, Product, Provisional,
};
use starminer_hardware::tpm::{Demand, HashAlg, PcrIndex};
use starminer_hardware::{dcap, event_log, nvidia, snp, tpm};

use crate::policy::PolicyError;
use crate::types::Digest;

/// Most chips that a policy denies.
pub const MAX_DENIED_CHIPS: usize = 128;

/// Whether something has to be so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Requirement {
    /// Whatever is not shown to be so is refused.
    Required,
    /// It is told, and does not decide.
    NotRequired,
}

/// Whether a facility has to vouch for the chip.
pub type FacilityRule = Requirement;

/// Which chips.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChipRules {
    /// Chips that are refused, as [`crate::chip_digest`] names them; at most [`MAX_DENIED_CHIPS`].
    pub denied: Vec<Digest>,
    /// Whether a credential of the facility that the chip stands in has to be there.
    pub facility: FacilityRule,
}

/// Of SEV-SNP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SevSnpRules {
    /// For each product, the lowest components of the reported, the committed and the launch TCB. A product without a floor is refused.
    pub tcb_floor: BTreeMap<Product, Components>,
    /// The lowest committed firmware version; `0.0.0` is none.
    pub firmware_floor: FirmwareVersion,
    /// Whether firmware may run that is not committed.
    pub provisional_firmware: Provisional,
    /// Whether AMD's revocation list has to have been looked at.
    pub crl: Crls,
    /// What the signing key has to name: `chip` refuses VLEKs; `cloud` takes them from `cloud_ids`, up to tier `confidential`.
    pub names: Names,
    /// Clouds whose VLEKs are taken.
    pub cloud_ids: Vec<String>,
    /// Whether a report may withhold its chip id.
    pub masked_chip_id: MaskedChip,
    /// Privilege levels from which the report may have been asked for.
    pub vmpl: Vec<u32>,
    /// The lowest security version of the guest, which its image states.
    pub guest_svn_floor: u32,
    /// Bits that both mitigation vectors have to have.
    pub mitigations: u64,
    /// What the guest's owner has to have allowed and forbidden at launch.
    pub guest: GuestRules,
    /// How the platform has to be set up.
    pub platform: PlatformRules,
}

/// Of Intel's platforms, for SGX and TDX.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntelRules {
    /// What to do about each TCB status of the platform. `Revoked` is always refused.
    pub tcb_status: StatusTable,
    /// The same of the quoting enclave.
    pub qe_tcb_status: StatusTable,
    /// Security advisories that may be open.
    pub advisories_allowed: BTreeSet<String>,
    /// Lowest evaluation data number of the endorsements.
    pub min_tcb_evaluation_data_number: u32,
    /// Most days since the endorsements were issued.
    pub max_endorsement_age_days: u32,
    /// Whether packages may be added to the platform.
    pub dynamic_platform: FlagRule,
    /// Whether Intel keeps the platform's root keys.
    pub cached_keys: FlagRule,
    /// Whether hyper-threading is on.
    pub smt_enabled: FlagRule,
    /// What may follow a quote.
    pub trailing_bytes: TrailingRule,
}

/// Of trust domains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxRules {
    /// Each byte of TEE_TCB_SVN has to be at least this.
    pub min_tee_tcb_svn: Hex<16>,
    /// Attributes that have to be set.
    pub attributes_required: BTreeSet<TdAttribute>,
    /// Attributes that may be set besides.
    pub attributes_allowed: BTreeSet<TdAttribute>,
}

/// Of enclaves. Which program one is, reference values say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SgxRules {
    /// Signers (MRSIGNER): `"any"` or a list.
    pub mrsigner: dcap::Expect<Hex<32>>,
    /// Product ids of the signer: `"any"` or a list.
    pub isv_prod_id: dcap::Expect<u16>,
    /// Lowest security version.
    pub min_isv_svn: u16,
    /// Flags that may be set besides INIT and MODE64.
    pub attributes_allowed: BTreeSet<SgxAttribute>,
}

/// Of TPMs and their logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmRules {
    /// The bank that counts.
    pub pcr_bank: HashAlg,
    /// The PCRs over which reference values are taken ([`crate::pcr_measurement`]).
    pub pcrs: BTreeSet<PcrIndex>,
    /// Whether a log has to show that Secure Boot was on, with nothing attached that undoes it. The tier `measured` asks for it anyway; this
    /// asks for it of every TPM that stands alone.
    pub secure_boot: Requirement,
    /// Whether an IMA list has to be there and have measured an agent that reference values name. Where reference values name one,
    /// the tier `measured` asks for it anyway.
    pub ima: Requirement,
    /// Whether the TPM's clock may never have gone back.
    pub clock_safe: Demand,
    /// Whether a revocation list had to be there for the endorsement key's chain. Few makers issue any.
    pub revocation: Demand,
    /// Ids of makers that are taken; none listed means all whose roots are compiled in.
    pub makers: BTreeSet<String>,
    /// Models that are refused, by maker id.
    pub models_denied: BTreeMap<String, Vec<String>>,
    /// The lowest firmware version, by maker id. Where one is given, the maker has to be known and listed.
    pub firmware_version_min: BTreeMap<String, u64>,
}

/// Of GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuRules {
    /// How many there have to be at least.
    pub count_min: u8,
    /// Modes of confidential computing, of which each report has to state one: `"any"` or a list. Older drivers state none.
    pub modes: dcap::Expect<Mode>,
    /// Whether revocation lists have to be there.
    pub revocation: Requirement,
    /// Whether a manifest of the very driver has to be there.
    pub driver_measurements: Requirement,
    /// Whether a manifest of the very VBIOS has to be there.
    pub vbios_measurements: Requirement,
    /// The oldest driver, by numbers between dots; `0` is none.
    pub driver_min: String,
    /// The oldest VBIOS, by hexadecimal numbers between dots; `0` is none.
    pub vbios_min: String,
}

/// The section `hardware` of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HardwarePolicy {
    /// Which chips.
    pub chips: ChipRules,
    /// Of SEV-SNP.
    pub sev_snp: SevSnpRules,
    /// Of Intel's platforms.
    pub intel: IntelRules,
    /// Of trust domains.
    pub tdx: TdxRules,
    /// Of enclaves.
    pub sgx: SgxRules,
    /// Of TPMs.
    pub tpm: TpmRules,
    /// Of GPUs.
    pub gpu: GpuRules,
}

impl HardwarePolicy {
    /// What holds where a policy has no such section: each kind's own strict default. No SEV-SNP product has a TCB floor, so that none is
    /// taken before somebody writes one.
    pub fn strict() -> Self {
        let snp = snp::Policy::default();
        let dcap = dcap::Policy::default();
        Self {
            chips: ChipRules { denied: Vec::new(), facility: Requirement::NotRequired },
            sev_snp: SevSnpRules {
                tcb_floor: snp.tcb_floor,
                firmware_floor: snp.firmware_floor,
                provisional_firmware: snp.provisional_firmware,
                crl: snp.crl,
                names: snp.names,
                cloud_ids: Vec::new(),
                masked_chip_id: snp.masked_chip_id,
                vmpl: vec![0],
                guest_svn_floor: snp.guest_svn_floor,
                mitigations: snp.mitigations,
                guest: snp.guest,
                platform: snp.platform,
            },
            intel: IntelRules {
                tcb_status: dcap.tcb_status,
                qe_tcb_status: dcap.qe_tcb_status,
                advisories_allowed: dcap.advisories_allowed,
                min_tcb_evaluation_data_number: dcap.min_tcb_evaluation_data_number,
                max_endorsement_age_days: dcap.max_endorsement_age_days,
                dynamic_platform: dcap.dynamic_platform,
                cached_keys: dcap.cached_keys,
                smt_enabled: dcap.smt_enabled,
                trailing_bytes: dcap.trailing_bytes,
            },
            tdx: TdxRules {
                min_tee_tcb_svn: dcap.tdx.min_tee_tcb_svn,
                attributes_required: dcap.tdx.attributes_required,
                attributes_allowed: dcap.tdx.attributes_allowed,
            },
            sgx: SgxRules {
                mrsigner: dcap::Expect::Any,
                isv_prod_id: dcap::Expect::Any,
                min_isv_svn: dcap.sgx.min_isv_svn,
                attributes_allowed: dcap.sgx.attributes_allowed,
            },
            tpm: TpmRules {
                pcr_bank: HashAlg::Sha256,
                // Firmware, its drivers, what it started, its keys, and the image with the agent in it.
                pcrs: [0, 2, 4, 7, 11].into_iter().filter_map(PcrIndex::new).collect(),
                secure_boot: Requirement::NotRequired,
                ima: Requirement::NotRequired,
                clock_safe: Demand::Optional,
                revocation: Demand::Optional,
                makers: BTreeSet::new(),
                models_denied: BTreeMap::new(),
                firmware_version_min: BTreeMap::new(),
            },
            gpu: GpuRules {
                count_min: 0,
                modes: dcap::Expect::Any,
                revocation: Requirement::Required,
                driver_measurements: Requirement::Required,
                vbios_measurements: Requirement::Required,
                driver_min: "0".to_owned(),
                vbios_min: "0".to_owned(),
            },
        }
    }

    /// Puts lists in order; refuses what is listed twice, and more chips than can be denied.
    pub(crate) fn normalise(&mut self) -> Result<(), PolicyError> {
        if self.chips.denied.len() > MAX_DENIED_CHIPS {
            return Err(PolicyError::TooManyChips);
        }
        sorted(&mut self.chips.denied, "hardware.chips.denied")?;
        sorted(&mut self.sev_snp.cloud_ids, "hardware.sev_snp.cloud_ids")?;
        sorted(&mut self.sev_snp.vmpl, "hardware.sev_snp.vmpl")?;
        if let dcap::Expect::OneOf(list) = &mut self.sgx.mrsigner {
            sorted(list, "hardware.sgx.mrsigner")?;
        }
        if let dcap::Expect::OneOf(list) = &mut self.sgx.isv_prod_id {
            sorted(list, "hardware.sgx.isv_prod_id")?;
        }
        for models in self.tpm.models_denied.values_mut() {
            sorted(models, "hardware.tpm.models_denied")?;
        }
        match &mut self.gpu.modes {
            dcap::Expect::OneOf(list) => sorted(list, "hardware.gpu.modes"),
            dcap::Expect::Any | dcap::Expect::Unset => Ok(()),
        }
    }
}

/// Puts a list in order, which names nothing twice.
pub(crate) fn sorted<T: Ord>(list: &mut [T], name: &'static str) -> Result<(), PolicyError> {
    list.sort_unstable();
    if list.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(PolicyError::Twice { list: name });
    }
    Ok(())
}

/// What the evidence at hand adds to the rules: values that no policy writes, because they follow from binding, trust and reference values.
pub(crate) struct Given<'a> {
    /// SHA-256 of the simulated roots of this sort that the policy accepts.
    pub(crate) simulated_roots: Vec<[u8; 32]>,
    /// The report data that verification found.
    pub(crate) report_data: [u8; 64],
    /// Reference values of the kind.
    pub(crate) measurements: Vec<&'a [u8]>,
}

impl Given<'_> {
    /// The same part of every measurement; bytes of another length are no measurement.
    fn part<const N: usize>(&self, at: usize) -> Vec<[u8; N]> {
        let mut parts: Vec<[u8; N]> =
            self.measurements.iter().filter_map(|one| one.get(at..)?.first_chunk::<N>().copied()).collect();
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// What is expected of it: one of the reference values, or unset where there are none.
    fn dcap<const N: usize>(&self, at: usize) -> dcap::Expect<Hex<N>> {
        match self.part(at) {
            parts if parts.is_empty() => dcap::Expect::Unset,
            parts => dcap::Expect::OneOf(parts.into_iter().map(Hex).collect()),
        }
    }
}

impl HardwarePolicy {
    pub(crate) fn snp(&self, given: &Given<'_>) -> snp::Policy {
        let rules = &self.sev_snp;
        snp::Policy {
            simulated_roots: given.simulated_roots.iter().copied().map(snp::Hex).collect(),
            crl: rules.crl,
            names: rules.names,
            cloud_ids: snp::Expect::OneOf(rules.cloud_ids.clone()),
            masked_chip_id: rules.masked_chip_id,
            tcb_floor: rules.tcb_floor.clone(),
            provisional_firmware: rules.provisional_firmware,
            firmware_floor: rules.firmware_floor,
            guest: rules.guest.clone(),
            platform: rules.platform.clone(),
            vmpl: snp::Expect::OneOf(rules.vmpl.clone()),
            measurement: snp::Expect::OneOf(given.part::<48>(0).into_iter().map(snp::Hex).collect()),
            report_data: snp::Expect::OneOf(vec![snp::Hex(given.report_data)]),
            guest_svn_floor: rules.guest_svn_floor,
            mitigations: rules.mitigations,
            ..snp::Policy::default()
        }
    }

    pub(crate) fn dcap(&self, given: &Given<'_>) -> dcap::Policy {
        let rules = &self.intel;
        dcap::Policy {
            simulated_roots: given.simulated_roots.iter().copied().map(Hex).collect(),
            report_data: dcap::Expect::exactly(Hex(given.report_data)),
            trailing_bytes: rules.trailing_bytes,
            tcb_status: rules.tcb_status.clone(),
            qe_tcb_status: rules.qe_tcb_status.clone(),
            advisories_allowed: rules.advisories_allowed.clone(),
            min_tcb_evaluation_data_number: rules.min_tcb_evaluation_data_number,
            max_endorsement_age_days: rules.max_endorsement_age_days,
            dynamic_platform: rules.dynamic_platform,
            cached_keys: rules.cached_keys,
            smt_enabled: rules.smt_enabled,
            sgx: dcap::SgxPolicy {
                mrenclave: given.dcap(0),
                mrsigner: self.sgx.mrsigner.clone(),
                isv_prod_id: self.sgx.isv_prod_id.clone(),
                min_isv_svn: self.sgx.min_isv_svn,
                attributes_allowed: self.sgx.attributes_allowed.clone(),
                ..dcap::SgxPolicy::default()
            },
            tdx: dcap::TdxPolicy {
                mrtd: given.dcap(0),
                rtmr0: given.dcap(48),
                rtmr1: given.dcap(96),
                rtmr2: given.dcap(144),
                rtmr3: given.dcap(192),
                attributes_required: self.tdx.attributes_required.clone(),
                attributes_allowed: self.tdx.attributes_allowed.clone(),
                min_tee_tcb_svn: self.tdx.min_tee_tcb_svn,
                ..dcap::TdxPolicy::default()
            },
            ..dcap::Policy::default()
        }
    }

    pub(crate) fn tpm(&self) -> tpm::Policy {
        tpm::Policy {
            clock_safe: self.tpm.clock_safe,
            pcr_selection: BTreeMap::from([(self.tpm.pcr_bank, self.tpm.pcrs.clone())]),
            // Reference values are over all of them together.
            pcr_values_unset: tpm::Unset::NotChecked,
            firmware_version_min: self.tpm.firmware_version_min.clone(),
            ..tpm::Policy::default()
        }
    }

    pub(crate) fn endorsement_key(&self, simulated_roots: &[[u8; 32]]) -> tpm::ek::Policy {
        tpm::ek::Policy {
            revocation: self.tpm.revocation,
            makers: self.tpm.makers.iter().cloned().collect(),
            simulated_roots: simulated_roots.iter().map(|root| data_encoding::HEXLOWER.encode(root)).collect(),
            models_denied: self.tpm.models_denied.clone(),
            ..tpm::ek::Policy::default()
        }
    }

    /// What was started is in the PCRs that reference values are over; of the log it is asked what they cannot tell. Secure Boot is always asked
    /// for, because a tier hangs on it; whether it refuses by itself is a matter of weight.
    pub(crate) fn boot_log() -> event_log::Policy {
        event_log::Policy {
            pcrs: event_log::Expected::Any,
            boot_applications: event_log::Expected::Any,
            option_roms: event_log::Expected::Any,
            revoked: event_log::Expected::Any,
            ..event_log::Policy::default()
        }
    }

    pub(crate) fn gpus(&self, simulated_roots: &[[u8; 32]]) -> nvidia::Policy {
        let required = |requirement| match requirement {
            Requirement::Required => nvidia::Requirement::Required,
            Requirement::NotRequired => nvidia::Requirement::WherePossible,
        };
        let least = |version: &str| (version != "0").then(|| version.to_owned());
        nvidia::Policy {
            revocation: required(self.gpu.revocation),
            driver_measurements: required(self.gpu.driver_measurements),
            vbios_measurements: required(self.gpu.vbios_measurements),
            modes: match &self.gpu.modes {
                dcap::Expect::Any => None,
                dcap::Expect::OneOf(modes) => Some(modes.clone()),
                dcap::Expect::Unset => Some(Vec::new()),
            },
            minimum_driver: least(&self.gpu.driver_min),
            minimum_vbios: least(&self.gpu.vbios_min),
            simulated_roots: simulated_roots.iter().map(|root| data_encoding::HEXLOWER.encode(root)).collect(),
            ..nvidia::Policy::default()
        }
    }
}
