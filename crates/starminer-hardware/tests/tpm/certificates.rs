//! Certificates of endorsement keys: real ones, swtpm's, and a test PKI's with everything wrong in turn.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    SigningKey as _,
};
use starminer_hardware::{
    Verdict,
    cert::{Certificate, Crl, Provenance},
    tpm::{
        Demand, Public,
        ek::{Context, EkCertificate, Policy, Verification, appraise, verify},
    },
};

use crate::{data, failed, verdict};

/// In 2024: all the real ones are valid.
const THEN: u64 = 1_720_000_000;

fn judge(certificate: &[u8], authorities: &[Certificate], now_s: u64) -> Verification {
    verify(&EkCertificate::parse(certificate).unwrap(), &Context { authorities, crls: &[], now_s })
}

#[test]
fn a_real_nuvoton_certificate_chains_to_its_maker() {
    let certificate = data("nuvoton-ek-rsa.der");
    let verification = judge(&certificate, &[], THEN);
    assert!(verification.checks.hold(), "{:#?}", verification.checks);
    let verified = verification.verified.unwrap();
    assert_eq!(verified.provenance(), Provenance::Genuine);
    let claims = verified.claims().to_json();
    assert_eq!(claims["maker"], "NTC");
    assert_eq!(claims["maker_name"], "Nuvoton Technology");
    assert_eq!(claims["model"], "NPCT75x");
    assert_eq!(claims["version"], "id:00070002");
    assert_eq!(claims["key_algorithm"], "rsa-2048");
    assert_eq!(claims["specification_family"], "2.0");
    assert_eq!(claims["serial"], "8e71607435e271f985d6");
    assert_eq!(claims["provenance"], "genuine");
    assert_eq!(claims["root"]["sha256"], "cd8185ff8995ed09811970090a8c36fafab34ef87f47fa51fdb9ecf95c9c2e04");
    assert!(appraise(&verified, &Policy::default()).hold(), "{:#?}", appraise(&verified, &Policy::default()));
    for (policy, check) in [
        (Policy { makers: vec!["IFX".to_owned()], ..Policy::default() }, "tpm-ek.policy.root"),
        (Policy { rsa_bits_min: 3072, ..Policy::default() }, "tpm-ek.policy.key-size"),
        (Policy { revocation: Demand::Required, ..Policy::default() }, "tpm-ek.policy.revocation"),
        (
            Policy { models_denied: [("NTC".to_owned(), vec!["NPCT75x".to_owned()])].into(), ..Policy::default() },
            "tpm-ek.policy.model",
        ),
    ] {
        assert_eq!(failed(&appraise(&verified, &policy)), [check]);
    }
    // Its own dates: from 23 July 2019 17:15:13 to 19 July 2039 17:15:13.
    for (now_s, valid) in [(1_563_902_112, false), (1_563_902_113, true)] {
        assert_eq!(judge(&certificate, &[], now_s).verified.is_some(), valid, "{now_s}");
    }
    let late = judge(&certificate, &[], 2_194_715_714);
    assert_eq!(failed(&late.checks), ["tpm-ek.chain"]);
}

#[test]
fn no_bit_of_a_real_certificate_can_be_flipped() {
    let good = data("nuvoton-ek-rsa.der");
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(certificate) = EkCertificate::parse(&bytes) else { continue };
        let verification = verify(&certificate, &Context { authorities: &[], crls: &[], now_s: THEN });
        assert!(verification.verified.is_none(), "bit {bit}: {:#?}", verification.checks);
    }
    for len in 0..good.len() {
        assert!(EkCertificate::parse(&good[..len]).is_err(), "cut to {len}");
    }
}

/// NV storage is longer than what is in it.
#[test]
fn padding_is_zeros_or_ones() {
    let good = data("nuvoton-ek-rsa.der");
    for (padding, reads) in [
        (&[0; 300][..], true),
        (&[0xff; 300], true),
        (&[0, 0xff], false),
        (&[1], false),
        (&[0; 20_000], true),
        (&[0; 40_000], false),
    ] {
        let bytes = [&good[..], padding].concat();
        assert_eq!(EkCertificate::parse(&bytes).is_ok(), reads, "{} bytes of padding", padding.len());
    }
    let padded = judge(&[&good[..], &[0xff; 300]].concat(), &[], THEN);
    assert!(padded.verified.is_some());
    assert_eq!(verdict(&padded.checks, "tpm-ek.profile"), Verdict::Fail, "tolerated, and told");
    assert!(padded.checks.hold());
}

/// Their intermediates are not compiled in: what is missing is named.
#[test]
fn real_stmicro_certificates_are_read_and_want_their_intermediate() {
    for (file, issuer) in [
        ("stmicro-ek-rsa-padded.der", "STM TPM EK Intermediate CA 05"),
        ("stmicro-ek-ecc.der", "STM TPM ECC Intermediate CA 01"),
    ] {
        let verification = judge(&data(file), &[], THEN);
        assert!(verification.verified.is_none());
        assert_eq!(failed(&verification.checks), ["tpm-ek.chain"]);
        let why =
            verification.checks.as_slice().iter().find(|check| check.name == "tpm-ek.chain").unwrap().reason.clone();
        assert!(why.contains(issuer), "{why}");
        assert_eq!(verdict(&verification.checks, "tpm-ek.tpm"), Verdict::Pass);
    }
}

/// The shared vector is the certificate of Nuvoton's authority itself. Its chain is good, and it vouches for no TPM.
#[test]
fn an_authority_is_no_endorsement_key() {
    let dir = std::env::var("STARMINER_VECTORS")
        .unwrap_or_else(|_| format!("{}/../../../shared/vectors", env!("CARGO_MANIFEST_DIR")));
    let (Ok(certificate), Ok(ca)) = (
        std::fs::read(format!("{dir}/tpm-ek/nuvoton_ek.pem")),
        std::fs::read(format!("{dir}/tpm-ek/nuvoton_2110_ca.pem")),
    ) else {
        eprintln!("skipped: no shared vectors at {dir}");
        return;
    };
    let ca = Certificate::read(&ca).unwrap();
    let verification = judge(&certificate, &ca, THEN);
    assert!(verification.checks.hold(), "{:#?}", verification.checks);
    assert_eq!(verdict(&verification.checks, "tpm-ek.profile"), Verdict::Fail);
    let verified = verification.verified.unwrap();
    assert_eq!(verified.provenance(), Provenance::Genuine);
    assert_eq!(verified.claims().to_json()["kind"], "certificate-authority");
    assert!(failed(&appraise(&verified, &Policy::default())).contains(&"tpm-ek.policy.kind".to_owned()));
}

#[test]
fn a_root_of_the_callers_is_simulated() {
    let certificate = data("swtpm-ek.der");
    let root = Certificate::read_one(&data("swtpm-root.pem")).unwrap();
    let between = Certificate::read_one(&data("swtpm-ca.pem")).unwrap();
    let now = u64::try_from(root.not_before_s()).unwrap() + 86_400;
    for authorities in [&[][..], std::slice::from_ref(&root), std::slice::from_ref(&between)] {
        assert_eq!(failed(&judge(&certificate, authorities, now).checks), ["tpm-ek.chain"]);
    }
    let verified = judge(&certificate, &[between, root.clone()], now).verified.unwrap();
    assert_eq!(verified.provenance(), Provenance::Simulated { root: root.fingerprint() });
    assert_eq!(failed(&appraise(&verified, &Policy::default())), ["tpm-ek.policy.root"]);
    let named =
        Policy { simulated_roots: vec![data_encoding::HEXLOWER.encode(&root.fingerprint())], ..Policy::default() };
    assert!(appraise(&verified, &named).hold());
    // The key that was certified, and others.
    let key = Public::parse(&data("ek-rsa2048.pub")).unwrap();
    assert!(verified.endorses(&key).hold(), "{:#?}", verified.endorses(&key));
    assert!(
        failed(&verified.endorses(&Public::parse(&data("ek-p384.pub")).unwrap())).contains(&"tpm-ek.public".to_owned())
    );
    assert_eq!(
        failed(&verified.endorses(&Public::parse(&data("rsassa-sha256.pub")).unwrap())).len(),
        2,
        "an attestation key"
    );
}

struct Authority {
    params: CertificateParams,
    key: KeyPair,
    certificate: Certificate,
}

fn at(days: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(i64::try_from(THEN).unwrap() + days * 86_400).unwrap()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = at(-10);
    params.not_after = at(10);
    params
}

fn authority() -> Authority {
    let mut params = params("test root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let certificate = Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
    Authority { params, key, certificate }
}

/// 2.23.133.8.n
fn purpose(n: u64) -> ExtendedKeyUsagePurpose {
    ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, n])
}

/// A subjectAltName of directory names with these attributes (2.23.133.2.n).
fn alternative_name(attributes: &[(u8, &str)]) -> CustomExtension {
    let element = |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()][..], content].concat();
    let sets: Vec<u8> = attributes
        .iter()
        .flat_map(|(number, value)| {
            let fields = [element(0x06, &[0x67, 0x81, 5, 2, *number]), element(0x0c, value.as_bytes())].concat();
            element(0x31, &element(0x30, &fields))
        })
        .collect();
    let mut extension =
        CustomExtension::from_oid_content(&[2, 5, 29, 17], element(0x30, &element(0xa4, &element(0x30, &sets))));
    extension.set_criticality(true);
    extension
}

fn leaf() -> CertificateParams {
    let mut params = params("");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    params.extended_key_usages = vec![purpose(1)];
    params.custom_extensions = vec![alternative_name(&[(1, "id:53544D20"), (2, "model"), (3, "id:0001")])];
    params
}

impl Authority {
    fn issue(&self, params: &CertificateParams) -> Vec<u8> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap().der().to_vec()
    }

    fn crl(&self, serial: &[u8], days: std::ops::Range<i64>) -> Crl {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: at(-1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: at(days.start),
            next_update: at(days.end),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Crl::from_der(params.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap().der()).unwrap()
    }
}

/// What makes a good certificate a bad one.
type Change<'a> = &'a dyn Fn(&mut CertificateParams);

#[test]
fn what_is_wrong_is_named() {
    let authority = authority();
    let roots = [authority.certificate.clone()];
    let changed = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = leaf();
        change(&mut params);
        judge(&authority.issue(&params), &roots, THEN)
    };
    let san = |attributes: &'static [(u8, &str)]| {
        move |params: &mut CertificateParams| params.custom_extensions = vec![alternative_name(attributes)]
    };
    let good = changed(&|_| {});
    assert!(good.checks.hold(), "{:#?}", good.checks);
    assert_eq!(good.verified.unwrap().maker_id(), Some("STM"));
    let must_fail: [(&str, Change<'_>); 8] = [
        ("tpm-ek.purpose", &|params| params.extended_key_usages = vec![purpose(3)]),
        ("tpm-ek.purpose", &|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ("tpm-ek.tpm", &san(&[(1, "id:53544D20"), (2, "model")])),
        ("tpm-ek.tpm", &san(&[(1, "53544D20"), (2, "model"), (3, "id:0001")])),
        ("tpm-ek.tpm", &san(&[(1, "id:53544D20"), (1, "id:49465800"), (2, "model"), (3, "id:0001")])),
        ("tpm-ek.chain", &|params| params.not_after = at(-1)),
        ("tpm-ek.chain", &|params| params.not_before = at(1)),
        ("tpm-ek.chain", &|params| {
            let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
            unknown.set_criticality(true);
            params.custom_extensions.push(unknown);
        }),
    ];
    for (check, change) in must_fail {
        let verification = changed(change);
        assert!(verification.verified.is_none());
        assert_eq!(failed(&verification.checks), [check], "{:#?}", verification.checks);
    }
    // Odd, tolerated and told; appraisal asks for more.
    let odd = changed(&|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    assert!(odd.verified.is_some());
    assert_eq!(verdict(&odd.checks, "tpm-ek.profile"), Verdict::Fail);
    let silent = changed(&|params| {
        params.extended_key_usages = Vec::new();
        params.custom_extensions = Vec::new();
    });
    let refused = failed(&appraise(&silent.verified.unwrap(), &Policy::default()));
    assert_eq!(refused, ["tpm-ek.policy.kind", "tpm-ek.policy.purpose", "tpm-ek.policy.root"]);
}

#[test]
fn what_was_taken_back_is_refused() {
    let authority = authority();
    let roots = [authority.certificate.clone()];
    let der = authority.issue(&leaf());
    let serial = Certificate::from_der(&der).unwrap().serial().to_vec();
    let certificate = EkCertificate::parse(&der).unwrap();
    let with = |crls: &[Crl]| verify(&certificate, &Context { authorities: &roots, crls, now_s: THEN });
    assert_eq!(verdict(&with(&[]).checks, "tpm-ek.revocation"), Verdict::NotChecked);
    let clean = with(&[authority.crl(&[9, 9, 9], -1..1)]);
    assert_eq!(verdict(&clean.checks, "tpm-ek.revocation"), Verdict::Pass);
    let covered = appraise(&clean.verified.unwrap(), &Policy { revocation: Demand::Required, ..Policy::default() });
    assert_eq!(verdict(&covered, "tpm-ek.policy.revocation"), Verdict::Pass);
    for crls in [
        vec![authority.crl(&serial, -1..1)],
        vec![authority.crl(&[9, 9, 9], -1..1), authority.crl(&serial, -1..1)],
        // A list that is out of date says nothing, and is not passed over.
        vec![authority.crl(&[9, 9, 9], -3..-1)],
    ] {
        let verification = with(&crls);
        assert!(verification.verified.is_none());
        assert_eq!(failed(&verification.checks), ["tpm-ek.revocation"]);
    }
}

impl Authority {
    /// A certificate of an RSA key with one pattern of bytes in what is signed replaced by another of its length, signed anew.
    fn altered(&self, params: &CertificateParams, from: &[u8], to: &[u8]) -> Vec<u8> {
        const ECDSA_SHA384: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
        let wrap = |tag: u8, content: &[u8]| {
            [&[tag, 0x82][..], &u16::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
        };
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let der = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap().der().to_vec();
        assert_eq!((der[..2].to_vec(), der[4..6].to_vec()), (vec![0x30, 0x82], vec![0x30, 0x82]), "long forms");
        let end = 8 + usize::from(u16::from_be_bytes([der[6], der[7]]));
        let mut tbs = der[4..end].to_vec();
        let at = tbs.windows(from.len()).position(|window| window == from).unwrap();
        tbs[at..at + to.len()].copy_from_slice(to);
        let signature = [vec![0], self.key.sign(&tbs).unwrap()].concat();
        let bits = [&[0x03, u8::try_from(signature.len()).unwrap()][..], &signature].concat();
        wrap(0x30, &[&tbs[..], &ECDSA_SHA384, &bits].concat())
    }
}

#[test]
fn quirks_of_real_makers_are_read() {
    const RSA: [u8; 11] = [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    const OAEP: [u8; 11] = [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7];
    let authority = authority();
    let mut params = leaf();
    params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    params.serial_number = Some(SerialNumber::from_slice(&[0x12, 0x34, 0x56, 0x78]));
    for (what, from, to, serial) in [
        ("as it was", &RSA[..], &RSA[..], "12345678"),
        ("a key for RSAES-OAEP", &RSA, &OAEP, "12345678"),
        ("a negative serial number", &[0x12, 0x34, 0x56, 0x78], &[0x92, 0x34, 0x56, 0x78], "92345678"),
    ] {
        let verification =
            judge(&authority.altered(&params, from, to), std::slice::from_ref(&authority.certificate), THEN);
        assert!(verification.checks.hold(), "{what}: {:#?}", verification.checks);
        assert_eq!(verdict(&verification.checks, "tpm-ek.profile"), Verdict::Pass, "{what}");
        let claims = verification.verified.unwrap().claims().to_json();
        assert_eq!((&claims["serial"], &claims["key_algorithm"]), (&serial.into(), &"rsa-2048".into()), "{what}");
        assert_eq!(claims["subject"], "");
    }
}
