//! Chains from a leaf to a root that somebody trusts.
//!
//! Paths are found by names alone. Then what costs nothing is checked (dates, authority, path length, key usage, critical extensions), and only
//! then signatures, from the root downwards: a key that no root vouches for is never used.

use super::{
    Certificate, ChainError, ChainFault, Place, Provenance, Roots, SignatureAlgorithm, SignatureError, memo,
    path::{Path, paths},
};

/// The most certificates in a chain, leaf and root included.
pub const MAX_DEPTH: usize = 8;
/// Critical extensions that are understood here: basicConstraints, keyUsage; and extKeyUsage, which narrows a leaf and which its reader asks for.
const UNDERSTOOD: [&[u8]; 3] = [&[0x55, 0x1d, 0x13], &[0x55, 0x1d, 0x0f], &[0x55, 0x1d, 0x25]];

/// Something that RFC 5280 forbids and a maker does all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quirk {
    /// An issuer that does not say that it is an authority (version 1, or no basicConstraints).
    NoBasicConstraints,
    /// More authorities below an issuer than it allows.
    PathLength,
    /// An issuer whose key usage does not include certificates.
    NoCertSign,
    /// Issuer and subject names that differ in string type, case or outer blanks.
    NameEncoding,
    /// RSA signatures over SHA-1.
    Sha1,
    /// A root whose own dates have passed.
    RootDates,
    /// A leaf that says that it is an authority.
    LeafIsCa,
    /// A leaf whose key usage leaves out what it does here.
    LeafKeyUsage,
    /// A leaf that is itself one of the roots: a chain of one.
    LeafIsRoot,
    /// Critical extensions in issuers that nobody here understands.
    IssuerCriticalExtension,
}

/// What the leaf's key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LeafRole {
    /// Signs: its key usage, where there is one, includes signatures.
    #[default]
    Signs,
    /// Decrypts or agrees on keys, as endorsement keys do.
    Decrypts,
    /// Issues further certificates that are no part of this chain.
    Issues,
}

/// What is asked of a chain.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChainOptions<'a> {
    /// Quirks that are tolerated. None is by default.
    pub quirks: &'a [Quirk],
    /// Content octets of critical extensions that the caller reads itself.
    pub understood: &'a [&'a [u8]],
    /// What the leaf's key does.
    pub leaf: LeafRole,
}

/// A chain whose every link was verified. Only [`build_chain`] makes one.
#[derive(Debug, Clone)]
pub struct Chain {
    certificates: Vec<Certificate>,
    provenance: Provenance,
    tolerated: Vec<(Place, Quirk)>,
}

impl Chain {
    /// The certificate that was asked about.
    #[must_use]
    pub fn leaf(&self) -> &Certificate {
        self.certificates.first().expect("a chain is made with a leaf")
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> &Certificate {
        self.certificates.last().expect("a chain is made with a root")
    }

    /// All of them, leaf first, root last.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Who stands behind the root.
    #[must_use]
    pub const fn provenance(&self) -> Provenance {
        self.provenance
    }

    /// Quirks that had to be tolerated, and where.
    #[must_use]
    pub fn tolerated(&self) -> &[(Place, Quirk)] {
        &self.tolerated
    }

    /// Seconds since 1970 until which all of it is valid.
    #[must_use]
    pub fn not_after_s(&self) -> i64 {
        self.certificates.iter().map(Certificate::not_after_s).min().unwrap_or(i64::MIN)
    }
}

/// Builds a verified chain from the leaf, over any of the intermediates, to one of the roots.
///
/// Intermediates may come in any order, and may include what is not needed.
///
/// # Errors
/// Where there is none: which certificate is at fault, and why.
pub fn build_chain(
    leaf: &Certificate,
    intermediates: &[Certificate],
    roots: &Roots,
    now_s: u64,
    options: &ChainOptions<'_>,
) -> Result<Chain, ChainError> {
    build_chain_over(leaf, intermediates, roots, now_s, options, &[])
}

/// SHA-256 of a certificate and of the one whose key signed it.
pub(crate) type Link = ([u8; 32], [u8; 32]);

/// The same with links whose signatures this process has verified before; all else about them is checked anew.
pub(crate) fn build_chain_over(
    leaf: &Certificate,
    intermediates: &[Certificate],
    roots: &Roots,
    now_s: u64,
    options: &ChainOptions<'_>,
    known: &[Link],
) -> Result<Chain, ChainError> {
    if let Some((root, provenance)) = roots.iter().find(|(root, _)| *root == leaf) {
        return chain_of_one(root, provenance, now_s, options);
    }
    let mut first_error = None;
    for path in paths(leaf, intermediates, roots, options)? {
        match verify_path(path, now_s, options, known) {
            Ok(chain) => return Ok(chain),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| ChainError::new(Place::Leaf, leaf, ChainFault::TooDeep)))
}

fn chain_of_one(
    root: &Certificate,
    provenance: Provenance,
    now_s: u64,
    options: &ChainOptions<'_>,
) -> Result<Chain, ChainError> {
    if !options.quirks.contains(&Quirk::LeafIsRoot) {
        return Err(ChainError::new(Place::Leaf, root, ChainFault::LeafIsRoot));
    }
    let mut checker = Checker { now_s, options, known: &[], tolerated: vec![(Place::Leaf, Quirk::LeafIsRoot)] };
    checker.dates(Place::Leaf, root)?;
    Ok(Chain { certificates: vec![root.clone()], provenance, tolerated: checker.tolerated })
}

struct Checker<'a> {
    now_s: u64,
    options: &'a ChainOptions<'a>,
    known: &'a [Link],
    tolerated: Vec<(Place, Quirk)>,
}

impl Checker<'_> {
    /// What does not hold is an error, unless the caller tolerates it.
    fn unless(
        &mut self,
        quirk: Quirk,
        place: Place,
        certificate: &Certificate,
        fault: ChainFault,
    ) -> Result<(), ChainError> {
        if self.options.quirks.contains(&quirk) {
            self.tolerated.push((place, quirk));
            return Ok(());
        }
        Err(ChainError::new(place, certificate, fault))
    }

    fn dates(&mut self, place: Place, certificate: &Certificate) -> Result<(), ChainError> {
        let now_s = self.now_s;
        let now = i64::try_from(now_s).unwrap_or(i64::MAX);
        let fault = if now < certificate.not_before_s() {
            ChainFault::NotYetValid { not_before_s: certificate.not_before_s(), now_s }
        } else if now > certificate.not_after_s() {
            ChainFault::Expired { not_after_s: certificate.not_after_s(), now_s }
        } else {
            return Ok(());
        };
        if place == Place::Root {
            return self.unless(Quirk::RootDates, place, certificate, fault);
        }
        Err(ChainError::new(place, certificate, fault))
    }

    fn critical(&mut self, place: Place, certificate: &Certificate) -> Result<(), ChainError> {
        for extension in certificate.extensions().filter(|extension| extension.critical) {
            if UNDERSTOOD.contains(&extension.oid) || self.options.understood.contains(&extension.oid) {
                continue;
            }
            let fault = ChainFault::CriticalExtension { oid: super::der::dotted(extension.oid) };
            if place == Place::Leaf {
                return Err(ChainError::new(place, certificate, fault));
            }
            self.unless(Quirk::IssuerCriticalExtension, place, certificate, fault)?;
        }
        Ok(())
    }

    /// An issuer with so many authorities between it and the leaf.
    fn issuer(&mut self, place: Place, certificate: &Certificate, below: usize) -> Result<(), ChainError> {
        self.dates(place, certificate)?;
        self.critical(place, certificate)?;
        if !certificate.is_ca() {
            self.unless(Quirk::NoBasicConstraints, place, certificate, ChainFault::NotAuthority)?;
        }
        if certificate.path_length().is_some_and(|most| below > usize::try_from(most).unwrap_or(usize::MAX)) {
            self.unless(Quirk::PathLength, place, certificate, ChainFault::PathLength)?;
        }
        if certificate.key_usage().is_some_and(|usage| !usage.cert_sign()) {
            self.unless(Quirk::NoCertSign, place, certificate, ChainFault::KeyUsage("certificates"))?;
        }
        Ok(())
    }

    fn leaf(&mut self, leaf: &Certificate) -> Result<(), ChainError> {
        self.dates(Place::Leaf, leaf)?;
        self.critical(Place::Leaf, leaf)?;
        if self.options.leaf != LeafRole::Issues && leaf.is_ca() {
            self.unless(Quirk::LeafIsCa, Place::Leaf, leaf, ChainFault::LeafIsCa)?;
        }
        let Some(usage) = leaf.key_usage() else { return Ok(()) };
        let (may, what) = match self.options.leaf {
            LeafRole::Signs => (usage.digital_signature(), "signatures"),
            LeafRole::Decrypts => (usage.key_encipherment() || usage.key_agreement(), "decryption or key agreement"),
            LeafRole::Issues => (usage.cert_sign(), "certificates"),
        };
        if may { Ok(()) } else { self.unless(Quirk::LeafKeyUsage, Place::Leaf, leaf, ChainFault::KeyUsage(what)) }
    }

    fn signature(&mut self, place: Place, certificate: &Certificate, issuer: &Certificate) -> Result<(), ChainError> {
        let broken = |error| ChainError::new(place, certificate, ChainFault::Signature(error));
        if certificate.signature_algorithm().map_err(broken)? == SignatureAlgorithm::RsaPkcs1Sha1 {
            let error = SignatureError::UnsupportedAlgorithm { oid: "1.2.840.113549.1.1.5 (SHA-1)".to_owned() };
            self.unless(Quirk::Sha1, place, certificate, ChainFault::Signature(error))?;
        }
        let link = (certificate.fingerprint(), issuer.fingerprint());
        if self.known.contains(&link) || memo::knows(&link) {
            return Ok(());
        }
        let key = issuer.public_key().map_err(broken)?;
        certificate.verify_signature(&key).map_err(broken)?;
        // Signatures are verified from the root downwards: what gets here hangs on one.
        if place != Place::Leaf {
            memo::remember(link);
        }
        Ok(())
    }
}

fn verify_path(
    (path, provenance): Path<'_>,
    now_s: u64,
    options: &ChainOptions<'_>,
    known: &[Link],
) -> Result<Chain, ChainError> {
    let mut checker = Checker { now_s, options, known, tolerated: Vec::new() };
    let last = path.len() - 1;
    let place = |index: usize| match index {
        0 => Place::Leaf,
        index if index == last => Place::Root,
        index => Place::Intermediate(index),
    };
    for (index, certificate) in path.iter().enumerate().rev() {
        if index == 0 {
            checker.leaf(certificate)?;
        } else {
            checker.issuer(place(index), certificate, index - 1)?;
        }
    }
    for (index, pair) in path.windows(2).enumerate().rev() {
        let [certificate, issuer] = pair else { continue };
        if certificate.issuer() != issuer.subject() {
            checker.tolerated.push((place(index), Quirk::NameEncoding));
        }
        checker.signature(place(index), certificate, issuer)?;
    }
    Ok(Chain { certificates: path.into_iter().cloned().collect(), provenance, tolerated: checker.tolerated })
}
