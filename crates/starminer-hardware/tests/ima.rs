//! IMA measurement lists, and what a forged one may not get away with.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use proptest::prelude::*;
use serde_json::json;
use starminer_hardware::cert::Certificate;
use starminer_hardware::event_log::{Bank, Digest, PcrValues};
use starminer_hardware::ima::{
    BootAggregate, Encoding, Form, MeasurementList, ParseError, Policy, Verification, appraise, verify,
};
use starminer_hardware::{Checks, Verdict, Weight};

fn vector() -> Option<Vec<u8>> {
    let root = std::env::var_os("STARMINER_VECTORS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from);
    let path = root.join("ima/ascii_runtime_measurements");
    let bytes = std::fs::read(&path).ok();
    if bytes.is_none() {
        println!("skipped: no {}", path.display());
    }
    bytes
}

fn refusal(checks: &Checks) -> Option<String> {
    let failed =
        |check: &&starminer_hardware::Check| check.verdict == Verdict::Fail && check.weight == Weight::Required;
    checks.as_slice().iter().find(failed).map(|check| check.name.to_string())
}

fn verdict(checks: &Checks, name: &str) -> Verdict {
    checks.as_slice().iter().find(|check| check.name == name).unwrap_or_else(|| panic!("{name}: {checks:#?}")).verdict
}

fn alone<'a>(list: &MeasurementList<'a>) -> Verification<'a> {
    verify(list, None)
}

fn value(list: &MeasurementList<'_>, bank: Bank, form: Form) -> Digest {
    let verified = alone(list).verified.unwrap();
    verified.pcr10().iter().find(|(b, f, _)| (*b, *f) == (bank, form)).unwrap().2
}

fn given(values: &[Digest]) -> PcrValues {
    let mut given = PcrValues::new();
    for value in values {
        assert!(given.insert(10, *value));
    }
    given
}

/// The binary form of a list.
fn binary(list: &MeasurementList<'_>, bank: Bank, order: fn(u32) -> [u8; 4]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in list.entries() {
        let path = [&entry.path.clone().unwrap()[..], if entry.template == "ima" { b"" } else { b"\0" }].concat();
        let file = entry.file_digest.clone().unwrap();
        let mut data = Vec::new();
        if entry.template == "ima" {
            data.extend_from_slice(&file.digest);
            data.extend(order(path.len() as u32));
            data.extend_from_slice(&path);
        } else {
            let digest = [file.algorithm.as_bytes(), b":\0", &file.digest].concat();
            for field in [
                Some(digest),
                Some(path),
                (entry.template == "ima-sig").then(|| entry.signature.clone().unwrap_or_default().to_vec()),
            ]
            .into_iter()
            .flatten()
            {
                data.extend(order(field.len() as u32));
                data.extend(field);
            }
        }
        let template_digest = match (entry.is_violation(), entry.template) {
            (true, _) => vec![0; bank.size_bytes()],
            (false, "ima") => entry.template_digest.to_vec(),
            (false, _) => bank.hash(&[&data]).as_bytes().to_vec(),
        };
        bytes.extend(order(entry.register));
        bytes.extend(template_digest);
        bytes.extend(order(entry.template.len() as u32));
        bytes.extend(entry.template.as_bytes());
        if entry.template != "ima" {
            bytes.extend(order(data.len() as u32));
        }
        bytes.extend(data);
    }
    bytes
}

/// A line of text with a digest that is right.
fn line(template: &str, algorithm: &str, contents: &[u8], path: &str, signature: &[u8]) -> String {
    let bank = Bank::from_name(algorithm).unwrap();
    let digest = bank.hash(&[contents]);
    let mut data = Vec::new();
    let fields = [
        [algorithm.as_bytes(), b":\0", digest.as_bytes()].concat(),
        [path.as_bytes(), b"\0"].concat(),
        signature.to_vec(),
    ];
    for field in fields.iter().take(if template == "ima-ng" { 2 } else { 3 }) {
        data.extend((field.len() as u32).to_le_bytes());
        data.extend(field);
    }
    let end =
        if template == "ima-ng" { String::new() } else { format!(" {}", data_encoding::HEXLOWER.encode(signature)) };
    format!("10 {} {template} {algorithm}:{} {path}{end}\n", Bank::Sha1.hash(&[&data]).to_hex(), digest.to_hex())
}

fn parsed(text: &str) -> MeasurementList<'_> {
    MeasurementList::parse(text.as_bytes()).unwrap()
}

#[test]
fn a_real_list_is_consistent_and_its_binary_form_leads_to_the_same_register() {
    let Some(text) = vector() else { return };
    let list = MeasurementList::parse(&text).unwrap();
    assert_eq!((list.len(), list.encoding()), (826, Encoding::Ascii));
    let verification = alone(&list);
    assert_eq!(verdict(&verification.checks, "ima.template-digests"), Verdict::Pass);
    let verified = verification.verified.unwrap();
    assert_eq!((verified.violations(), verified.boot_aggregate()), (0, BootAggregate::Empty));
    // Followed here once more, by the digests alone.
    let mut sha1 = [0; 20].to_vec();
    for line in std::str::from_utf8(&text).unwrap().lines() {
        let digest = data_encoding::HEXLOWER.decode(line.split(' ').nth(1).unwrap().as_bytes()).unwrap();
        sha1 = Bank::Sha1.hash(&[&sha1, &digest]).as_bytes().to_vec();
    }
    assert_eq!(value(&list, Bank::Sha1, Form::Own).as_bytes(), sha1);
    let claims = verified.to_json();
    assert_eq!((&claims["entries"], &claims["violations"]), (&json!(826), &json!(0)));
    assert_eq!(claims["pcr10"]["sha1"], data_encoding::HEXLOWER.encode(&sha1));
    for bank in [Bank::Sha1, Bank::Sha256, Bank::Sha384, Bank::Sha512] {
        let bytes = binary(&list, bank, u32::to_le_bytes);
        let again = MeasurementList::parse(&bytes).unwrap();
        assert_eq!((again.len(), again.encoding()), (826, Encoding::LittleEndian));
        for (one, form) in [(Bank::Sha1, Form::Own), (Bank::Sha256, Form::Own), (Bank::Sha256, Form::PaddedSha1)] {
            assert_eq!(value(&again, one, form), value(&list, one, form), "{one:?} {form:?}");
        }
        assert!(
            again
                .entries()
                .zip(list.entries())
                .all(|(one, other)| one.path == other.path && one.file_digest == other.file_digest)
        );
    }
    let bytes = binary(&list, Bank::Sha1, u32::to_be_bytes);
    let big = MeasurementList::parse(&bytes).unwrap();
    assert_eq!((big.len(), big.encoding()), (826, Encoding::BigEndian));
    assert!(alone(&big).verified.is_some());
}

#[test]
fn the_register_says_how_far_the_list_goes_and_in_which_form() {
    let Some(text) = vector() else { return };
    let list = MeasurementList::parse(&text).unwrap();
    let newline = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(499).unwrap().0;
    let shorter = MeasurementList::parse(&text[..=newline]).unwrap();
    assert_eq!(shorter.len(), 500);
    for (bank, form) in [(Bank::Sha1, Form::Own), (Bank::Sha256, Form::Own), (Bank::Sha256, Form::PaddedSha1)] {
        for (reached, entries) in [(&list, 826), (&shorter, 500)] {
            let verification = verify(&list, Some(&given(&[value(reached, bank, form)])));
            let verified = verification.verified.unwrap();
            assert_eq!((verified.len(), verified.entries().count()), (entries, entries));
            assert_eq!(verified.pcr10(), [(bank, form, value(reached, bank, form))]);
            assert_eq!(verified.to_json()["entries_not_vouched"], 826 - entries);
        }
    }
    let all = [value(&list, Bank::Sha1, Form::Own), value(&list, Bank::Sha256, Form::PaddedSha1)];
    assert!(verify(&list, Some(&given(&all))).verified.is_some());
    // Banks that stop at different places, a longer register, and another value.
    let apart = [value(&list, Bank::Sha1, Form::Own), value(&shorter, Bank::Sha256, Form::Own)];
    assert_eq!(refusal(&verify(&list, Some(&given(&apart))).checks).as_deref(), Some("ima.registers"));
    let longer = given(&[value(&list, Bank::Sha1, Form::Own)]);
    assert_eq!(refusal(&verify(&shorter, Some(&longer)).checks).as_deref(), Some("ima.registers.sha1"));
    let other = given(&[Bank::Sha256.hash(&[b"another"])]);
    assert_eq!(refusal(&verify(&list, Some(&other)).checks).as_deref(), Some("ima.registers.sha256"));
}

#[test]
fn every_bit_of_an_entry_is_vouched_for() {
    let text = [
        line("ima-ng", "sha256", b"init", "/sbin/init", b""),
        line("ima-sig", "sha256", b"a", "/a file", &[3, 2, 4, 1]),
    ]
    .concat();
    let list = parsed(&text);
    let expected = given(&[value(&list, Bank::Sha256, Form::Own)]);
    let entries: Vec<_> = list.entries().collect();
    assert_eq!(entries[1].signature.as_deref(), Some(&[3, 2, 4, 1][..]));
    assert_eq!(entries[1].path.as_deref(), Some(&b"/a file"[..]));
    let little = binary(&list, Bank::Sha1, u32::to_le_bytes);
    for bytes in [text.as_bytes(), &little] {
        assert_eq!(verify(&MeasurementList::parse(bytes).unwrap(), Some(&expected)).verified.unwrap().len(), 2);
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.to_vec();
            forged[bit / 8] ^= 1 << (bit % 8);
            let Ok(list) = MeasurementList::parse(&forged) else { continue };
            let Some(verified) = verify(&list, Some(&expected)).verified else { continue };
            let same = verified.entries().zip(&entries).all(|(one, other)| {
                (one.path, one.file_digest, one.signature)
                    == (other.path.clone(), other.file_digest.clone(), other.signature.clone())
            });
            assert!(same && verified.len() == 2, "bit {bit}");
        }
        for size in 0..bytes.len() {
            let Ok(list) = MeasurementList::parse(&bytes[..size]) else { continue };
            let verified = verify(&list, Some(&expected)).verified;
            // Only the end of the last line of text, and the space that stands for a missing signature, can go.
            assert!(verified.is_none() || size + 1 == bytes.len() && bytes.ends_with(b"\n"), "{size} bytes");
        }
    }
}

#[test]
fn what_is_no_list_is_refused_by_its_shape() {
    let text = line("ima-ng", "sha256", b"init", "/sbin/init", b"");
    let good = binary(&parsed(&text), Bank::Sha1, u32::to_le_bytes);
    let with = |at: usize, value: &[u8]| {
        let mut forged = good.clone();
        forged[at..at + value.len()].copy_from_slice(value);
        forged
    };
    for (what, bytes, error) in [
        ("nothing", vec![], ParseError::Empty),
        ("too short", vec![10, 0], ParseError::Truncated(0)),
        ("zeroes", vec![0; 200], ParseError::Format),
        ("ones", vec![0xff; 200], ParseError::Format),
        ("no register", with(0, &[200, 1, 1, 1]), ParseError::Format),
        ("an absurd name", with(24, &[0xff; 4]), ParseError::Format),
        ("an unknown template", with(28, b"abc-ng"), ParseError::Template(0)),
        ("absurdly much data", with(34, &[0xff; 4]), ParseError::Data(0)),
        ("an absurd field", with(38, &[0xff; 4]), ParseError::Data(0)),
        ("bytes behind the fields", with(38 + 44, &[10]), ParseError::Data(0)),
        ("cut", good[..good.len() - 1].to_vec(), ParseError::Truncated(0)),
        (
            "a line without a path",
            b"10 0000000000000000000000000000000000000000 ima-ng sha1:00\n".to_vec(),
            ParseError::Line(1),
        ),
        ("a digest of no bank", b"10 00 ima-ng sha1:00 /a\n".to_vec(), ParseError::Line(1)),
        ("an empty line", b"1\n".to_vec(), ParseError::Line(1)),
        ("register 24", text.replacen("10 ", "24 ", 1).into_bytes(), ParseError::Register(0)),
        (
            "a template that text does not carry",
            text.replace("ima-ng", "evm-sig").into_bytes(),
            ParseError::Template(0),
        ),
    ] {
        let found = MeasurementList::parse(&bytes).map(|list| list.len());
        match (what, found) {
            // The name of a template starts with a letter that shows it.
            ("an unknown template", Err(ParseError::Format | ParseError::Template(0))) => {}
            (what, found) => assert_eq!(found, Err(error), "{what}"),
        }
    }
}

#[test]
fn violations_extend_ones_and_deny() {
    let zero = "0".repeat(40);
    let text = [
        line("ima-ng", "sha256", b"init", "/sbin/init", b""),
        format!("10 {zero} ima-ng sha256:{} /var/log/changing\n", "0".repeat(64)),
    ]
    .concat();
    let list = parsed(&text);
    let first = list.entries().next().unwrap();
    for (bank, form, measured, ones) in [
        (Bank::Sha1, Form::Own, first.template_digest.to_vec(), vec![0xff; 20]),
        (Bank::Sha256, Form::Own, Bank::Sha256.hash(&[&first.data]).as_bytes().to_vec(), vec![0xff; 32]),
        (
            Bank::Sha256,
            Form::PaddedSha1,
            [&first.template_digest[..], &[0; 12]].concat(),
            [vec![0xff; 20], vec![0; 12]].concat(),
        ),
    ] {
        let one = bank.hash(&[&vec![0; bank.size_bytes()], &measured]);
        let two = bank.hash(&[one.as_bytes(), &ones]);
        let verified = verify(&list, Some(&given(&[two]))).verified.unwrap();
        assert_eq!((verified.violations(), verified.pcr10()), (1, &[(bank, form, two)][..]));
        let policy = policy(&json!({ "files": "any", "boot_aggregate": "any", "sha1": "allowed" }));
        let checks = appraise(&verified, &policy);
        assert_eq!(verdict(&checks, "ima.policy.violations"), Verdict::Fail);
        assert!(!checks.hold());
        // One that came after the quote is not the quote's.
        let before = verify(&list, Some(&given(&[one]))).verified.unwrap();
        assert_eq!((before.violations(), before.len()), (0, 1));
    }
}

#[test]
fn the_old_template_pads_its_names() {
    let digest = Bank::Sha1.hash(&[b"init"]);
    let mut data = digest.as_bytes().to_vec();
    data.extend(b"/sbin/init");
    data.resize(20 + 256, 0);
    let text = format!("10 {} ima {} /sbin/init\n", Bank::Sha1.hash(&[&data]).to_hex(), digest.to_hex());
    let list = parsed(&text);
    assert!(alone(&list).verified.is_some());
    let bytes = binary(&list, Bank::Sha1, u32::to_le_bytes);
    let again = MeasurementList::parse(&bytes).unwrap();
    assert_eq!(value(&again, Bank::Sha1, Form::Own), value(&list, Bank::Sha1, Form::Own));
    assert_eq!(again.entries().next().unwrap().path.as_deref(), Some(&b"/sbin/init"[..]));
    let forged = text.replace("/sbin/init", "/sbin/evil");
    assert_eq!(refusal(&alone(&parsed(&forged)).checks).as_deref(), Some("ima.template-digests"));
}

#[test]
fn the_boot_aggregate_is_of_the_registers_that_were_given() {
    let mut registers = PcrValues::new();
    let mut values: Vec<(Bank, Digest)> = Vec::new();
    for bank in [Bank::Sha1, Bank::Sha256] {
        for index in 0..10_u32 {
            let value = bank.hash(&[&index.to_le_bytes()]);
            registers.insert(index, value);
            values.push((bank, value));
        }
    }
    let aggregate = |hash: Bank, of: Bank, count: usize| {
        let of: Vec<_> = values.iter().filter(|(bank, _)| *bank == of).take(count).map(|(_, value)| *value).collect();
        hash.hash(&of.iter().map(Digest::as_bytes).collect::<Vec<_>>())
    };
    let text = |digest: &Digest| {
        let algorithm = digest.bank().name();
        let field = [algorithm.as_bytes(), b":\0", digest.as_bytes()].concat();
        let mut data = (field.len() as u32).to_le_bytes().to_vec();
        data.extend(field);
        data.extend([15, 0, 0, 0]);
        data.extend(b"boot_aggregate\0");
        format!("10 {} ima-ng {algorithm}:{} boot_aggregate\n", Bank::Sha1.hash(&[&data]).to_hex(), digest.to_hex())
    };
    for digest in [
        aggregate(Bank::Sha256, Bank::Sha256, 10),
        aggregate(Bank::Sha256, Bank::Sha256, 8),
        aggregate(Bank::Sha256, Bank::Sha1, 8),
        aggregate(Bank::Sha1, Bank::Sha1, 8),
    ] {
        let verification =
            verify(&parsed(&text(&digest)), Some(&registers)).verified.map(|verified| verified.boot_aggregate());
        assert_eq!(verification, Some(BootAggregate::Agrees), "{digest:?}");
    }
    for digest in [aggregate(Bank::Sha1, Bank::Sha1, 10), Bank::Sha256.hash(&[b"another boot"])] {
        let text = text(&digest);
        assert_eq!(refusal(&verify(&parsed(&text), Some(&registers)).checks).as_deref(), Some("ima.boot-aggregate"));
        let unchecked = alone(&parsed(&text)).verified.unwrap().boot_aggregate();
        assert_eq!(unchecked, BootAggregate::NotChecked);
    }
}

fn policy(value: &serde_json::Value) -> Policy {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn files_are_listed_or_signed() {
    let text = [
        line("ima-ng", "sha256", b"init", "/sbin/init", b""),
        line("ima-ng", "sha256", b"shell", "/bin/sh", b""),
        line("ima-ng", "sha1", b"old", "/bin/old", b""),
    ]
    .concat();
    let list = parsed(&text);
    let verified = verify(&list, Some(&given(&[value(&list, Bank::Sha256, Form::Own)]))).verified.unwrap();
    let of = |bank: Bank, contents: &[u8]| format!("{}:{}", bank.name(), bank.hash(&[contents]).to_hex());
    let all = json!({
        "/sbin/init": [of(Bank::Sha256, b"init")],
        "*": [of(Bank::Sha256, b"shell"), of(Bank::Sha1, b"old")],
    });
    let appraised = |value: serde_json::Value| appraise(&verified, &policy(&value));
    let complete = appraised(json!({ "files": all, "boot_aggregate": "any", "sha1": "allowed" }));
    assert!(complete.hold(), "{complete:#?}");
    for (what, value, expected) in [
        ("nothing said", json!({}), Verdict::NotChecked),
        ("any", json!({ "files": "any" }), Verdict::NotChecked),
        ("SHA-1 of a file", json!({ "files": all }), Verdict::Fail),
        ("none", json!({ "files": {} }), Verdict::Fail),
        (
            "another path",
            json!({ "files": { "/sbin/other": [of(Bank::Sha256, b"init")] }, "sha1": "allowed" }),
            Verdict::Fail,
        ),
    ] {
        let checks = appraised(value);
        assert_eq!(verdict(&checks, "ima.policy.files"), expected, "{what}");
        assert!(!checks.hold(), "{what}");
    }
    let unanchored =
        appraise(&alone(&list).verified.unwrap(), &policy(&json!({ "files": "any", "boot_aggregate": "any" })));
    assert_eq!(verdict(&unanchored, "ima.policy.registers"), Verdict::Fail);
    let padded = verify(&list, Some(&given(&[value(&list, Bank::Sha256, Form::PaddedSha1)]))).verified.unwrap();
    let padded = appraise(&padded, &policy(&json!({ "files": "any", "boot_aggregate": "any" })));
    assert_eq!(verdict(&padded, "ima.policy.registers"), Verdict::Fail);
    for wrong in [
        json!({ "files": { "/a": ["sha256:00"] } }),
        json!({ "files": { "/a": ["00"] } }),
        json!({ "signers": ["no"] }),
        json!({ "file": "any" }),
    ] {
        assert!(serde_json::from_value::<Policy>(wrong.clone()).is_err(), "{wrong}");
    }
}

/// `security.ima` as `evmctl` writes it.
fn security_ima(kind: u8, version: u8, hash: u8, key_id: &[u8], signature: &[u8]) -> Vec<u8> {
    [&[kind, version, hash], key_id, &(signature.len() as u16).to_be_bytes(), signature].concat()
}

#[test]
fn a_signature_is_of_the_file_and_of_a_key_that_the_policy_names() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap().self_signed(&key).unwrap();
    let base64 = data_encoding::BASE64.encode(certificate.der());
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
    assert!(Certificate::read_one(pem.as_bytes()).is_ok());
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.serialize_der()).unwrap();
    let key_id = Bank::Sha1.hash(&[pair.public_key().as_ref()]).as_bytes()[16..].to_vec();
    let random = aws_lc_rs::rand::SystemRandom::new();
    // ECDSA hashes what it signs: the file's contents here, whose digest is what IMA verifies against.
    let sign = |message: &[u8]| pair.sign(&random, message).unwrap().as_ref().to_vec();
    let file = sign(b"init");
    let digest = Bank::Sha256.hash(&[b"init"]);
    let identity = sign(&[&[3, 4], digest.as_bytes()].concat());
    let mut broken = file.clone();
    *broken.last_mut().unwrap() ^= 1;
    for (what, signature, expected) in [
        ("signed", security_ima(3, 2, 4, &key_id, &file), Verdict::Pass),
        ("signed, version 3", security_ima(3, 3, 4, &key_id, &identity), Verdict::Pass),
        ("no signature", vec![], Verdict::Fail),
        ("a signature of another file", security_ima(3, 2, 4, &key_id, &sign(b"another")), Verdict::Fail),
        ("a broken signature", security_ima(3, 2, 4, &key_id, &broken), Verdict::Fail),
        ("another key's name", security_ima(3, 2, 4, &[1, 2, 3, 4], &file), Verdict::Fail),
        ("another hash's name", security_ima(3, 2, 6, &key_id, &file), Verdict::Fail),
        ("SHA-1's name", security_ima(3, 2, 2, &key_id, &file), Verdict::Fail),
        ("of fs-verity", security_ima(6, 3, 4, &key_id, &file), Verdict::Fail),
        ("version 1", security_ima(3, 1, 4, &key_id, &file), Verdict::Fail),
        ("of version 2, said to be 3", security_ima(3, 3, 4, &key_id, &file), Verdict::Fail),
        ("a byte too many", [security_ima(3, 2, 4, &key_id, &file), vec![0]].concat(), Verdict::Fail),
        ("a hash", [vec![4, 4], digest.as_bytes().to_vec()].concat(), Verdict::Fail),
    ] {
        let text = line("ima-sig", "sha256", b"init", "/sbin/init", &signature);
        let list = parsed(&text);
        let verified = verify(&list, Some(&given(&[value(&list, Bank::Sha256, Form::Own)]))).verified.unwrap();
        let named = policy(&json!({ "signers": [pem], "boot_aggregate": "any" }));
        let checks = appraise(&verified, &named);
        assert_eq!(verdict(&checks, "ima.policy.files"), expected, "{what}");
        assert_eq!(checks.hold(), expected == Verdict::Pass);
        let nobody = appraise(&verified, &policy(&json!({ "files": {}, "boot_aggregate": "any" })));
        assert_eq!(verdict(&nobody, "ima.policy.files"), Verdict::Fail, "{what}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), start in 0..3_usize) {
        let start: &[u8] = [&b""[..], b"10 ", &[10, 0, 0, 0]][start];
        let bytes = [start, &bytes].concat();
        if let Ok(list) = MeasurementList::parse(&bytes) {
            let _ = alone(&list).verified.map(|verified| verified.to_json());
        }
    }

    #[test]
    fn nothing_panics_close_to_a_list(
        text in any::<bool>(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let lines = [line("ima-ng", "sha256", b"init", "/sbin/init", b""), line("ima-sig", "sha256", b"a", "/a", &[3, 2, 4, 0, 0, 0, 0, 0, 0])].concat();
        let list = parsed(&lines);
        let mut bytes = if text { lines.clone().into_bytes() } else { binary(&list, Bank::Sha1, u32::to_le_bytes) };
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(list) = MeasurementList::parse(&bytes)
            && let Some(verified) = alone(&list).verified
        {
            let _ = (verified.to_json(), appraise(&verified, &Policy::default()));
        }
    }
}
