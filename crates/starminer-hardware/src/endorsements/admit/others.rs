//! Authorities and lists of TPM makers; manifests and certificate states of NVIDIA's.

use super::{
    super::{
        item::{Candidate, Facts, MAX_OBJECT_BYTES, Parsed, Trust},
        key::RimId,
        ocsp,
        snapshot::Snapshot,
    },
    Found, Refusal, certificates, chain_facts, found_list, joined, list as read_list, refuse, seconds, unverified,
};
use crate::{
    cert::{Certificate, ChainOptions, LeafRole, Provenance, Roots, build_chain},
    nvidia::{Rim, RimKind, verify_rim},
};

/// Critical extensions of makers' authorities that say nothing which is relied upon: certificatePolicies.
const UNDERSTOOD: [&[u8]; 1] = [&[0x55, 0x1d, 0x20]];

/// An authority below a root that is trusted, perhaps over others that are known.
pub(super) fn tpm_authority(
    snapshot: &Snapshot,
    candidate: &Candidate,
    trust: &Trust,
    now_s: u64,
) -> Result<Found, Refusal> {
    let given = certificates(&candidate.content)?;
    let [authority] = &given[..] else {
        return Err(Refusal::Malformed("one certificate is expected".to_owned()));
    };
    let options =
        ChainOptions { leaf: LeafRole::Issues, understood: &UNDERSTOOD, quirks: &[crate::cert::Quirk::LeafIsRoot] };
    if !authority.is_ca() {
        return Err(Refusal::OtherThanAsked("it is no certificate authority".to_owned()));
    }
    let between = snapshot.tpm_authorities();
    let chain = build_chain(authority, &between, &trust.tpm, now_s, &options).map_err(unverified)?;
    Ok(Found {
        content: authority.der().to_vec(),
        chain: None,
        facts: chain_facts(&chain),
        parsed: Parsed::Certificates(given),
    })
}

/// A list by a root that is trusted, or by an authority that is known.
pub(super) fn tpm_list(
    snapshot: &Snapshot,
    candidate: &Candidate,
    trust: &Trust,
    now_s: u64,
) -> Result<Found, Refusal> {
    let list = read_list(&candidate.content)?;
    let roots = trust.tpm.iter().map(|(root, provenance)| (root.clone(), provenance));
    let between = snapshot.tpm_authorities_with_provenance();
    let mut first_error = None;
    for (issuer, provenance) in roots.chain(between).filter(|(issuer, _)| issuer.subject() == list.issuer()) {
        match list.verify(&issuer, now_s) {
            Ok(_) => return Ok(found_list(list, provenance)),
            Err(error) => first_error = first_error.or(Some(error.to_string())),
        }
    }
    Err(unverified(first_error.unwrap_or_else(|| {
        format!("its issuer ({}) is neither a trusted root nor an authority that is known", list.issuer_name())
    })))
}

/// A manifest, which has to be about what its id says.
pub(super) fn rim(id: &RimId, candidate: &Candidate, trust: &Trust, now_s: u64) -> Result<Found, Refusal> {
    if candidate.content.len() > MAX_OBJECT_BYTES {
        return Err(Refusal::TooLarge { most: MAX_OBJECT_BYTES });
    }
    let rim = Rim::parse(&candidate.content).map_err(|error| Refusal::Malformed(error.to_string()))?;
    let (checks, claims) = verify_rim(&rim, &trust.nvidia, now_s);
    refuse(&checks, None)?;
    let claims = claims.ok_or_else(|| unverified("no manifest"))?;
    let id = id.as_str().to_ascii_lowercase();
    let fits = match claims.kind {
        RimKind::Driver => id == format!("nv_gpu_driver_{}_{}", claims.product.to_ascii_lowercase(), claims.version),
        RimKind::Vbios => {
            id.starts_with("nv_gpu_vbios_") && id.rsplit('_').next() == Some(&claims.version.replace('.', ""))
        }
    };
    if !fits {
        return Err(Refusal::OtherThanAsked(format!(
            "the manifest is of {} {} for {}",
            claims.kind.name(),
            claims.version,
            claims.product
        )));
    }
    let facts = Facts {
        issued_s: None,
        until_s: seconds(claims.not_after_s),
        number: None,
        issuer: None,
        provenance: claims.provenance,
    };
    Ok(Found { content: candidate.content.clone(), chain: None, facts, parsed: Parsed::Rim })
}

/// The state of a certificate. Its issuer comes first in the chain that comes with the answer.
pub(super) fn ocsp(
    issuer_sha256: &[u8; 32],
    serial: &[u8],
    candidate: &Candidate,
    trust: &Trust,
    now_s: u64,
) -> Result<Found, Refusal> {
    let Some(chain) = &candidate.chain else {
        return Err(Refusal::Malformed("the chain of the issuer is not with it".to_owned()));
    };
    let given = certificates(chain)?;
    let [issuer, above @ ..] = &given[..] else {
        return Err(Refusal::Malformed("the chain of the issuer is empty".to_owned()));
    };
    if issuer.fingerprint() != *issuer_sha256 {
        return Err(Refusal::OtherThanAsked("the chain begins with another issuer".to_owned()));
    }
    let (until_s, provenance) = nvidia_issuer(issuer, above, trust, now_s)?;
    let answer = ocsp::verify(&candidate.content, issuer, serial, now_s).map_err(unverified)?;
    let facts = Facts {
        issued_s: Some(answer.this_update_s),
        until_s: answer.next_update_s.min(until_s),
        number: None,
        issuer: None,
        provenance,
    };
    Ok(Found {
        content: candidate.content.clone(),
        chain: Some(joined(&given)),
        facts,
        parsed: Parsed::Ocsp(answer.status),
    })
}

/// An issuer below one of NVIDIA's roots, or one of them.
fn nvidia_issuer(
    issuer: &Certificate,
    above: &[Certificate],
    trust: &Trust,
    now_s: u64,
) -> Result<(u64, Provenance), Refusal> {
    let mut refusal = unverified("no root is trusted");
    let options =
        ChainOptions { leaf: LeafRole::Issues, quirks: &[crate::cert::Quirk::LeafIsRoot], ..ChainOptions::default() };
    for (root, provenance) in trust.nvidia.iter() {
        match build_chain(issuer, above, &Roots::none().with(root.clone()), now_s, &options) {
            Ok(chain) => return Ok((seconds(chain.not_after_s()), provenance)),
            Err(error) => refusal = unverified(error),
        }
    }
    Err(refusal)
}
