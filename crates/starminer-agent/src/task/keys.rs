//! The two keys of a task: made after the lease, in this process, gone with it.

use aws_lc_rs::rand;
use starminer_receipt::{KemPrivateKey, Signer as _, SigningKey};
use starminer_sandbox::lock_pages;
use starminer_vault::{Salt, TaskSecret};
use starminer_verify::{PublicKey, Suite, TaskKey};
use zeroize::Zeroizing;

use super::Broken;

/// `N` fresh random bytes that are wiped when dropped, on the heap, so that moving them leaves no copy.
pub(crate) fn random_secret<const N: usize>() -> Result<Box<Zeroizing<[u8; N]>>, Broken> {
    let mut bytes = Box::new(Zeroizing::new([0; N]));
    // Where locking is refused, `keys-locked` is absent from the posture, and the policy has decided.
    let _ = lock_pages(bytes.as_slice());
    rand::fill(bytes.as_mut_slice()).map_err(|_| Broken)?;
    Ok(bytes)
}

/// A salt for one object or opening.
pub(crate) fn salt() -> Result<Salt, Broken> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| Broken)?;
    Ok(Salt::from_random(bytes))
}

/// Takes over a secret of 32 bytes, in pages that are not swapped where the kernel permits it.
pub(crate) fn secret_of(bytes: &[u8; 32]) -> TaskSecret {
    let secret = TaskSecret::from_bytes(*bytes);
    let _ = lock_pages(secret.expose());
    secret
}

/// The key pair that the task secret is sealed to, and the one that signs the report.
pub(crate) struct TaskKeys {
    kem: Box<KemPrivateKey>,
    report: SigningKey,
    public: TaskKey,
}

impl TaskKeys {
    /// Fresh keys.
    pub(crate) fn generate() -> Result<Self, Broken> {
        let kem = Box::new(KemPrivateKey::from_seed(&*random_secret()?).map_err(|_| Broken)?);
        let report = SigningKey::from_seed(&*random_secret()?);
        let public = TaskKey::from_bytes(Suite::XWingSha256Aes256Gcm, kem.public_key()).ok_or(Broken)?;
        Ok(Self { kem, report, public })
    }

    /// The private key that opens the grant.
    pub(crate) fn kem(&self) -> &KemPrivateKey {
        &self.kem
    }

    /// The public key that the evidence has to bind.
    pub(crate) fn task_key(&self) -> &TaskKey {
        &self.public
    }

    /// The public half of the report key.
    pub(crate) fn report_key(&self) -> PublicKey {
        self.report.public_key()
    }

    /// Gives up the key that opened the grant: one grant is all it ever opens. What is left signs the report.
    pub(crate) fn into_report_key(self) -> SigningKey {
        self.report
    }
}
