//! Default templates of endorsement keys (TCG EK Credential Profile 2.5, B.3 and B.4).

use super::{Algorithm, Attributes, HashAlg, Public};
use crate::cert::Curve;

/// Policy A under SHA-256: the endorsement hierarchy's authorisation, `PolicySecret(TPM_RH_ENDORSEMENT)`.
const POLICY_A_SHA256: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7,
    0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];
/// Policy B under SHA-256: policy A, or what the NV index of policy C says.
const POLICY_B_SHA256: [u8; 32] = [
    0xca, 0x3d, 0x0a, 0x99, 0xa2, 0xb9, 0x39, 0x06, 0xf7, 0xa3, 0x34, 0x24, 0x14, 0xef, 0xcf, 0xb3, 0xa3, 0x85, 0xd4,
    0x4c, 0xd1, 0xfd, 0x45, 0x90, 0x89, 0xd1, 0x9b, 0x50, 0x71, 0xc0, 0xb7, 0xa0,
];
/// Policy B under SHA-384.
const POLICY_B_SHA384: [u8; 48] = [
    0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a, 0x07, 0x41, 0x48,
    0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca, 0xcb, 0x47, 0xba, 0x09, 0x69, 0x96,
    0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
];

/// Which default template an endorsement key was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// L-1 (RSA 2048) and L-2 (P-256): use needs the endorsement hierarchy's authorisation; policy A.
    Low,
    /// H-1 to H-7: use needs an authorisation of its own or policy B.
    High,
}

impl Template {
    /// The template that a public area follows in everything but its unique part.
    #[must_use]
    pub fn of(public: &Public) -> Option<Self> {
        let (name_alg, symmetric_bits) = match &public.algorithm {
            Algorithm::Rsa { modulus, exponent: 65537 } if modulus.len() == 256 => (HashAlg::Sha256, 128),
            Algorithm::Rsa { exponent: 65537, .. } => (HashAlg::Sha384, 256),
            Algorithm::Ecc { curve: Curve::P256, .. } => (HashAlg::Sha256, 128),
            Algorithm::Ecc { curve: Curve::P384, .. } => (HashAlg::Sha384, 256),
            _ => return None,
        };
        let symmetric = public.symmetric.is_some_and(|symmetric| symmetric.bits == symmetric_bits);
        if !public.scheme_open || public.name_alg != name_alg || !symmetric {
            return None;
        }
        [Self::Low, Self::High].into_iter().find(|template| {
            public.attributes == template.attributes()
                && template.auth_policy(name_alg) == Some(public.auth_policy.as_slice())
        })
    }

    /// The attributes of its keys.
    #[must_use]
    pub const fn attributes(self) -> Attributes {
        const LOW: Attributes = Attributes::FIXED_TPM
            .and(Attributes::FIXED_PARENT)
            .and(Attributes::SENSITIVE_DATA_ORIGIN)
            .and(Attributes::ADMIN_WITH_POLICY)
            .and(Attributes::RESTRICTED)
            .and(Attributes::DECRYPT);
        match self {
            Self::Low => LOW,
            Self::High => LOW.and(Attributes::USER_WITH_AUTH),
        }
    }

    /// The policy of its keys that are named with this hash; `None` where there are none.
    #[must_use]
    pub const fn auth_policy(self, name_alg: HashAlg) -> Option<&'static [u8]> {
        match (self, name_alg) {
            (Self::Low, HashAlg::Sha256) => Some(&POLICY_A_SHA256),
            (Self::High, HashAlg::Sha256) => Some(&POLICY_B_SHA256),
            (Self::High, HashAlg::Sha384) => Some(&POLICY_B_SHA384),
            _ => None,
        }
    }

    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low-range",
            Self::High => "high-range",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(hash: HashAlg, nv_index: u32) -> (Vec<u8>, Vec<u8>) {
        let size = hash.len_bytes();
        let digest = |parts: &[&[u8]]| hash.digest(parts).as_ref().to_vec();
        let zero = vec![0; size];
        // PolicySecret with an empty reference; its entity is the handle of the endorsement hierarchy.
        let a = digest(&[&digest(&[&zero, &0x0151u32.to_be_bytes(), &0x4000_000bu32.to_be_bytes()])]);
        // The NV index: POLICYWRITE, WRITEALL, PPREAD, OWNERREAD, AUTHREAD, POLICYREAD, NO_DA, WRITTEN; policy A; an algorithm and a digest.
        let mut area = [&nv_index.to_be_bytes()[..], &hash.id().to_be_bytes(), &0x220f_1008u32.to_be_bytes()].concat();
        area.extend((size as u16).to_be_bytes());
        area.extend(&a);
        area.extend((size as u16 + 2).to_be_bytes());
        let name = [&hash.id().to_be_bytes()[..], &digest(&[&area])].concat();
        // PolicyAuthorizeNV, then PolicyOR of both.
        let c = digest(&[&zero, &0x0192u32.to_be_bytes(), &name]);
        let b = digest(&[&zero, &0x0171u32.to_be_bytes(), &a, &c]);
        (a, b)
    }

    #[test]
    fn policies_follow_from_the_profile() {
        assert_eq!(policies(HashAlg::Sha256, 0x01c0_7f01), (POLICY_A_SHA256.to_vec(), POLICY_B_SHA256.to_vec()));
        assert_eq!(policies(HashAlg::Sha384, 0x01c0_7f02).1, POLICY_B_SHA384);
    }
}
