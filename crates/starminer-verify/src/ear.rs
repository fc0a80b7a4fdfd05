//! An attestation result as an EAR: the EAT claims-set that other RATS tools read.
//!
//! Writes only: an EAR that somebody sends is a statement to be signed and checked elsewhere, never a way back to an
//! [`AttestationResult`]. Unsigned; a caller who sends it has it signed as a JWT ([`AttestationResult::to_jwt`]). Encoding is deterministic: keys sorted, no
//! white space. Source: draft-ietf-rats-ear-04, section 3; RFC 9711; `specs/policy.md`, section "EAR".

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value, json};

use crate::appraise::AttestationResult;
use crate::trust::Provenance;

/// The profile of the claims-set.
pub const EAR_PROFILE: &str = "tag:ietf.org,2026:rats/ear#04";
/// The profile of our extensions to an appraisal.
pub const APPRAISAL_PROFILE: &str = "tag:github.com,2026:starminer/starminer/appraisal#1";

impl AttestationResult {
    /// The EAR claims-set, with one submodule named after the kind of evidence. Chip ids are not in it.
    pub fn to_ear(&self) -> Value {
        let vector: Map<String, Value> =
            self.vector().aspects().into_iter().map(|(name, claim)| (name.into(), claim.value().into())).collect();
        let checks: Vec<Value> = self
            .checks()
            .iter()
            .map(|check| {
                json!({
                    "name": check.name(),
                    "verdict": check.verdict().name(),
                    "weight": check.weight().name(),
                    "reason": check.reason(),
                })
            })
            .collect();
        let provenance = match self.provenance() {
            Provenance::Genuine => json!({ "name": "genuine" }),
            Provenance::Simulated { root } => json!({ "name": "simulated", "root": root.to_string() }),
        };
        let status = self.status().name();
        let appraisal = json!({
            "eat_profile": APPRAISAL_PROFILE,
            "eat_nonce": BASE64URL_NOPAD.encode(self.binding().challenge.as_bytes()),
            "ear_status": status,
            "ear_trustworthiness_vector": vector,
            "ear_appraisal_policy_ids": [format!("tag:github.com,2026:starminer/starminer/policy#{}", self.policy_digest())],
            "ear_starminer_tier": self.tier().name(),
            "ear_starminer_provenance": provenance,
            "ear_starminer_checks": checks,
            "ear_starminer_evidence": self.evidence_digest().to_hex(),
            "ear_starminer_endorsements": self.endorsements_digest().to_hex(),
            "ear_starminer_reference_values": self.reference_values_digest().to_hex(),
        });
        json!({
            "eat_profile": EAR_PROFILE,
            "iat": self.appraised_at().as_seconds(),
            "ear_status": status,
            "ear_verifier_id": {
                "developer": "https://github.com/starminer/starminer",
                "build": concat!("starminer-verify ", env!("CARGO_PKG_VERSION")),
            },
            "submods": { (self.kind().name()): appraisal },
        })
    }

    /// The one encoding of [`Self::to_ear`]: keys sorted by their bytes, no white space.
    pub fn to_ear_json(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4096);
        write_sorted(&self.to_ear(), &mut bytes);
        bytes
    }
}

/// Writes JSON with sorted keys whatever map type serde_json was built with.
fn write_sorted(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by(|a, b| a.0.cmp(b.0));
            out.push(b'{');
            for (i, (key, value)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_scalar(&Value::String(key.clone()), out);
                out.push(b':');
                write_sorted(value, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_sorted(item, out);
            }
            out.push(b']');
        }
        scalar => write_scalar(scalar, out),
    }
}

fn write_scalar(value: &Value, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a string or number is written to memory");
}
