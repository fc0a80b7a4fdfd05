//! A TPM that takes part, alone and beside a software TEE.

use std::collections::BTreeSet;

use starminer_attester::tpm::{EkKind, KnownEk, PcrIndex, TpmError};
use starminer_attester::{AttestError, Attester as _, DeviceError, JoinedAttester, NodeTpm, SimulatedRoot, TpmLog};
use starminer_hardware::event_log::SecureBootState;
use starminer_hardware::ima::BootAggregate;
use starminer_hardware::tpm::HashAlg;
use starminer_verify::parts::TpmPart;
use starminer_verify::{Digest, EvidenceKind, Provenance};

use crate::boot::{AGENT_FILE, IMA, UEFI, boot, measure, put};
use crate::emulator::Swtpm;
use crate::{BOOT, attest, binding, joined, kinds, notes, now, parts, posture, settings, software, tpm_root, verified};

#[test]
fn a_tpm_alone_shows_its_boot_to_each_of_a_batch_with_one_quote() {
    let Some(tpm) = Swtpm::start() else { return };
    let root = tempfile::tempdir().unwrap();
    boot(&tpm, root.path());
    let attester = joined(None, &settings(&tpm), root.path()).unwrap();
    assert_eq!(attester.kind(), EvidenceKind::Tpm);
    let bindings: Vec<_> = (0..100).map(|challenge| binding(challenge, attester.ak_name())).collect();
    let evidence = attester.attest(&bindings, &posture()).unwrap();
    assert_eq!(notes(&attester), []);
    let first = parts(&evidence[0]);
    for (challenge, evidence) in (0..).zip(&evidence) {
        assert_eq!(parts(evidence), first, "one quote for all");
        let verified = verified(evidence, challenge, now(&tpm), &[tpm_root(&tpm)]).unwrap();
        let claims = verified.tpm().unwrap();
        assert_eq!(verified.provenance(), Provenance::Simulated { root: tpm_root(&tpm) });
        assert_eq!(claims.boot_log().unwrap().secure_boot().state, SecureBootState::Enabled);
        let ima = claims.ima().unwrap();
        assert_eq!((ima.entries(), ima.boot_aggregate()), (2, BootAggregate::Agrees));
        assert!(ima.measured(Digest::of(AGENT_FILE).as_bytes()));
        assert_eq!(claims.quote().pcrs().unwrap().iter().count(), 12);
    }
    assert_eq!(kinds(&evidence[0]), ["tpm", "uefi-log", "ima-log"]);
    // In the order that the quote has, whatever the order of the registers in the settings was, and the chain up to its root.
    let part = TpmPart::parse(&parts(&evidence[0])[0].1).unwrap();
    assert_eq!((part.pcr_values.len(), part.ek_certificates.len()), (12 * 32, 3));
}

#[test]
fn a_tpm_beside_a_software_tee() {
    let Some(tpm) = Swtpm::start() else { return };
    let root = tempfile::tempdir().unwrap();
    boot(&tpm, root.path());
    let authority = SimulatedRoot::generate(&[1; 32]);
    let attester = joined(Some(software(&authority)), &settings(&tpm), root.path()).unwrap();
    assert_eq!(attester.kind(), EvidenceKind::SoftwareTee);
    let evidence = attest(&attester);
    assert_eq!(kinds(&evidence), ["software-tee", "tpm", "uefi-log", "ima-log"]);
    let roots = [authority.id(), tpm_root(&tpm)];
    let found = verified(&evidence, 7, now(&tpm), &roots).unwrap();
    assert_eq!(found.device().kind(), EvidenceKind::SoftwareTee);
    assert!(found.tpm().is_some_and(|claims| claims.boot_log().is_some() && claims.ima().is_some()));
    // Each of them needs its own root, and the binding's own challenge.
    for roots in [&roots[..1], &roots[1..]] {
        assert_eq!(verified(&evidence, 7, now(&tpm), roots).unwrap_err().check(), "evidence.root-unknown");
    }
    assert_eq!(verified(&evidence, 8, now(&tpm), &roots).unwrap_err().check(), "evidence.challenge");

    // A register that changes shows in the next evidence, and the list that goes along has it.
    let entry = {
        drop(attester);
        measure(&tpm, "/usr/bin/other", Digest([8; 32]))
    };
    let list = std::fs::read(root.path().join(IMA)).unwrap();
    put(root.path(), IMA, &[list, entry].concat());
    let attester = joined(Some(software(&authority)), &settings(&tpm), root.path()).unwrap();
    let found = verified(&attest(&attester), 7, now(&tpm), &roots).unwrap();
    assert_eq!(found.tpm().and_then(|claims| claims.ima()).map(|ima| ima.entries()), Some(3));
}

#[test]
fn a_log_that_would_spoil_the_evidence_is_left_out_and_noted() {
    use EvidenceKind::{ImaLog, UefiLog};
    let Some(tpm) = Swtpm::start() else { return };
    let root = tempfile::tempdir().unwrap();
    boot(&tpm, root.path());
    let [uefi, ima] = [UEFI, IMA].map(|path| std::fs::read(root.path().join(path)).unwrap());
    let attester = joined(None, &settings(&tpm), root.path()).unwrap();
    let mut altered = uefi.clone();
    let last = altered.len() - 50;
    altered[last] ^= 1;
    // A list that ends before the register does.
    let shorter = &ima[..ima.len() / 2];
    for (logs, expected, left) in [
        ([Some(&uefi[..]), Some(&ima[..])], &[][..], &["tpm", "uefi-log", "ima-log"][..]),
        ([None, Some(&ima[..])], &[(UefiLog, "log.missing")], &["tpm", "ima-log"]),
        ([Some(&altered[..]), Some(&ima[..])], &[(UefiLog, "log.registers")], &["tpm", "ima-log"]),
        ([Some(&uefi[..]), Some(shorter)], &[(ImaLog, "log.registers")], &["tpm", "uefi-log"]),
        ([Some(&uefi[..]), Some(&[0xff; 99][..])], &[(ImaLog, "log.malformed")], &["tpm", "uefi-log"]),
        ([Some(&uefi[..99]), None], &[(UefiLog, "log.malformed"), (ImaLog, "log.missing")], &["tpm"]),
    ] {
        for (path, contents) in [UEFI, IMA].into_iter().zip(logs) {
            match contents {
                Some(contents) => put(root.path(), path, contents),
                None => std::fs::remove_file(root.path().join(path)).unwrap(),
            }
        }
        let evidence = attest(&attester);
        assert_eq!(notes(&attester), expected);
        assert_eq!(kinds(&evidence), left);
        verified(&evidence, 7, now(&tpm), &[tpm_root(&tpm)]).unwrap();
    }
    // More than evidence holds: holes cost nothing to read past.
    put(root.path(), UEFI, &uefi);
    put(root.path(), IMA, &ima);
    std::fs::File::options().write(true).open(root.path().join(IMA)).unwrap().set_len((1 << 20) + 1).unwrap();
    assert_eq!(
        (kinds(&attest(&attester)), notes(&attester)),
        (vec!["tpm".into(), "uefi-log".into()], vec![(ImaLog, "log.too-long")])
    );
    drop(attester);

    // Without register 10 nothing vouches for the list; logs that are not asked for are not missed.
    put(root.path(), IMA, &ima);
    let mut others = settings(&tpm);
    others.pcrs.remove(&PcrIndex::new(10).unwrap());
    let attester = joined(None, &others, root.path()).unwrap();
    assert_eq!(
        (kinds(&attest(&attester)), notes(&attester)),
        (vec!["tpm".into(), "uefi-log".into()], vec![(ImaLog, "log.registers")])
    );
    drop(attester);
    others.logs = BTreeSet::from([TpmLog::Uefi]);
    let attester = joined(None, &others, root.path()).unwrap();
    assert_eq!((kinds(&attest(&attester)), notes(&attester)), (vec!["tpm".into(), "uefi-log".into()], vec![]));
}

#[test]
fn another_bank() {
    let Some(tpm) = Swtpm::start() else { return };
    let root = tempfile::tempdir().unwrap();
    let mut settings = settings(&tpm);
    (settings.bank, settings.logs) = (HashAlg::Sha384, BTreeSet::new());
    let attester = joined(None, &settings, root.path()).unwrap();
    let found = verified(&attest(&attester), 7, now(&tpm), &[tpm_root(&tpm)]).unwrap();
    let values: Vec<_> =
        found.tpm().unwrap().quote().pcrs().unwrap().iter().map(|(bank, index, _)| (bank, index)).collect();
    assert_eq!(values, (0..12).map(|index| (HashAlg::Sha384, index)).collect::<Vec<_>>());
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_signed() {
    let Some(tpm) = Swtpm::start() else { return };
    let root = tempfile::tempdir().unwrap();
    let with = settings(&tpm);
    let authority = SimulatedRoot::generate(&[1; 32]);
    let attester = joined(Some(software(&authority)), &with, root.path()).unwrap();
    let refusal = |binding| attester.attest(&[binding], &posture()).unwrap_err();
    assert!(matches!(refusal(binding(7, None)), AttestError::AkName));
    let other_name = starminer_verify::AkName::from_bytes(&[1; 34]);
    assert!(matches!(refusal(binding(7, other_name)), AttestError::AkName));
    let mut other_boot = binding(7, attester.ak_name());
    other_boot.boot.0[0] ^= 1;
    assert!(matches!(refusal(other_boot), AttestError::Boot));
    assert!(matches!(attester.attest(&[], &posture()), Err(AttestError::EmptyBatch)));
    let (ek_name, ak_name) = {
        let tpm = attester.tpm().unwrap();
        (tpm.ek_name().to_vec(), tpm.ak_name().clone())
    };
    drop(attester);

    // The same key after a restart of the agent; another one for another label; another TPM not at all.
    let open = |change: &dyn Fn(&mut starminer_attester::NodeTpmSettings)| {
        let mut settings = settings(&tpm);
        change(&mut settings);
        NodeTpm::open(&settings)
    };
    let again = open(&|settings| settings.known_ek = KnownEk::Name(ek_name.clone())).unwrap();
    assert_eq!(again.ak_name(), &ak_name);
    drop(again);
    assert_ne!(open(&|settings| settings.label[0] ^= 1).unwrap().ak_name(), &ak_name);
    let error = open(&|settings| settings.known_ek = KnownEk::Name(vec![0; 34])).unwrap_err();
    assert!(matches!(error, DeviceError::Tpm(TpmError::OtherEndorsementKey)), "{error}");
    // The emulator's maker certifies no key of that template.
    let error = open(&|settings| settings.ek = Some(EkKind::P256)).unwrap_err();
    assert_eq!(error.code(), "device.uncertified");
    assert!(error.to_string().contains("p-256"), "{error}");
    let error = open(&|settings| settings.address = "unix:/nowhere/tpm.sock".parse().unwrap()).unwrap_err();
    assert_eq!(error.code(), "tpm.device.absent");
    // Certificates that are not of its chain are nobody's business.
    let strangers = open(&|settings| settings.certificates.reverse()).unwrap();
    assert_eq!(strangers.certificates().len(), 3);
    drop(strangers);
    assert_eq!(open(&|settings| settings.certificates.clear()).unwrap().certificates().len(), 1);

    let mut other_boot = BOOT;
    other_boot.0[0] ^= 1;
    let error = JoinedAttester::new(other_boot, Some(software(&authority).into()), None, "/").unwrap_err();
    assert_eq!(error.code(), "device.boot");
    assert_eq!(JoinedAttester::new(BOOT, None, None, "/").unwrap_err().code(), "device.none");
}
