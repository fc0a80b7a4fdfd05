//! What is demanded of a quote. Strict by default; every option is written out, and what is not set denies or shows as not checked.

use std::collections::BTreeSet;

use dcap_qvl::TcbStatus;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::pck::hex;

/// What to do about a TCB of some status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StatusRule {
    /// It is accepted.
    Accept,
    /// It is refused.
    Refuse,
    /// It is accepted until so many days after the date of the TCB that was reached.
    AcceptDays(u32),
}

/// What to do about each status. `Revoked` is always refused, so that it cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StatusTable {
    /// Nothing is missing.
    pub up_to_date: StatusRule,
    /// Software has to mitigate something itself.
    pub sw_hardening_needed: StatusRule,
    /// The platform's configuration may leave something open.
    pub configuration_needed: StatusRule,
    /// Both.
    pub configuration_and_sw_hardening_needed: StatusRule,
    /// Firmware or microcode are old.
    pub out_of_date: StatusRule,
    /// Old, and the configuration may leave something open.
    pub out_of_date_configuration_needed: StatusRule,
    /// A trust domain of TDX 1.5 that was launched on an old module, updated since.
    pub td_relaunch_advised: StatusRule,
    /// The same, and the configuration may leave something open.
    pub td_relaunch_advised_configuration_needed: StatusRule,
}

impl Default for StatusTable {
    /// Only what is up to date is accepted.
    fn default() -> Self {
        Self {
            up_to_date: StatusRule::Accept,
            sw_hardening_needed: StatusRule::Refuse,
            configuration_needed: StatusRule::Refuse,
            configuration_and_sw_hardening_needed: StatusRule::Refuse,
            out_of_date: StatusRule::Refuse,
            out_of_date_configuration_needed: StatusRule::Refuse,
            td_relaunch_advised: StatusRule::Refuse,
            td_relaunch_advised_configuration_needed: StatusRule::Refuse,
        }
    }
}

impl StatusTable {
    /// What to do about this status.
    #[must_use]
    pub const fn rule(&self, status: TcbStatus) -> StatusRule {
        match status {
            TcbStatus::UpToDate => self.up_to_date,
            TcbStatus::SWHardeningNeeded => self.sw_hardening_needed,
            TcbStatus::ConfigurationNeeded => self.configuration_needed,
            TcbStatus::ConfigurationAndSWHardeningNeeded => self.configuration_and_sw_hardening_needed,
            TcbStatus::OutOfDate => self.out_of_date,
            TcbStatus::OutOfDateConfigurationNeeded => self.out_of_date_configuration_needed,
            TcbStatus::TDRelaunchAdvised => self.td_relaunch_advised,
            TcbStatus::TDRelaunchAdvisedConfigurationNeeded => self.td_relaunch_advised_configuration_needed,
            TcbStatus::Revoked => StatusRule::Refuse,
        }
    }
}

/// Bytes, in lowercase hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex<const N: usize>(pub [u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = data_encoding::HEXLOWER
            .decode(text.as_bytes())
            .map_err(|_| de::Error::custom("no lowercase hexadecimal"))?;
        bytes.try_into().map(Self).map_err(|_| de::Error::custom(format_args!("{N} bytes are needed")))
    }
}

/// What a value has to be: `"any"`, or a list of which it has to be one.
///
/// Unset is a third thing: it denies, because nobody said what to expect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Expect<T> {
    /// Nobody said: refused.
    #[default]
    Unset,
    /// Whatever it is; shown as not checked.
    Any,
    /// One of these.
    OneOf(Vec<T>),
}

impl<T> Expect<T> {
    /// Exactly this.
    #[must_use]
    pub fn exactly(value: T) -> Self {
        Self::OneOf(vec![value])
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum ExpectForm<T> {
    Word(String),
    List(Vec<T>),
}

impl<T: Serialize + Clone> Serialize for Expect<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unset => ExpectForm::<T>::Word("unset".into()),
            Self::Any => ExpectForm::Word("any".into()),
            Self::OneOf(values) => ExpectForm::List(values.clone()),
        }
        .serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Expect<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match ExpectForm::deserialize(deserializer)? {
            ExpectForm::Word(word) if word == "any" => Ok(Self::Any),
            ExpectForm::Word(word) if word == "unset" => Ok(Self::Unset),
            ExpectForm::Word(_) => Err(de::Error::custom("\"any\", \"unset\", or a list")),
            ExpectForm::List(values) => Ok(Self::OneOf(values)),
        }
    }
}

/// What a flag of the platform has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlagRule {
    /// Whatever it is; shown as not checked.
    Any,
    /// It is known, and off.
    Off,
    /// It is known, and on.
    On,
}

/// What may follow a quote in the same bytes. Nothing signs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrailingRule {
    /// Nothing.
    Nothing,
    /// Zeros, with which some platforms fill their buffers.
    Zeros,
    /// Anything.
    Anything,
}

macro_rules! bits {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $bit:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)* }

        impl $name {
            const ALL: &[(Self, &'static str)] = &[$((Self::$variant, $text),)*];

            /// Its bit.
            #[must_use]
            pub const fn bit(self) -> u64 {
                match self { $(Self::$variant => 1 << $bit,)* }
            }

            /// Names of those that are set.
            pub(super) fn names(bits: u64) -> Vec<&'static str> {
                Self::ALL.iter().filter(|(one, _)| bits & one.bit() != 0).map(|(_, name)| *name).collect()
            }

            /// Bits that are set and have no name.
            pub(super) fn reserved(bits: u64) -> u64 {
                bits & !Self::ALL.iter().fold(0, |all, (one, _)| all | one.bit())
            }
        }
    };
}

bits! {
    /// Attributes of a trust domain (TDX module 1.5 ABI). Bits without a name here are refused.
    TdAttribute {
        /// The host reads and writes the TD's memory and registers.
        Debug = 0 "debug",
        /// Profiling by HGS+.
        HgsProfiling = 4 "hgs-profiling",
        /// Profiling by performance counters.
        PerfProfiling = 5 "perf-profiling",
        /// Profiling by telemetry.
        PmtProfiling = 6 "pmt-profiling",
        /// Defence against single-stepping by instruction counts.
        Icssd = 16 "icssd",
        /// The report has a digest of service TDs' extended data.
        ServtdExt = 17 "servtd-ext",
        /// Linear address space separation may be used.
        Lass = 27 "lass",
        /// The host cannot inject exceptions by taking pages away: Linux guests need it for their integrity.
        SeptVeDisable = 28 "sept-ve-disable",
        /// A migration TD may move the TD elsewhere.
        Migratable = 29 "migratable",
        /// Supervisor protection keys may be used.
        Pks = 30 "pks",
        /// Key Locker may be used.
        Kl = 31 "kl",
        /// The TD is a provisioning agent of TDX Connect.
        Tpa = 62 "tpa",
        /// Performance counters may be used.
        Perfmon = 63 "perfmon",
    }
}

bits! {
    /// Flags among an enclave's attributes. Bits without a name here are refused.
    SgxAttribute {
        /// The enclave is initialised.
        Init = 0 "init",
        /// Whoever runs the machine reads and writes the enclave's memory.
        Debug = 1 "debug",
        /// 64-bit mode.
        Mode64 = 2 "mode64",
        /// The enclave may have the provisioning key.
        ProvisionKey = 4 "provision-key",
        /// The enclave may have the launch key.
        EinitTokenKey = 5 "einittoken-key",
        /// Control-flow enforcement.
        Cet = 6 "cet",
        /// Key separation and sharing: configuration, family and extended product ids.
        Kss = 7 "kss",
        /// The enclave may be told of asynchronous exits.
        AexNotify = 10 "aex-notify",
    }
}

/// x87 and SSE, without which nothing runs.
const X_REQUIRED: u64 = 0x3;
/// x87, SSE, AVX, AVX-512, protection keys, control-flow enforcement and AMX: registers alone.
const X_ALLOWED: u64 = 0x0006_1ae7;

/// What is demanded of a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TdxPolicy {
    /// Measurement of the first memory. Unset denies.
    pub mrtd: Expect<Hex<48>>,
    /// Firmware's configuration. Unset denies.
    pub rtmr0: Expect<Hex<48>>,
    /// Kernel and boot loader. Unset denies.
    pub rtmr1: Expect<Hex<48>>,
    /// Command line, initial file system. Unset denies.
    pub rtmr2: Expect<Hex<48>>,
    /// For the guest's own use. Zeros by default.
    pub rtmr3: Expect<Hex<48>>,
    /// Zeros by default.
    pub mr_config_id: Expect<Hex<48>>,
    /// Zeros by default.
    pub mr_owner: Expect<Hex<48>>,
    /// Zeros by default.
    pub mr_owner_config: Expect<Hex<48>>,
    /// Service TDs (TDX 1.5). Zeros, none, by default.
    pub mr_service_td: Expect<Hex<48>>,
    /// Measurement of the TDX module. Any by default: that Intel signed it and how old it is, is checked.
    pub mr_seam: Expect<Hex<48>>,
    /// Signer of the TDX module. Zeros, Intel, by default.
    pub mr_signer_seam: Expect<Hex<48>>,
    /// Attributes of the TDX module. Zeros by default.
    pub seam_attributes: Expect<Hex<8>>,
    /// Attributes that have to be set. SEPT_VE_DISABLE by default.
    pub attributes_required: BTreeSet<TdAttribute>,
    /// Attributes that may be set besides. ICSSD, LASS and PKS by default.
    pub attributes_allowed: BTreeSet<TdAttribute>,
    /// Processor features (XFAM) that may be on, little-endian. Register sets alone by default.
    pub xfam_allowed: Hex<8>,
    /// Each byte of TEE_TCB_SVN has to be at least this; in TDX 1.5 also by now.
    pub min_tee_tcb_svn: Hex<16>,
}

impl Default for TdxPolicy {
    fn default() -> Self {
        let zeros = || Expect::exactly(Hex([0; 48]));
        Self {
            mrtd: Expect::Unset,
            rtmr0: Expect::Unset,
            rtmr1: Expect::Unset,
            rtmr2: Expect::Unset,
            rtmr3: zeros(),
            mr_config_id: zeros(),
            mr_owner: zeros(),
            mr_owner_config: zeros(),
            mr_service_td: zeros(),
            mr_seam: Expect::Any,
            mr_signer_seam: zeros(),
            seam_attributes: Expect::exactly(Hex([0; 8])),
            attributes_required: BTreeSet::from([TdAttribute::SeptVeDisable]),
            attributes_allowed: BTreeSet::from([TdAttribute::Icssd, TdAttribute::Lass, TdAttribute::Pks]),
            xfam_allowed: Hex(X_ALLOWED.to_le_bytes()),
            min_tee_tcb_svn: Hex([0; 16]),
        }
    }
}

/// What is demanded of an enclave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SgxPolicy {
    /// Measurement. Unset denies; `"any"` where the signer is what counts.
    pub mrenclave: Expect<Hex<32>>,
    /// Digest of the signer's key. Unset denies; `"any"` where the measurement is what counts.
    pub mrsigner: Expect<Hex<32>>,
    /// Product id of the signer. Unset denies; `"any"` where the measurement is what counts.
    pub isv_prod_id: Expect<u16>,
    /// Lowest security version.
    pub min_isv_svn: u16,
    /// Zeros by default.
    pub config_id: Expect<Hex<64>>,
    /// Lowest security version of the configuration.
    pub min_config_svn: u16,
    /// Zeros by default.
    pub isv_ext_prod_id: Expect<Hex<16>>,
    /// Zeros by default.
    pub isv_family_id: Expect<Hex<16>>,
    /// Bits of MISCSELECT that may be set. None by default.
    pub misc_select_allowed: u32,
    /// Flags that have to be set. INIT and MODE64 by default.
    pub attributes_required: BTreeSet<SgxAttribute>,
    /// Flags that may be set besides. CET, KSS and AEX-notify by default.
    pub attributes_allowed: BTreeSet<SgxAttribute>,
    /// Processor features (XFRM) that may be on, little-endian. Register sets alone by default.
    pub xfrm_allowed: Hex<8>,
}

impl Default for SgxPolicy {
    fn default() -> Self {
        Self {
            mrenclave: Expect::Unset,
            mrsigner: Expect::Unset,
            isv_prod_id: Expect::Unset,
            min_isv_svn: 0,
            config_id: Expect::exactly(Hex([0; 64])),
            min_config_svn: 0,
            isv_ext_prod_id: Expect::exactly(Hex([0; 16])),
            isv_family_id: Expect::exactly(Hex([0; 16])),
            misc_select_allowed: 0,
            attributes_required: BTreeSet::from([SgxAttribute::Init, SgxAttribute::Mode64]),
            attributes_allowed: BTreeSet::from([SgxAttribute::Cet, SgxAttribute::Kss, SgxAttribute::AexNotify]),
            xfrm_allowed: Hex(X_ALLOWED.to_le_bytes()),
        }
    }
}

/// Required processor features of either kind.
pub(super) const fn x_required() -> u64 {
    X_REQUIRED
}

/// What is demanded of a quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Roots other than Intel's that may stand behind a quote, by the SHA-256 of their DER. None by default.
    pub simulated_roots: Vec<Hex<32>>,
    /// What the environment had signed: whoever binds quotes to tasks sets it. Unset denies.
    pub report_data: Expect<Hex<64>>,
    /// What may follow a quote. Zeros by default.
    pub trailing_bytes: TrailingRule,
    /// Statuses of the platform (processor, firmware, TDX module).
    pub tcb_status: StatusTable,
    /// Statuses of the quoting enclave.
    pub qe_tcb_status: StatusTable,
    /// Security advisories that may be open (`INTEL-SA-…`). None by default.
    pub advisories_allowed: BTreeSet<String>,
    /// Lowest evaluation data number of TCB info and of the quoting enclave's identity.
    pub min_tcb_evaluation_data_number: u32,
    /// Most days since TCB info and identity were issued. 30, as Intel's own, by default.
    pub max_endorsement_age_days: u32,
    /// Platforms by FMSPC. Any by default.
    pub fmspc: Expect<Hex<6>>,
    /// Whether packages may be added to the platform. Any by default.
    pub dynamic_platform: FlagRule,
    /// Whether Intel keeps the platform's root keys. Any by default.
    pub cached_keys: FlagRule,
    /// Whether hyper-threading is on. Any by default.
    pub smt_enabled: FlagRule,
    /// For SGX.
    pub sgx: SgxPolicy,
    /// For TDX.
    pub tdx: TdxPolicy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            simulated_roots: Vec::new(),
            report_data: Expect::Unset,
            trailing_bytes: TrailingRule::Zeros,
            tcb_status: StatusTable::default(),
            qe_tcb_status: StatusTable::default(),
            advisories_allowed: BTreeSet::new(),
            min_tcb_evaluation_data_number: 0,
            max_endorsement_age_days: 30,
            fmspc: Expect::Any,
            dynamic_platform: FlagRule::Any,
            cached_keys: FlagRule::Any,
            smt_enabled: FlagRule::Any,
            sgx: SgxPolicy::default(),
            tdx: TdxPolicy::default(),
        }
    }
}
