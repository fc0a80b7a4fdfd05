//! A quote verified: its challenge, its key, its signature, and what it says about PCRs.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde_json::{Value, json};

use super::{
    Algorithm, Attest, AttestationKey, Attributes, Clock, HashAlg, ParseError, PcrSelection, PcrValues, Public, Scheme,
    Signature, hex,
};
use crate::{Checks, Verdict, Weight, cert::PublicKey};

/// What an attestation key has to guarantee. A key without one of these may sign a quote that no TPM made, or quotes of another TPM.
const AK_ATTRIBUTES: Attributes = Attributes::RESTRICTED
    .and(Attributes::FIXED_TPM)
    .and(Attributes::FIXED_PARENT)
    .and(Attributes::SENSITIVE_DATA_ORIGIN)
    .and(Attributes::SIGN);

/// A quote, of which nothing is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    attest: Attest,
    signature: Signature,
}

impl Quote {
    /// Reads the attested structure and the signature over it.
    ///
    /// # Errors
    /// As [`Attest::parse`] and [`Signature::parse`].
    pub fn parse(attest: &[u8], signature: &[u8]) -> Result<Self, ParseError> {
        Ok(Self { attest: Attest::parse(attest)?, signature: Signature::parse(signature)? })
    }

    /// The qualifying data as it stands, unverified: cheap to compare before anything is verified.
    #[must_use]
    pub fn unverified_qualifying_data(&self) -> &[u8] {
        &self.attest.extra_data
    }

    /// Which PCRs it is about, in its order: what [`PcrValues::parse`] needs for bare values.
    #[must_use]
    pub fn selections(&self) -> &[PcrSelection] {
        &self.attest.selections
    }
}

/// Where a TPM's key hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hierarchy {
    /// The owner's. Keys in it see counters and firmware version obfuscated (Part 1, 36.7): comparable with themselves alone.
    Owner,
    /// The endorsement hierarchy, as `tpm2_createak` uses it.
    Endorsement,
    /// The firmware's.
    Platform,
    /// Nobody's: gone at the next reset. Obfuscated like the owner's.
    Null,
}

impl Hierarchy {
    const ALL: [Self; 4] = [Self::Endorsement, Self::Owner, Self::Platform, Self::Null];

    const fn handle(self) -> u32 {
        match self {
            Self::Owner => 0x4000_0001,
            Self::Null => 0x4000_0007,
            Self::Endorsement => 0x4000_000b,
            Self::Platform => 0x4000_000c,
        }
    }

    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Endorsement => "endorsement",
            Self::Platform => "platform",
            Self::Null => "null",
        }
    }

    /// Whether counters and firmware version are told plainly to its keys.
    #[must_use]
    pub const fn is_plain(self) -> bool {
        matches!(self, Self::Endorsement | Self::Platform)
    }
}

/// What is known of the attestation key's place among the TPM's keys.
#[derive(Debug, Clone, Copy)]
pub enum Parent<'a> {
    /// Nothing: the quote's qualified signer passes if the key is a primary one, and is not checked otherwise.
    Unknown,
    /// It is a primary key of this hierarchy.
    Hierarchy(Hierarchy),
    /// It is a child of this primary key of this hierarchy: of an endorsement key, say.
    Key(&'a Public, Hierarchy),
}

/// What a quote is verified with.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The qualifying data: the challenge, or the 32 bytes of the root of a batch of bindings.
    pub nonce: &'a [u8],
    /// The key that was enrolled or is to be.
    pub ak: &'a AttestationKey,
    /// Where that key hangs.
    pub parent: Parent<'a>,
    /// The values that are claimed for the PCRs.
    pub pcrs: Option<&'a PcrValues>,
    /// The TPM maker's id (`NTC`), where the key was enrolled under that maker's certificate: for floors on firmware.
    pub maker: Option<&'a str>,
}

/// All checks, and the verified quote if they hold.
#[derive(Debug, Clone)]
pub struct Verification {
    /// Every check that was made or could not be.
    pub checks: Checks,
    /// Only where all of them that are required passed.
    pub verified: Option<Verified>,
}

/// A quote that its key signed over the expected challenge. Only [`verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub(super) attest: Attest,
    pub(super) ak: AkClaims,
    pub(super) key: PublicKey,
    pub(super) hierarchy: Option<Hierarchy>,
    pub(super) pcrs: Option<PcrValues>,
    pub(super) maker: Option<String>,
}

/// What is known of the key that signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AkClaims {
    /// Name, where the public area was given.
    pub name: Option<Vec<u8>>,
    /// Attributes, where the public area was given.
    pub attributes: Option<Attributes>,
    /// `rsa-2048`, `p-256`.
    pub algorithm: String,
    /// How it signs.
    pub scheme: Scheme,
}

/// Verifies a quote: what costs nothing first, the signature last.
#[must_use]
pub fn verify(quote: &Quote, context: &Context<'_>) -> Verification {
    let mut checks = Checks::new();
    let attest = &quote.attest;
    checks.require(
        "tpm.nonce",
        match verify_slices_are_equal(&attest.extra_data, context.nonce) {
            _ if context.nonce.is_empty() => Err("no challenge was given to compare with"),
            Ok(()) => Ok("the quote is over the challenge"),
            Err(_) => Err("the quote is over another challenge"),
        },
    );
    let scheme = key_checks(&mut checks, quote, context.ak);
    let hierarchy = qualified_signer(&mut checks, attest, context);
    let pcrs = scheme.and_then(|scheme| pcr_digest(&mut checks, attest, context.pcrs, scheme.hash));
    let key = context.ak.public_key();
    let (Some(scheme), Ok(key), true) = (scheme, key, checks.hold()) else {
        checks.push(
            "tpm.signature",
            Verdict::NotChecked,
            Weight::Required,
            "refused before, so that nobody pays for it",
        );
        return Verification { checks, verified: None };
    };
    let signature = quote.signature.verify(&key, scheme, &attest.bytes);
    checks.require(
        "tpm.signature",
        match signature {
            Ok(()) => Ok(format!("{} by the attestation key", scheme.name())),
            Err(error) => Err(error.to_string()),
        },
    );
    let verified = checks.hold().then(|| Verified {
        attest: attest.clone(),
        ak: AkClaims {
            name: tpm_key(context.ak).map(Public::name),
            attributes: tpm_key(context.ak).map(Public::attributes),
            algorithm: key.name(),
            scheme,
        },
        key,
        hierarchy,
        pcrs,
        maker: context.maker.map(str::to_owned),
    });
    Verification { checks, verified }
}

const fn tpm_key(ak: &AttestationKey) -> Option<&Public> {
    match ak {
        AttestationKey::Tpm(public) => Some(public),
        AttestationKey::Bare(_) => None,
    }
}

/// Attributes and scheme of the key. Gives the scheme to verify with.
fn key_checks(checks: &mut Checks, quote: &Quote, ak: &AttestationKey) -> Option<Scheme> {
    let said = quote.signature.scheme;
    let Some(public) = tpm_key(ak) else {
        checks.not_checked(
            "tpm.ak-attributes",
            "only the key was given: nothing shows that a TPM holds it and restricts it",
        );
        checks.require("tpm.ak-scheme", said.map(|_| "the signature says how it was made").ok_or(
            "neither the key nor the signature says how it signs: give the key's public area, or the signature as TPMT_SIGNATURE",
        ));
        return said;
    };
    ak_attributes(checks, public);
    let scheme = match (public.scheme, said) {
        (None, _) => Err("the key has no fixed scheme of RSASSA, RSAPSS or ECDSA over SHA-256 or SHA-384"),
        (Some(fixed), Some(said)) if fixed != said => Err("the signature is of another scheme than the key's"),
        (Some(fixed), _) => Ok(fixed),
    };
    let fits = scheme.and_then(|scheme| match (public.algorithm(), scheme.kind) {
        (Algorithm::Rsa { .. }, super::SchemeKind::Rsassa | super::SchemeKind::Rsapss)
        | (Algorithm::Ecc { .. }, super::SchemeKind::Ecdsa) => Ok(scheme),
        _ => Err("the key's scheme is of another kind than the key"),
    });
    checks.require("tpm.ak-scheme", fits.map(|_| "fixed, and the signature's"));
    fits.ok()
}

/// Whether the key signs nothing in the form of a quote that its TPM did not make.
pub(super) fn ak_attributes(checks: &mut Checks, public: &Public) {
    let attributes = public.attributes();
    checks.require(
        "tpm.ak-attributes",
        if !attributes.has(AK_ATTRIBUTES) {
            Err(format!(
                "it has to be restricted, fixedTPM, fixedParent, sensitiveDataOrigin and sign, and is: {}",
                attributes.names().join(", ")
            ))
        } else if attributes.has(Attributes::DECRYPT) {
            Err("it decrypts as well: its signatures may have been chosen by others".to_owned())
        } else {
            Ok("a restricted signing key that the TPM made and keeps".to_owned())
        },
    );
}

/// Whether the quote names the key as its signer. Gives the hierarchy that this shows.
fn qualified_signer(checks: &mut Checks, attest: &Attest, context: &Context<'_>) -> Option<Hierarchy> {
    const NAME: &str = "tpm.qualified-signer";
    let Some(ak) = tpm_key(context.ak) else {
        checks.not_checked(NAME, "the key's public area was not given, so its name is unknown");
        return None;
    };
    let primary = |hierarchy: Hierarchy| qualified(ak, &hierarchy.handle().to_be_bytes());
    let found = match context.parent {
        Parent::Hierarchy(hierarchy) => (primary(hierarchy) == attest.qualified_signer).then_some(hierarchy),
        Parent::Key(parent, hierarchy) => {
            let parent = qualified(parent, &hierarchy.handle().to_be_bytes());
            (qualified(ak, &parent) == attest.qualified_signer).then_some(hierarchy)
        }
        Parent::Unknown => Hierarchy::ALL.into_iter().find(|hierarchy| primary(*hierarchy) == attest.qualified_signer),
    };
    match (found, context.parent) {
        (Some(hierarchy), _) => {
            checks.require::<String>(NAME, Ok(format!("the attestation key, in the {} hierarchy", hierarchy.name())));
        }
        (None, Parent::Unknown) => checks.not_checked(NAME, "no primary key, and its parent was not given"),
        (None, _) => {
            checks.require(NAME, Err("the quote names another signer, or the key has another parent"));
        }
    }
    found
}

/// A qualified name (Part 1, 16.4): hash of the parent's and of the name. The parent of a primary key is its hierarchy's handle.
fn qualified(key: &Public, parent: &[u8]) -> Vec<u8> {
    let mut name = key.name_alg.id().to_be_bytes().to_vec();
    name.extend(key.name_alg.digest(&[parent, &key.name()]).as_ref());
    name
}

/// Whether the values given are those that were quoted. Gives those.
fn pcr_digest(checks: &mut Checks, attest: &Attest, pcrs: Option<&PcrValues>, hash: HashAlg) -> Option<PcrValues> {
    const NAME: &str = "tpm.pcr-digest";
    let Some(pcrs) = pcrs else {
        checks.not_checked(NAME, "no PCR values were given");
        return None;
    };
    let selected = match pcrs.selected(&attest.selections) {
        Ok(selected) => selected,
        Err((bank, index)) => {
            checks.require::<String>(
                NAME,
                Err(format!("PCR {index} of {} is quoted, and its value was not given", bank.name())),
            );
            return None;
        }
    };
    let equal = selected.digest(&attest.selections, hash).is_some_and(|digest| digest == attest.pcr_digest);
    let unquoted = pcrs.iter().count() - selected.iter().count();
    checks.require(
        NAME,
        match (equal, unquoted) {
            (false, _) => Err("the values given are not those that were quoted".to_owned()),
            (true, 0) => Ok("the values given are those that were quoted".to_owned()),
            (true, more) => Ok(format!(
                "the values given are those that were quoted; {more} more are not in the quote and prove nothing"
            )),
        },
    );
    equal.then_some(selected)
}

impl Verified {
    /// The TPM's clock when it quoted.
    #[must_use]
    pub const fn clock(&self) -> Clock {
        self.attest.clock
    }

    /// The TPM's firmware version, as its maker counts.
    #[must_use]
    pub const fn firmware_version(&self) -> u64 {
        self.attest.firmware_version
    }

    /// The PCRs that were quoted, with their values, where these were given.
    #[must_use]
    pub const fn pcrs(&self) -> Option<&PcrValues> {
        self.pcrs.as_ref()
    }

    /// The PCRs that were quoted.
    #[must_use]
    pub fn selections(&self) -> &[PcrSelection] {
        &self.attest.selections
    }

    /// The key that signed.
    #[must_use]
    pub const fn ak(&self) -> &AkClaims {
        &self.ak
    }

    /// Where that key hangs, if that is known.
    #[must_use]
    pub const fn hierarchy(&self) -> Option<Hierarchy> {
        self.hierarchy
    }

    /// All that the quote claims.
    #[must_use]
    pub const fn claims(&self) -> Claims<'_> {
        Claims(self)
    }
}

/// Claims of a verified quote.
#[derive(Debug, Clone, Copy)]
pub struct Claims<'a>(&'a Verified);

impl Claims<'_> {
    /// As the command line prints them: hexadecimal in lower case, numbers as numbers.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Verified { attest, ak, pcrs, hierarchy, .. } = self.0;
        let selection: serde_json::Map<String, Value> =
            [HashAlg::Sha1, HashAlg::Sha256, HashAlg::Sha384, HashAlg::Sha512]
                .into_iter()
                .filter_map(|bank| {
                    let bits = attest.selections.iter().filter(|selection| selection.bank == bank);
                    let bits = bits.fold(0, |bits, selection| bits | selection.bits);
                    let indices: Vec<u8> = PcrSelection { bank, bits }.indices().collect();
                    (!indices.is_empty()).then(|| (bank.name().to_owned(), json!(indices)))
                })
                .collect();
        json!({
            "clock_ms": attest.clock.clock_ms,
            "reset_count": attest.clock.reset_count,
            "restart_count": attest.clock.restart_count,
            "safe": attest.clock.safe,
            "firmware_version": attest.firmware_version,
            "nonce": hex(&attest.extra_data),
            "pcr_selection": selection,
            "pcr_digest": hex(&attest.pcr_digest),
            "pcrs": pcrs.as_ref().map(PcrValues::to_json),
            "signer": hex(&attest.qualified_signer),
            "hierarchy": hierarchy.map(Hierarchy::name),
            "ak": {
                "name": ak.name.as_deref().map(hex),
                "attributes": ak.attributes.map(Attributes::names),
                "algorithm": ak.algorithm,
                "scheme": ak.scheme.name(),
            },
        })
    }
}
