//! Certificates and revocation lists as they are given: in any order, PEM or DER, leaf and authorities mixed.

use super::{Fault, File, InputError, MAX_FILES};
use crate::cert::{Certificate, CertificateError, ChainOptions, Crl, LeafRole, Quirk, Roots, build_chain};
use crate::{Checks, Verdict, Weight};

/// Files of certificates and revocation lists.
#[derive(Debug, Clone, Copy, Default)]
pub struct Authorities<'a> {
    /// Certificates that come with the evidence: of its key, and of authorities. None of them is believed for being here.
    pub certificates: &'a [File],
    /// Authorities of the caller's. One that names itself as its issuer is a root: what chains to it is simulated, unless it is compiled in.
    pub roots: &'a [File],
    /// Revocation lists.
    pub crls: &'a [File],
}

/// The same, read.
pub(super) struct Read {
    pub certificates: Vec<Certificate>,
    /// Of the caller's, those that are roots.
    pub roots: Vec<Certificate>,
    /// Of the caller's, those that are not.
    pub between: Vec<Certificate>,
    pub crls: Vec<Crl>,
}

/// Reads all of them.
pub(super) fn read(kind: &str, given: &Authorities<'_>) -> Result<Read, Fault> {
    for (option, files) in [("--cert", given.certificates), ("--ca", given.roots), ("--crl", given.crls)] {
        at_most(option, files)?;
    }
    let mut certificates = Vec::new();
    for file in given.certificates {
        certificates.extend(read_certificates(kind, file)?);
    }
    let (mut roots, mut between) = (Vec::new(), Vec::new());
    for file in given.roots {
        let authorities = Certificate::read(&file.bytes).map_err(|error| wrong_root(file, &error))?;
        for authority in authorities {
            if is_self_issued(&authority) { roots.push(authority) } else { between.push(authority) }
        }
    }
    let mut crls = Vec::new();
    for file in given.crls {
        let lists = Crl::read(&file.bytes).map_err(|error| Fault::malformed(kind, file, error.code(), &error))?;
        crls.extend(lists);
    }
    Ok(Read { certificates, roots, between, crls })
}

pub(super) fn at_most(option: &str, files: &[File]) -> Result<(), InputError> {
    if files.len() <= MAX_FILES {
        return Ok(());
    }
    let reason = format!("{} files, of at most {MAX_FILES}", files.len());
    Err(InputError::new("call.too-many-files", option, reason, "give only those that belong to this evidence"))
}

fn read_certificates(kind: &str, file: &File) -> Result<Vec<Certificate>, Fault> {
    Certificate::read(&file.bytes).map_err(|error| Fault::malformed(kind, file, error.code(), &error))
}

fn wrong_root(file: &File, error: &CertificateError) -> InputError {
    InputError::new("call.authority", &*file.name, error, "give certificates in PEM or DER with --ca")
}

pub(super) fn is_self_issued(certificate: &Certificate) -> bool {
    certificate.subject() == certificate.issuer()
}

impl Read {
    /// The makers' roots, and the caller's.
    pub fn roots(&self, makers: Roots) -> Roots {
        self.roots.iter().cloned().fold(makers, Roots::with)
    }

    /// Holds that every certificate given is vouched for: one that is not, although it would not be needed, has been altered or does not belong here.
    /// The evidence's own leaf is for the verification of the evidence. `known` are authorities that need not be given. Where nothing was given, nothing is
    /// listed.
    pub fn vouched(
        &self,
        checks: &mut Checks,
        name: &'static str,
        (roots, known): (&Roots, &[Certificate]),
        leaf: Option<&Certificate>,
        now_s: u64,
    ) {
        let given = self.certificates.iter().chain(&self.between).filter(|certificate| Some(*certificate) != leaf);
        let pool: Vec<Certificate> = known.iter().chain(&self.certificates).chain(&self.between).cloned().collect();
        let mut count = 0_usize;
        let mut fault = None;
        for certificate in given {
            count += 1;
            fault = fault.or_else(|| unvouched(certificate, &pool, roots, now_s));
        }
        for root in &self.roots {
            count += 1;
            let signed = root.public_key().and_then(|key| root.verify_signature(&key));
            let wrong = signed.err().map(|error| format!("{}: its own signature: {error}", root.subject_name()));
            fault = fault.or(wrong);
        }
        match fault {
            None if count == 0 => {}
            None => drop(
                checks.require(name, Ok(format!("{count} other certificates were given, and each is vouched for"))),
            ),
            Some(reason) => drop(checks.push(name, Verdict::Fail, Weight::Required, reason)),
        }
    }
}

/// Why no root vouches for a certificate.
fn unvouched(certificate: &Certificate, pool: &[Certificate], roots: &Roots, now_s: u64) -> Option<String> {
    if is_self_issued(certificate) {
        let known = roots.iter().any(|(root, _)| root == certificate);
        return (!known).then(|| {
            format!(
                "{} is a root that nobody here knows: name it with --ca, if it is to count",
                certificate.subject_name()
            )
        });
    }
    let leaf = if certificate.is_ca() { LeafRole::Issues } else { LeafRole::Signs };
    let options = ChainOptions { leaf, quirks: &[Quirk::LeafKeyUsage], ..ChainOptions::default() };
    build_chain(certificate, pool, roots, now_s, &options).err().map(|error| error.to_string())
}
