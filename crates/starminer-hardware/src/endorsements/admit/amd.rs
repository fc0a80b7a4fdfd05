//! AMD's certificates and revocation lists.

use super::{
    super::{
        item::{Candidate, Facts, Parsed, Trust},
        key::Key,
        snapshot::Snapshot,
    },
    Found, Refusal, certificates, chain_facts, found_list, joined, list as read_list, refuse, seconds, unverified,
};
use crate::{
    cert::{ChainOptions, LeafRole, build_chain},
    snp::{Product, SigningKey, verify_key},
};

/// The common name of what issues the certificates of such keys.
fn signer_name(product: Product, signer: SigningKey) -> String {
    match signer {
        SigningKey::Vcek => format!("SEV-{}", product.name()),
        SigningKey::Vlek => format!("SEV-VLEK-{}", product.name()),
    }
}

fn root_name(product: Product) -> String {
    format!("ARK-{}", product.name())
}

/// The certificate of a VCEK or VLEK.
pub(super) fn key(snapshot: &Snapshot, candidate: &Candidate, trust: &Trust, now_s: u64) -> Result<Found, Refusal> {
    let given = certificates(&candidate.content)?;
    let [certificate] = &given[..] else {
        return Err(Refusal::Malformed("one certificate is expected".to_owned()));
    };
    let (product, signer) = match &candidate.key {
        Key::AmdVcek { product, .. } => (*product, SigningKey::Vcek),
        Key::AmdVlek { product, .. } => (*product, SigningKey::Vlek),
        _ => return Err(Refusal::OtherThanAsked("not a key of AMD's".to_owned())),
    };
    let mut all = vec![certificate.clone()];
    all.extend_from_slice(snapshot.certificates(&Key::AmdChain { product, signer }));
    let verification = verify_key(&all, &[], &trust.amd, now_s);
    refuse(&verification.checks, None)?;
    let key = verification.key.ok_or_else(|| unverified("no key"))?;
    let same = match &candidate.key {
        Key::AmdVcek { product, chip_id, tcb } => {
            key.signing_key() == SigningKey::Vcek
                && key.product() == *product
                && key.chip_id() == Some(chip_id)
                && key.tcb() == *tcb
        }
        Key::AmdVlek { product, cloud_id, tcb } => {
            key.signing_key() == SigningKey::Vlek
                && key.product() == *product
                && key.cloud_id() == Some(cloud_id)
                && key.tcb() == *tcb
        }
        _ => false,
    };
    if !same {
        return Err(Refusal::OtherThanAsked(format!(
            "the certificate is of a {} of {} at TCB {}",
            key.signing_key().name(),
            key.product().name(),
            data_encoding::HEXLOWER.encode(&key.tcb().0)
        )));
    }
    let facts = Facts {
        issued_s: None,
        until_s: seconds(key.not_after_s()),
        number: None,
        issuer: None,
        provenance: key.provenance(),
    };
    Ok(Found { content: certificate.der().to_vec(), chain: None, facts, parsed: Parsed::Certificates(given) })
}

/// ASK or ASVK, with or without the ARK.
pub(super) fn chain(
    product: Product,
    signer: SigningKey,
    candidate: &Candidate,
    trust: &Trust,
    now_s: u64,
) -> Result<Found, Refusal> {
    let given = certificates(&candidate.content)?;
    let [leaf, above @ ..] = &given[..] else {
        return Err(Refusal::Malformed("a chain has a certificate".to_owned()));
    };
    let options = ChainOptions { leaf: LeafRole::Issues, ..ChainOptions::default() };
    let built = build_chain(leaf, &[], &trust.amd, now_s, &options).map_err(unverified)?;
    if !matches!(above, [] | [_]) || above.iter().any(|root| root != built.root()) {
        return Err(Refusal::OtherThanAsked("what follows the first certificate is not its root".to_owned()));
    }
    let wanted = [signer_name(product, signer), root_name(product)];
    let names = [leaf.common_name(), built.root().common_name()];
    if names.each_ref().map(Option::as_deref) != wanted.each_ref().map(|name| Some(name.as_str())) {
        return Err(Refusal::OtherThanAsked(format!("{} and {} are expected", wanted[0], wanted[1])));
    }
    Ok(Found { content: joined(&given), chain: None, facts: chain_facts(&built), parsed: Parsed::Certificates(given) })
}

/// The list of an ARK.
pub(super) fn list(product: Product, candidate: &Candidate, trust: &Trust, now_s: u64) -> Result<Found, Refusal> {
    let list = read_list(&candidate.content)?;
    let wanted = root_name(product);
    let mut roots = trust.amd.iter().filter(|(root, _)| root.common_name().as_deref() == Some(&wanted)).peekable();
    if roots.peek().is_none() {
        return Err(unverified(format!("no root {wanted} is trusted")));
    }
    let mut first_error = None;
    for (root, provenance) in roots {
        match list.verify(root, now_s) {
            Ok(_) => return Ok(found_list(list, provenance)),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(unverified(first_error.map_or_else(String::new, |error| error.to_string())))
}
