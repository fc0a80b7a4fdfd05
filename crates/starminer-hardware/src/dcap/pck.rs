//! The certificate of a platform's provisioning key (PCK): how it comes in a quote, and what it says of the platform.

use dcap_qvl::config::PckCa;
use dcap_qvl::intel::parse_pck_extension_with;

use crate::cert::Certificate;

use super::backend::{Backend, pck_ca};
use super::tcb::PlatformSvns;

/// Most certificates in a quote: leaf, authority, root.
const MAX_CHAIN: usize = 3;

/// Reads the chain that a quote holds.
///
/// Stricter than PEM has to be, since nothing but this check covers its armour: two or three blocks of base64 in lines, blank lines between them,
/// zeros at the end, and nothing else.
pub(super) fn read_chain(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    let end = pem.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let text = str::from_utf8(&pem[..end]).map_err(|_| "the certificate chain is no text")?;
    let mut chain = Vec::new();
    let mut block: Option<String> = None;
    for line in text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)) {
        match (&mut block, line) {
            (None, "") => {}
            (None, "-----BEGIN CERTIFICATE-----") if chain.len() < MAX_CHAIN => block = Some(String::new()),
            (None, "-----BEGIN CERTIFICATE-----") => {
                return Err("the certificate chain has more than three certificates".into());
            }
            (Some(base64), "-----END CERTIFICATE-----") => {
                let der = data_encoding::BASE64
                    .decode(base64.as_bytes())
                    .map_err(|_| "a certificate of the chain is no base64")?;
                let certificate = Certificate::from_der(&der)
                    .map_err(|error| format!("certificate {} of the chain: {error}", chain.len() + 1))?;
                chain.push(certificate);
                block = None;
            }
            (Some(base64), line) if !line.is_empty() => base64.push_str(line),
            _ => return Err("the certificate chain is no strict PEM".into()),
        }
    }
    match block {
        None => Ok(chain),
        Some(_) => Err("a certificate of the chain has no end".into()),
    }
}

/// Whether certification data that is no chain is about the PCK certificate that was given beside the quote.
///
/// Types 1 to 3 are the platform's id, plain or encrypted, with CPUSVN, PCESVN and PCE id behind it; type 4 is the certificate alone.
pub(super) fn names_platform(kind: u16, data: &[u8], leaf: &Certificate, platform: &Platform) -> Result<(), String> {
    let ppid_len = match kind {
        1 => 16,
        2 => 256,
        3 => 384,
        4 => {
            let alone = read_chain(data)?;
            return if alone == [leaf.clone()] {
                Ok(())
            } else {
                Err("the quote's PCK certificate is not the one given".into())
            };
        }
        kind => return Err(format!("certification data of type {kind} is not known")),
    };
    let svns = [&platform.cpu_svn[..], &platform.pce_svn.to_le_bytes(), &platform.pce_id].concat();
    match data.split_at_checked(ppid_len) {
        Some((_, rest)) if rest != svns => Err("the PCK certificate given is of another TCB than the quote's".into()),
        Some((ppid, _)) if kind == 1 && ppid != platform.ppid => {
            Err("the PCK certificate given is of another platform".into())
        }
        Some(_) => Ok(()),
        None => Err("the quote's certification data has another length than its type".into()),
    }
}

/// What a PCK certificate says of its platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Id of the platform, encrypted nowhere: it names the machine.
    pub ppid: Vec<u8>,
    /// Family, model, stepping, platform type: what TCB info is published for.
    pub fmspc: [u8; 6],
    /// Which provisioning certification enclave.
    pub pce_id: [u8; 2],
    /// Its security version.
    pub pce_svn: u16,
    /// Security version of the processor, raw.
    pub cpu_svn: [u8; 16],
    /// How memory is protected.
    pub sgx_type: SgxType,
    /// Which of Intel's authorities issued the certificate.
    pub ca: Option<PckCa>,
    /// Id of this set-up of a platform of several packages.
    pub platform_instance_id: Option<[u8; 16]>,
    /// Whether packages may be added to the platform.
    pub dynamic_platform: Option<bool>,
    /// Whether Intel keeps the platform's root keys.
    pub cached_keys: Option<bool>,
    /// Whether hyper-threading is on.
    pub smt_enabled: Option<bool>,
}

/// How memory is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SgxType {
    /// Encrypted with integrity tree, in small processors.
    Standard,
    /// Encrypted, in servers.
    Scalable,
    /// Encrypted and with integrity, in servers.
    ScalableWithIntegrity,
}

impl SgxType {
    /// The name in claims.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Scalable => "scalable",
            Self::ScalableWithIntegrity => "scalable-with-integrity",
        }
    }
}

impl Platform {
    /// Reads the SGX extension of a PCK certificate.
    pub(super) fn of(certificate: &Certificate) -> Result<Self, String> {
        let found = parse_pck_extension_with::<Backend>(certificate.der())
            .map_err(|error| format!("the PCK certificate's SGX extension: {error:#}"))?;
        let malformed = |what: &str| format!("the PCK certificate's SGX extension: {what} is malformed");
        Ok(Self {
            ppid: if found.ppid.len() == 16 { found.ppid } else { return Err(malformed("the PPID")) },
            fmspc: found.fmspc,
            pce_id: found.pce_id.try_into().map_err(|_| malformed("the PCE id"))?,
            pce_svn: found.pce_svn,
            cpu_svn: found.cpu_svn,
            sgx_type: match found.sgx_type {
                0 => SgxType::Standard,
                1 => SgxType::Scalable,
                2 => SgxType::ScalableWithIntegrity,
                _ => return Err(malformed("the SGX type")),
            },
            ca: pck_ca(certificate),
            platform_instance_id: found
                .platform_instance_id
                .map(|id| id.try_into().map_err(|_| malformed("the platform instance id")))
                .transpose()?,
            dynamic_platform: found.dynamic_platform,
            cached_keys: found.cached_keys,
            smt_enabled: found.smt_enabled,
        })
    }

    pub(super) const fn svns(&self) -> PlatformSvns {
        PlatformSvns { cpu_svn: self.cpu_svn, pce_svn: self.pce_svn }
    }

    /// What to fetch at Intel's or a cache's, for people.
    pub(super) fn wanted(&self) -> String {
        format!("FMSPC {}, PCK authority {}", hex(&self.fmspc), self.ca_name())
    }

    /// The authority, as Intel's addresses name it.
    #[must_use]
    pub fn ca_name(&self) -> &'static str {
        self.ca.map_or("unknown", |ca| ca.as_id_str())
    }
}

/// Lowercase hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
