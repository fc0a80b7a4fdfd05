//! What is put together wrongly, or is about something else: one mismatch anywhere refuses the whole.

use starminer_hardware::cert::Certificate;
use starminer_verify::parts::TpmPart;
use starminer_verify::{
    AkName, Digest, Endorsements, EvidenceKind as Kind, NetworkId, NodeId, Party, Provenance, PublicKey, Tier,
    UnixTime, Verdict,
};

use crate::fixture::NOW;
use crate::nvidia::pki::Maker as GpuMaker;
use crate::tpm_lab::TpmLab;
use crate::world::{Parts, World, ders, find, refused_by};

/// Whether these kinds belong together, said anew.
fn belongs_together(kinds: &[Kind]) -> bool {
    let count = |kind| kinds.iter().filter(|one| **one == kind).count();
    let tees: usize = [Kind::SoftwareTee, Kind::SevSnp, Kind::Tdx, Kind::Sgx].map(count).iter().sum();
    let single = [Kind::Tpm, Kind::UefiLog, Kind::CcLog, Kind::ImaLog].map(count).iter().all(|n| *n <= 1);
    let logs_of_tpm = count(Kind::Tpm) == 1 || count(Kind::UefiLog) + count(Kind::ImaLog) == 0;
    let log_of_td = count(Kind::Tdx) == 1 || count(Kind::CcLog) == 0;
    let gpus = tees == 1 || count(Kind::NvidiaGpu) == 0;
    tees <= 1 && tees + count(Kind::Tpm) > 0 && single && logs_of_tpm && log_of_td && gpus && kinds.is_sorted()
}

#[test]
fn the_table_of_part_sets() {
    let worlds = [World::new(), World::with_tpm()];
    let verifiers = [worlds[0].verifier(&[]), worlds[1].verifier(&[])];
    let check = |kinds: &[Kind]| {
        let which = usize::from(kinds.contains(&Kind::Tpm));
        let (world, verifier) = (&worlds[which], &verifiers[which]);
        let parts: Parts = kinds.iter().map(|kind| (*kind, vec![1])).collect();
        let refusal = verifier.verify(&world.encode(parts)).unwrap_err();
        assert_eq!(refusal.check() != "evidence.part-set", belongs_together(kinds), "{kinds:?}: {refusal}");
    };
    let mut together = 0;
    for bits in 1..1usize << Kind::ALL.len() {
        let kinds: Vec<Kind> =
            Kind::ALL.into_iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, kind)| kind).collect();
        if kinds.len() > starminer_verify::MAX_PARTS {
            continue;
        }
        check(&kinds);
        together += usize::from(belongs_together(&kinds));
        for twice in &kinds {
            let mut more = kinds.clone();
            more.push(*twice);
            if more.len() <= starminer_verify::MAX_PARTS {
                check(&more);
                more.sort();
                check(&more);
            }
        }
        if kinds.len() > 1 {
            let mut turned = kinds.clone();
            turned.reverse();
            check(&turned);
        }
    }
    // Four TEEs with or without GPU: 8, with a TPM and any of two logs 4 times more, TDX all that once more with its log; a TPM alone 4.
    assert_eq!(together, 8 * 5 + 2 * 5 + 4);
}

const ALL: [Kind; 5] = [Kind::SevSnp, Kind::Tpm, Kind::UefiLog, Kind::ImaLog, Kind::NvidiaGpu];

/// Verification refuses joined evidence with this check.
#[track_caller]
fn check(name: &str, world: &World, kinds: &[Kind], parts: Parts) {
    match world.verifier(kinds).verify(&world.encode(parts)) {
        Ok(_) => panic!("verified; {name} was expected"),
        Err(refusal) => assert_eq!(refusal.check(), name, "{refusal}"),
    }
}

#[test]
fn a_device_that_signed_another_batch() {
    let (plain, named) = (World::new(), World::with_tpm());
    let other = Digest::of(b"another batch");
    for (world, kinds) in [(&named, &ALL[..]), (&plain, &[Kind::Tdx, Kind::CcLog]), (&plain, &[Kind::Sgx])] {
        for (at, kind) in kinds.iter().enumerate().filter(|(_, kind)| !kind.is_log()) {
            let mut parts = world.parts(kinds);
            parts[at].1 = world.part(*kind, &other);
            check("evidence.report-data", world, kinds, parts);
        }
    }
    // What stands behind the 32 bytes is zero.
    let snp = {
        let mut part = plain.snp_part(&plain.report_data());
        part.report = plain.snp.report(|report| {
            crate::snp_lab::put(report, 0x50, plain.report_data().as_bytes());
            crate::snp_lab::put(report, 0x70, &[0, 1]);
        });
        part.encode()
    };
    check("evidence.report-data", &plain, &[Kind::SevSnp], vec![(Kind::SevSnp, snp)]);
    // A longer or shorter challenge than the batch is none.
    for data in [&named.report_data().as_bytes()[..31], &[named.report_data().as_bytes(), &[0][..]].concat()] {
        let (attest, signature) = named.tpm.quote(data, |_| {});
        let part = TpmPart { attest, signature, ..named.tpm.part(&named.report_data()) };
        let mut parts = named.parts(&ALL);
        parts[1].1 = part.encode();
        check("evidence.report-data", &named, &ALL, parts);
    }
    // The second of two GPUs.
    let kinds = [Kind::SevSnp, Kind::NvidiaGpu];
    let mut parts = plain.parts(&kinds);
    parts.push((Kind::NvidiaGpu, plain.gpu_part("A2", &other).encode()));
    check("evidence.report-data", &plain, &kinds, parts);
    // The same GPU twice is one.
    let mut parts = plain.parts(&kinds);
    parts.push(parts[1].clone());
    check("nvidia.distinct-devices", &plain, &kinds, parts);
}

#[test]
fn the_name_of_the_tpms_key() {
    let mut world = World::with_tpm();
    let kinds = [Kind::SevSnp, Kind::Tpm];
    // Another key than the one that is named.
    world.node.binding.ak_name = Some(TpmLab::new().ak_name());
    check("evidence.ak-name", &world, &kinds, world.parts(&kinds));
    world.node.binding.ak_name = AkName::from_bytes(&[0, 11, 1]);
    check("evidence.ak-name", &world, &kinds, world.parts(&kinds));
    // A TPM that is not named, and a name without a TPM.
    world.node.binding.ak_name = None;
    check("evidence.ak-name", &world, &kinds, world.parts(&kinds));
    let world = World::with_tpm();
    for kind in [Kind::SoftwareTee, Kind::SevSnp, Kind::Tdx, Kind::Sgx] {
        check("evidence.ak-name", &world, &[kind], world.parts(&[kind]));
    }
    // Another TPM's part, over the very batch.
    let mut parts = world.parts(&kinds);
    parts[1].1 = TpmLab::new().part(&world.report_data()).encode();
    check("evidence.ak-name", &world, &kinds, parts);
}

/// Turns a part over to a function and refuses what comes of it.
#[track_caller]
fn altered(name: &str, kinds: &[Kind], kind: Kind, alter: impl FnOnce(&World, Vec<u8>) -> Vec<u8>) {
    let world = if kinds.contains(&Kind::Tpm) { World::with_tpm() } else { World::new() };
    let mut parts = world.parts(kinds);
    let part = parts.iter_mut().find(|part| part.0 == kind).unwrap();
    part.1 = alter(&world, std::mem::take(&mut part.1));
    check(name, &world, kinds, parts);
}

#[test]
fn a_part_that_its_device_did_not_make() {
    let tpm = |alter: fn(&World, &mut TpmPart)| {
        move |world: &World, bytes: Vec<u8>| {
            let mut part = TpmPart::parse(&bytes).unwrap();
            alter(world, &mut part);
            part.encode()
        }
    };
    let flip = |at: usize| {
        move |_: &World, mut bytes: Vec<u8>| {
            bytes[at] ^= 1;
            bytes
        }
    };
    // Behind the length, the report's measurement, then its signature.
    altered("snp.report-signature", &[Kind::SevSnp], Kind::SevSnp, flip(4 + 0x90));
    altered("snp.report-signature", &[Kind::SevSnp], Kind::SevSnp, flip(4 + 0x2a0));
    altered("dcap.quote-signature", &[Kind::Tdx], Kind::Tdx, flip(48 + 136));
    altered("dcap.quote-signature", &[Kind::Sgx], Kind::Sgx, flip(48 + 64));
    altered("evidence.report-format", &[Kind::Tdx], Kind::Tdx, |world, _| world.sgx_quote(&world.report_data()));
    altered("evidence.report-format", &[Kind::Sgx], Kind::Sgx, |world, _| world.tdx_quote(&world.report_data()));
    altered("evidence.report-format", &ALL, Kind::NvidiaGpu, |_, bytes| bytes[1..].to_vec());
    altered("nvidia.report-signature", &ALL, Kind::NvidiaGpu, |world, _| {
        let mut part = world.gpu_part("A1", &world.report_data());
        *part.report.last_mut().unwrap() ^= 1;
        part.encode()
    });
    altered("nvidia.certificate-chain", &ALL, Kind::NvidiaGpu, |world, _| {
        let mut part = world.gpu_part("A1", &world.report_data());
        part.certificates.swap(2, 3);
        part.encode()
    });
    altered("snp.certificates", &[Kind::SevSnp], Kind::SevSnp, |world, _| {
        let mut part = world.snp_part(&world.report_data());
        part.certificates.remove(0);
        part.encode()
    });

    for (name, alter) in [
        ("tpm.signature", (|_, part| *part.signature.last_mut().unwrap() ^= 1) as fn(&World, &mut TpmPart)),
        ("tpm.pcr-digest", |_, part| part.pcr_values[0] ^= 1),
        ("evidence.report-format", |_, part| part.pcr_values.truncate(32)),
        ("evidence.report-format", |_, part| part.pcr_values.extend([0; 32])),
        ("evidence.report-format", |_, part| part.attest.push(0)),
        ("evidence.report-format", |_, part| part.ak_public.push(0)),
        ("evidence.report-format", |_, part| part.signature.push(0)),
        // Forms that tools write and that are not the one of evidence.
        ("evidence.report-format", |_, part| {
            part.attest = [&u16::try_from(part.attest.len()).unwrap().to_be_bytes()[..], &part.attest].concat();
        }),
        ("evidence.report-format", |_, part| {
            part.ak_public =
                [&u16::try_from(part.ak_public.len()).unwrap().to_be_bytes()[..], &part.ak_public].concat();
        }),
        ("evidence.report-format", |_, part| {
            let at = part.ek_certificates[0].len();
            part.ek_certificates[0].resize(at + 16, 0);
        }),
        ("tpm-ek.chain", |_, part| {
            let other = TpmLab::new();
            part.ek_certificates[0] = other.ek.der().to_vec();
        }),
        ("evidence.root-unknown", |_, part| {
            let other = TpmLab::new();
            part.ek_certificates = ders(&[other.ek, other.root]);
        }),
        // No endorsement key at all.
        ("tpm-ek.purpose", |world, part| {
            part.ek_certificates[0] = world.snp.certificates(crate::snp_lab::Vek::Chip)[0].der().to_vec();
        }),
        // The key is not what it should be: it was made elsewhere and brought along.
        ("evidence.ak-name", |_, part| part.ak_public[7] ^= 0x20),
    ] {
        if name == "tpm-ek.purpose" {
            // The certificate names no purpose: it is its chain that does not hold.
            altered("tpm-ek.chain", &ALL, Kind::Tpm, tpm(alter));
        } else {
            altered(name, &ALL, Kind::Tpm, tpm(alter));
        }
    }
}

/// The quote is over what the key should never sign of itself.
#[test]
fn an_attestation_that_is_no_quote() {
    let world = World::with_tpm();
    let data = world.report_data();
    let quote = |alter: fn(&mut Vec<u8>)| {
        let (attest, signature) = world.tpm.quote(data.as_bytes(), alter);
        TpmPart { attest, signature, ..world.tpm.part(&data) }.encode()
    };
    for alter in [
        (|attest| attest[5] = 0x17) as fn(&mut Vec<u8>), // certified
        |attest| attest[0] = 0,                          // not made by a TPM
        |attest| attest[4] = 0,
    ] {
        let mut parts = world.parts(&ALL);
        parts[1].1 = quote(alter);
        check("evidence.report-format", &world, &ALL, parts);
    }
    // Another signer is named than the key.
    let mut parts = world.parts(&ALL);
    parts[1].1 = quote(|attest| attest[20] ^= 1);
    let verified = world.verifier(&ALL).verify(&world.encode(parts));
    assert!(verified.is_ok(), "not a primary key: not checked, and told");
}

#[test]
fn logs_that_lead_elsewhere() {
    let last = |_: &World, mut bytes: Vec<u8>| {
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        bytes
    };
    let shorter = |_: &World, bytes: Vec<u8>| {
        let at = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        bytes[at + 1..].to_vec()
    };
    let quoted = [Kind::Tpm, Kind::UefiLog, Kind::ImaLog];
    altered("ima.registers.sha256", &quoted, Kind::ImaLog, shorter);
    altered("evidence.report-format", &quoted, Kind::ImaLog, |_, _| vec![0xff; 100]);
    altered("evidence.report-format", &quoted, Kind::UefiLog, |_, _| vec![1; 10]);
    altered("evidence.report-format", &[Kind::Tdx, Kind::CcLog], Kind::CcLog, |_, _| vec![1; 10]);
    altered("eventlog.registers", &[Kind::Tdx, Kind::CcLog], Kind::CcLog, |world, _| world.tpm.log.clone());
    altered("eventlog.registers.sha256", &quoted, Kind::UefiLog, |_, _| crate::log_builder::machine(&[0]).bytes);
    let world = World::with_tpm();
    let mut parts = world.parts(&quoted);
    parts[1].1 = last(&world, std::mem::take(&mut parts[1].1));
    assert!(world.verifier(&quoted).verify(&world.encode(parts)).is_err());
    // The registers of a TPM that was quoted without the kernel's.
    let mut world = World::with_tpm();
    world.tpm.pcrs.insert(10, [9; 32]);
    check("ima.registers.sha256", &world, &quoted, world.parts(&quoted));
    // One that nothing was extended into yet: the list may come later, and no entry of it counts.
    world.tpm.pcrs.insert(10, [0; 32]);
    let verified = world.verify(&quoted).unwrap();
    assert_eq!(verified.tpm().unwrap().ima().unwrap().entries(), 0);
    let result = world.appraise(&quoted);
    assert_eq!(find(&result, "ima.policy.agent").verdict(), Verdict::Fail);
    assert_eq!(find(&result, "ima.policy.boot-aggregate").verdict(), Verdict::Fail);
}

#[test]
fn endorsements_that_are_missing_are_named() {
    for (kinds, check, party, word) in [
        (&[Kind::Tdx][..], "dcap.root-ca-crl", Party::Verifier, "fetch it"),
        (&[Kind::Sgx], "dcap.root-ca-crl", Party::Verifier, "fetch it"),
    ] {
        let world = World::new();
        let mut verifier = world.verifier(kinds);
        for endorsements in [
            Endorsements::none(),
            Endorsements::new([(starminer_verify::EndorsementKind::AmdCrl, world.snp.crl().der().to_vec())]).unwrap(),
        ] {
            verifier.endorsements = endorsements;
            let refusal = verifier.verify(&world.evidence(kinds)).unwrap_err();
            assert_eq!((refusal.check(), refusal.party()), (check, party), "{refusal}");
            assert!(refusal.reason().contains(word), "{refusal}");
        }
    }
    // Those of the other kind and of another platform do not serve.
    let world = World::new();
    let mut verifier = world.verifier(&[Kind::Tdx]);
    verifier.endorsements = Endorsements::new([(starminer_verify::EndorsementKind::Intel, world.sgx.json())]).unwrap();
    assert!(verifier.verify(&world.evidence(&[Kind::Tdx])).is_err());
}

#[test]
fn what_was_revoked() {
    use starminer_verify::EndorsementKind as Of;
    let world = World::with_tpm();
    let revoke = |kinds: &[Kind], of: Of, file: Vec<u8>| {
        let mut files = world.endorsements();
        files.push((of, file));
        let mut verifier = world.verifier(kinds);
        verifier.endorsements = Endorsements::new(files).unwrap();
        verifier.verify(&world.evidence(kinds)).unwrap_err().check().to_owned()
    };
    let joined = [Kind::SevSnp, Kind::Tpm];
    let amd = world.snp.crl_revoking(&crate::snp_lab::REVOKED_SERIAL).der().to_vec();
    assert_eq!(revoke(&joined, Of::AmdCrl, amd), "snp.crl");
    let tpm = world.tpm.crl(Some(&world.tpm.ek)).der().to_vec();
    assert_eq!(revoke(&joined, Of::TpmCrl, tpm), "tpm-ek.revocation");
    let gpus = [Kind::SevSnp, Kind::Tpm, Kind::NvidiaGpu];
    let nvidia = world.gpus.identity.list(&[&world.gpus.provisioner.certificate], 5).der().to_vec();
    assert_eq!(revoke(&gpus, Of::NvidiaCrl, nvidia), "nvidia.revocation");
    let rim = world.gpus.rim_root.list(&[&world.gpus.rim_signer.certificate], 5).der().to_vec();
    assert_eq!(revoke(&gpus, Of::NvidiaCrl, rim), "nvidia.rim-revocation");
    let mut tdx = crate::intel_lab::World::new(crate::intel_lab::Form::Td10v4);
    tdx.revoked_by_ca = vec![crate::intel_lab::PCK_SERIAL];
    let mut other = World::new();
    other.tdx = tdx;
    assert_eq!(other.verify(&[Kind::Tdx]).unwrap_err().check(), "dcap.pck-revocation");
}

/// A manifest that nobody signed refuses GPUs of its version, and none of others.
#[test]
fn a_manifest_that_does_not_hold() {
    let world = World::new();
    let kinds = [Kind::SevSnp, Kind::NvidiaGpu];
    let mut files = world.endorsements();
    let forged = GpuMaker::new().rim(crate::world::DRIVER, "GH100", &[crate::nvidia::pki::Resource::matching(7)]);
    files.push((starminer_verify::EndorsementKind::NvidiaRim, forged.into_bytes()));
    let mut verifier = world.verifier(&kinds);
    verifier.endorsements = Endorsements::new(files).unwrap();
    assert_eq!(verifier.verify(&world.evidence(&kinds)).unwrap_err().check(), "nvidia.rim-chain");
}

#[test]
fn without_an_enrolment_that_fits_a_tpm_is_nothing() {
    let world = World::tpm_alone(Tier::Identified);
    let kinds = [Kind::Tpm];
    let evidence = world.evidence(&kinds);
    let changes: [fn(&mut Vec<starminer_verify::Enrolment>); 7] = [
        |keys| keys.clear(),
        |keys| keys[0].ak_name = TpmLab::new().ak_name(),
        |keys| keys[0].network = NetworkId([9; 32]),
        |keys| keys[0].node = NodeId(PublicKey([9; 32])),
        |keys| keys[0].ek_certificate = Digest([9; 32]),
        |keys| keys[0].provenance = Provenance::Genuine,
        |keys| keys[0].enrolled_at = UnixTime(NOW.0 + 1),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut verifier = world.verifier(&kinds);
        change(&mut verifier.enrolments.keys);
        let result = verifier.appraise(&evidence).unwrap();
        assert_eq!(result.tier(), Tier::None, "change {at}");
        assert_eq!(refused_by(&result), ["tpm.enrolled", "policy.minimum-tier"], "change {at}");
        assert!(find(&result, "tpm.enrolled").reason().contains("enrol"));
    }
    // One that fits among others.
    let mut verifier = world.verifier(&kinds);
    let mut other = verifier.enrolments.keys[0].clone();
    other.network = NetworkId([9; 32]);
    verifier.enrolments.keys.insert(0, other);
    assert_eq!(refused_by(&verifier.appraise(&evidence).unwrap()), [""; 0]);
    // Beside a TEE the tier is the TEE's, and nothing is claimed of the TPM.
    let world = World::with_tpm();
    let kinds = [Kind::SevSnp, Kind::Tpm];
    let mut verifier = world.verifier(&kinds);
    verifier.enrolments.keys.clear();
    let result = verifier.appraise(&world.evidence(&kinds)).unwrap();
    assert_eq!((result.tier(), refused_by(&result)), (Tier::Confidential, Vec::new()));
    assert_eq!(find(&result, "tpm.co-enrolled").verdict(), Verdict::NotChecked);
}

#[test]
fn a_tpm_that_was_enrolled_with_another_chip() {
    let world = World::with_tpm();
    let kinds = [Kind::SevSnp, Kind::Tpm];
    let mut verifier = world.verifier(&kinds);
    verifier.enrolments.keys[0].chip = Some(Digest::of(b"another chip"));
    let result = verifier.appraise(&world.evidence(&kinds)).unwrap();
    assert_eq!(refused_by(&result), ["tpm.co-enrolled"], "whatever tier is asked for");
}

/// Every certificate of a part cut short, in turn.
#[test]
fn certificates_that_are_none() {
    let world = World::new();
    let good = world.snp_part(&world.report_data());
    for at in 0..good.certificates.len() {
        let mut part = good.clone();
        part.certificates[at].pop();
        check("evidence.report-format", &world, &[Kind::SevSnp], vec![(Kind::SevSnp, part.encode())]);
        let mut part = good.clone();
        part.certificates[at].push(0);
        check("evidence.report-format", &world, &[Kind::SevSnp], vec![(Kind::SevSnp, part.encode())]);
    }
    let unknown = Certificate::from_der(crate::snp_lab::Lab::milan().ark().der()).unwrap();
    let mut part = good;
    part.certificates[2] = unknown.der().to_vec();
    check("evidence.root-unknown", &world, &[Kind::SevSnp], vec![(Kind::SevSnp, part.encode())]);
}
