//! Intel's JSON and revocation lists, judged by the module that verifies quotes with them.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{
    super::{
        item::{Candidate, Facts, Number, Parsed, Trust},
        key::{Key, PckAuthority},
        snapshot::Snapshot,
    },
    Found, Refusal, certificates, found_list, joined, list as read_list, refuse, unverified,
};
use crate::{
    cert::{Certificate, Provenance},
    dcap::{
        Endorsements, MAX_ENDORSEMENTS_LEN, Tee,
        judge::{Judged, judge},
    },
};

/// The answer to a question for TCB info or an identity: what is signed is the exact text of the member.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer<'a> {
    #[serde(borrow, rename = "tcbInfo")]
    tcb_info: Option<&'a RawValue>,
    #[serde(borrow, rename = "enclaveIdentity")]
    enclave_identity: Option<&'a RawValue>,
    signature: String,
}

/// The longest answer: the longest text that is read of it, with its signature.
const MAX_ANSWER_BYTES: usize = 66 * 1024;

/// Before it is read: nothing longer could be judged, and garbage is to cost little.
fn bounded(candidate: &Candidate, most: usize) -> Result<(), Refusal> {
    if candidate.content.len() > most { Err(Refusal::TooLarge { most }) } else { Ok(()) }
}

/// Members of a file of endorsements as [`Endorsements`] reads it.
pub(in crate::endorsements) type File = Map<String, Value>;

pub(in crate::endorsements) fn pem(certificates: &[Certificate]) -> String {
    let mut out = String::new();
    for certificate in certificates {
        out.push_str("-----BEGIN CERTIFICATE-----\n");
        let base64 = data_encoding::BASE64.encode(certificate.der());
        for line in base64.as_bytes().chunks(64) {
            out.push_str(str::from_utf8(line).unwrap_or_default());
            out.push('\n');
        }
        out.push_str("-----END CERTIFICATE-----\n");
    }
    out
}

pub(in crate::endorsements) fn hex(bytes: &[u8]) -> Value {
    data_encoding::HEXLOWER.encode(bytes).into()
}

/// Reads a file, and judges it against each root until the checks of these names hold.
fn judged(
    file: File,
    trust: &Trust,
    now_s: u64,
    names: &[&str],
) -> Result<(Arc<Endorsements>, Judged, Provenance), Refusal> {
    let bytes = Value::Object(file).to_string();
    let endorsements = Endorsements::parse(bytes.as_bytes()).map_err(|error| Refusal::Malformed(error.to_string()))?;
    let endorsements = Arc::new(endorsements);
    let mut refusal = unverified("no root is trusted");
    for (root, provenance) in trust.intel.iter() {
        let judged = judge(&endorsements, root, now_s);
        match refuse(&judged.checks, Some(names)) {
            Ok(()) => return Ok((endorsements, judged, provenance)),
            Err(reason) => refusal = reason,
        }
    }
    Err(refusal)
}

fn issuer(candidate: &Candidate) -> Result<Vec<Certificate>, Refusal> {
    let Some(chain) = &candidate.chain else {
        return Err(Refusal::Malformed("the chain of its issuer is not with it".to_owned()));
    };
    certificates(chain)
}

/// The list of the root goes with what it could take the signer of back.
fn with_root_list(file: &mut File, snapshot: &Snapshot, now_s: u64) -> &'static [&'static str] {
    match snapshot.item(&Key::IntelRootCrl).filter(|item| now_s <= item.facts.until_s) {
        Some(item) => {
            file.insert("root_ca_crl".to_owned(), hex(item.content.bytes()));
            &["dcap.root-ca-crl", "dcap.signer-revocation"]
        }
        None => &[],
    }
}

fn text(candidate: &Candidate, member: fn(&Answer<'_>) -> Option<String>) -> Result<(String, String), Refusal> {
    bounded(candidate, MAX_ANSWER_BYTES)?;
    let answer: Answer<'_> =
        serde_json::from_slice(&candidate.content).map_err(|error| Refusal::Malformed(error.to_string()))?;
    let text = member(&answer).ok_or_else(|| Refusal::OtherThanAsked("another kind of answer".to_owned()))?;
    Ok((text, answer.signature))
}

fn found(
    candidate: &Candidate,
    issuer: &[Certificate],
    (text, signature): (String, String),
    (issued_s, until_s, number): (u64, u64, u32),
    provenance: Provenance,
) -> Found {
    let ends_s = issuer.iter().filter_map(|certificate| u64::try_from(certificate.not_after_s()).ok()).min();
    let facts = Facts {
        issued_s: Some(issued_s),
        until_s: until_s.min(ends_s.unwrap_or(0)),
        number: Some(Number::from(number)),
        issuer: None,
        provenance,
    };
    Found {
        content: candidate.content.clone(),
        chain: Some(joined(issuer)),
        facts,
        parsed: Parsed::Signed { text, signature },
    }
}

/// TCB info of this platform.
pub(super) fn tcb_info(
    tee: Tee,
    fmspc: &[u8; 6],
    snapshot: &Snapshot,
    candidate: &Candidate,
    trust: &Trust,
    now_s: u64,
) -> Result<Found, Refusal> {
    let issuer = issuer(candidate)?;
    let signed = text(candidate, |answer| answer.tcb_info.map(|text| text.get().to_owned()))?;
    let mut file = File::new();
    file.insert("tcb_info_issuer_chain".to_owned(), pem(&issuer).into());
    file.insert("tcb_info".to_owned(), signed.0.clone().into());
    file.insert("tcb_info_signature".to_owned(), signed.1.clone().into());
    let more = with_root_list(&mut file, snapshot, now_s);
    let names = [&["dcap.tcb-info-chain", "dcap.tcb-info-signature", "dcap.tcb-info-dates"], more].concat();
    let (endorsements, _, provenance) = judged(file, trust, now_s, &names)?;
    let Some(info) = &endorsements.tcb_info else { return Err(Refusal::Malformed("no TCB info".to_owned())) };
    let content = &info.content;
    let wanted = data_encoding::HEXLOWER.encode(fmspc);
    if content.id != tee.tcb_info() || content.version != 3 || !content.fmspc.eq_ignore_ascii_case(&wanted) {
        return Err(Refusal::OtherThanAsked(format!(
            "TCB info of {} version {} for FMSPC {}",
            content.id, content.version, content.fmspc
        )));
    }
    let dates = (info.issued_s, info.next_update_s, content.tcb_evaluation_data_number);
    Ok(found(candidate, &issuer, signed, dates, provenance))
}

/// The identity of the quoting enclave.
pub(super) fn qe_identity(
    tee: Tee,
    snapshot: &Snapshot,
    candidate: &Candidate,
    trust: &Trust,
    now_s: u64,
) -> Result<Found, Refusal> {
    let issuer = issuer(candidate)?;
    let signed = text(candidate, |answer| answer.enclave_identity.map(|text| text.get().to_owned()))?;
    let mut file = File::new();
    file.insert("qe_identity_issuer_chain".to_owned(), pem(&issuer).into());
    file.insert("qe_identity".to_owned(), signed.0.clone().into());
    file.insert("qe_identity_signature".to_owned(), signed.1.clone().into());
    let more = with_root_list(&mut file, snapshot, now_s);
    let names = [&["dcap.qe-identity-chain", "dcap.qe-identity-signature", "dcap.qe-identity-dates"], more].concat();
    let (endorsements, _, provenance) = judged(file, trust, now_s, &names)?;
    let Some(identity) = &endorsements.qe_identity else {
        return Err(Refusal::Malformed("no identity".to_owned()));
    };
    let content = &identity.content;
    if content.id != tee.qe_identity() {
        return Err(Refusal::OtherThanAsked(format!("the identity of {}", content.id)));
    }
    let dates = (identity.issued_s, identity.next_update_s, content.tcb_evaluation_data_number);
    Ok(found(candidate, &issuer, signed, dates, provenance))
}

/// Revoked PCK certificates of this authority.
pub(super) fn pck_list(ca: PckAuthority, candidate: &Candidate, trust: &Trust, now_s: u64) -> Result<Found, Refusal> {
    bounded(candidate, MAX_ENDORSEMENTS_LEN)?;
    let issuer = issuer(candidate)?;
    let list = read_list(&candidate.content)?;
    let mut file = File::new();
    file.insert("pck_crl_issuer_chain".to_owned(), pem(&issuer).into());
    file.insert("pck_crl".to_owned(), hex(list.der()));
    let (_, judged, provenance) = judged(file, trust, now_s, &["dcap.pck-crl"])?;
    let by = judged.pck_ca.as_ref().and_then(Certificate::common_name);
    if by.as_deref() != Some(ca.common_name()) {
        return Err(Refusal::OtherThanAsked(format!("the list is by {}", by.unwrap_or_else(|| list.issuer_name()))));
    }
    Ok(Found { chain: Some(joined(&issuer)), ..found_list(list, provenance) })
}

/// What Intel's root revoked.
pub(super) fn root_list(candidate: &Candidate, trust: &Trust, now_s: u64) -> Result<Found, Refusal> {
    bounded(candidate, MAX_ENDORSEMENTS_LEN)?;
    let list = read_list(&candidate.content)?;
    let mut file = File::new();
    file.insert("root_ca_crl".to_owned(), hex(list.der()));
    let (_, _, provenance) = judged(file, trust, now_s, &["dcap.root-ca-crl"])?;
    Ok(found_list(list, provenance))
}
