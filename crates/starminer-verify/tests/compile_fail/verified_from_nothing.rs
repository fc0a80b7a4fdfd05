// expect: E0451
use starminer_verify::*;

fn forge(binding: Binding, posture: Posture, device: DeviceClaims, d: Digest, t: UnixTime) -> Verified {
    Verified {
        evidence_digest: d,
        endorsements_digest: d,
        binding,
        posture,
        device,
        tpm_beside: None,
        gpus: None,
        facility: None,
        windows: Vec::new(),
        provenance: Provenance::Genuine,
        verified_at: t,
        challenge_issued_at: t,
        checks: Vec::new(),
    }
}

fn main() {
    let _ = forge as usize;
}
