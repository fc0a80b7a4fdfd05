//! What Intel publishes about its platforms: TCB info, identities of quoting enclaves and revocation lists, each with its issuer's chain.
//!
//! One JSON file in `dcap-qvl`'s form. What is missing in it is not checked, and therefore refuses; parsing believes nothing.

use dcap_qvl::{QeIdentity, QuoteCollateralV3, TcbInfo};
use serde::Deserialize;

use crate::cert::{Certificate, Crl};

use super::backend::digest;
use super::tcb::{order_levels, order_qe_levels};
use super::time::seconds;

/// Longest file of endorsements. The real ones have less than 32 KiB.
pub const MAX_ENDORSEMENTS_LEN: usize = 262_144;
/// Longest JSON that is signed. The real ones have less than 8 KiB.
const MAX_SIGNED_LEN: usize = 65_536;
/// Most quotation marks in it, of which a text has two. The real ones have less than 2,000.
const MAX_QUOTATION_MARKS: usize = 16_384;
/// Most TCB levels, and most identities of TDX modules: Intel publishes less than twenty.
const MAX_LEVELS: usize = 256;

/// Why a file is none of endorsements.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndorsementsError {
    /// Longer than any.
    #[error("the endorsements are longer than {MAX_ENDORSEMENTS_LEN} bytes")]
    TooLong,
    /// Not JSON of this form.
    #[error("the endorsements are no JSON of dcap-qvl's form: {0}")]
    Json(String),
    /// A member of it cannot be read.
    #[error("endorsements, {member}: {reason}")]
    Member {
        /// Which.
        member: &'static str,
        /// Why.
        reason: String,
    },
}

impl EndorsementsError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong => "dcap.endorsements-too-long",
            Self::Json(_) => "dcap.endorsements-json",
            Self::Member { .. } => "dcap.endorsements-member",
        }
    }
}

/// The members of the file. A member that is not known is ignored: it could not make anything hold that did not.
#[derive(Deserialize, Clone)]
struct File {
    pck_crl_issuer_chain: Option<String>,
    root_ca_crl: Option<String>,
    pck_crl: Option<String>,
    tcb_info_issuer_chain: Option<String>,
    tcb_info: Option<String>,
    tcb_info_signature: Option<String>,
    qe_identity_issuer_chain: Option<String>,
    qe_identity: Option<String>,
    qe_identity_signature: Option<String>,
    pck_certificate_chain: Option<String>,
}

/// JSON by Intel, with what vouches for it.
#[derive(Debug, Clone)]
pub(crate) struct Signed<T> {
    pub(super) text: String,
    pub(super) signature: [u8; 64],
    pub(super) chain: Vec<Certificate>,
    pub(crate) content: T,
    pub(crate) issued_s: u64,
    pub(crate) next_update_s: u64,
}

/// What Intel publishes, taken apart and not believed.
#[derive(Clone, Default)]
pub struct Endorsements {
    file: Option<File>,
    digest: [u8; 32],
    pub(crate) root_ca_crl: Option<Crl>,
    pub(crate) pck_crl: Option<Crl>,
    pub(super) pck_crl_chain: Option<Vec<Certificate>>,
    pub(crate) tcb_info: Option<Signed<TcbInfo>>,
    pub(crate) qe_identity: Option<Signed<QeIdentity>>,
    pub(super) pck_chain: Option<Vec<Certificate>>,
}

impl std::fmt::Debug for Endorsements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endorsements")
            .field("digest", &data_encoding::HEXLOWER.encode(&self.digest))
            .finish_non_exhaustive()
    }
}

impl Endorsements {
    /// None at all: signatures of a quote are verified, and it is refused for what is missing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Takes a file apart.
    ///
    /// # Errors
    /// It is not of the form, or a member that it has cannot be read.
    pub fn parse(json: &[u8]) -> Result<Self, EndorsementsError> {
        if json.len() > MAX_ENDORSEMENTS_LEN {
            return Err(EndorsementsError::TooLong);
        }
        let file: File = serde_json::from_slice(json).map_err(|error| EndorsementsError::Json(error.to_string()))?;
        let certificates = |member, pem: &Option<String>| {
            pem.as_deref()
                .map(|pem| Certificate::read(pem.as_bytes()).map_err(|error| fault(member, error)))
                .transpose()
        };
        let crl = |member, hex: &Option<String>| {
            hex.as_deref()
                .map(|hex| Crl::from_der(&unhex(member, hex)?).map_err(|error| fault(member, error)))
                .transpose()
        };
        let tcb_info = signed(
            "tcb_info",
            file.tcb_info.as_deref(),
            file.tcb_info_signature.as_deref(),
            certificates("tcb_info_issuer_chain", &file.tcb_info_issuer_chain)?,
            |info: &mut TcbInfo| {
                order_levels(info);
                let levels = info.tcb_levels.len().max(info.tdx_module_identities.len());
                (info.issue_date.clone(), info.next_update.clone(), levels)
            },
        )?;
        let qe_identity = signed(
            "qe_identity",
            file.qe_identity.as_deref(),
            file.qe_identity_signature.as_deref(),
            certificates("qe_identity_issuer_chain", &file.qe_identity_issuer_chain)?,
            |identity: &mut QeIdentity| {
                order_qe_levels(identity);
                (identity.issue_date.clone(), identity.next_update.clone(), identity.tcb_levels.len())
            },
        )?;
        Ok(Self {
            root_ca_crl: crl("root_ca_crl", &file.root_ca_crl)?,
            pck_crl: crl("pck_crl", &file.pck_crl)?,
            pck_crl_chain: certificates("pck_crl_issuer_chain", &file.pck_crl_issuer_chain)?,
            tcb_info,
            qe_identity,
            pck_chain: certificates("pck_certificate_chain", &file.pck_certificate_chain)?,
            digest: digest(&aws_lc_rs::digest::SHA256, json),
            file: Some(file),
        })
    }

    /// SHA-256 of the file: the name of this snapshot. All zeros where there is none.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The same, as `dcap-qvl` takes it.
    pub(super) fn collateral(&self) -> Option<QuoteCollateralV3> {
        let file = self.file.clone()?;
        let unhex = |hex: Option<String>| data_encoding::HEXLOWER_PERMISSIVE.decode(hex?.as_bytes()).ok();
        Some(QuoteCollateralV3 {
            pck_crl_issuer_chain: file.pck_crl_issuer_chain?,
            root_ca_crl: unhex(file.root_ca_crl)?,
            pck_crl: unhex(file.pck_crl)?,
            tcb_info_issuer_chain: file.tcb_info_issuer_chain?,
            tcb_info: file.tcb_info?,
            tcb_info_signature: unhex(file.tcb_info_signature)?,
            qe_identity_issuer_chain: file.qe_identity_issuer_chain?,
            qe_identity: file.qe_identity?,
            qe_identity_signature: unhex(file.qe_identity_signature)?,
            pck_certificate_chain: file.pck_certificate_chain,
        })
    }
}

fn fault(member: &'static str, reason: impl ToString) -> EndorsementsError {
    EndorsementsError::Member { member, reason: reason.to_string() }
}

fn unhex(member: &'static str, hex: &str) -> Result<Vec<u8>, EndorsementsError> {
    data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).map_err(|_| fault(member, "no hexadecimal"))
}

/// JSON with its signature and chain: all three, or it is missing.
fn signed<T: for<'a> Deserialize<'a>>(
    member: &'static str,
    text: Option<&str>,
    signature: Option<&str>,
    chain: Option<Vec<Certificate>>,
    dates_and_levels: impl FnOnce(&mut T) -> (String, String, usize),
) -> Result<Option<Signed<T>>, EndorsementsError> {
    let (Some(text), Some(signature), Some(chain)) = (text, signature, chain) else { return Ok(None) };
    let signature = unhex(member, signature)?.try_into().map_err(|_| fault(member, "a signature has 64 bytes"))?;
    // Before it is read: a level takes many times the memory that its text does.
    if text.len() > MAX_SIGNED_LEN {
        return Err(fault(member, format!("longer than {MAX_SIGNED_LEN} bytes")));
    }
    if text.bytes().filter(|&byte| byte == b'"').count() > MAX_QUOTATION_MARKS {
        return Err(fault(member, format!("more than {MAX_QUOTATION_MARKS} quotation marks")));
    }
    let mut content: T = serde_json::from_str(text).map_err(|error| fault(member, error))?;
    let (issued, next_update, levels) = dates_and_levels(&mut content);
    if levels > MAX_LEVELS {
        return Err(fault(member, format!("more than {MAX_LEVELS} levels")));
    }
    let date = |text: &str| seconds(text).ok_or_else(|| fault(member, "a date is not of RFC 3339"));
    Ok(Some(Signed {
        issued_s: date(&issued)?,
        next_update_s: date(&next_update)?,
        text: text.to_owned(),
        signature,
        chain,
        content,
    }))
}
