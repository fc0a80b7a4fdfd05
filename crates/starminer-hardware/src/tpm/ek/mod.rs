//! Certificates of endorsement keys (TCG EK Credential Profile): which maker vouches for which key, in which TPM.
//!
//! Real ones have quirks. Tolerated are: an empty subject, bytes 0 or 255 after the certificate (as NV storage reads), key usage missing or
//! other than for decryption, RSAES-OAEP key identifiers, negative serial numbers, no extended key usage. What had to be tolerated is listed.
//!
//! What is not this module's: whether a TPM really holds the key. That is what credential activation shows.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde_json::{Value, json};

mod policy;

pub use policy::{Policy, appraise};

pub use super::makers::{Maker, makers, roots};
use super::{Algorithm, Public, Template, hex, makers::of_root, san};
use crate::{
    Checks, Verdict, Weight,
    cert::{
        Certificate, CertificateError, Chain, ChainOptions, Crl, LeafRole, MAX_CERTIFICATE_BYTES, Provenance,
        PublicKey, Quirk, Roots, build_chain,
    },
};

/// What may follow a certificate in NV storage, at most.
const PADDING_BYTES_MAX: usize = 16 * 1024;

/// tcg-kp-EKCertificate, 2.23.133.8.1.
const EK_PURPOSE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const SUBJECT_DIRECTORY_ATTRIBUTES: &[u8] = &[0x55, 0x1d, 0x09];
const CERTIFICATE_POLICIES: &[u8] = &[0x55, 0x1d, 0x20];

/// A certificate of an endorsement key, of which nothing is believed.
#[derive(Debug, Clone)]
pub struct EkCertificate {
    certificate: Certificate,
    padding_bytes: usize,
}

impl EkCertificate {
    /// Reads one certificate in PEM or DER, told apart by content; DER may be padded with zeros or ones, as NV storage is.
    ///
    /// # Errors
    /// Where the bytes are no certificate, or more than one.
    pub fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        const MOST: usize = MAX_CERTIFICATE_BYTES + PADDING_BYTES_MAX;
        if bytes.len() > MOST {
            return Err(CertificateError::TooLarge { most: MOST });
        }
        if bytes.first() != Some(&0x30) {
            return Certificate::read_one(bytes).map(|certificate| Self { certificate, padding_bytes: 0 });
        }
        let (certificate, padding) = Certificate::from_der_prefix(bytes)?;
        if padding.iter().any(|byte| *byte != 0) && padding.iter().any(|byte| *byte != 0xff) {
            return Err(CertificateError::TrailingBytes);
        }
        Ok(Self { certificate, padding_bytes: padding.len() })
    }
}

/// What a certificate is verified with.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Certificates between the key's and a root, and roots: one that names itself as its issuer and is not compiled in is a root of the
    /// caller's, and makes the provenance simulated.
    pub authorities: &'a [Certificate],
    /// Revocation lists of any of the authorities.
    pub crls: &'a [Crl],
    /// Seconds since 1970.
    pub now_s: u64,
}

/// All checks, and the verified certificate if they hold.
#[derive(Debug, Clone)]
pub struct Verification {
    /// Every check that was made or could not be.
    pub checks: Checks,
    /// Only where all of them that are required passed.
    pub verified: Option<Verified>,
}

/// A certificate that chains to a root. Only [`verify`] makes one.
#[derive(Debug, Clone)]
pub struct Verified {
    chain: Chain,
    key: PublicKey,
    tpm: Option<san::TpmIdentity>,
    purpose: Option<bool>,
    family: Option<String>,
    crls_checked: usize,
}

/// Verifies a certificate: its chain to a maker's root or to the caller's, dates, purpose, maker, revocation.
#[must_use]
pub fn verify(ek: &EkCertificate, context: &Context<'_>) -> Verification {
    let mut checks = Checks::new();
    let certificate = &ek.certificate;
    let purpose = certificate.extended_key_usage(EK_PURPOSE);
    match purpose {
        Some(true) => {
            checks.require("tpm-ek.purpose", Ok("for an endorsement key"));
        }
        Some(false) => {
            checks.require(
                "tpm-ek.purpose",
                Err("the certificate was issued for another purpose than an endorsement key"),
            );
        }
        None => checks.not_checked("tpm-ek.purpose", "the certificate names no purpose"),
    }
    let tpm = certificate.extension(SUBJECT_ALT_NAME).map(|extension| san::parse(extension.value));
    match &tpm {
        Some(Ok(tpm)) => {
            checks.require(
                "tpm-ek.tpm",
                Ok(format!("maker {}, model {}, version {}", tpm.maker, tpm.model, tpm.version)),
            );
        }
        Some(Err(why)) => {
            checks.require("tpm-ek.tpm", Err(format!("its alternative name: {why}")));
        }
        None => checks.not_checked("tpm-ek.tpm", "the certificate does not say which TPM it is about"),
    }
    let key = certificate.public_key();
    checks.require(
        "tpm-ek.key",
        match &key {
            Ok(key) => Ok(key.name()),
            Err(error) => Err(error.to_string()),
        },
    );
    if !checks.as_slice().iter().all(|check| check.weight == Weight::Informative || check.verdict == Verdict::Pass) {
        checks.push(
            "tpm-ek.chain",
            Verdict::NotChecked,
            Weight::Required,
            "refused before, so that nobody pays for it",
        );
        return Verification { checks, verified: None };
    }
    let mut trusted = roots();
    let mut between = Vec::new();
    for authority in context.authorities {
        if authority.subject() == authority.issuer() {
            trusted.add(authority.clone())
        } else {
            between.push(authority.clone())
        }
    }
    let chain = match chain(certificate, &between, &trusted, context.now_s) {
        Ok(chain) => chain,
        Err(error) => {
            checks.require("tpm-ek.chain", Err(error.to_string()));
            return Verification { checks, verified: None };
        }
    };
    checks.require("tpm-ek.chain", Ok(format!("{} ({})", chain.root().subject_name(), chain.provenance().name())));
    quirks(&mut checks, ek, &chain);
    maker(&mut checks, &chain, tpm.as_ref().and_then(|tpm| tpm.as_ref().ok()));
    let crls_checked = revocation(&mut checks, &chain, context);
    let (true, Ok(key)) = (checks.hold(), key) else { return Verification { checks, verified: None } };
    let family = certificate.extension(SUBJECT_DIRECTORY_ATTRIBUTES).and_then(|extension| san::family(extension.value));
    let verified = Verified { chain, key, tpm: tpm.and_then(Result::ok), purpose, family, crls_checked };
    Verification { checks, verified: Some(verified) }
}

fn chain(
    certificate: &Certificate,
    between: &[Certificate],
    trusted: &Roots,
    now_s: u64,
) -> Result<Chain, crate::cert::ChainError> {
    // A certificate of an authority gains nobody anything here: whoever has an authority's key issues certificates of endorsement keys anyway.
    // It is told apart in appraisal, and vouches for no TPM's key (`Verified::endorses`).
    const QUIRKS: [Quirk; 3] = [Quirk::LeafKeyUsage, Quirk::LeafIsCa, Quirk::LeafIsRoot];
    let options = ChainOptions {
        quirks: &QUIRKS,
        understood: &[SUBJECT_ALT_NAME, SUBJECT_DIRECTORY_ATTRIBUTES, CERTIFICATE_POLICIES],
        leaf: LeafRole::Decrypts,
    };
    build_chain(certificate, between, trusted, now_s, &options)
}

fn quirks(checks: &mut Checks, ek: &EkCertificate, chain: &Chain) {
    let mut tolerated: Vec<String> = Vec::new();
    if ek.certificate.is_ca() {
        tolerated.push("it is the certificate of an authority, and not of an endorsement key".to_owned());
    }
    for (place, quirk) in chain.tolerated() {
        match quirk {
            Quirk::LeafKeyUsage => tolerated.push("its key usage leaves decryption out".to_owned()),
            Quirk::LeafIsCa | Quirk::LeafIsRoot => {}
            other => tolerated.push(format!("{other:?} of {place}")),
        }
    }
    if ek.padding_bytes > 0 {
        tolerated.push(format!("{} bytes of padding follow it", ek.padding_bytes));
    }
    if ek.certificate.key_usage().is_none() {
        tolerated.push("it names no key usage".to_owned());
    }
    let (verdict, said) = if tolerated.is_empty() {
        (Verdict::Pass, "as the profile asks".to_owned())
    } else {
        (Verdict::Fail, format!("tolerated: {}", tolerated.join("; ")))
    };
    checks.push("tpm-ek.profile", verdict, Weight::Informative, said);
}

fn maker(checks: &mut Checks, chain: &Chain, tpm: Option<&san::TpmIdentity>) {
    const NAME: &str = "tpm-ek.maker";
    match (of_root(chain.root()), chain.provenance(), tpm) {
        (Some(maker), Provenance::Genuine, Some(tpm)) => {
            checks.require(
                NAME,
                if tpm.maker == maker.id {
                    Ok(format!("the root is {}'s", maker.name))
                } else {
                    Err(format!("the certificate names {} as maker, and its root is {}'s", tpm.maker, maker.name))
                },
            );
        }
        (_, _, None) => checks.not_checked(NAME, "the certificate names no maker"),
        _ => checks.not_checked(NAME, "the root is no maker's that is compiled in"),
    }
}

/// Whether any authority of the chain took the certificate below it back. Gives how many links were covered by a list.
fn revocation(checks: &mut Checks, chain: &Chain, context: &Context<'_>) -> usize {
    const NAME: &str = "tpm-ek.revocation";
    let links = chain.certificates().windows(2);
    let all = links.len();
    let mut covered = 0;
    for pair in links {
        let [certificate, issuer] = pair else { continue };
        let mut lists = context.crls.iter().filter(|crl| crl.issuer() == issuer.subject()).peekable();
        if lists.peek().is_none() {
            continue;
        }
        for list in lists {
            match list.verify(issuer, context.now_s) {
                Ok(list) if list.revokes(certificate) => {
                    checks.require(NAME, Err(format!("{} took {} back", issuer.subject_name(), serial(certificate))));
                    return covered;
                }
                Ok(_) => {}
                Err(error) => {
                    checks.require(NAME, Err(format!("the list of {}: {error}", issuer.subject_name())));
                    return covered;
                }
            }
        }
        covered += 1;
    }
    if covered == 0 {
        checks.not_checked(NAME, "no revocation list of any authority in the chain was given");
    } else {
        checks.require(NAME, Ok(format!("lists cover {covered} of {all} certificates, and take none back")));
    }
    covered
}

/// The serial number as tools print it: without the zero that keeps it positive.
fn serial(certificate: &Certificate) -> String {
    match certificate.serial() {
        [0, rest @ ..] if !rest.is_empty() => hex(rest),
        serial => hex(serial),
    }
}

impl Verified {
    /// Who stands behind the root.
    #[must_use]
    pub const fn provenance(&self) -> Provenance {
        self.chain.provenance()
    }

    /// The id of the TPM's maker (`NTC`), where the certificate says.
    #[must_use]
    pub fn maker_id(&self) -> Option<&str> {
        self.tpm.as_ref().map(|tpm| tpm.maker.as_str())
    }

    /// The certificates, the key's first, the root last.
    #[must_use]
    pub const fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Whether the certificate vouches for this endorsement key of a TPM, and the key is one that decrypts for nobody but its TPM.
    #[must_use]
    pub fn endorses(&self, ek: &Public) -> Checks {
        let mut checks = Checks::new();
        let same = match (ek.algorithm(), self.key.rsa(), self.key.ec()) {
            (Algorithm::Rsa { modulus, exponent }, Some((certified, certified_exponent)), _) => {
                let exponent = exponent.to_be_bytes();
                let first = exponent.iter().position(|byte| *byte != 0).unwrap_or(exponent.len());
                verify_slices_are_equal(modulus, certified).is_ok() && exponent.get(first..) == Some(certified_exponent)
            }
            (Algorithm::Ecc { curve, x, y }, _, Some((certified_curve, point))) => {
                *curve == certified_curve && point == [&[4][..], x, y].concat()
            }
            _ => false,
        };
        checks.require(
            "tpm-ek.public",
            match (same, self.chain.leaf().is_ca()) {
                (true, false) => Ok("the certificate is about this key"),
                (false, _) => Err("the certificate is about another key"),
                (true, true) => Err("the certificate is an authority's: it vouches for no TPM's key"),
            },
        );
        checks.require(
            "tpm-ek.template",
            match Template::of(ek) {
                Some(template) => Ok(format!("the default template, {}", template.name())),
                None => Err(format!(
                    "the key follows no default template: {} named with {}, attributes {}",
                    self.key.name(),
                    ek.name_alg.name(),
                    ek.attributes().names().join(", ")
                )),
            },
        );
        checks
    }

    /// All that the certificate claims.
    #[must_use]
    pub const fn claims(&self) -> Claims<'_> {
        Claims(self)
    }
}

/// Claims of a verified certificate.
#[derive(Debug, Clone, Copy)]
pub struct Claims<'a>(&'a Verified);

impl Claims<'_> {
    /// As the command line prints them: hexadecimal in lower case, numbers as numbers, times in seconds since 1970.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Verified { chain, key, tpm, family, .. } = self.0;
        let (leaf, root) = (chain.leaf(), chain.root());
        let tpm = tpm.as_ref();
        let kind = if leaf.is_ca() { "certificate-authority" } else { "endorsement-key" };
        json!({
            "kind": kind,
            "maker": tpm.map(|tpm| &tpm.maker),
            "maker_name": tpm.and_then(|tpm| makers().iter().find(|maker| maker.id == tpm.maker)).map(|maker| maker.name),
            "model": tpm.map(|tpm| &tpm.model),
            "version": tpm.map(|tpm| &tpm.version),
            "specification_family": family,
            "key_algorithm": key.name(),
            "serial": serial(leaf),
            "subject": leaf.subject_name(),
            "issuer": leaf.issuer_name(),
            "not_before_s": leaf.not_before_s(),
            "not_after_s": leaf.not_after_s(),
            "chain_not_after_s": chain.not_after_s(),
            "root": { "subject": root.subject_name(), "sha256": hex(&root.fingerprint()) },
            "provenance": chain.provenance().name(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody but the makers can make a certificate under their roots; what one of a second maker would get is shown on the chain of a root.
    #[test]
    fn a_maker_stands_under_its_own_root_alone() {
        let root = Certificate::from_der(include_bytes!("../../../roots/tpm/nuvoton-2110.der")).expect("a root");
        let chain = chain(&root, &[], &roots(), 1_720_000_000).expect("the chain of a root");
        for (id, verdict) in [("NTC", Verdict::Pass), ("IFX", Verdict::Fail), ("NTC ", Verdict::Fail)] {
            let tpm = san::TpmIdentity { maker: id.to_owned(), model: String::new(), version: String::new() };
            let mut checks = Checks::new();
            maker(&mut checks, &chain, Some(&tpm));
            assert_eq!(checks.as_slice().first().map(|check| check.verdict), Some(verdict), "{id}");
        }
    }
}
