//! Random bytes from the operating system, through the cryptographic library.

use zeroize::Zeroizing;

/// `N` fresh random bytes.
///
/// # Panics
/// When the operating system's generator fails: nothing that follows could be safe.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    aws_lc_rs::rand::fill(&mut out).expect("the operating system's random generator works");
    out
}

/// `N` fresh random bytes that are wiped when dropped.
#[must_use]
pub fn random_secret<const N: usize>() -> Zeroizing<[u8; N]> {
    let mut out = Zeroizing::new([0; N]);
    aws_lc_rs::rand::fill(out.as_mut_slice()).expect("the operating system's random generator works");
    out
}
