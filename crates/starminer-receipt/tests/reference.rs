//! Published reference values: what counts, and everything that must not.
#![allow(clippy::unwrap_used)]

use starminer_log::{
    Checkpoint, Frontier, KeyName, LogSigner, Remembered, SignedCheckpoint, WitnessSigner, prove_inclusion,
};
use starminer_receipt::{
    CoordinatorEntry, EntryKind, LogEntry, LogEntryKeys, LogPlace, LoggedReferenceValues, MAX_REFERENCE_FILE_BYTES,
    MAX_RELEASE_KEYS, NetworkTrust, NetworkTrustError, Opening, ReferenceError, ReferenceFile, ReferenceStatement,
    Role, SeenReferences, SignedReferenceValues, Signer as _, SigningKey,
};
use starminer_verify::{
    Digest, EvidenceKind, Measurement, NetworkId, PublicKey, ReferenceValue, ReferenceValues, ReferenceValuesError,
    UnixTime,
};
use zeroize::Zeroizing;

const NETWORK: NetworkId = NetworkId([7; 32]);
const BEGINS: UnixTime = UnixTime(1_000_000);
const ENDS: UnixTime = UnixTime(9_000_000);
const LOGGED: UnixTime = UnixTime(2_000_000);
const NOW: UnixTime = UnixTime(3_000_000);

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&Zeroizing::new([number; 32]))
}

fn value(byte: u8, name: &str) -> ReferenceValue {
    let measurement = Measurement::from_bytes(&[byte; 48]).unwrap();
    ReferenceValue { kind: EvidenceKind::SevSnp, measurement, name: name.into() }
}

fn log_signer() -> LogSigner {
    LogSigner::from_seed(KeyName::parse("test/log").unwrap(), &[0x22; 32])
}

fn witness() -> WitnessSigner {
    WitnessSigner::from_seed(KeyName::parse("test/witness").unwrap(), &[0x33; 32])
}

/// A trust of two of the release keys 1, 2 and 3.
fn trust() -> NetworkTrust {
    trust_with_log(LogEntryKeys { key: log_signer().key().to_string(), witnesses: Vec::new(), witness_quorum: 0 })
}

fn trust_with_log(log: LogEntryKeys) -> NetworkTrust {
    let coordinator = CoordinatorEntry { address: "127.0.0.1:1".into(), key: key(9).public_key() };
    NetworkTrust::new("test".into(), NETWORK, coordinator, log, Vec::new(), ReferenceValues::unset())
        .unwrap()
        .with_release_keys([1, 2, 3].map(|number| key(number).public_key()).to_vec(), 2)
        .unwrap()
}

fn statement() -> ReferenceStatement {
    ReferenceStatement {
        v: 1,
        network: NETWORK,
        role: Role::Agent,
        name: "agent 0.1".into(),
        version: 5,
        not_before: BEGINS,
        not_after: ENDS,
        values: ReferenceValues::new(vec![value(1, "4 vCPUs"), value(2, "8 vCPUs")]).unwrap(),
    }
}

fn signed_by(statement: &ReferenceStatement, keys: &[u8]) -> ReferenceFile {
    let mut file = ReferenceFile::new(statement).unwrap();
    keys.iter().for_each(|number| file.sign(&key(*number)).unwrap());
    file
}

/// Puts an entry into a log of five, and tells its place.
fn place(entry: &LogEntry, signer: &LogSigner) -> LogPlace {
    let entry = entry.encode();
    let entries: [&[u8]; 5] = [b"a", b"b", &entry, b"c", b"d"];
    let batch = Frontier::empty().append(&entries).unwrap();
    let stored = batch.hashes().to_vec();
    let checkpoint = Checkpoint::new(signer.name().clone(), batch.size(), batch.root()).unwrap().sign(signer).unwrap();
    let checkpoint = String::from_utf8(checkpoint.as_bytes().to_vec()).unwrap();
    let inclusion = prove_inclusion(batch.size(), 2, &stored).unwrap();
    LogPlace { entry: entry.into(), inclusion, checkpoint }
}

fn logged(file: ReferenceFile) -> ReferenceFile {
    let place = place(&file.log_entry(LOGGED), &log_signer());
    file.with_place(place)
}

fn good() -> ReferenceFile {
    logged(signed_by(&statement(), &[1, 3]))
}

fn open(file: &ReferenceFile) -> Result<LoggedReferenceValues, ReferenceError> {
    open_at(file, NOW)
}

fn open_at(file: &ReferenceFile, now: UnixTime) -> Result<LoggedReferenceValues, ReferenceError> {
    let trust = trust();
    SignedReferenceValues::open(&file.encode(), &Opening { trust: &trust, role: Role::Agent, now, newest_seen: None })
}

#[track_caller]
fn refused(file: &ReferenceFile, code: &str) {
    let error = open(file).unwrap_err();
    assert_eq!(error.code(), code, "{error}");
}

#[test]
fn what_two_of_three_signed_and_the_log_has_counts() {
    for keys in [&[1, 3][..], &[2, 1], &[1, 2, 3], &[8, 1, 2]] {
        let values = open(&logged(signed_by(&statement(), keys))).unwrap();
        assert_eq!(values.statement(), &statement());
        assert_eq!((values.index(), values.logged_at()), (2, LOGGED));
        let known = keys.iter().filter(|number| **number < 4).map(|number| key(*number).public_key());
        assert_eq!(values.signers(), known.collect::<Vec<_>>());
        assert_eq!(values.seen().version, 5);
    }
    // In force from the first to the last instant.
    for now in [LOGGED, NOW, ENDS] {
        assert!(open_at(&good(), now).is_ok());
    }
}

#[test]
fn too_few_signatures() {
    refused(&logged(signed_by(&statement(), &[])), "reference.too-few-signatures");
    refused(&logged(signed_by(&statement(), &[1])), "reference.too-few-signatures");
    refused(&logged(signed_by(&statement(), &[1, 8, 9])), "reference.too-few-signatures");
    // One key twice is one key: its signature is put in again behind the back of `sign`, which would not.
    let mut file = signed_by(&statement(), &[1]);
    assert_eq!(file.sign(&key(1)), Err(ReferenceError::SignedAlready(key(1).public_key())));
    let mut json: serde_json::Value = serde_json::from_slice(&logged(file).encode()).unwrap();
    let signatures = json["envelope"]["signatures"].as_array_mut().unwrap();
    signatures.push(signatures[0].clone());
    refused(&ReferenceFile::parse(json.to_string().as_bytes()).unwrap(), "reference.too-few-signatures");
}

#[test]
fn a_signature_of_another_statement_under_a_release_key() {
    let mut json: serde_json::Value = serde_json::from_slice(&good().encode()).unwrap();
    let other = ReferenceStatement { version: 6, ..statement() };
    let other: serde_json::Value = serde_json::from_slice(&signed_by(&other, &[3]).encode()).unwrap();
    json["envelope"]["signatures"][1] = other["envelope"]["signatures"][0].clone();
    refused(&ReferenceFile::parse(json.to_string().as_bytes()).unwrap(), "reference.bad-signature");
    // Under the name of a key that did not make it.
    let mut json: serde_json::Value =
        serde_json::from_slice(&logged(signed_by(&statement(), &[1, 8])).encode()).unwrap();
    json["envelope"]["signatures"][1]["keyid"] = key(2).public_key().to_string().into();
    refused(&ReferenceFile::parse(json.to_string().as_bytes()).unwrap(), "reference.bad-signature");
}

#[test]
fn not_for_this_verifier() {
    let network = NetworkId([8; 32]);
    refused(&logged(signed_by(&ReferenceStatement { network, ..statement() }, &[1, 2])), "reference.other-network");
    let role = Role::Broker;
    refused(&logged(signed_by(&ReferenceStatement { role, ..statement() }, &[1, 2])), "reference.other-role");
    let nobody = trust().with_release_keys(Vec::new(), 0).unwrap();
    let found = good().verify_signatures(&nobody).unwrap_err();
    assert_eq!(found, ReferenceError::NoReleaseKeys);
    let all = trust().with_release_keys([1, 2, 3].map(|number| key(number).public_key()).to_vec(), 3).unwrap();
    assert_eq!(good().verify_signatures(&all).unwrap_err(), ReferenceError::TooFewSignatures { have: 2, need: 3 });
    // What one trust verified does not count by another.
    let signed = good().verify_signatures(&trust()).unwrap();
    let mut other = trust();
    other.network = NetworkId([8; 32]);
    let opening = Opening { trust: &other, role: Role::Agent, now: NOW, newest_seen: None };
    assert_eq!(signed.verify_logged(&opening).unwrap_err(), ReferenceError::OtherNetwork);
}

#[test]
fn not_in_force() {
    let check = |now, expected| assert_eq!(open_at(&good(), now).unwrap_err(), expected);
    check(UnixTime(BEGINS.0 - 1), ReferenceError::NotYetInForce);
    check(UnixTime(ENDS.0 + 1), ReferenceError::Expired);
    check(UnixTime(LOGGED.0 - 1), ReferenceError::LoggedLater);
}

#[test]
fn older_than_what_was_seen() {
    let trust = trust();
    let open = |version, newest_seen| {
        let file = logged(signed_by(&ReferenceStatement { version, ..statement() }, &[1, 2]));
        let opening = Opening { trust: &trust, role: Role::Agent, now: NOW, newest_seen };
        SignedReferenceValues::open(&file.encode(), &opening).map(|values| values.seen())
    };
    let five = open(5, None).unwrap();
    assert_eq!(open(5, Some(five)), Ok(five));
    let six = open(6, Some(five)).unwrap();
    assert_eq!(open(5, Some(six)), Err(ReferenceError::Older { version: 5, seen: 6 }));
    let other = SeenReferences { version: 5, digest: Digest([1; 32]) };
    assert_eq!(open(5, Some(other)), Err(ReferenceError::Forked(5)));
}

#[test]
fn not_logged() {
    let signed = signed_by(&statement(), &[1, 2]);
    refused(&signed, "reference.not-logged");
    let with = |place| signed.clone().with_place(place);
    let entry = signed.log_entry(LOGGED);

    // Another log, or one that takes the name of ours.
    let other = LogSigner::from_seed(KeyName::parse("test/other").unwrap(), &[0x22; 32]);
    refused(&with(place(&entry, &other)), "reference.checkpoint");
    let forged = LogSigner::from_seed(KeyName::parse("test/log").unwrap(), &[0x23; 32]);
    refused(&with(place(&entry, &forged)), "reference.checkpoint");
    let nothing = LogPlace { checkpoint: String::new(), ..place(&entry, &log_signer()) };
    refused(&with(nothing), "reference.checkpoint");

    // An entry of the log that is not this file's.
    let wrong = |change: fn(&mut LogEntry)| {
        let mut entry = signed.log_entry(LOGGED);
        change(&mut entry);
        refused(&with(place(&entry, &log_signer())), "reference.other-entry");
    };
    wrong(|entry| entry.kind = EntryKind::Genesis);
    wrong(|entry| entry.statement = Digest([1; 32]));
    wrong(|entry| entry.ends = true);
    wrong(|entry| entry.node = Some(Digest([1; 32])));

    // An entry that the proof is not of.
    let elsewhere =
        LogPlace { entry: signed.log_entry(UnixTime(LOGGED.0 + 1)).encode().into(), ..place(&entry, &log_signer()) };
    refused(&with(elsewhere), "reference.inclusion");
}

#[test]
fn witnesses_where_the_trust_file_asks_for_them() {
    let keys = |quorum| LogEntryKeys {
        key: log_signer().key().to_string(),
        witnesses: vec![witness().key().to_string()],
        witness_quorum: quorum,
    };
    let open = |quorum| {
        let trust = trust_with_log(keys(quorum));
        let opening = Opening { trust: &trust, role: Role::Agent, now: NOW, newest_seen: None };
        SignedReferenceValues::open(&good().encode(), &opening).map(|_| ()).map_err(|error| error.code())
    };
    assert_eq!(open(0), Ok(()));
    assert_eq!(open(1), Err("reference.witnesses"));

    // With its cosignature.
    let file = signed_by(&statement(), &[1, 2]);
    let mut place = place(&file.log_entry(LOGGED), &log_signer());
    let checkpoint = SignedCheckpoint::parse(place.checkpoint.as_bytes()).unwrap().verify(&log_signer().key()).unwrap();
    let line = witness().cosign(&Remembered::first(checkpoint.clone()), 1_790_000_000).unwrap();
    let cosigned = checkpoint.with_cosignatures(line.to_string().as_bytes(), &[witness().key()]).unwrap();
    place.checkpoint = String::from_utf8(cosigned.signed().as_bytes().to_vec()).unwrap();
    let trust = trust_with_log(keys(1));
    let opening = Opening { trust: &trust, role: Role::Agent, now: NOW, newest_seen: None };
    assert!(SignedReferenceValues::open(&file.with_place(place).encode(), &opening).is_ok());
}

/// Every bit of a file counts, or leaves what was signed as it was.
#[test]
fn an_altered_bit() {
    let bytes = good().encode();
    let trust = trust();
    let opening = Opening { trust: &trust, role: Role::Agent, now: NOW, newest_seen: None };
    let honest = statement();
    let mut opened = 0;
    for at in 0..bytes.len() {
        for bit in [0, 2, 5] {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            if let Ok(values) = SignedReferenceValues::open(&changed, &opening) {
                opened += 1;
                assert_eq!(values.statement(), &honest, "byte {at}");
                assert_eq!(values.signers().len(), 2, "byte {at}");
                assert!(bytes[at].is_ascii_whitespace(), "byte {at} says something: {:?}", char::from(bytes[at]));
            }
        }
    }
    assert!(opened < 100, "white space alone: {opened}");
    for length in 0..bytes.len() - 1 {
        assert!(ReferenceFile::parse(&bytes[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn no_files_and_no_statements() {
    let malformed = |text: &str| assert_eq!(ReferenceFile::parse(text.as_bytes()), Err(ReferenceError::Malformed));
    malformed("");
    malformed("{}");
    let mut json: serde_json::Value = serde_json::from_slice(&good().encode()).unwrap();
    json["format"] = "starminer-reference-values/2".into();
    malformed(&json.to_string());
    json["format"] = "starminer-reference-values/1".into();
    json["envelope"]["payloadType"] = "application/vnd.starminer.lease.v1+json".into();
    malformed(&json.to_string());
    let mut many = signed_by(&statement(), &(1..=MAX_RELEASE_KEYS as u8).collect::<Vec<_>>());
    assert_eq!(many.sign(&key(200)), Err(ReferenceError::Malformed));
    assert_eq!(ReferenceFile::parse(&vec![b' '; MAX_REFERENCE_FILE_BYTES + 1]), Err(ReferenceError::TooLarge));

    let no_statement = |change: fn(&mut ReferenceStatement)| {
        let mut statement = statement();
        change(&mut statement);
        assert!(matches!(ReferenceFile::new(&statement), Err(ReferenceError::Statement(_))), "{statement:?}");
    };
    no_statement(|statement| statement.v = 2);
    no_statement(|statement| statement.name = String::new());
    no_statement(|statement| statement.name = "a\"b".into());
    no_statement(|statement| statement.name = "x".repeat(65));
    no_statement(|statement| statement.version = 0);
    no_statement(|statement| statement.not_after = statement.not_before);
    no_statement(|statement| statement.values = ReferenceValues::unset());
}

#[test]
fn values_beside_those_that_a_verifier_pins() {
    let values = open(&good()).unwrap();
    let pinned = ReferenceValues::new(vec![value(2, "my own name"), value(3, "mine")]).unwrap();
    let all = values.with_pinned(&pinned).unwrap();
    let names: Vec<_> = all.values().iter().map(|value| value.name.as_str()).collect();
    assert_eq!(names, ["4 vCPUs", "8 vCPUs", "mine"]);
    assert_eq!(values.with_pinned(&ReferenceValues::unset()).as_ref(), Ok(values.values()));
    let many = (0..1023_u32).map(|number| {
        let mut bytes = [9; 48];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        ReferenceValue { measurement: Measurement::from_bytes(&bytes).unwrap(), ..value(0, "many") }
    });
    let many = ReferenceValues::new(many.collect()).unwrap();
    assert_eq!(values.with_pinned(&many), Err(ReferenceValuesError::TooMany));
}

#[test]
fn release_keys_in_a_trust_file() {
    let with = trust().encode().unwrap();
    let read = NetworkTrust::parse(&with).unwrap();
    assert_eq!((read.release_keys(), read.release_threshold()), (trust().release_keys(), 2));
    assert_eq!(read.encode().unwrap(), with);
    // A trust file without them is written as ever, so that its digest in the log stays what it was.
    let without = trust().with_release_keys(Vec::new(), 0).unwrap().encode().unwrap();
    assert!(!without.contains("release"), "{without}");
    assert_eq!(NetworkTrust::parse(&without).unwrap().release_keys(), []);

    let keys = |numbers: &[u8]| numbers.iter().map(|number| PublicKey([*number; 32])).collect::<Vec<_>>();
    for (numbers, threshold) in
        [(&[][..], 1), (&[1], 0), (&[1, 2], 3), (&[1, 2, 1], 2), (&(0..=MAX_RELEASE_KEYS as u8).collect::<Vec<_>>(), 2)]
    {
        let found = trust().with_release_keys(keys(numbers), threshold);
        assert!(matches!(found, Err(NetworkTrustError::BadReleaseKeys)), "{numbers:?} {threshold}");
    }
    assert!(NetworkTrust::parse(&with.replace("release_threshold = 2", "release_threshold = 4")).is_err());
}
