//! Recorded quotes: what they say, and that nothing of them can be altered.

use proptest::prelude::*;
use starminer_hardware::{
    Verdict,
    tpm::{
        AttestationKey, Context, Demand, HashAlg, Hierarchy, Parent, ParseError, PcrIndex, PcrValues, Policy, Public,
        Quote, Unset, Verification, Verified, appraise, credential, verify,
    },
};

use crate::{data, failed, verdict};

const NONCE: &[u8] = &[0x00, 0x11, 0x22, 0x33];
const SETS: [&str; 3] = ["rsassa-sha256", "rsapss-sha384", "ecdsa-sha256"];

struct Set {
    public: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
    pcrs: Vec<u8>,
}

fn set(name: &str) -> Set {
    let file = |kind: &str| data(&format!("{name}.{kind}"));
    Set { public: file("pub"), message: file("msg"), signature: file("sig"), pcrs: file("pcrs") }
}

fn ek() -> Public {
    Public::parse(&data("ek-rsa2048.pub")).unwrap()
}

/// Everything as `appraise tpm` does it.
fn judge(set: &Set) -> Result<Verification, ParseError> {
    let ak = AttestationKey::parse(&set.public)?;
    let quote = Quote::parse(&set.message, &set.signature)?;
    let pcrs = PcrValues::parse(&set.pcrs, quote.selections())?;
    let ek = ek();
    let parent = Parent::Key(&ek, Hierarchy::Endorsement);
    Ok(verify(&quote, &Context { nonce: NONCE, ak: &ak, parent, pcrs: Some(&pcrs), maker: None }))
}

fn verified(name: &str) -> Verified {
    let verification = judge(&set(name)).unwrap();
    assert!(verification.checks.hold(), "{name}: {:#?}", verification.checks);
    verification.verified.unwrap()
}

#[test]
fn quotes_of_every_scheme_verify() {
    for (name, key) in [("rsassa-sha256", "rsa-2048"), ("rsapss-sha384", "rsa-2048"), ("ecdsa-sha256", "p-256")] {
        let claims = verified(name).claims().to_json();
        assert_eq!(claims["ak"]["algorithm"], key);
        assert_eq!(claims["ak"]["scheme"], name);
        assert_eq!(claims["hierarchy"], "endorsement");
        assert_eq!(claims["nonce"], "00112233");
        assert_eq!(claims["pcr_selection"]["sha256"], serde_json::json!([0, 1, 7, 10]));
        assert_eq!(claims["pcrs"]["sha256"]["7"], "00".repeat(32));
        assert_eq!(claims["pcrs"]["sha1"]["0"], "00".repeat(20));
        assert!(claims["clock_ms"].as_u64().unwrap() > 0 && claims["firmware_version"].is_u64());
        assert!(claims["ak"]["attributes"].as_array().unwrap().contains(&"restricted".into()));
    }
}

/// Every bit of key, quote and signature; of the PCR file those that are read.
#[test]
fn no_bit_can_be_flipped() {
    for name in SETS {
        let good = set(name);
        let claims = verified(name).claims().to_json();
        let flip = |part: &str, bytes: &[u8], bit: usize| {
            let mut set = Set {
                public: good.public.clone(),
                message: good.message.clone(),
                signature: good.signature.clone(),
                pcrs: good.pcrs.clone(),
            };
            let target = match part {
                "public" => &mut set.public,
                "message" => &mut set.message,
                "signature" => &mut set.signature,
                _ => &mut set.pcrs,
            };
            assert_eq!(target.len(), bytes.len());
            target[bit / 8] ^= 1 << (bit % 8);
            judge(&set)
        };
        for (part, bytes) in
            [("public", &good.public), ("message", &good.message), ("signature", &good.signature), ("pcrs", &good.pcrs)]
        {
            let mut ignored = 0;
            for bit in 0..bytes.len() * 8 {
                let Ok(Verification { checks, verified: Some(verified) }) = flip(part, bytes, bit) else { continue };
                assert_eq!(part, "pcrs", "{name}: bit {bit} of {part} does not matter: {checks:#?}");
                assert_eq!(verified.claims().to_json(), claims);
                ignored += 1;
            }
            // The PCR file is a dump of structures in memory, of which most is unused.
            assert!(ignored == 0 || (part == "pcrs" && ignored < bytes.len() * 8), "{name} {part}: {ignored}");
        }
    }
}

#[test]
fn lengths_are_exact() {
    for name in SETS {
        let good = set(name);
        for part in 0..4 {
            let pick = |set: &Set| [&set.public, &set.message, &set.signature, &set.pcrs][part].clone();
            let whole = pick(&good);
            let with = |bytes: Vec<u8>| {
                let mut set = set(name);
                *[&mut set.public, &mut set.message, &mut set.signature, &mut set.pcrs][part] = bytes;
                judge(&set).is_ok_and(|verification| verification.verified.is_some())
            };
            for len in 0..whole.len() {
                assert!(!with(whole[..len].to_vec()), "{name}: part {part} cut to {len}");
            }
            for more in [&[0][..], &[0xff], &[0; 700], &[0; 100_000]] {
                assert!(!with([&whole, more].concat()), "{name}: part {part} and {} more", more.len());
            }
        }
    }
}

#[test]
fn forms_are_told_apart_by_content() {
    let good = set("ecdsa-sha256");
    let wrap = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let json = verified("ecdsa-sha256").pcrs().unwrap().to_json().to_string().into_bytes();
    let bare: Vec<u8> = [vec![0; 20], vec![0; 4 * 32], vec![0; 48]].concat();
    for set in [
        Set { message: wrap(&good.message), ..set("ecdsa-sha256") },
        Set { signature: wrap(&good.signature), ..set("ecdsa-sha256") },
        Set { public: good.public[2..].to_vec(), ..set("ecdsa-sha256") },
        Set { pcrs: json, ..set("ecdsa-sha256") },
        Set { pcrs: bare, ..set("ecdsa-sha256") },
        // tpm2_quote -f plain writes what follows scheme, hash and size.
        Set { signature: set("rsassa-sha256").signature[6..].to_vec(), ..set("rsassa-sha256") },
        Set { signature: set("rsapss-sha384").signature[6..].to_vec(), ..set("rsapss-sha384") },
    ] {
        let verification = judge(&set).unwrap();
        assert!(verification.checks.hold(), "{:#?}", verification.checks);
    }
}

#[test]
fn values_in_json_are_strict() {
    let zero = "00".repeat(32);
    for (json, reads) in [
        (format!(r#"{{"sha256": {{"0": "{zero}"}}}}"#), true),
        (format!(r#" {{"sha256": {{"0": "{zero}"}}, "sm3_256": {{"0": "{zero}"}}}}"#), true),
        (format!(r#"{{"sha256": {{"0": "{zero}", "0": "{zero}"}}}}"#), false),
        (format!(r#"{{"sha256": {{}}, "sha256": {{"0": "{zero}"}}}}"#), false),
        (format!(r#"{{"sha256": {{"00": "{zero}"}}}}"#), false),
        (format!(r#"{{"sha256": {{"32": "{zero}"}}}}"#), false),
        (format!(r#"{{"sha384": {{"0": "{zero}"}}}}"#), false),
        (format!(r#"{{"md5": {{"0": "{zero}"}}}}"#), false),
        (format!(r#"{{"sha256": {{"0": "{zero}"}}}} x"#), false),
        (r#"{"sha256": {"0": "0g"}}"#.to_owned(), false),
        ("{".repeat(60_000), false),
    ] {
        assert_eq!(PcrValues::parse(json.as_bytes(), &[]).is_ok(), reads, "{json:.100}");
    }
}

#[test]
fn refusals_name_their_check() {
    let good = set("ecdsa-sha256");
    let ak = AttestationKey::parse(&good.public).unwrap();
    let other = AttestationKey::parse(&set("rsassa-sha256").public).unwrap();
    let quote = Quote::parse(&good.message, &good.signature).unwrap();
    let pcrs = PcrValues::parse(&good.pcrs, quote.selections()).unwrap();
    let mut altered = pcrs.clone();
    altered.insert(HashAlg::Sha256, PcrIndex::new(7).unwrap(), vec![1; 32]).unwrap();
    let ek = ek();
    let wrong = Public::parse(&data("ek-p384.pub")).unwrap();
    let context = Context {
        nonce: NONCE,
        ak: &ak,
        parent: Parent::Key(&ek, Hierarchy::Endorsement),
        pcrs: Some(&pcrs),
        maker: None,
    };
    for (context, check) in [
        (Context { nonce: &[], ..context }, "tpm.nonce"),
        (Context { nonce: &[0, 0x11, 0x22], ..context }, "tpm.nonce"),
        (Context { nonce: &[0, 0x11, 0x22, 0x34], ..context }, "tpm.nonce"),
        (Context { ak: &other, ..context }, "tpm.ak-scheme"),
        (Context { parent: Parent::Key(&wrong, Hierarchy::Endorsement), ..context }, "tpm.qualified-signer"),
        (Context { parent: Parent::Key(&ek, Hierarchy::Owner), ..context }, "tpm.qualified-signer"),
        (Context { parent: Parent::Hierarchy(Hierarchy::Endorsement), ..context }, "tpm.qualified-signer"),
        (Context { pcrs: Some(&altered), ..context }, "tpm.pcr-digest"),
        (Context { pcrs: Some(&PcrValues::default()), ..context }, "tpm.pcr-digest"),
    ] {
        let verification = verify(&quote, &context);
        assert!(verification.verified.is_none());
        assert!(failed(&verification.checks).contains(&check.to_owned()), "{check}: {:#?}", verification.checks);
        assert_eq!(
            verdict(&verification.checks, "tpm.signature"),
            Verdict::NotChecked,
            "nobody pays for a signature then"
        );
    }
    // What was not given is not checked, and the rest holds.
    let verification = verify(&quote, &Context { pcrs: None, parent: Parent::Unknown, ..context });
    assert!(verification.verified.is_some());
    assert_eq!(verdict(&verification.checks, "tpm.pcr-digest"), Verdict::NotChecked);
    assert_eq!(verdict(&verification.checks, "tpm.qualified-signer"), Verdict::NotChecked);
}

/// Keys that could sign what no TPM said.
#[test]
fn keys_without_guarantees_are_refused() {
    let good = set("ecdsa-sha256");
    // TPMT_PUBLIC after a size: type, name hash, then the attributes.
    let attributes = u32::from_be_bytes(good.public[6..10].try_into().unwrap());
    let with = |attributes: u32| {
        let mut public = good.public.clone();
        public[6..10].copy_from_slice(&attributes.to_be_bytes());
        let quote = Quote::parse(&good.message, &good.signature).unwrap();
        AttestationKey::parse(&public).map(|ak| {
            verify(&quote, &Context { nonce: NONCE, ak: &ak, parent: Parent::Unknown, pcrs: None, maker: None })
        })
    };
    assert!(with(attributes).unwrap().verified.is_some());
    for bit in [1, 4, 5, 16, 18] {
        let verification = with(attributes & !(1 << bit)).unwrap();
        assert!(verification.verified.is_none());
        assert_eq!(failed(&verification.checks), ["tpm.ak-attributes"], "without bit {bit}");
    }
    assert_eq!(failed(&with(attributes | 1 << 17).unwrap().checks), ["tpm.ak-attributes"], "a key that decrypts");
    for bit in [0, 3, 12, 15, 20, 31] {
        assert_eq!(with(attributes | 1 << bit).unwrap_err().code(), "tpm.malformed", "reserved bit {bit}");
    }
}

#[test]
fn policies_ask_for_what_they_say() {
    let verified = verified("ecdsa-sha256");
    let refused = |policy: &Policy| failed(&appraise(&verified, policy));
    let index = |index| PcrIndex::new(index).unwrap();
    // By default the PCRs of the boot are asked for, and a good value for each.
    let strict = refused(&Policy::default());
    assert!(strict.contains(&"tpm.policy.pcr-selection".to_owned()), "{strict:?}");
    assert!(strict.contains(&"tpm.policy.pcr-values.sha256.7".to_owned()), "{strict:?}");
    let toml: Policy = serde_json::from_value(serde_json::json!({
        "pcr_selection": { "sha256": [0, 1, 7] },
        "pcr_values": { "sha256": { "7": ["00".repeat(32)], "1": ["11".repeat(32), "00".repeat(32)] }, "sha384": { "4": ["00".repeat(48)] } },
        "pcr_values_unset": "not-checked",
    }))
    .unwrap();
    let checks = appraise(&verified, &toml);
    assert!(checks.hold(), "{checks:#?}");
    assert_eq!(verdict(&checks, "tpm.policy.pcr-values.sha256.0"), Verdict::NotChecked);
    let mut wrong = toml.clone();
    wrong.pcr_values.get_mut(&HashAlg::Sha256).unwrap().insert(index(7), ["11".repeat(32)].into());
    assert_eq!(refused(&wrong), ["tpm.policy.pcr-values.sha256.7"]);
    let mut unquoted = toml.clone();
    unquoted.pcr_values.get_mut(&HashAlg::Sha256).unwrap().insert(index(9), ["00".repeat(32)].into());
    assert_eq!(refused(&unquoted), ["tpm.policy.pcr-values.sha256.9"], "good values of a PCR that was not quoted");
    assert_eq!(refused(&Policy { ecc_bits_min: 384, ..toml.clone() }), ["tpm.policy.key-size"]);
    assert_eq!(refused(&Policy { pcr_values_unset: Unset::Deny, ..toml.clone() }), ["tpm.policy.pcr-values.sha256.0"]);
    let firmware = Policy { firmware_version_min: [("NTC".to_owned(), 1)].into(), ..toml.clone() };
    assert_eq!(refused(&firmware), ["tpm.policy.firmware"], "a maker that nobody named");
    let safe = appraise(&verified, &Policy { clock_safe: Demand::Required, ..toml });
    assert_eq!(safe.hold(), verified.clock().safe);
    assert!(serde_json::from_str::<Policy>(r#"{"pcr_value": {}}"#).is_err(), "options are spelled right or refused");
    for bad in [
        r#"{"pcr_selection": {"sha256": [32]}}"#,
        r#"{"pcr_values": {"sha256": {"07": []}}}"#,
        r#"{"pcr_values": {"sha256": {"-1": []}}}"#,
    ] {
        assert!(serde_json::from_str::<Policy>(bad).is_err(), "{bad}");
    }
}

#[test]
fn credentials_want_a_storage_key_and_sizes_that_fit() {
    use credential::{CredentialError, Randomness, make_credential};
    let randomness = || Randomness { seed: [7; 64].into(), ephemeral: [7; 64].into() };
    let ecc = Public::parse(&data("ek-p384.pub")).unwrap();
    let ak = Public::parse(&set("ecdsa-sha256").public).unwrap();
    let name = ak.name();
    let made = make_credential(&ecc, &name, b"secret", randomness()).unwrap();
    assert_eq!(made, make_credential(&ecc, &name, b"secret", randomness()).unwrap(), "all randomness is the caller's");
    assert_eq!(made.encrypted_secret.len(), 2 * (2 + 48));
    assert_eq!(made.credential_blob.len(), 2 + 48 + 2 + 6);
    for (key, name, secret, error) in [
        (&ak, &name[..], &b"secret"[..], CredentialError::NotAStorageKey),
        (&ecc, &name[..], b"", CredentialError::SecretSize),
        (&ecc, &name[..], &[0; 49], CredentialError::SecretSize),
        (&ecc, &name[1..], b"secret", CredentialError::NameSize),
        (&ecc, &[], b"secret", CredentialError::NameSize),
    ] {
        assert_eq!(make_credential(key, name, secret, randomness()), Err(error));
    }
    let zero = Randomness { seed: [0; 64].into(), ephemeral: [0; 64].into() };
    assert_eq!(make_credential(&ecc, &name, b"secret", zero), Err(CredentialError::Key), "no ephemeral key");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..700), which in 0..4usize, at in 0..300usize) {
        let quote = Quote::parse(&set("ecdsa-sha256").message, &set("ecdsa-sha256").signature).unwrap();
        let good = set(SETS[which % 3]);
        for base in [good.public, good.message, good.signature, good.pcrs] {
            // A real one up to somewhere, then anything.
            let mixed = [&base[..at.min(base.len())], &bytes].concat();
            for input in [&bytes, &mixed] {
                let _ = AttestationKey::parse(input);
                let _ = Quote::parse(input, input);
                let _ = PcrValues::parse(input, quote.selections());
                let _ = starminer_hardware::tpm::ek::EkCertificate::parse(input);
            }
        }
    }
}
