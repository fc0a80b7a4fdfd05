//! Entry points for fuzzing: one function for each parser of untrusted bytes. Each takes any bytes and must return.
//!
//! Where a parser has one encoding, the function also asserts that what was read writes back to the same bytes: a second
//! spelling is a bug here, and these functions are not called with anything but a fuzzer's bytes.

use crate::evidence::Evidence;
use crate::parts::{GpuPart, SevSnpPart, TpmPart};
use crate::policy::Policy;
use crate::posture::Posture;
use crate::reference::ReferenceValues;
use crate::refusal::Refusal;
use crate::software_tee;
use crate::trust::{SimulatedRootId, TrustAnchors};
use crate::types::{BootId, Digest, PublicKey, UnixTime};

/// [`Evidence::parse`]; reading twice gives the same digest.
pub fn evidence(data: &[u8]) {
    if let Ok(evidence) = Evidence::parse(data) {
        assert_eq!(evidence.size_bytes(), data.len());
        assert!(evidence.binding.check_shape().is_ok());
    }
}

/// The parts that are made of fields; what reads writes back the same. Says how many kinds read it.
pub fn parts(data: &[u8]) -> usize {
    let sev_snp = SevSnpPart::parse(data).map(|part| part.encode());
    let tpm = TpmPart::parse(data).map(|part| part.encode());
    let gpu = GpuPart::parse(data).map(|part| part.encode());
    let read = [sev_snp, tpm, gpu].into_iter().flatten();
    read.inspect(|encoded| assert_eq!(encoded, data, "a second encoding")).count()
}

/// A software TEE's report, with the root, boot and report data that it names itself, so that the fuzzer gets past the
/// cheap checks to the signatures.
pub fn software_tee_report(data: &[u8]) {
    let at = |from: usize| data.get(from..from + 32).and_then(Digest::from_slice).unwrap_or(Digest([0; 32]));
    let boot = data.get(56..72).and_then(BootId::from_slice).unwrap_or(BootId([0; 16]));
    let root = SimulatedRootId::SoftwareTee(PublicKey(at(168).0));
    if let Ok(anchors) = TrustAnchors::makers().with_simulated_roots([root]) {
        let _ = software_tee::verify_report(data, &at(104), &boot, &anchors, UnixTime(1));
    }
}

/// [`Policy::parse`]; the one form reads back as itself.
pub fn policy(data: &[u8]) {
    if let Ok(policy) = Policy::parse(data) {
        assert_eq!(Policy::parse(&policy.to_json()).as_ref(), Ok(&policy));
    }
}

/// [`ReferenceValues::parse`]; the one form reads back as itself.
pub fn reference_values(data: &[u8]) {
    if let Ok(values) = ReferenceValues::parse(data) {
        assert_eq!(ReferenceValues::parse(&values.to_json()).as_ref(), Ok(&values));
    }
}

/// A posture on its own.
pub fn posture(data: &[u8]) {
    if let Ok(posture) = serde_json::from_slice::<Posture>(data) {
        assert_eq!(serde_json::from_slice::<Posture>(&posture.to_json()).ok().as_ref(), Some(&posture));
    }
}

/// A refusal from another party.
pub fn refusal(data: &[u8]) {
    if let Ok(refusal) = serde_json::from_slice::<Refusal>(data) {
        assert!(!refusal.to_string().chars().any(char::is_control));
    }
}
