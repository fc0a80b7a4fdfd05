//! Simulated hardware has one way in, as the software TEE has: the trust file names its very root, and the policy the same. These tests try the others.

use starminer_verify::{
    Decision, EvidenceKind as Kind, Policy, PolicyError, Provenance, SimulatedRootId, Tier, TrustAnchors, TrustStatus,
};

use crate::fixture::Random;
use crate::world::{World, refused_by};

const SETS: [&[Kind]; 6] = [
    &[Kind::SoftwareTee],
    &[Kind::SevSnp],
    &[Kind::Tdx],
    &[Kind::Sgx],
    &[Kind::SevSnp, Kind::Tpm],
    &[Kind::SevSnp, Kind::NvidiaGpu],
];

fn world(kinds: &[Kind]) -> World {
    if kinds.contains(&Kind::Tpm) { World::with_tpm() } else { World::new() }
}

/// The same 32 bytes as a root of every sort but its own.
fn of_other_sorts(root: &SimulatedRootId) -> Vec<SimulatedRootId> {
    let text = root.to_string();
    let (sort, hex) = text.split_once(':').unwrap();
    ["software-tee", "sev-snp", "intel", "tpm", "nvidia", "nvidia-rim"]
        .into_iter()
        .filter(|other| *other != sort)
        .map(|other| format!("{other}:{hex}").parse().unwrap())
        .collect()
}

#[test]
fn every_subset_of_the_roots_named_in_trust_file_and_policy() {
    for kinds in SETS {
        let world = world(kinds);
        let roots = world.roots(kinds);
        let evidence = world.evidence(kinds);
        let subset = |bits: usize| -> Vec<SimulatedRootId> {
            roots.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, root)| *root).collect()
        };
        let all = (1 << roots.len()) - 1;
        let mut verifier = world.verifier(kinds);
        for anchors in 0..=all {
            for accepted in 0..=all {
                verifier.anchors = TrustAnchors::makers().with_simulated_roots(subset(anchors)).unwrap();
                verifier.policy = world.policy(kinds, |fields| fields.accepted_simulated_roots = subset(accepted));
                let result = verifier.appraise(&evidence);
                match (anchors == all, accepted == all, result) {
                    (false, _, Err(refusal)) => {
                        let check = refusal.check();
                        assert!(matches!(check, "evidence.root-unknown" | "nvidia.rim-chain"), "{kinds:?}: {refusal}");
                    }
                    (true, true, Ok(result)) => {
                        assert_eq!(refused_by(&result), [""; 0], "{kinds:?}");
                        assert_eq!(result.tier(), Tier::Confidential);
                    }
                    (true, false, Ok(result)) => {
                        assert_eq!(result.tier(), Tier::None, "{kinds:?} {accepted:b}");
                        assert_eq!(result.status(), TrustStatus::Contraindicated);
                        assert!(refused_by(&result).iter().any(|name| name.ends_with(".root")), "{kinds:?}");
                        assert!(matches!(result.provenance(), Provenance::Simulated { .. }));
                    }
                    (_, _, result) => panic!("{kinds:?} {anchors:b} {accepted:b}: {result:?}"),
                }
            }
        }
    }
}

#[test]
fn a_root_of_one_sort_is_none_of_another() {
    for kinds in SETS {
        let world = world(kinds);
        let roots = world.roots(kinds);
        let evidence = world.evidence(kinds);
        for (at, root) in roots.iter().enumerate() {
            let mut named = roots.clone();
            named.remove(at);
            named.extend(of_other_sorts(root));
            let mut verifier = world.verifier(kinds);
            verifier.anchors = TrustAnchors::makers().with_simulated_roots(named.clone()).unwrap();
            let refusal = verifier.verify(&evidence).unwrap_err();
            assert!(matches!(refusal.check(), "evidence.root-unknown" | "nvidia.rim-chain"), "{kinds:?}: {refusal}");
            let mut verifier = world.verifier(kinds);
            verifier.policy = world.policy(kinds, |fields| fields.accepted_simulated_roots = named);
            assert_eq!(verifier.appraise(&evidence).unwrap().tier(), Tier::None, "{kinds:?} {root}");
        }
    }
}

/// A root that comes with the endorsements counts no more than one that comes with the evidence.
#[test]
fn endorsements_bring_no_trust() {
    use starminer_verify::{EndorsementKind, Endorsements};
    let world = World::with_tpm();
    let kinds = [Kind::SevSnp, Kind::Tpm];
    let mut snp = world.snp_part(&world.report_data());
    snp.certificates.pop();
    let mut tpm = world.tpm.part(&world.report_data());
    tpm.ek_certificates.pop();
    let evidence = world.encode(vec![(Kind::SevSnp, snp.encode()), (Kind::Tpm, tpm.encode())]);
    let mut files = world.endorsements();
    files.push((EndorsementKind::AmdCertificates, world.snp.ark().der().to_vec()));
    files.push((EndorsementKind::TpmCertificates, world.tpm.root.der().to_vec()));
    let mut verifier = world.verifier(&kinds);
    verifier.endorsements = Endorsements::new(files).unwrap();
    assert_eq!(verifier.appraise(&evidence).unwrap().decision(), Decision::Meets, "named, wherever it comes from");
    for (named, check) in [(&kinds[..1], "tpm-ek.chain"), (&kinds[1..], "snp.chain"), (&[], "snp.chain")] {
        verifier.anchors = TrustAnchors::makers().with_simulated_roots(world.roots(named)).unwrap();
        assert_eq!(verifier.verify(&evidence).unwrap_err().check(), check);
    }
}

#[test]
fn roots_of_hardware_have_one_spelling() {
    let hex = "ab".repeat(32);
    for sort in ["sev-snp", "intel", "tpm", "nvidia", "nvidia-rim"] {
        let text = format!("{sort}:{hex}");
        let root: SimulatedRootId = text.parse().unwrap();
        assert_eq!((root.to_string(), root.sort()), (text, sort));
        for bad in [
            format!("{sort}:{}", hex.to_uppercase()),
            format!("{sort}:{}", &hex[2..]),
            format!("{sort}:"),
            sort.to_owned(),
            format!(" {sort}:{hex}"),
            format!("{}:{hex}", sort.to_uppercase()),
            format!("{sort}:*"),
        ] {
            assert!(bad.parse::<SimulatedRootId>().is_err(), "{bad}");
        }
    }
    for text in ["maker:amd", "amd:genuine", "genuine", "sgx:", "tdx:", "gpu:"] {
        assert!(format!("{text}{hex}").parse::<SimulatedRootId>().is_err());
        let json = serde_json::to_string(Policy::confidential().fields()).unwrap();
        let named = format!(r#""accepted_simulated_roots":["{text}{hex}"]"#);
        let edited = json.replace(r#""accepted_simulated_roots":[]"#, &named);
        assert_eq!(Policy::parse(edited.as_bytes()).unwrap_err(), PolicyError::Malformed);
    }
}

/// Whatever a few bytes of evidence are turned into: it never becomes genuine, never better than it was, and never anybody else's.
#[test]
fn random_changes_gain_nothing() {
    let mut random = Random(7);
    for kinds in [&[Kind::SevSnp, Kind::Tpm, Kind::UefiLog, Kind::ImaLog][..], &[Kind::Tdx, Kind::CcLog], &[Kind::Sgx]]
    {
        let world = world(kinds);
        let verifier = world.verifier(kinds);
        let parts = world.parts(kinds);
        let truth = verifier.appraise(&world.encode(parts.clone())).unwrap();
        let mut refused = 0;
        const ROUNDS: usize = 60;
        for _ in 0..ROUNDS {
            let mut changed = parts.clone();
            let which = random.below(changed.len());
            let part = &mut changed[which].1;
            for _ in 0..=random.below(3) {
                let at = random.below(part.len());
                match random.below(4) {
                    0 => part[at] ^= 1 << random.below(8),
                    1 => part[at] = random.next().to_le_bytes()[0],
                    2 => part.truncate(at.max(1)),
                    _ => part.insert(at, random.next().to_le_bytes()[0]),
                }
            }
            match verifier.appraise(&world.encode(changed)) {
                Err(_) => refused += 1,
                Ok(result) => {
                    assert!(matches!(result.provenance(), Provenance::Simulated { .. }));
                    assert!(result.tier() <= truth.tier());
                    assert_eq!(result.binding(), truth.binding());
                }
            }
        }
        assert!(refused > ROUNDS * 3 / 4, "{kinds:?}: only {refused} of {ROUNDS} were refused");
    }
}
