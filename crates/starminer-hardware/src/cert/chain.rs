//! Chains from a leaf to a root that somebody trusts.
//!
//! Paths are found by names alone. Then what costs nothing is checked (dates, authority, path length, key usage, critical extensions), and only
//! then signatures, from the root downwards: a key that no root vouches for is never used.

use std::borrow::Cow;

use x509_parser::prelude::{FromDer as _, X509Name};

use super::{Certificate, SignatureAlgorithm, SignatureError};

/// The most certificates in a chain, leaf and root included.
pub const MAX_DEPTH: usize = 8;
/// The most paths that are tried for a leaf.
const MAX_PATHS: usize = 4;
/// The most partial paths that are looked at for a leaf.
const MAX_STEPS: usize = 64;
/// The most intermediates that are looked at.
const MAX_INTERMEDIATES: usize = 32;

/// Critical extensions that are understood here: basicConstraints, keyUsage; and extKeyUsage, which narrows a leaf and which its reader asks for.
const UNDERSTOOD: [&[u8]; 3] = [&[0x55, 0x1d, 0x13], &[0x55, 0x1d, 0x0f], &[0x55, 0x1d, 0x25]];

/// Who stands behind a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provenance {
    /// The maker: its root is compiled in.
    Genuine,
    /// Whoever the caller named.
    Simulated {
        /// SHA-256 of the root's DER.
        root: [u8; 32],
    },
}

impl Provenance {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Genuine => "genuine",
            Self::Simulated { .. } => "simulated",
        }
    }
}

/// Roots, each with who stands behind it.
#[derive(Debug, Clone, Default)]
pub struct Roots(Vec<(Certificate, Provenance)>);

impl Roots {
    /// None: nothing verifies.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Roots that are compiled in. Only modules of this crate can say so.
    #[allow(dead_code, reason = "called by the kinds that pin roots")]
    pub(crate) fn compiled_in(certificates: impl IntoIterator<Item = Certificate>) -> Self {
        Self(certificates.into_iter().map(|certificate| (certificate, Provenance::Genuine)).collect())
    }

    /// Adds a root that the caller names: what chains to it is simulated, unless that very certificate is compiled in.
    pub fn add(&mut self, root: Certificate) {
        if !self.0.iter().any(|(known, _)| *known == root) {
            let provenance = Provenance::Simulated { root: root.fingerprint() };
            self.0.push((root, provenance));
        }
    }

    /// The same with a root that the caller names.
    #[must_use]
    pub fn with(mut self, root: Certificate) -> Self {
        self.add(root);
        self
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Certificate, Provenance)> {
        self.0.iter().map(|(root, provenance)| (root, *provenance))
    }
}

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

/// Where a certificate stands in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// First.
    Leaf,
    /// So many steps above the leaf.
    Intermediate(usize),
    /// Last.
    Root,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Leaf => f.write_str("leaf"),
            Self::Intermediate(steps) => write!(f, "intermediate {steps}"),
            Self::Root => f.write_str("root"),
        }
    }
}

/// Why there is no chain: which certificate, and what about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place} ({subject}): {fault}")]
pub struct ChainError {
    /// Where the certificate stands.
    pub place: Place,
    /// Its subject, for people.
    pub subject: String,
    /// What about it.
    pub fault: ChainFault,
}

/// What about a certificate breaks a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// Nobody has a certificate of its issuer.
    #[error("its issuer ({issuer}) is neither a trusted root nor among the certificates given")]
    NoIssuer {
        /// For people.
        issuer: String,
    },
    /// No root within reach.
    #[error("no root within {MAX_DEPTH} certificates")]
    TooDeep,
    /// It is a root, where a certificate below one was expected.
    #[error("it is itself a root")]
    LeafIsRoot,
    /// Too early.
    #[error("not valid before {not_before_s}, and it is {now_s}")]
    NotYetValid {
        /// Seconds since 1970.
        not_before_s: i64,
        /// Seconds since 1970.
        now_s: u64,
    },
    /// Too late.
    #[error("valid until {not_after_s}, and it is {now_s}")]
    Expired {
        /// Seconds since 1970.
        not_after_s: i64,
        /// Seconds since 1970.
        now_s: u64,
    },
    /// It issued another one without being an authority.
    #[error("it is no certificate authority")]
    NotAuthority,
    /// More authorities below it than it allows.
    #[error("more authorities below it than it allows")]
    PathLength,
    /// Its key usage leaves out what it did.
    #[error("its key usage does not include {0}")]
    KeyUsage(&'static str),
    /// It is an authority, and stands where none may.
    #[error("it says that it is a certificate authority")]
    LeafIsCa,
    /// It says something that has to be understood, and is not.
    #[error("critical extension {oid} is not understood")]
    CriticalExtension {
        /// Dotted.
        oid: String,
    },
    /// Its issuer did not sign it.
    #[error("its signature: {0}")]
    Signature(SignatureError),
}

impl ChainError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match &self.fault {
            ChainFault::NoIssuer { .. } => "chain.no-issuer",
            ChainFault::TooDeep => "chain.too-deep",
            ChainFault::LeafIsRoot => "chain.leaf-is-root",
            ChainFault::NotYetValid { .. } => "chain.not-yet-valid",
            ChainFault::Expired { .. } => "chain.expired",
            ChainFault::NotAuthority => "chain.not-authority",
            ChainFault::PathLength => "chain.path-length",
            ChainFault::KeyUsage(_) => "chain.key-usage",
            ChainFault::LeafIsCa => "chain.leaf-is-ca",
            ChainFault::CriticalExtension { .. } => "chain.critical-extension",
            ChainFault::Signature(_) => "chain.signature",
        }
    }

    fn new(place: Place, certificate: &Certificate, fault: ChainFault) -> Self {
        Self { place, subject: certificate.subject_name(), fault }
    }
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
    if let Some((root, provenance)) = roots.iter().find(|(root, _)| *root == leaf) {
        return chain_of_one(root, provenance, now_s, options);
    }
    let mut first_error = None;
    for path in paths(leaf, intermediates, roots, options)? {
        match verify_path(path, now_s, options) {
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
    let mut checker = Checker { now_s, options, tolerated: vec![(Place::Leaf, Quirk::LeafIsRoot)] };
    checker.dates(Place::Leaf, root)?;
    Ok(Chain { certificates: vec![root.clone()], provenance, tolerated: checker.tolerated })
}

/// Leaf to root.
type Path<'a> = (Vec<&'a Certificate>, Provenance);

/// Paths to roots by names, short ones first.
fn paths<'a>(
    leaf: &'a Certificate,
    intermediates: &'a [Certificate],
    roots: &'a Roots,
    options: &ChainOptions<'_>,
) -> Result<Vec<Path<'a>>, ChainError> {
    let loose = options.quirks.contains(&Quirk::NameEncoding);
    let mut complete: Vec<Path<'a>> = Vec::new();
    let mut partial = std::collections::VecDeque::from([vec![leaf]]);
    let mut farthest: &Certificate = leaf;
    let mut farthest_steps = 0;
    let mut steps = 0;
    while let Some(path) = partial.pop_front() {
        steps += 1;
        if steps > MAX_STEPS || complete.len() >= MAX_PATHS {
            break;
        }
        let Some(&last) = path.last() else { continue };
        if path.len() - 1 > farthest_steps {
            (farthest, farthest_steps) = (last, path.len() - 1);
        }
        let wanted = canonical(last.issuer(), loose);
        for (root, provenance) in roots.iter().filter(|(root, _)| canonical(root.subject(), loose) == wanted) {
            let mut path = path.clone();
            path.push(root);
            complete.push((path, provenance));
        }
        if path.len() + 1 >= MAX_DEPTH {
            continue;
        }
        // A certificate that names itself as its issuer leads nowhere: as a root it would be among the roots.
        let next = intermediates.iter().take(MAX_INTERMEDIATES).filter(|next| {
            canonical(next.subject(), loose) == wanted && next.subject() != next.issuer() && !path.contains(next)
        });
        for next in next {
            let mut path = path.clone();
            path.push(next);
            partial.push_back(path);
        }
    }
    if complete.is_empty() {
        let place = if farthest_steps == 0 { Place::Leaf } else { Place::Intermediate(farthest_steps) };
        let fault = if farthest_steps + 2 >= MAX_DEPTH {
            ChainFault::TooDeep
        } else {
            ChainFault::NoIssuer { issuer: farthest.issuer_name() }
        };
        return Err(ChainError::new(place, farthest, fault));
    }
    complete.truncate(MAX_PATHS);
    Ok(complete)
}

/// The name as it is compared.
fn canonical(name: &[u8], loose: bool) -> Cow<'_, [u8]> {
    if !loose {
        return Cow::Borrowed(name);
    }
    let Ok((_, parsed)) = X509Name::from_der(name) else { return Cow::Borrowed(name) };
    let mut out = Vec::with_capacity(name.len());
    for part in parsed.iter_rdn() {
        out.push(b'/');
        for attribute in part.iter() {
            out.push(b'+');
            out.extend(attribute.attr_type().as_bytes());
            out.push(b'=');
            match attribute.as_str() {
                Ok(text) => out.extend(text.trim().to_lowercase().as_bytes()),
                Err(_) => out.extend(attribute.as_slice()),
            }
            out.push(0);
        }
    }
    Cow::Owned(out)
}

struct Checker<'a> {
    now_s: u64,
    options: &'a ChainOptions<'a>,
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
        let key = issuer.public_key().map_err(broken)?;
        certificate.verify_signature(&key).map_err(broken)
    }
}

fn verify_path((path, provenance): Path<'_>, now_s: u64, options: &ChainOptions<'_>) -> Result<Chain, ChainError> {
    let mut checker = Checker { now_s, options, tolerated: Vec::new() };
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
