//! What an image says about disks: whose approval counts, and its own approval, made when it is built.

use data_encoding::BASE64;
use starminer_hardware::tpm::approval::{ApprovalSigner, Approvals, MAX_SECURITY_VERSION};
use zeroize::Zeroizing;

use crate::manifest::register_11;
use crate::{ImageError, Policy, read};

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// Reads the key.
pub fn signer(policy: &Policy) -> Result<ApprovalSigner, ImageError> {
    let wrong = |reason| ImageError::PolicyKey { path: policy.key.clone(), reason };
    if policy.security_version > MAX_SECURITY_VERSION {
        return Err(wrong("security versions go to 255: they count closed holes, not releases"));
    }
    let pem = Zeroizing::new(read(&policy.key)?);
    let pem = std::str::from_utf8(&pem).map_err(|_| wrong("no PEM"))?;
    let (_, rest) = pem.split_once(BEGIN).ok_or(wrong("no PEM of a private key in PKCS #8"))?;
    let (body, _) = rest.split_once(END).ok_or(wrong("no PEM of a private key in PKCS #8"))?;
    let text: Zeroizing<String> = Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    let der = Zeroizing::new(BASE64.decode(text.as_bytes()).map_err(|_| wrong("no base64"))?);
    ApprovalSigner::from_pkcs8(&der).map_err(|_| wrong("no private key on P-256 in PKCS #8"))
}

/// Approves an image for disks of every security version up to its own. The signatures hold random numbers: of two builds, this section alone differs.
pub fn approve(signer: &ApprovalSigner, policy: &Policy, image: &[u8]) -> Result<Vec<u8>, ImageError> {
    let approvals = Approvals::make(signer, &register_11(image)?, policy.security_version);
    let wrong =
        ImageError::PolicyKey { path: policy.key.clone(), reason: "the system gives no randomness to sign with" };
    approvals.map(|approvals| approvals.encode()).ok_or(wrong)
}
