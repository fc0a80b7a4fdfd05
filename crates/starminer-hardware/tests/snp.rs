//! SEV-SNP reports: real ones of Milan and Genoa, and ones that a laboratory of our own signs, of every product, version and key.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{path::PathBuf, sync::OnceLock};

use proptest::prelude::*;
use starminer_hardware::{
    Checks, Verdict,
    cert::{Certificate, Crl, Provenance, Roots},
    snp::{
        Components, Crls, Expect, FirmwareVersion, Hex, MaskedChip, Names, Policy, Product, Provisional, REPORT_BYTES,
        Report, Verification, Want, appraise, roots, verify, verify_key, verify_with_key,
    },
};

#[path = "snp/lab.rs"]
mod lab;
use lab::{Lab, NOW, REVOKED_SERIAL, Vek, put};

fn vectors() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors");
    let path = PathBuf::from(std::env::var("STARMINER_VECTORS").unwrap_or_else(|_| default.to_owned())).join("snp");
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: no vectors at {}", path.display());
    None
}

struct Real {
    report: Vec<u8>,
    vek: Certificate,
    authorities: Vec<Certificate>,
}

impl Real {
    fn load(product: &str) -> Option<Self> {
        let vectors = vectors()?;
        let read = |name: &str| std::fs::read(vectors.join(format!("{product}_{name}"))).unwrap();
        let certificate = |name: &str| Certificate::read_one(&read(name)).unwrap();
        Some(Self {
            report: read("report.bin"),
            vek: certificate("vcek.pem"),
            authorities: vec![certificate("ask.pem"), certificate("ark.pem")],
        })
    }

    fn all(&self) -> Vec<Certificate> {
        [std::slice::from_ref(&self.vek), &self.authorities].concat()
    }
}

fn verdict(checks: &Checks, name: &str) -> Verdict {
    let found: Vec<_> = checks.as_slice().iter().filter(|check| check.name == name).collect();
    assert_eq!(found.len(), 1, "{name} once in {checks:#?}");
    found[0].verdict
}

/// The checks that fail.
fn failing(checks: &Checks) -> Vec<&str> {
    let failing = checks.as_slice().iter().filter(|check| check.verdict == Verdict::Fail);
    failing.map(|check| check.name.as_ref()).collect()
}

fn refused(verification: &Verification, names: &[&str]) {
    assert!(verification.verified.is_none());
    assert!(!verification.checks.hold());
    assert_eq!(failing(&verification.checks), names, "{:#?}", verification.checks);
}

#[test]
fn real_reports_of_milan_and_genoa() {
    for (product, raw, firmware) in [("milan", "04000000000018db", "1.55.29"), ("genoa", "0a00000000001754", "1.55.40")]
    {
        let Some(real) = Real::load(product) else { return };
        let report = Report::parse(&real.report).unwrap();
        // With the authorities of the vectors, and with none but the compiled-in ones.
        for certificates in [real.all(), vec![real.vek.clone()]] {
            let verification = verify(&report, &certificates, &[], &roots(), NOW);
            assert!(verification.checks.hold(), "{:#?}", verification.checks);
            assert_eq!(verdict(&verification.checks, "snp.crl"), Verdict::NotChecked);
            let verified = verification.verified.unwrap();
            let claims = verified.claims();
            assert_eq!(claims.provenance, Provenance::Genuine);
            assert_eq!(claims.names, Names::Chip);
            let json = claims.to_json();
            assert_eq!(json["report_version"], 3);
            assert_eq!(json["product"], product);
            assert_eq!(json["policy"], 0x3001f);
            assert_eq!(json["policy_hex"], "0x3001f");
            assert_eq!(json["tcbs"]["reported"]["raw"], raw);
            assert_eq!(json["tcbs"]["launch"]["raw"], raw);
            assert_eq!(json["committed_version"], firmware);
            assert!(json["measurement"].as_str().unwrap().starts_with("5feee30d"));
            assert_eq!(json["chip_id"], data_encoding::HEXLOWER.encode(&real.report[0x1a0..0x1e0]));
            assert_eq!(json["vmpl"], 0);
        }
    }
}

#[test]
fn certificates_of_another_product_are_refused() {
    let (Some(milan), Some(genoa)) = (Real::load("milan"), Real::load("genoa")) else { return };
    let report = Report::parse(&genoa.report).unwrap();
    let with = |certificates: &[Certificate]| verify(&report, certificates, &[], &roots(), NOW);
    refused(&with(&milan.all()), &["snp.product", "snp.chip-id", "snp.tcb"]);
    refused(&with(&[std::slice::from_ref(&genoa.vek), &milan.authorities].concat()), &["snp.chain"]);
    refused(&with(&genoa.authorities), &["snp.certificates"]);
    refused(&with(&[]), &["snp.certificates"]);
    // Whatever else is brought along does no harm, and the right certificate is found.
    assert!(with(&[milan.all(), genoa.all()].concat()).verified.is_some());
}

#[test]
fn a_real_report_of_version_2_and_a_real_key_of_turin() {
    let now = 1_700_000_000;
    let hex: String = include_str!("data/amd/report_milan.hex").split_whitespace().collect();
    let report = Report::parse(&data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).unwrap()).unwrap();
    let vcek = Certificate::from_der(include_bytes!("data/amd/vcek_milan.der")).unwrap();
    let verification = verify(&report, &[vcek], &[], &roots(), now);
    let verified = verification.verified.unwrap();
    assert_eq!(verified.claims().report_version, 2);
    assert_eq!(verified.claims().product_name, "Milan-B0");
    assert_eq!(verified.claims().cpuid, None);
    assert_eq!(verified.claims().to_json()["tcbs"]["reported"]["raw"], "0300000000000873");

    let turin = [Certificate::from_der(include_bytes!("data/amd/vcek_turin.der")).unwrap()];
    let list = Crl::from_der(include_bytes!("data/amd/turin.crl")).unwrap();
    let in_september_2026 = 1_788_600_000;
    let verification = verify_key(&turin, std::slice::from_ref(&list), &roots(), in_september_2026);
    assert!(verification.key.is_some(), "{:#?}", verification.checks);
    assert_eq!(verdict(&verification.checks, "snp.crl"), Verdict::Pass);
    assert_eq!(list.number(), Some(&[7][..]));
    let verification = verify_key(&turin, &[list], &roots(), in_september_2026 + 86_400 * 60);
    assert_eq!(failing(&verification.checks), ["snp.crl"]);
}

/// Which parts of a report nobody signs: none. What is not covered by the signature has to be zero or is the signature.
#[test]
fn every_flipped_bit_of_a_real_report_is_refused() {
    let Some(real) = Real::load("milan") else { return };
    let key = verify_key(&real.all(), &[], &roots(), NOW).key.unwrap();
    for bit in 0..REPORT_BYTES * 8 {
        let mut flipped = real.report.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(report) = Report::parse(&flipped) else { continue };
        let verification = verify_with_key(&report, &key, NOW);
        assert!(verification.verified.is_none(), "bit {bit} of byte {:#x}", bit / 8);
        let expected: &[&str] = match bit / 8 {
            // Policy, TCB versions, platform, chip, versions and key digests have to agree with each other or with the certificate.
            0x08..0x10 | 0x38..0x48 | 0x110..0x140 | 0x160..0x180 | 0x1e0..0x1f8 => {
                &["snp.consistency", "snp.report-signature"]
            }
            0x48..0x4c => &["snp.signing-key", "snp.consistency", "snp.report-signature"],
            0x180..0x188 => &["snp.tcb"],
            0x188..0x18b => &["snp.product", "snp.report-signature"],
            0x1a0..0x1e0 => &["snp.chip-id"],
            _ => &["snp.report-signature"],
        };
        assert!(
            expected.contains(&failing(&verification.checks)[0]),
            "byte {:#x}: {:#?}",
            bit / 8,
            verification.checks
        );
    }
}

#[test]
fn every_other_length_is_refused() {
    let good = Lab::milan().report(|_| {});
    for length in (0..REPORT_BYTES).chain([REPORT_BYTES + 1, 20_000]) {
        let mut bytes = good.clone();
        bytes.resize(length, 0);
        assert_eq!(Report::parse(&bytes).unwrap_err().code(), "snp.report.length");
    }
}

#[test]
fn every_flipped_bit_of_a_real_certificate_is_refused() {
    let Some(real) = Real::load("milan") else { return };
    let report = Report::parse(&real.report).unwrap();
    let der = real.vek.der();
    for bit in 0..der.len() * 8 {
        let mut flipped = der.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(flipped) = Certificate::from_der(&flipped) else { continue };
        let verification = verify(&report, &[flipped], &[], &roots(), NOW);
        assert!(verification.verified.is_none(), "bit {bit} of byte {:#x}", bit / 8);
    }
}

#[test]
fn reports_of_every_product_version_and_key() {
    for lab in [Lab::milan(), Lab::genoa(), Lab::turin()] {
        for version in [2u32, 3, 5] {
            for vek in [Vek::Chip, Vek::Cloud] {
                let bytes = lab.report_by(vek, |report| {
                    put(report, 0, &version.to_le_bytes());
                    if version < 3 {
                        put(report, 0x188, &[0; 3]);
                        put(report, 0x40, &[5]);
                    }
                    if version < 5 {
                        put(report, 0x1f8, &[0; 16]);
                    }
                });
                let report = Report::parse(&bytes).unwrap();
                let verification = verify(&report, &lab.certificates(vek), &[lab.crl()], &lab.roots(), NOW);
                let checks = &verification.checks;
                assert!(checks.hold(), "{checks:#?}");
                assert_eq!(verdict(checks, "snp.crl"), Verdict::Pass);
                let verified = verification.verified.unwrap();
                let claims = verified.claims();
                assert_eq!(claims.provenance, Provenance::Simulated { root: lab.ark().fingerprint() });
                assert_eq!(claims.product, lab.product);
                assert_eq!(claims.cpuid.is_some(), version >= 3);
                assert_eq!(claims.mitigations.is_some(), version >= 5);
                let json = claims.to_json();
                assert_eq!(json["tcbs"]["reported"]["microcode"], lab.tcb[7]);
                assert_eq!(json["tcbs"]["reported"]["fmc"].is_u64(), lab.product == Product::Turin);
                match vek {
                    Vek::Chip => {
                        assert_eq!((claims.names, &claims.cloud_id), (Names::Chip, &None));
                        assert_eq!(claims.chip_id.as_deref(), Some(lab.hardware_id.as_slice()));
                    }
                    Vek::Cloud => {
                        assert_eq!(
                            (claims.names, claims.cloud_id.as_deref()),
                            (Names::Cloud, Some("CN=cloud.example"))
                        );
                        assert_eq!(verdict(checks, "snp.chip-id"), Verdict::NotChecked);
                    }
                }
                // The laboratory's root is nobody's but its own.
                let verification = verify(&report, &lab.certificates(vek), &[], &roots(), NOW);
                refused(&verification, &["snp.chain"]);
            }
        }
    }
}

#[test]
fn what_a_report_may_not_say() {
    let lab = Lab::turin();
    type Alter = fn(&mut [u8; REPORT_BYTES]);
    let cases: [(&str, &str, Alter); 24] = [
        ("version 1", "snp.report.version", |r| put(r, 0, &[1])),
        ("version 4", "snp.report.version", |r| put(r, 0, &[4])),
        ("version 6", "snp.report.version", |r| put(r, 0, &[6])),
        ("algorithm", "snp.report.signature-algorithm", |r| put(r, 0x34, &[2])),
        ("VMPL", "snp.report.vmpl", |r| put(r, 0x30, &[4])),
        ("no key", "snp.report.unsigned", |r| put(r, 0x48, &[7 << 2])),
        ("unknown key", "snp.report.unsigned", |r| put(r, 0x48, &[2 << 2])),
        ("masked key", "snp.report.unsigned", |r| put(r, 0x48, &[2])),
        ("key information", "snp.report.reserved", |r| put(r, 0x48, &[1 << 5])),
        ("policy bit 17", "snp.report.reserved", |r| r[0x0a] &= !2),
        ("policy bit 26", "snp.report.reserved", |r| r[0x0b] |= 4),
        ("platform bit 6", "snp.report.reserved", |r| r[0x40] |= 0x40),
        ("platform bit 8", "snp.report.reserved", |r| r[0x41] |= 1),
        ("0x4c", "snp.report.reserved", |r| put(r, 0x4c, &[1])),
        ("after CPUID", "snp.report.reserved", |r| put(r, 0x18b, &[1])),
        ("before chip id", "snp.report.reserved", |r| put(r, 0x19f, &[1])),
        ("0x1eb", "snp.report.reserved", |r| put(r, 0x1eb, &[1])),
        ("0x1ef", "snp.report.reserved", |r| put(r, 0x1ef, &[1])),
        ("0x208", "snp.report.reserved", |r| put(r, 0x208, &[1])),
        ("0x29f", "snp.report.reserved", |r| put(r, 0x29f, &[1])),
        ("r", "snp.report.reserved", |r| put(r, 0x2d0, &[1])),
        ("s", "snp.report.reserved", |r| put(r, 0x32f, &[1])),
        ("after the signature", "snp.report.reserved", |r| put(r, 0x49f, &[1])),
        ("processor", "snp.report.processor", |r| put(r, 0x188, &[0x17, 1])),
    ];
    for (name, code, alter) in cases {
        let mut bytes: [u8; REPORT_BYTES] = lab.report(|_| {}).try_into().unwrap();
        assert!(Report::parse(&bytes).is_ok());
        alter(&mut bytes);
        assert_eq!(Report::parse(&bytes).unwrap_err().code(), code, "{name}");
    }
    // Bits and fields that came with later versions are reserved in earlier ones.
    let older: [(u32, Alter); 5] = [
        (3, |r| put(r, 0x1f8, &[1])),
        (3, |r| r[0x0b] |= 2),
        (3, |r| r[0x40] |= 0x80),
        (2, |r| put(r, 0x188, &[0x1a])),
        (2, |r| r[0x40] |= 0x20),
    ];
    for (version, alter) in older {
        let mut bytes: [u8; REPORT_BYTES] = lab.report(|_| {}).try_into().unwrap();
        put(&mut bytes, 0, &version.to_le_bytes());
        put(&mut bytes, 0x1f8, &[0; 16]);
        if version == 2 {
            put(&mut bytes, 0x188, &[0; 3]);
            put(&mut bytes, 0x40, &[5]);
        }
        assert!(Report::parse(&bytes).is_ok());
        alter(&mut bytes);
        assert_eq!(Report::parse(&bytes).unwrap_err().code(), "snp.report.reserved");
    }
}

#[test]
fn what_report_and_certificate_may_not_disagree_on() {
    let lab = Lab::genoa();
    type Alter = fn(&mut [u8; REPORT_BYTES]);
    // Signed by the genuine key of the laboratory: only what the check says is wrong.
    let cases: [(&str, Alter); 20] = [
        ("snp.signing-key", |r| put(r, 0x48, &[1 << 2])),
        ("snp.product", |r| put(r, 0x188, &[0x19, 0x01])),
        ("snp.chip-id", |r| r[0x1a0] ^= 1),
        ("snp.chip-id", |r| r[0x1df] ^= 0x80),
        ("snp.tcb", |r| r[0x180] -= 1),
        ("snp.tcb", |r| [0x39, 0x181, 0x1e1, 0x1f1].into_iter().for_each(|at| r[at] += 1)),
        ("snp.tcb", |r| r[0x186] -= 1),
        ("snp.tcb", |r| r[0x187] -= 1),
        ("snp.consistency", |r| r[0x3a] = 1),
        ("snp.consistency", |r| r[0x1e4] = 1),
        ("snp.consistency", |r| r[0x1f5] = 1),
        ("snp.consistency", |r| r[0x38] -= 1),
        ("snp.consistency", |r| r[0x1e7] += 1),
        ("snp.consistency", |r| r[0x1ec] += 1),
        ("snp.consistency", |r| r[0x09] = 2),
        ("snp.consistency", |r| r[0x0a] &= !1),
        ("snp.consistency", |r| r[0x0a] |= 0x80),
        ("snp.consistency", |r| r[0x0b] |= 1),
        ("snp.consistency", |r| r[0x110] = 1),
        ("snp.consistency", |r| r[0x160] = 1),
    ];
    for (index, (name, alter)) in cases.into_iter().enumerate() {
        let bytes = lab.report(alter);
        let report = Report::parse(&bytes).unwrap();
        let verification = verify(&report, &lab.certificates(Vek::Chip), &[lab.crl()], &lab.roots(), NOW);
        assert!(verification.verified.is_none(), "{name}, case {index}");
        assert_eq!(verdict(&verification.checks, name), Verdict::Fail, "case {index}: {:#?}", verification.checks);
        assert_eq!(verdict(&verification.checks, "snp.report-signature"), Verdict::NotChecked);
    }
    let mut bytes = lab.report(|_| {});
    bytes[0x90] ^= 1;
    let report = Report::parse(&bytes).unwrap();
    refused(&verify(&report, &lab.certificates(Vek::Chip), &[lab.crl()], &lab.roots(), NOW), &["snp.report-signature"]);
}

#[test]
fn a_masked_chip_id_is_said_so() {
    let lab = Lab::milan();
    let bytes = lab.report(|report| put(report, 0x1a0, &[0; 64]));
    let report = Report::parse(&bytes).unwrap();
    let verification = verify(&report, &lab.certificates(Vek::Chip), &[lab.crl()], &lab.roots(), NOW);
    assert_eq!(verdict(&verification.checks, "snp.chip-id"), Verdict::NotChecked);
    let verified = verification.verified.unwrap();
    assert!(verified.claims().chip_id_masked);
    assert_eq!(
        verified.claims().chip_id.as_deref(),
        Some(lab.hardware_id.as_slice()),
        "the key's certificate names it"
    );
    let mut policy = lab.policy(&verified);
    assert_eq!(failing(&appraise(&verified, &policy)), ["snp.policy.masked-chip"]);
    policy.masked_chip_id = MaskedChip::Accepted;
    assert!(appraise(&verified, &policy).hold());

    let bytes = lab.report_by(Vek::Cloud, |report| put(report, 0x1a0, &[0; 64]));
    let report = Report::parse(&bytes).unwrap();
    let verification = verify(&report, &lab.certificates(Vek::Cloud), &[lab.crl()], &lab.roots(), NOW);
    assert_eq!(verification.verified.unwrap().claims().chip_id, None);
}

#[test]
fn dates_revocation_and_foreign_authorities() {
    let lab = Lab::milan();
    let report = Report::parse(&lab.report(|_| {})).unwrap();
    let certificates = lab.certificates(Vek::Chip);
    let with = |certificates: &[Certificate], crls: &[Crl], now| verify(&report, certificates, crls, &lab.roots(), now);
    assert!(with(&certificates, &[lab.crl()], NOW).verified.is_some());
    refused(&with(&certificates, &[], NOW + 86_400 * 400), &["snp.chain"]);
    refused(&with(&certificates, &[], NOW - 86_400 * 400), &["snp.chain"]);
    refused(&with(&certificates, &[lab.crl()], NOW + 86_400 * 20), &["snp.crl"]);
    refused(&with(&certificates, &[lab.crl_revoking(&REVOKED_SERIAL)], NOW), &["snp.crl"]);
    // One list that takes it back is enough, whatever others say.
    refused(&with(&certificates, &[lab.crl(), lab.crl_revoking(&REVOKED_SERIAL)], NOW), &["snp.crl"]);
    // A list by somebody who only has the root's name.
    refused(&with(&certificates, &[Lab::new(Product::Milan).crl()], NOW), &["snp.crl"]);
    // Lists of other roots say nothing of this one.
    let verification = with(&certificates, &[Lab::genoa().crl()], NOW);
    assert_eq!(verdict(&verification.checks, "snp.crl"), Verdict::NotChecked);
    assert!(verification.verified.is_some());
    // The certificate of a key without its authority.
    refused(&with(&certificates[..1], &[], NOW), &["snp.chain"]);
    // A VCEK signed by the authority for VLEKs.
    let strange = [lab.vek_signed_by_the_other(Vek::Chip), lab.certificates(Vek::Cloud)[1].clone()];
    refused(&with(&strange, &[], NOW), &["snp.chain"]);
}

#[test]
fn a_key_verified_before_is_held_to_its_dates() {
    let lab = Lab::turin();
    let report = Report::parse(&lab.report(|_| {})).unwrap();
    let with_crl = verify_key(&lab.certificates(Vek::Chip), &[lab.crl()], &lab.roots(), NOW).key.unwrap();
    let without = verify_key(&lab.certificates(Vek::Chip), &[], &lab.roots(), NOW).key.unwrap();
    let at_once = verify(&report, &lab.certificates(Vek::Chip), &[lab.crl()], &lab.roots(), NOW).verified.unwrap();
    let later = verify_with_key(&report, &with_crl, NOW + 60).verified.unwrap();
    assert_eq!(at_once.claims(), later.claims());
    assert!(verify_with_key(&report, &without, NOW + 86_400 * 20).verified.is_some());
    refused(&verify_with_key(&report, &with_crl, NOW + 86_400 * 20), &["snp.crl"]);
    refused(&verify_with_key(&report, &without, NOW + 86_400 * 400), &["snp.chain"]);
    let other = Report::parse(&Lab::new(Product::Turin).report(|_| {})).unwrap();
    assert!(verify_with_key(&other, &without, NOW).verified.is_none());
    let both = [lab.certificates(Vek::Chip), lab.certificates(Vek::Cloud)].concat();
    assert!(verify_key(&both, &[], &lab.roots(), NOW).key.is_none(), "which key is meant is not guessed");
}

#[test]
fn the_default_policy_denies_what_nobody_set() {
    let Some(real) = Real::load("milan") else { return };
    let report = Report::parse(&real.report).unwrap();
    let verified = verify(&report, &real.all(), &[], &roots(), NOW).verified.unwrap();
    let checks = appraise(&verified, &Policy::default());
    assert!(!checks.hold());
    assert_eq!(
        failing(&checks),
        [
            "snp.policy.crl",
            "snp.policy.tcb.reported",
            "snp.policy.tcb.committed",
            "snp.policy.tcb.launch",
            "snp.policy.measurement",
            "snp.policy.report-data",
        ]
    );
    let policy: Policy = toml::from_str(
        r#"
        crl = "optional"
        report_data = "any"
        measurement = ["5feee30d6d7e1a29f403d70a4198237ddfb13051a2d6976439487c609388ed7f98189887920ab2fa0096903a0c23fca1"]
        [tcb_floor.milan]
        bootloader = 4
        tee = 0
        snp = 24
        microcode = 219
        "#,
    )
    .unwrap();
    let checks = appraise(&verified, &policy);
    assert!(checks.hold(), "{checks:#?}");
}

#[test]
fn every_option_of_the_policy_counts() {
    let lab = Lab::turin();
    // Every bit is set somewhere, so that each can be asked for and refused.
    let bytes = lab.report(|report| {
        put(
            report,
            0x08,
            &(0x1_0000u64 | 1 << 17 | 1 << 20 | 1 << 22 | 1 << 23 | 1 << 24 | 1 << 25 | 0x0133).to_le_bytes(),
        );
        put(report, 0x40, &[0b1011_1111]);
    });
    let report = Report::parse(&bytes).unwrap();
    let verified = verify(&report, &lab.certificates(Vek::Chip), &[lab.crl()], &lab.roots(), NOW).verified.unwrap();
    let good = lab.policy(&verified);
    let checks = appraise(&verified, &good);
    assert!(checks.hold(), "{checks:#?}");
    let text = toml::to_string(&good).unwrap();
    assert_eq!(toml::from_str::<Policy>(&text).unwrap(), good);
    assert!(toml::from_str::<Policy>("mesurement = \"any\"").is_err());
    assert!(toml::from_str::<Policy>("measurement = \"all\"").is_err());
    assert!(toml::from_str::<Policy>("measurement = [\"00\"]").is_err());

    type Alter = fn(&mut Policy);
    fn raise(policy: &mut Policy, component: fn(&mut Components) -> &mut u8) {
        *component(policy.tcb_floor.get_mut(&Product::Turin).unwrap()) += 1;
    }
    const TCBS: &[&str] = &["snp.policy.tcb.reported", "snp.policy.tcb.committed", "snp.policy.tcb.launch"];
    let cases: Vec<(&[&str], Alter)> = vec![
        (&["snp.policy.root"], |p| p.simulated_roots = vec![Hex([7; 32])]),
        (&["snp.policy.root"], |p| p.simulated_roots.clear()),
        (&["snp.policy.report-version"], |p| p.report_versions = Expect::OneOf(vec![3])),
        (&["snp.policy.product"], |p| p.products = Expect::OneOf(vec![Product::Milan])),
        (&["snp.policy.chip"], |p| p.chip_ids = Expect::OneOf(vec!["00".to_owned()])),
        (&["snp.policy.chip"], |p| p.chip_ids = Expect::unset()),
        (&["snp.policy.denied-chip"], |p| p.denied_chip_ids = vec!["ABCDEF0123456789".to_owned()]),
        (TCBS, |p| p.tcb_floor.clear()),
        (TCBS, |p| raise(p, |c| c.fmc.as_mut().unwrap())),
        (TCBS, |p| raise(p, |c| &mut c.bootloader)),
        (TCBS, |p| raise(p, |c| &mut c.tee)),
        (TCBS, |p| raise(p, |c| &mut c.snp)),
        (TCBS, |p| raise(p, |c| &mut c.microcode)),
        (&["snp.policy.firmware"], |p| p.firmware_floor = FirmwareVersion { major: 9, minor: 0, build: 0 }),
        (&["snp.policy.mitigations"], |p| p.mitigations = 0x10),
        (&["snp.policy.guest.debug"], |p| p.guest.debug = Want::Yes),
        (&["snp.policy.guest.migration-agent"], |p| p.guest.migration_agent = Want::Yes),
        (&["snp.policy.guest.smt"], |p| p.guest.smt = Want::No),
        (&["snp.policy.guest.single-socket"], |p| p.guest.single_socket = Want::No),
        (&["snp.policy.guest.cxl"], |p| p.guest.cxl = Want::Yes),
        (&["snp.policy.guest.aes-256-xts"], |p| p.guest.aes_256_xts = Want::No),
        (&["snp.policy.guest.rapl-disabled"], |p| p.guest.rapl_disabled = Want::No),
        (&["snp.policy.guest.ciphertext-hiding"], |p| p.guest.ciphertext_hiding = Want::No),
        (&["snp.policy.guest.page-swap-disabled"], |p| p.guest.page_swap_disabled = Want::No),
        (&["snp.policy.guest.abi"], |p| p.guest.abi_floor = (1, 0x34)),
        (&["snp.policy.platform.smt"], |p| p.platform.smt = Want::No),
        (&["snp.policy.platform.tsme"], |p| p.platform.tsme = Want::No),
        (&["snp.policy.platform.ecc"], |p| p.platform.ecc = Want::No),
        (&["snp.policy.platform.rapl-disabled"], |p| p.platform.rapl_disabled = Want::No),
        (&["snp.policy.platform.ciphertext-hiding"], |p| p.platform.ciphertext_hiding = Want::No),
        (&["snp.policy.platform.alias-check"], |p| p.platform.alias_check_complete = Want::No),
        (&["snp.policy.platform.trusted-io"], |p| p.platform.trusted_io = Want::No),
        (&["snp.policy.vmpl"], |p| p.vmpl = Expect::OneOf(vec![1, 2])),
        (&["snp.policy.measurement"], |p| p.measurement = Expect::OneOf(vec![Hex([0; 48])])),
        (&["snp.policy.measurement"], |p| p.measurement = Expect::unset()),
        (&["snp.policy.report-data"], |p| p.report_data = Expect::OneOf(vec![Hex([0; 64])])),
        (&["snp.policy.host-data"], |p| p.host_data = Expect::OneOf(vec![Hex([0; 32])])),
        (&["snp.policy.id-key"], |p| p.id_key_digest = Expect::OneOf(vec![Hex([9; 48])])),
        (&["snp.policy.author-key"], |p| p.author_key_digest = Expect::OneOf(vec![Hex([9; 48])])),
        (&["snp.policy.family-id"], |p| p.family_id = Expect::OneOf(vec![Hex([9; 16])])),
        (&["snp.policy.image-id"], |p| p.image_id = Expect::OneOf(vec![Hex([9; 16])])),
        (&["snp.policy.report-id"], |p| p.report_id = Expect::OneOf(vec![Hex([9; 32])])),
        (&["snp.policy.guest-svn"], |p| p.guest_svn_floor = 1000),
    ];
    for (names, alter) in cases {
        let mut policy = good.clone();
        alter(&mut policy);
        assert_eq!(failing(&appraise(&verified, &policy)), names);
    }
    // Where nothing is asked for, nothing passes for having been checked.
    let lax = Policy { platform: Default::default(), host_data: Expect::Any, ..good };
    let checks = appraise(&verified, &lax);
    for name in ["snp.policy.platform.smt", "snp.policy.host-data"] {
        assert_eq!(verdict(&checks, name), Verdict::NotChecked);
    }
}

#[test]
fn a_cloud_key_caps_what_is_named() {
    let lab = Lab::genoa();
    let report = Report::parse(&lab.report_by(Vek::Cloud, |_| {})).unwrap();
    let verified = verify(&report, &lab.certificates(Vek::Cloud), &[lab.crl()], &lab.roots(), NOW).verified.unwrap();
    let mut policy = lab.policy(&verified);
    assert_eq!(failing(&appraise(&verified, &policy)), ["snp.policy.names", "snp.policy.cloud"]);
    policy.names = Names::Cloud;
    assert_eq!(failing(&appraise(&verified, &policy)), ["snp.policy.cloud"]);
    policy.cloud_ids = Expect::OneOf(vec!["CN=other.example".to_owned()]);
    assert_eq!(failing(&appraise(&verified, &policy)), ["snp.policy.cloud"]);
    policy.cloud_ids = Expect::OneOf(vec!["CN=cloud.example".to_owned()]);
    assert!(appraise(&verified, &policy).hold());
}

#[test]
fn what_may_be_gone_back_behind_is_provisional() {
    let lab = Lab::milan();
    let report = Report::parse(&lab.report(|report| {
        put(report, 0x38, &[9]);
        report[0x1e8] += 1;
    }))
    .unwrap();
    let verified = verify(&report, &lab.certificates(Vek::Chip), &[lab.crl()], &lab.roots(), NOW).verified.unwrap();
    let mut policy = lab.policy(&verified);
    assert_eq!(failing(&appraise(&verified, &policy)), ["snp.policy.provisional-firmware"]);
    policy.provisional_firmware = Provisional::Accepted;
    assert!(appraise(&verified, &policy).hold());
    // Without a revocation list, a policy that requires one denies, and one that does not says so.
    let verified = verify(&report, &lab.certificates(Vek::Chip), &[], &lab.roots(), NOW).verified.unwrap();
    assert_eq!(failing(&appraise(&verified, &policy)), ["snp.policy.crl"]);
    policy.crl = Crls::Optional;
    let checks = appraise(&verified, &policy);
    assert!(checks.hold());
    assert_eq!(verdict(&checks, "snp.policy.crl"), Verdict::NotChecked);
}

#[test]
fn malformed_certificates_of_keys() {
    let lab = Lab::turin();
    let report = Report::parse(&lab.report(|_| {})).unwrap();
    for (name, certificate) in lab.malformed_veks() {
        let certificates = [certificate, lab.certificates(Vek::Chip)[1].clone()];
        let verification = verify(&report, &certificates, &[], &lab.roots(), NOW);
        assert!(verification.verified.is_none(), "{name}");
        let expected = if name == "on P-256" { ["snp.chain"] } else { ["snp.certificates"] };
        assert_eq!(failing(&verification.checks), expected, "{name}: {:#?}", verification.checks);
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), REPORT_BYTES..=REPORT_BYTES), changes in proptest::collection::vec((0..REPORT_BYTES, any::<u8>()), 1..6)) {
        let _ = Report::parse(&bytes);
        let _ = Report::parse(&bytes[..bytes.len() / 2]);
        static GOOD: OnceLock<(Vec<u8>, Lab)> = OnceLock::new();
        let (good, lab) = GOOD.get_or_init(|| {
            let lab = Lab::milan();
            (lab.report(|_| {}), lab)
        });
        let mut mutated = good.clone();
        for (at, value) in changes {
            mutated[at] = value;
        }
        if let Ok(report) = Report::parse(&mutated) {
            let verification = verify(&report, &lab.certificates(Vek::Chip), &[], &lab.roots(), NOW);
            prop_assert!(verification.verified.is_none() || mutated == *good);
        }
    }
}

#[test]
fn roots_that_the_caller_adds_leave_amds_genuine() {
    let Some(real) = Real::load("genoa") else { return };
    let report = Report::parse(&real.report).unwrap();
    let mixed = Lab::genoa().roots().iter().fold(roots(), |roots, (root, _)| roots.with(root.clone()));
    let verified = verify(&report, &real.all(), &[], &mixed, NOW).verified.unwrap();
    assert_eq!(verified.claims().provenance, Provenance::Genuine);
    // AMD's own root, named by a caller alone, is that caller's.
    let named = Roots::none().with(real.authorities[1].clone());
    let verified = verify(&report, &real.all(), &[], &named, NOW).verified.unwrap();
    assert_eq!(verified.claims().provenance.name(), "simulated");
}
