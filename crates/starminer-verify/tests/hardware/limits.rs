//! Sizes: more room where logs are parts, and nowhere else; and the names of what makers published.

use starminer_verify::{
    EndorsementKind, Endorsements, EndorsementsError, Evidence, EvidenceBuilder, EvidenceKind as Kind,
    MAX_ENDORSEMENTS, MAX_EVENT_LOG_BYTES, MAX_EVIDENCE_BYTES, MAX_EVIDENCE_WITH_LOGS_BYTES, MAX_IMA_LOG_BYTES,
    MAX_REPORT_BYTES, ParseEvidenceError, tagged_hash,
};

use crate::world::{Parts, World};

/// The bytes of evidence, whatever the builder says to their size.
fn by_hand(world: &World, parts: &Parts) -> Vec<u8> {
    let small = EvidenceBuilder::new(world.node.binding.clone(), world.node.batch().1, world.node.posture.clone())
        .part(Kind::SoftwareTee, vec![0])
        .encode()
        .unwrap();
    let text = String::from_utf8(small).unwrap();
    let at = text.find(r#""parts":"#).unwrap();
    let parts: Vec<String> = parts
        .iter()
        .map(|(kind, part)| format!(r#"{{"kind":"{kind}","report":"{}"}}"#, data_encoding::BASE64.encode(part)))
        .collect();
    format!(r#"{}"parts":[{}]}}"#, &text[..at], parts.join(",")).into_bytes()
}

fn parse(world: &World, parts: &[(Kind, usize)]) -> Result<(), &'static str> {
    let parts: Parts = parts.iter().map(|(kind, len)| (*kind, vec![1; *len])).collect();
    Evidence::parse(&by_hand(world, &parts)).map(|_| ()).map_err(|error| error.code())
}

#[test]
fn each_kind_has_its_own_size() {
    let world = World::new();
    for kind in Kind::ALL {
        let most = match kind {
            Kind::UefiLog | Kind::CcLog => MAX_EVENT_LOG_BYTES,
            Kind::ImaLog => MAX_IMA_LOG_BYTES,
            _ => MAX_REPORT_BYTES,
        };
        assert_eq!(parse(&world, &[(kind, most)]), Ok(()), "{kind}");
        assert_eq!(parse(&world, &[(kind, most + 1)]), Err("evidence.report-size"), "{kind}");
        assert_eq!(parse(&world, &[(kind, 0)]), Err("evidence.report-size"), "{kind}");
    }
}

#[test]
fn only_a_log_makes_room() {
    let world = World::new();
    let two = [(Kind::SevSnp, MAX_REPORT_BYTES), (Kind::NvidiaGpu, MAX_REPORT_BYTES)];
    assert_eq!(parse(&world, &two), Err("evidence.too-long"), "two of the longest reports are longer than evidence");
    let with_log = [two[0], two[1], (Kind::UefiLog, 1)];
    assert_eq!(parse(&world, &with_log), Ok(()));
    let largest =
        [(Kind::Tdx, MAX_REPORT_BYTES), (Kind::UefiLog, MAX_EVENT_LOG_BYTES), (Kind::ImaLog, MAX_IMA_LOG_BYTES)];
    assert_eq!(parse(&world, &largest), Ok(()));
    let too_large = [largest[0], largest[1], largest[2], (Kind::CcLog, MAX_EVENT_LOG_BYTES)];
    assert_eq!(parse(&world, &too_large), Err("evidence.too-long"));
    for (len, max) in [
        (MAX_EVIDENCE_BYTES + 1, MAX_EVIDENCE_BYTES),
        (MAX_EVIDENCE_WITH_LOGS_BYTES, MAX_EVIDENCE_BYTES),
        (MAX_EVIDENCE_WITH_LOGS_BYTES + 1, MAX_EVIDENCE_WITH_LOGS_BYTES),
        (8 << 20, MAX_EVIDENCE_WITH_LOGS_BYTES),
    ] {
        let error = Evidence::parse(&vec![b' '; len]).unwrap_err();
        assert_eq!(error, ParseEvidenceError::TooLong { found_bytes: len, max_bytes: max });
    }
    // The attesting side keeps to the same.
    let build = |parts: &[(Kind, usize)]| {
        let builder =
            EvidenceBuilder::new(world.node.binding.clone(), world.node.batch().1, world.node.posture.clone());
        parts.iter().fold(builder, |builder, (kind, len)| builder.part(*kind, vec![1; *len])).encode()
    };
    assert!(build(&two).is_err() && build(&with_log).is_ok() && build(&too_large).is_err());
    assert!(build(&[(Kind::SevSnp, MAX_REPORT_BYTES)]).unwrap().len() <= MAX_EVIDENCE_BYTES);
}

#[test]
fn a_log_of_white_space_is_no_second_encoding() {
    let world = World::new();
    let mut bytes = by_hand(&world, &vec![(Kind::ImaLog, vec![1; 100_000])]);
    assert!(Evidence::parse(&bytes).is_ok());
    bytes.push(b' ');
    assert_eq!(Evidence::parse(&bytes).unwrap_err().code(), "evidence.not-canonical");
}

#[test]
fn a_snapshot_is_named_by_its_content() {
    let world = World::new();
    let files = world.endorsements();
    let all = Endorsements::new(files.clone()).unwrap();
    let mut turned = files.clone();
    turned.reverse();
    turned.push(files[0].clone());
    assert_eq!(Endorsements::new(turned).unwrap().digest(), all.digest(), "neither order nor repetition matters");
    assert_eq!(all, all.clone());
    let nothing: [(EndorsementKind, Vec<u8>); 0] = [];
    assert_eq!(Endorsements::new(nothing).unwrap(), Endorsements::none());
    assert_eq!(Endorsements::none().digest(), tagged_hash("endorsements", &[]));
    let mut digests = vec![all.digest(), Endorsements::none().digest()];
    for at in 0..files.len() {
        let mut less = files.clone();
        less.remove(at);
        digests.push(Endorsements::new(less).unwrap().digest());
    }
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), files.len() + 2, "each file matters");
    // The same bytes as something else are something else.
    let crl = world.snp.crl().der().to_vec();
    let of = |kind| Endorsements::new([(kind, crl.clone())]).unwrap().digest();
    assert_ne!(of(EndorsementKind::AmdCrl), of(EndorsementKind::TpmCrl));
    assert!(matches!(
        Endorsements::new([(EndorsementKind::Intel, crl.clone())]).unwrap_err(),
        EndorsementsError::Malformed { kind: EndorsementKind::Intel, .. }
    ));
    let many = (0..=MAX_ENDORSEMENTS).map(|at| (EndorsementKind::AmdCrl, [&crl[..], &at.to_be_bytes()].concat()));
    assert!(Endorsements::new(many).is_err());
    let large = vec![(EndorsementKind::NvidiaRim, vec![b' '; starminer_verify::MAX_ENDORSEMENTS_BYTES + 1])];
    assert_eq!(Endorsements::new(large).unwrap_err(), EndorsementsError::TooMany);
}
