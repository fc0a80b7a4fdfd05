//! Sessions with a TPM (Part 1, 17 and 19): every command and response authenticated, secrets in them encrypted.
//!
//! A session's key comes from a salt that only the TPM with the endorsement key can open. So whoever sits on the way,
//! without that key, can neither read what is encrypted, nor alter or replay what is authenticated: each HMAC covers
//! the command or response, and nonces of both sides that are used once. What remains is to say nothing, or to answer
//! with an error, which no session authenticates.

use aws_lc_rs::{cipher, constant_time, digest, hmac, iv::FixedLength};
use starminer_hardware::tpm::{HashAlg, kdf};
use zeroize::Zeroizing;

use super::{
    error::TpmError,
    wire::{Reader, Writer},
};

/// The hash of sessions: every TPM has it.
pub(super) const SESSION_HASH: HashAlg = HashAlg::Sha256;
pub(super) const NONCE_BYTES: usize = 32;
/// `TPMT_SYM_DEF` of sessions: AES-128 in CFB mode, which every TPM has.
const AES_KEY_BYTES: u16 = 16;
const AES_BLOCK_BYTES: u16 = 16;

/// `TPMA_SESSION`.
pub(super) mod attributes {
    pub const CONTINUE: u8 = 0x01;
    /// The first parameter of the command is encrypted.
    pub const DECRYPT: u8 = 0x20;
    /// The first parameter of the response is encrypted.
    pub const ENCRYPT: u8 = 0x40;
    pub const AUDIT: u8 = 0x80;
}

/// `TPM_SE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Hmac,
    Policy,
    /// A policy session that authorises nothing: it tells a policy's digest.
    Trial,
}

impl Kind {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Hmac => 0,
            Self::Policy => 1,
            Self::Trial => 3,
        }
    }
}

/// `TPMT_SYM_DEF`.
pub(super) fn symmetric(writer: Writer) -> Writer {
    const ALG_AES: u16 = 0x0006;
    const ALG_CFB: u16 = 0x0043;
    writer.u16(ALG_AES).u16(AES_KEY_BYTES * 8).u16(ALG_CFB)
}

pub(super) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, TpmError> {
    let mut bytes = Zeroizing::new([0; N]);
    aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_| TpmError::Randomness)?;
    Ok(bytes)
}

/// An open session.
pub(super) struct Session {
    pub(super) handle: u32,
    /// Empty without a salt.
    key: Zeroizing<Vec<u8>>,
    nonce_tpm: Vec<u8>,
}

impl Session {
    /// The session key (Part 1, 19.6.8).
    pub(super) fn new(handle: u32, salt: Option<&[u8]>, nonce_tpm: &[u8], nonce_caller: &[u8]) -> Self {
        let key = match salt {
            Some(salt) => kdf::kdfa(SESSION_HASH, salt, "ATH", nonce_tpm, nonce_caller, 32),
            None => Zeroizing::default(),
        };
        Self { handle, key, nonce_tpm: nonce_tpm.to_vec() }
    }

    /// One use of the session, for one command and its response.
    pub(super) fn begin(&self, attributes: u8, authorization: &[u8]) -> Result<Use, TpmError> {
        let mut key = Zeroizing::new(Vec::with_capacity(self.key.len() + authorization.len()));
        key.extend_from_slice(&self.key);
        key.extend_from_slice(authorization);
        Ok(Use { handle: self.handle, attributes, key, nonce_caller: random()?, nonce_tpm: self.nonce_tpm.clone() })
    }

    /// The TPM's new nonce, once the response is authenticated.
    pub(super) fn went_on(&mut self, used: Use) {
        self.nonce_tpm = used.nonce_tpm;
    }
}

/// A session in use.
pub(super) struct Use {
    handle: u32,
    attributes: u8,
    /// Session key and authorisation value.
    key: Zeroizing<Vec<u8>>,
    nonce_caller: Zeroizing<[u8; NONCE_BYTES]>,
    nonce_tpm: Vec<u8>,
}

impl Use {
    /// Encrypts the command's first parameter if that is wanted.
    pub(super) fn seal(&self, parameters: &mut [u8]) -> Option<()> {
        if self.attributes & attributes::DECRYPT == 0 {
            return Some(());
        }
        let (key, iv) = self.cipher(self.nonce_caller.as_ref(), &self.nonce_tpm)?;
        let key = cipher::EncryptingKey::cfb128(key).ok()?;
        key.less_safe_encrypt(first(parameters)?, cipher::EncryptionContext::Iv128(iv)).ok().map(|_| ())
    }

    /// Decrypts the response's first parameter, which has to be authenticated already.
    pub(super) fn open(&self, parameters: &mut [u8]) -> Option<()> {
        if self.attributes & attributes::ENCRYPT == 0 {
            return Some(());
        }
        let (key, iv) = self.cipher(&self.nonce_tpm, self.nonce_caller.as_ref())?;
        let key = cipher::DecryptingKey::cfb128(key).ok()?;
        key.decrypt(first(parameters)?, cipher::DecryptionContext::Iv128(iv)).ok().map(|_| ())
    }

    /// Part 1, 21.3: key and IV out of the session's key and both nonces, so that they serve once.
    fn cipher(&self, newer: &[u8], older: &[u8]) -> Option<(cipher::UnboundCipherKey, FixedLength<16>)> {
        let bytes = kdf::kdfa(SESSION_HASH, &self.key, "CFB", newer, older, AES_KEY_BYTES + AES_BLOCK_BYTES);
        let (key, iv) = bytes.split_at_checked(AES_KEY_BYTES.into())?;
        let key = cipher::UnboundCipherKey::new(&cipher::AES_128, key).ok()?;
        Some((key, FixedLength::try_from(iv).ok()?))
    }

    /// The command's `TPMS_AUTH_COMMAND`.
    pub(super) fn authorize(&self, writer: Writer, command_hash: &[u8]) -> Writer {
        let nonces = [self.nonce_caller.as_ref(), &self.nonce_tpm];
        let mac = self.mac(command_hash, nonces, self.attributes);
        let mac = mac.as_ref().map_or(&[][..], AsRef::as_ref);
        writer.u32(self.handle).sized(self.nonce_caller.as_ref()).u8(self.attributes).sized(mac)
    }

    /// Reads and checks the response's `TPMS_AUTH_RESPONSE`. `None` where it is not the TPM's.
    pub(super) fn check(&mut self, reader: &mut Reader<'_>, response_hash: &[u8]) -> Option<()> {
        let nonce = reader.sized()?;
        let attributes = reader.u8()?;
        let given = reader.sized()?;
        let mac = self.mac(response_hash, [nonce, self.nonce_caller.as_ref()], attributes);
        constant_time::verify_slices_are_equal(mac.as_ref().map_or(&[][..], AsRef::as_ref), given).ok()?;
        // What the TPM says it did has to be what was asked for, or a parameter would be taken for what it is not.
        let asked = self.attributes & !attributes::AUDIT;
        let said = attributes & (attributes::CONTINUE | attributes::DECRYPT | attributes::ENCRYPT);
        (said == asked).then_some(())?;
        self.nonce_tpm = nonce.to_vec();
        Some(())
    }

    /// Part 1, 19.6.5. A session without key and authorisation has none.
    fn mac(&self, hash: &[u8], [newer, older]: [&[u8]; 2], attributes: u8) -> Option<hmac::Tag> {
        if self.key.is_empty() {
            return None;
        }
        let mut context = hmac::Context::with_key(&hmac::Key::new(kdf::hmac_algorithm(SESSION_HASH), &self.key));
        for part in [hash, newer, older, &[attributes]] {
            context.update(part);
        }
        Some(context.sign())
    }
}

/// What is inside of the TPM2B at the beginning.
fn first(parameters: &mut [u8]) -> Option<&mut [u8]> {
    let (size, rest) = parameters.split_first_chunk_mut::<2>()?;
    rest.get_mut(..usize::from(u16::from_be_bytes(*size)))
}

/// `cpHash` and `rpHash`.
pub(super) fn hash(parts: &[&[u8]]) -> digest::Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish()
}
