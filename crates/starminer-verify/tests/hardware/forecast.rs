//! When evidence stops meeting its policy: the second that is told is the first at which it does.

use starminer_hardware::endorsements::Key;
use starminer_hardware::endorsements::{Ages, Announced, Cause, Forecast, Hands};
use starminer_hardware::snp::{Product, SigningKey, TcbVersion};
use starminer_verify::{
    Evidence, EvidenceKind as Kind, HostMeasure, Kept, MinimumPosture, Outlook, Policy, Requirement, Selection, Tier,
    UnixTime, Verified, forecast,
};

use crate::fixture::{NOW, Verifier};
use crate::selection::Network;
use crate::snp_lab::Vek;
use crate::world::World;

const NOW_S: u64 = NOW.0 / 1000;
const DAY_S: u64 = 86_400;

fn plain(verified: &Verified, verifier: &Verifier, announced: &[Announced<Policy>]) -> Forecast {
    let (reference_values, policy) = (&verifier.reference_values, &verifier.policy);
    forecast(verified, &Outlook { reference_values, policy, announced, kept: None })
}

/// Verified again at the second before and at the one that is told.
#[track_caller]
fn is_the_day(verified: &Verified, told: &Forecast) {
    let first = told.first().unwrap();
    let at = |at_s: u64| verified.check_at(UnixTime(at_s * 1000)).is_ok();
    assert!(at(first.at_s - 1), "not yet: {first:?}");
    assert!(!at(first.at_s), "past it: {first:?}");
}

#[test]
fn each_kind_ends_on_the_day_that_is_told() {
    for kinds in [
        &[Kind::SevSnp][..],
        &[Kind::Tdx, Kind::CcLog],
        &[Kind::Sgx],
        &[Kind::SoftwareTee],
        &[Kind::SevSnp, Kind::NvidiaGpu],
    ] {
        let world = World::new();
        let verifier = world.verifier(kinds);
        let verified = verifier.verify(&world.evidence(kinds)).unwrap();
        let told = plain(&verified, &verifier, &[]);
        assert!(told.endings().iter().all(|ending| ending.at_s > NOW_S), "{kinds:?} {told:?}");
        is_the_day(&verified, &told);
        assert!(told.endings().is_sorted_by_key(|ending| ending.at_s));
    }
}

#[test]
fn a_tpm_alone_and_beside_a_tee() {
    for (kinds, tier) in [
        (&[Kind::Tpm, Kind::UefiLog, Kind::ImaLog][..], Tier::Measured),
        (&[Kind::SevSnp, Kind::Tpm, Kind::UefiLog, Kind::ImaLog], Tier::Confidential),
    ] {
        let mut world = World::tpm_alone(tier);
        world.state(&[HostMeasure::JobStorageEncrypted, HostMeasure::JobStorageLocked]);
        let verifier = world.verifier(kinds);
        let verified = verifier.verify(&world.evidence(kinds)).unwrap();
        let told = plain(&verified, &verifier, &[]);
        is_the_day(&verified, &told);
        // The list of the TPM's maker ends on the fifth day, the certificate on the tenth.
        let first = told.endings().iter().find(|ending| ending.reason.contains("TPM's endorsement key")).unwrap();
        assert_eq!(
            (first.at_s, first.cause, first.hands),
            (NOW_S + 5 * DAY_S + 1, Cause::RevocationList, Hands::Refresh)
        );
        let maker = told.endings().iter().find(|ending| ending.remedy.contains("enrol anew")).unwrap();
        assert_eq!((maker.at_s, maker.hands), (NOW_S + 10 * DAY_S + 1, Hands::Provider));
    }
}

#[test]
fn what_fails_today_and_under_policies_to_come() {
    let world = World::new();
    let kinds = [Kind::SevSnp];
    let mut verifier = world.verifier(&kinds);
    let verified = verifier.verify(&world.evidence(&kinds)).unwrap();
    let mut rules = world.rules.clone();
    rules.sev_snp.tcb_floor.values_mut().for_each(|floor| floor.microcode += 1);
    let next = world.policy(&kinds, |fields| fields.hardware = Some(Box::new(rules)));
    let announced = [Announced { from_s: NOW_S + DAY_S, policy: next.clone() }];
    let told = plain(&verified, &verifier, &announced);
    let first = told.first_for_provider().unwrap();
    assert_eq!((first.at_s, first.cause), (NOW_S + DAY_S, Cause::Announced));
    assert!(told.endings().iter().any(|ending| ending.reason.starts_with("snp.policy.tcb.reported: ")), "{told:?}");
    // The same policy today.
    verifier.policy = next;
    let told = plain(&verified, &verifier, &announced);
    let today = told.first().unwrap();
    assert_eq!((today.at_s, today.cause, today.hands), (NOW_S, Cause::Today, Hands::Provider));
    assert!(!told.endings().iter().any(|ending| ending.cause == Cause::Announced), "it is told once: {told:?}");
    assert_eq!(told.endings().iter().filter(|ending| ending.reason.starts_with("snp.policy.tcb.reported")).count(), 1);
    // Posture counts like anything else.
    verifier.policy = world.policy(&kinds, |fields| {
        fields.minimum_posture = MinimumPosture { sandbox: vec![], host: vec![HostMeasure::SwapOff] };
    });
    let told = plain(&verified, &verifier, &[]);
    assert!(told.first().unwrap().reason.starts_with("posture.host.swap_off: "), "{told:?}");
    // Old evidence is no fault of the node's: it makes it anew.
    verifier.expected.challenge_issued_at = UnixTime(NOW.0 - 3_600_000);
    verifier.policy = world.policy(&kinds, |_| {});
    let verified = verifier.verify(&world.evidence(&kinds)).unwrap();
    assert!(plain(&verified, &verifier, &[]).endings().iter().all(|ending| ending.cause != Cause::Today));
}

#[test]
fn a_facility_that_has_to_vouch() {
    let mut world = World::new();
    world.rules.chips.facility = Requirement::Required;
    let kinds = [Kind::SevSnp];
    let mut verifier = world.verifier(&kinds);
    let mut credential = world.facility(world.snp_chip());
    credential.not_after = UnixTime(NOW.0 + 30_500);
    verifier.enrolments.facilities = vec![credential];
    let verified = verifier.verify(&world.evidence(&kinds)).unwrap();
    let told = plain(&verified, &verifier, &[]);
    let first = told.first().unwrap();
    assert_eq!((first.at_s, first.cause), (NOW_S + 31, Cause::Certificate));
    assert!(first.reason.contains("facility"));
}

#[test]
fn endorsements_that_get_old() {
    let world = World::new();
    let mut network = Network::of(&world);
    let (product, signer) = (Product::Milan, SigningKey::Vcek);
    let certificates = world.snp.certificates(Vek::Chip);
    let authorities = [certificates[1].der(), world.snp.ark().der()].concat();
    let vcek = Key::AmdVcek { product, chip_id: world.snp.hardware_id.clone(), tcb: TcbVersion(world.snp.tcb) };
    network.add(Key::AmdChain { product, signer }, authorities, None);
    network.add(vcek.clone(), certificates[0].der().to_vec(), None);
    network.add(Key::AmdCrl { product, signer }, world.snp.crl().der().to_vec(), None);
    let mut part = world.snp_part(&world.report_data());
    part.certificates.clear();
    let bare = world.encode(vec![(Kind::SevSnp, part.encode())]);
    let ages = Ages {
        amd_crl: starminer_hardware::endorsements::Age { fetched_hours: 24, issued_hours: None },
        ..Ages::default()
    };
    let select = |now| Evidence::parse(&bare).unwrap().select_endorsements(&network.snapshot, &ages, now).unwrap();
    let selection: Selection = select(NOW);
    assert_eq!(selection.used.len(), 3, "{:?}", selection.used);
    let mut verifier = world.verifier(&[Kind::SevSnp]);
    verifier.endorsements = selection.endorsements.clone();
    let verified = verifier.verify(&bare).unwrap();
    let kept = Kept { selection: &selection, snapshot: &network.snapshot, ages: &ages };
    let (reference_values, policy) = (&verifier.reference_values, &verifier.policy);
    let told = forecast(&verified, &Outlook { reference_values, policy, announced: &[], kept: Some(kept) });
    let first = told.first().unwrap();
    // Fetched a minute ago, and for a day.
    assert_eq!((first.at_s, first.cause, first.hands), (NOW_S - 60 + DAY_S + 1, Cause::Age, Hands::Refresh));
    assert!(first.reason.contains("amd/crl/milan/vcek"), "{}", first.reason);
    // From that second on it is not selected any more, and its absence refuses.
    assert!(select(UnixTime((first.at_s - 1) * 1000)).missing.is_empty());
    assert_eq!(select(UnixTime(first.at_s * 1000)).missing.len(), 1);
}
