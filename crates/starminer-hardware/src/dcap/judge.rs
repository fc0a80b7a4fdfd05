//! Endorsements verified against one root: chains, signatures, revocation lists and dates.
//!
//! None of it depends on a quote, so that it can be kept ([`super::Warm`]) for as long as its dates hold.

use std::sync::Arc;

use crate::cert::{
    Certificate, ChainOptions, Crl, Curve, Hash, LeafRole, PublicKey, Roots, SignatureAlgorithm, build_chain,
};
use crate::{Checks, Verdict, Weight};

use super::endorsements::{Endorsements, Signed};
use super::time::readable;

/// A time after which something that was relied upon no longer counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// What ends.
    pub what: &'static str,
    /// The last second at which it counts, since 1970.
    pub at_s: u64,
}

/// What came of verifying endorsements against a root, at a time.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    pub(super) endorsements: Arc<Endorsements>,
    pub(crate) checks: Checks,
    /// The authority of PCK certificates whose list of revoked ones counts.
    pub(crate) pck_ca: Option<Certificate>,
    /// Whether the root's list counts.
    pub(super) root_list: bool,
    pub(super) from_s: u64,
    pub(super) expiries: Vec<Expiry>,
}

/// The one signature algorithm of quotes and of Intel's JSON.
pub(super) const ECDSA: SignatureAlgorithm = SignatureAlgorithm::EcdsaFixed(Hash::Sha256);

/// Whether a key is on the one curve of Intel's quotes.
pub(super) fn p256(key: &PublicKey) -> bool {
    matches!(key.ec(), Some((Curve::P256, _)))
}

struct Judge<'a> {
    root: &'a Certificate,
    roots: Roots,
    now_s: u64,
    root_list: Option<&'a Crl>,
    out: Judged,
}

/// Verifies endorsements against one root.
pub(crate) fn judge(endorsements: &Arc<Endorsements>, root: &Certificate, now_s: u64) -> Judged {
    let out = Judged {
        endorsements: endorsements.clone(),
        checks: Checks::new(),
        pck_ca: None,
        root_list: false,
        from_s: 0,
        expiries: Vec::new(),
    };
    let mut judge = Judge { root, roots: Roots::none().with(root.clone()), now_s, root_list: None, out };
    judge.root_list(endorsements);
    judge.pck_list(endorsements);
    let same_signer = match (&endorsements.tcb_info, &endorsements.qe_identity) {
        (Some(info), Some(identity)) => info.chain == identity.chain,
        _ => false,
    };
    const TCB: SignedNames = SignedNames {
        what: "TCB info",
        fetch: "the TCB info of the quote's FMSPC",
        chain: "dcap.tcb-info-chain",
        signature: "dcap.tcb-info-signature",
        dates: "dcap.tcb-info-dates",
        expiry: "tcb-info",
    };
    const QE: SignedNames = SignedNames {
        what: "QE identity",
        fetch: "the identity of the quoting enclave (QE for SGX, TD_QE for TDX)",
        chain: "dcap.qe-identity-chain",
        signature: "dcap.qe-identity-signature",
        dates: "dcap.qe-identity-dates",
        expiry: "qe-identity",
    };
    let signer = judge.signed(&TCB, endorsements.tcb_info.as_ref(), None);
    let known = signer.clone().filter(|_| same_signer);
    let other = judge.signed(&QE, endorsements.qe_identity.as_ref(), known);
    let signers: Vec<Certificate> = [judge.out.pck_ca.clone(), signer, other].into_iter().flatten().collect();
    judge.signers_not_revoked(&signers);
    judge.out
}

/// How checks and reasons of a signed JSON are called.
struct SignedNames {
    what: &'static str,
    fetch: &'static str,
    chain: &'static str,
    signature: &'static str,
    dates: &'static str,
    expiry: &'static str,
}

impl Judge<'_> {
    fn missing(&mut self, name: &'static str, reason: String) {
        self.out.checks.push(name, Verdict::NotChecked, Weight::Required, reason);
    }

    fn from(&mut self, at_s: i64) {
        self.out.from_s = self.out.from_s.max(u64::try_from(at_s).unwrap_or(0));
    }

    fn expires(&mut self, what: &'static str, at_s: i64) {
        let at_s = u64::try_from(at_s).unwrap_or(0);
        if let Some(known) = self.out.expiries.iter_mut().find(|known| known.what == what) {
            known.at_s = known.at_s.min(at_s);
        } else {
            self.out.expiries.push(Expiry { what, at_s });
        }
    }

    /// Notes until when a list counts.
    fn list_dates(&mut self, what: &'static str, list: &Crl) {
        self.from(list.this_update_s());
        self.expires(what, list.next_update_s().unwrap_or(0));
    }
}

impl<'a> Judge<'a> {
    fn root_list(&mut self, endorsements: &'a Endorsements) {
        const NAME: &str = "dcap.root-ca-crl";
        let Some(list) = &endorsements.root_ca_crl else {
            return self.missing(NAME, "no revocation list of the root CA is given: fetch it (rootcacrl)".into());
        };
        let result = match list.verify(self.root, self.now_s) {
            Err(error) => Err(format!("of the root CA, {error}{}", when(&error))),
            Ok(verified) if verified.revokes(self.root) => Err("the root CA revoked itself".into()),
            Ok(_) => Ok(format!("signed by the root and current until {}", until(list))),
        };
        if self.out.checks.require(NAME, result) {
            self.root_list = Some(list);
            self.out.root_list = true;
            self.list_dates("root-ca-crl", list);
        }
    }

    /// Whether the root took back any of those that sign endorsements; its list has to count for that.
    fn signers_not_revoked(&mut self, signers: &[Certificate]) {
        const NAME: &str = "dcap.signer-revocation";
        let Some(list) = self.root_list else {
            return self
                .missing(NAME, "needs a revocation list of the root CA that counts: fetch it (rootcacrl)".into());
        };
        let result = match signers.iter().find(|signer| list.names(signer)) {
            Some(revoked) => Err(format!("the root CA revoked {}", revoked.subject_name())),
            None => Ok("the root CA revoked none that signs endorsements".to_owned()),
        };
        self.out.checks.require(NAME, result);
    }

    fn pck_list(&mut self, endorsements: &'a Endorsements) {
        const NAME: &str = "dcap.pck-crl";
        let (Some(list), Some(chain)) = (&endorsements.pck_crl, &endorsements.pck_crl_chain) else {
            return self.missing(
                NAME,
                "no revocation list of PCK certificates with its issuer's chain is given: fetch it (pckcrl, of the authority that issued the \
                 quote's PCK certificate)"
                    .into(),
            );
        };
        let result = self.authority(chain).and_then(|authority| {
            list.verify(&authority, self.now_s)
                .map_err(|error| format!("of PCK certificates, {error}{}", when(&error)))?;
            Ok(authority)
        });
        match result {
            Err(reason) => {
                self.out.checks.require::<String>(NAME, Err(reason));
            }
            Ok(authority) => {
                let reason = format!("signed by {} and current until {}", list.issuer_name(), until(list));
                self.out.checks.require(NAME, Ok(reason));
                self.list_dates("pck-crl", list);
                self.from(authority.not_before_s());
                self.expires("certificates", authority.not_after_s());
                self.out.pck_ca = Some(authority);
            }
        }
    }

    /// The authority that a chain of two begins with, issued by the root.
    fn authority(&self, chain: &[Certificate]) -> Result<Certificate, String> {
        let options = ChainOptions { leaf: LeafRole::Issues, ..ChainOptions::default() };
        let authority = self.below_root(chain, &options)?;
        if authority.is_ca() { Ok(authority) } else { Err("its issuer is no certificate authority".into()) }
    }

    /// The certificate that a chain begins with, which the root has to have issued itself, and not taken back.
    fn below_root(&self, chain: &[Certificate], options: &ChainOptions<'_>) -> Result<Certificate, String> {
        let (leaf, above) = chain.split_first().ok_or("its chain is empty")?;
        check_root(above, self.root)?;
        let built = build_chain(leaf, &[], &self.roots, self.now_s, options)
            .map_err(|error| format!("its issuer's chain: {error}"))?;
        Ok(built.leaf().clone())
    }

    /// JSON that Intel signed. Gives its signer's certificate where the root issued it.
    fn signed<T>(
        &mut self,
        names: &SignedNames,
        signed: Option<&Signed<T>>,
        known: Option<Certificate>,
    ) -> Option<Certificate> {
        let Some(signed) = signed else {
            let reason = format!("no {} with signature and chain is given: fetch {}", names.what, names.fetch);
            for name in [names.chain, names.signature, names.dates] {
                self.missing(name, reason.clone());
            }
            return None;
        };
        let dates = dates(names.what, signed.issued_s, signed.next_update_s, self.now_s);
        self.out.checks.require(names.dates, dates);
        let signer = match known {
            Some(signer) => Ok(signer),
            None => self.below_root(&signed.chain, &ChainOptions::default()),
        };
        let signer = match signer {
            Err(reason) => {
                self.out.checks.require::<String>(names.chain, Err(format!("{}: {reason}", names.what)));
                self.missing(names.signature, "not verified with a key that no root vouches for".into());
                return None;
            }
            Ok(signer) => signer,
        };
        let reason = format!("{} issued by the root", signer.subject_name());
        self.out.checks.require(names.chain, Ok(reason));
        let signature = signer
            .public_key()
            .map_err(|error| error.to_string())
            .and_then(|key| if p256(&key) { Ok(key) } else { Err("the signer's key is not of P-256".into()) })
            .and_then(|key| {
                key.verify(ECDSA, signed.text.as_bytes(), &signed.signature).map_err(|error| error.to_string())
            })
            .map(|()| "holds".to_owned());
        self.out.checks.require(names.signature, signature);
        self.out.from_s = self.out.from_s.max(signed.issued_s);
        self.out.expiries.push(Expiry { what: names.expiry, at_s: signed.next_update_s });
        self.from(signer.not_before_s());
        self.expires("certificates", signer.not_after_s());
        Some(signer)
    }
}

/// What stands above the first certificate of a chain of endorsements: nothing, or the root.
///
/// A root of the same name and key in another edition is as good, where its own signature holds: it vouches for nothing here.
pub(super) fn check_root(above: &[Certificate], root: &Certificate) -> Result<(), String> {
    match above {
        [] => Ok(()),
        [last] if last == root => Ok(()),
        [last] if last.subject() == root.subject() && last.spki() == root.spki() => last
            .public_key()
            .and_then(|key| last.verify_signature(&key))
            .map_err(|error| format!("the root in the chain: its signature: {error}")),
        [last] => Err(format!("the chain ends in {}, which is not the trusted root", last.subject_name())),
        _ => Err("the chain is longer than Intel's are".into()),
    }
}

fn until(list: &Crl) -> String {
    list.next_update_s().and_then(|at_s| u64::try_from(at_s).ok()).map_or_else(|| "no date".into(), readable)
}

/// The date of an error about dates, as people read it.
fn when(error: &crate::cert::CrlError) -> String {
    use crate::cert::CrlError;
    match error {
        CrlError::NotYetValid { this_update_s: at_s, .. } | CrlError::Expired { next_update_s: at_s, .. } => {
            u64::try_from(*at_s).map(|at_s| format!(" [{}]", readable(at_s))).unwrap_or_default()
        }
        _ => String::new(),
    }
}

fn dates(what: &str, issued_s: u64, next_update_s: u64, now_s: u64) -> Result<String, String> {
    if now_s < issued_s {
        Err(format!("{what} is issued at {}, after now ({})", readable(issued_s), readable(now_s)))
    } else if now_s > next_update_s {
        Err(format!("{what} expired at {} (now {}): fetch a newer one", readable(next_update_s), readable(now_s)))
    } else {
        Ok(format!("issued {}, current until {}", readable(issued_s), readable(next_update_s)))
    }
}
