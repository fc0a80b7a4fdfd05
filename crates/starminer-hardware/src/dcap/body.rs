//! What a quote is about: the report of an SGX enclave, or of a trust domain (TDX), in the layouts of 1.0, 1.5 and its extension.
//!
//! Numbers are little-endian. Reserved bytes have to be zero. What the fields are worth is not decided here.

use super::parse::{ParseError, Reader};

/// Length of an enclave's report.
pub const SGX_REPORT_LEN: usize = 384;
/// Length of a trust domain's report, TDX 1.0.
pub const TD10_LEN: usize = 584;
/// Length of a trust domain's report, TDX 1.5.
pub const TD15_LEN: usize = 648;
/// Length of a trust domain's report, TDX 1.5 with the extension for service TDs.
pub const TD15_EXTENDED_LEN: usize = 885;

/// An enclave's report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SgxReport {
    /// Security version of the processor, raw.
    pub cpu_svn: [u8; 16],
    /// Which extended features the state save area holds.
    pub misc_select: u32,
    /// Control-flow enforcement of the enclave.
    pub cet_attributes: u8,
    /// Extended product id (KSS).
    pub isv_ext_prod_id: [u8; 16],
    /// Flags (8 bytes) and XFRM (8 bytes).
    pub attributes: [u8; 16],
    /// Measurement of the enclave.
    pub mr_enclave: [u8; 32],
    /// Digest of its signer's key.
    pub mr_signer: [u8; 32],
    /// Configuration id (KSS).
    pub config_id: [u8; 64],
    /// Product id.
    pub isv_prod_id: u16,
    /// Security version.
    pub isv_svn: u16,
    /// Security version of the configuration (KSS).
    pub config_svn: u16,
    /// Family id (KSS).
    pub isv_family_id: [u8; 16],
    /// What the enclave had signed.
    pub report_data: [u8; 64],
}

impl SgxReport {
    /// The flag DEBUG: whoever runs the machine reads the enclave's memory.
    pub const DEBUG: u64 = 1 << 1;

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Self {
            cpu_svn: reader.array()?,
            misc_select: reader.u32()?,
            cet_attributes: reader.array::<1>()?[0],
            isv_ext_prod_id: {
                reader.zeros::<11>()?;
                reader.array()?
            },
            attributes: reader.array()?,
            mr_enclave: reader.array()?,
            mr_signer: {
                reader.zeros::<32>()?;
                reader.array()?
            },
            config_id: {
                reader.zeros::<32>()?;
                reader.array()?
            },
            isv_prod_id: reader.u16()?,
            isv_svn: reader.u16()?,
            config_svn: reader.u16()?,
            isv_family_id: {
                reader.zeros::<42>()?;
                reader.array()?
            },
            report_data: reader.array()?,
        })
    }

    /// The flags of the attributes.
    #[must_use]
    pub fn flags(&self) -> u64 {
        half(&self.attributes, 0)
    }

    /// The processor features that the enclave may use.
    #[must_use]
    pub fn xfrm(&self) -> u64 {
        half(&self.attributes, 8)
    }
}

fn half(attributes: &[u8; 16], from: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&attributes[from..from + 8]);
    u64::from_le_bytes(bytes)
}

/// A trust domain's report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdReport {
    /// Security versions of the TDX module and its loader when the TD was launched.
    pub tee_tcb_svn: [u8; 16],
    /// Measurement of the TDX module.
    pub mr_seam: [u8; 48],
    /// Digest of the module's signer; zero means Intel.
    pub mr_signer_seam: [u8; 48],
    /// Attributes of the module.
    pub seam_attributes: [u8; 8],
    /// Attributes of the TD.
    pub td_attributes: u64,
    /// Processor features that the TD may use.
    pub xfam: u64,
    /// Measurement of the TD's first memory.
    pub mr_td: [u8; 48],
    /// Configuration that the TD's host gave.
    pub mr_config_id: [u8; 48],
    /// Owner that the TD's host gave.
    pub mr_owner: [u8; 48],
    /// Configuration by the owner that the TD's host gave.
    pub mr_owner_config: [u8; 48],
    /// Registers that the TD's software extends.
    pub rtmrs: [[u8; 48]; 4],
    /// What the TD had signed.
    pub report_data: [u8; 64],
    /// What TDX 1.5 adds.
    pub td15: Option<Td15>,
}

/// What TDX 1.5 adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Td15 {
    /// Security versions of the TDX module as it is by now: it may have been updated beneath the TD.
    pub tee_tcb_svn_2: [u8; 16],
    /// Digest of the service TDs that are bound to the TD.
    pub mr_service_td: [u8; 48],
    /// What the extended body adds.
    pub extension: Option<Td15Extension>,
}

/// What the extended body of TDX 1.5 adds (quote version 5, body type 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Td15Extension {
    /// Index of the virtual machine in the TD.
    pub vm_id: u8,
    /// Unique id of this launch of the TD.
    pub td_id: [u8; 32],
    /// Digest of the devices' information.
    pub device_info: [u8; 48],
    /// Digest of the service TDs at creation.
    pub init_service_td_hash: [u8; 48],
    /// Attributes of the service TD at creation.
    pub init_service_td_attributes: [u8; 8],
    /// Processor's security version at creation.
    pub init_cpu_svn: [u8; 16],
    /// Module's security versions at creation.
    pub init_tee_tcb_svn: [u8; 16],
    /// Platform at creation.
    pub init_tee_fmspc: [u8; 12],
    /// Digest of the service TDs bound by now.
    pub service_td_hash: [u8; 48],
    /// Attributes of the service TD bound by now.
    pub service_td_attributes: [u8; 8],
}

/// Which layout a trust domain's report has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TdLayout {
    Td10,
    Td15,
    Td15Extended,
}

impl TdReport {
    pub(super) fn read(reader: &mut Reader<'_>, layout: TdLayout) -> Result<Self, ParseError> {
        let mut report = Self {
            tee_tcb_svn: reader.array()?,
            mr_seam: reader.array()?,
            mr_signer_seam: reader.array()?,
            seam_attributes: reader.array()?,
            td_attributes: u64::from_le_bytes(reader.array()?),
            xfam: u64::from_le_bytes(reader.array()?),
            mr_td: reader.array()?,
            mr_config_id: reader.array()?,
            mr_owner: reader.array()?,
            mr_owner_config: reader.array()?,
            rtmrs: [reader.array()?, reader.array()?, reader.array()?, reader.array()?],
            report_data: reader.array()?,
            td15: None,
        };
        if layout != TdLayout::Td10 {
            report.td15 = Some(Td15 {
                tee_tcb_svn_2: reader.array()?,
                mr_service_td: reader.array()?,
                extension: match layout {
                    TdLayout::Td15Extended => Some(Td15Extension {
                        vm_id: reader.array::<1>()?[0],
                        td_id: reader.array()?,
                        device_info: reader.array()?,
                        init_service_td_hash: reader.array()?,
                        init_service_td_attributes: reader.array()?,
                        init_cpu_svn: reader.array()?,
                        init_tee_tcb_svn: reader.array()?,
                        init_tee_fmspc: reader.array()?,
                        service_td_hash: reader.array()?,
                        service_td_attributes: reader.array()?,
                    }),
                    TdLayout::Td10 | TdLayout::Td15 => None,
                },
            });
        }
        Ok(report)
    }
}

/// What a quote is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// An SGX enclave.
    Sgx(Box<SgxReport>),
    /// A trust domain.
    Tdx(Box<TdReport>),
}

impl Body {
    /// The kind of trusted execution environment.
    #[must_use]
    pub const fn tee(&self) -> Tee {
        match self {
            Self::Sgx(_) => Tee::Sgx,
            Self::Tdx(_) => Tee::Tdx,
        }
    }

    /// What the environment had signed.
    #[must_use]
    pub fn report_data(&self) -> &[u8; 64] {
        match self {
            Self::Sgx(report) => &report.report_data,
            Self::Tdx(report) => &report.report_data,
        }
    }
}

/// The kind of trusted execution environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tee {
    /// Software Guard Extensions: an enclave in a process.
    Sgx,
    /// Trust Domain Extensions: a virtual machine.
    Tdx,
}

impl Tee {
    /// The name in claims.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sgx => "sgx",
            Self::Tdx => "tdx",
        }
    }

    /// What Intel calls the identity of its quoting enclave.
    pub(crate) const fn qe_identity(self) -> &'static str {
        match self {
            Self::Sgx => "QE",
            Self::Tdx => "TD_QE",
        }
    }

    /// What Intel calls its TCB data.
    pub(crate) const fn tcb_info(self) -> &'static str {
        match self {
            Self::Sgx => "SGX",
            Self::Tdx => "TDX",
        }
    }
}
