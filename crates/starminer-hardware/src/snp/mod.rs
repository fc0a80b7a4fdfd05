//! AMD SEV-SNP attestation reports: versions 2, 3 and 5, of Milan, Genoa (with Bergamo and Siena) and Turin, signed by VCEK or VLEK.
//!
//! [`Report::parse`] → [`verify`] → [`appraise`]. Sources: AMD 56860 (SNP firmware ABI, the report), 57230 (VCEK certificates), 58369 (VLEK certificates).
//!
//! A VCEK names a chip; a VLEK is the same key in all chips of a cloud, so that what it signs names the cloud alone ([`Names`]).
//! What signatures cannot tell is left open: that memory is not probed on its bus, and that the chip is not on somebody's denylist but ours.

mod appraise;
mod claims;
mod flags;
mod policy;
mod report;
mod tcb;
mod vek;
mod verify;

use std::sync::OnceLock;

pub use appraise::appraise;
pub use claims::{Claims, CrlState, Names};
pub use flags::{GuestPolicy, PlatformInfo};
pub use policy::{Crls, Expect, GuestRules, Hex, MaskedChip, PlatformRules, Policy, Provisional, Want};
pub use report::{CpuId, Mitigations, ParseError, REPORT_BYTES, Report, SigningKey, VMPL_HOST};
pub use tcb::{Components, FirmwareVersion, Product, TcbVersion};
pub use verify::{KeyVerification, Verification, Verified, VerifiedKey, verify, verify_key, verify_with_key};

use crate::cert::{Certificate, Link, Roots};

macro_rules! authority {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/roots/amd/", $name, ".pem"))
    };
}

const ARKS: [&[u8]; 3] = [authority!("milan_ark"), authority!("genoa_ark"), authority!("turin_ark")];
const SIGNERS: [&[u8]; 6] = [
    authority!("milan_ask"),
    authority!("milan_asvk"),
    authority!("genoa_ask"),
    authority!("genoa_asvk"),
    authority!("turin_ask"),
    authority!("turin_asvk"),
];

fn read(pem: &[u8]) -> Certificate {
    Certificate::read_one(pem).expect("compiled-in certificates are read by a test")
}

/// AMD's roots.
#[must_use]
pub fn roots() -> Roots {
    static ROOTS: OnceLock<Roots> = OnceLock::new();
    ROOTS.get_or_init(|| Roots::compiled_in(ARKS.into_iter().map(read))).clone()
}

/// AMD's ASKs and ASVKs, which count because AMD's roots signed them.
pub(crate) fn signers() -> &'static [Certificate] {
    static CERTIFICATES: OnceLock<Vec<Certificate>> = OnceLock::new();
    CERTIFICATES.get_or_init(|| SIGNERS.into_iter().map(read).collect())
}

/// Which ARK signed which of them, verified once in a process.
fn known_links() -> &'static [Link] {
    static LINKS: OnceLock<Vec<Link>> = OnceLock::new();
    LINKS.get_or_init(|| {
        let mut links = Vec::new();
        for (root, _) in roots().iter() {
            let Ok(key) = root.public_key() else { continue };
            let signed = signers().iter().filter(|signer| signer.verify_signature(&key).is_ok());
            links.extend(signed.map(|signer| (signer.fingerprint(), root.fingerprint())));
        }
        links
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cert::{ChainOptions, LeafRole, Provenance, build_chain};

    #[test]
    fn compiled_in_authorities() {
        assert_eq!(roots().iter().count(), 3);
        assert_eq!(signers().len(), 6);
        assert_eq!(known_links().len(), 6);
        let options = ChainOptions { leaf: LeafRole::Issues, ..ChainOptions::default() };
        for signer in signers() {
            let chain = build_chain(signer, &[], &roots(), 1_780_000_000, &options).expect("AMD signed it");
            assert_eq!(chain.provenance(), Provenance::Genuine);
        }
    }
}
