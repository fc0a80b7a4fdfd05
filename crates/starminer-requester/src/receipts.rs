//! From what the coordinator kept to a receipt file.

use starminer_receipt::{
    LoggedEntry, NetworkTrust, Receipt, ReceiptVerdict, VerifiedEnvelopes, verify_receipt_remembering,
};
use starminer_verify::UnixTime;
use starminer_wire::ReceiptParts;

/// Puts the receipt together, verifies it by the holder's own trust, and stamps it by what was found. The stamp is for people; whoever
/// verifies the file derives it anew. `memory` has what the holder verified or signed while the task ran.
#[must_use]
pub fn receipt_from_parts(
    parts: ReceiptParts,
    trust: &NetworkTrust,
    now: UnixTime,
    memory: &mut VerifiedEnvelopes,
) -> (Receipt, ReceiptVerdict) {
    let entries = parts.entries.into_iter();
    let mut receipt = Receipt {
        format: Receipt::FORMAT.into(),
        stamp: Receipt::SIMULATED.into(),
        spec: parts.spec,
        lease: parts.lease,
        challenge: parts.challenge,
        evidence: parts.evidence,
        endorsements: parts.endorsements,
        attestation_result: parts.attestation_result,
        release: parts.release,
        grant: parts.grant,
        denial: parts.denial,
        cancel: parts.cancel,
        report: parts.report,
        agent_statement: parts.agent_statement,
        closing_evidence: parts.closing_evidence,
        checkpoint: parts.checkpoint,
        entries: entries.map(|entry| LoggedEntry { entry: entry.entry, inclusion: entry.inclusion }).collect(),
    };
    let verdict = verify_receipt_remembering(&receipt, Some(trust), now, memory);
    if verdict.is_simulated() {
        return (receipt, verdict);
    }
    receipt.stamp = Receipt::GENUINE.into();
    let verdict = verify_receipt_remembering(&receipt, Some(trust), now, memory);
    (receipt, verdict)
}
