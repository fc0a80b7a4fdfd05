//! From the challenge to the grant: what the node proved, by whose rules, and what it was given for that.

use starminer_verify::{
    AttestationResult, Challenge, Context, Decision, Digest, Evidence, Expect, Expected, ExpectedPurpose, Refusal,
    TrustAnchors, UnixTime, Verdict, Verified, Weight, appraise, verify,
};

use super::log::Entries;
use super::{ClaimVerdict, Validity, Verifier, Voucher};
use crate::dsse::{Base64Bytes, Signed};
use crate::endorsement_set::{EndorsementSet, EndorsementSetError, OpenedSet};
use crate::entry::EntryKind;
use crate::network::NetworkTrust;
use crate::spec::TaskSpec;
use crate::statements::{ChallengeStatement, Grant, Lease, ReleaseStatement};

/// The attempt that a receipt is about.
pub(super) struct Run<'a> {
    pub(super) spec: &'a Signed<TaskSpec>,
    pub(super) lease: &'a Signed<Lease>,
    pub(super) entries: &'a Entries,
}

/// The appraisal's check of the agent's measurement against reference values.
const MEASUREMENT: &str = "device.measurement";

/// The code of a refusal for a root that is not among the anchors.
const ROOT_UNKNOWN: &str = "evidence.root-unknown";

impl Verifier<'_> {
    /// Challenge, evidence, appraisal, release and grant of the attempt.
    pub(super) fn attestation(&mut self, run: &Run<'_>) -> Option<Verified> {
        let receipt = self.receipt;
        let (spec, lease) = (run.spec, run.lease);
        let challenge =
            self.open::<ChallengeStatement>("challenge", Voucher::Releaser, receipt.challenge.as_ref(), |challenge| {
                if challenge.lease != lease.digest()
                    || challenge.task != spec.task
                    || challenge.attempt != lease.attempt
                {
                    return Err("the challenge is for another attempt".into());
                }
                if challenge.releaser != spec.releaser {
                    return Err("the challenge is not signed by the releaser that the spec names".into());
                }
                Ok("a fresh challenge was issued for this attempt alone".into())
            })?;
        let Some(Base64Bytes(evidence_bytes)) = &receipt.evidence else {
            self.claim("evidence", ClaimVerdict::NotClaimed, Voucher::Hardware, "no evidence in this receipt");
            return None;
        };
        let evidence_digest = Digest::of(evidence_bytes);
        self.logged("evidence-logged", run.entries, EntryKind::Attested, evidence_digest);
        self.endorsements(spec)?;

        let release =
            self.open::<ReleaseStatement>("release", Voucher::Releaser, receipt.release.as_ref(), |release| {
                let result = receipt.attestation_result.as_ref();
                release_links(release, run, evidence_digest, &challenge, result, receipt.grant.is_some())
            });
        // A denied attempt has no release entry: its evidence is judged at the time of the denial, else of the challenge.
        let log_time = match &release {
            Some(release) => {
                self.logged("release-logged", run.entries, EntryKind::Released, release.digest());
                run.entries.find(EntryKind::Released, release.digest()).map(|(_, entry)| entry.at)
            }
            None => run.entries.find(EntryKind::Attested, evidence_digest).map(|(_, entry)| entry.at),
        };
        self.verdict.log_time = log_time;
        let then = log_time.unwrap_or(challenge.issued_at);
        let issued_at = release.as_ref().map_or(challenge.issued_at, |release| issued_by_log(release, then));
        let challenge = (challenge.challenge, issued_at);
        let verified = self.evidence(run, evidence_bytes, challenge, then, release.is_some())?;
        if release.is_some() {
            self.grant(run, &verified, release.as_ref());
        }
        Some(verified)
    }

    /// What the evidence is verified with: it has to be what the releaser used. `None` where it is broken.
    fn endorsements(&mut self, spec: &TaskSpec) -> Option<()> {
        const NAME: &str = "endorsements";
        let receipt = self.receipt;
        let opened = receipt.endorsements.as_ref().map(|bytes| {
            let set = EndorsementSet::parse(&bytes.0)?;
            Ok::<_, EndorsementSetError>((set.open(spec.network, spec.counts())?, set.enrollers()))
        });
        let enrollers = match opened.transpose() {
            Ok(Some((opened, enrollers))) => {
                self.support = opened;
                enrollers
            }
            Ok(None) => Vec::new(),
            Err(error) => {
                self.claim(NAME, ClaimVerdict::Refuted, Voucher::Releaser, error);
                return None;
            }
        };
        let used = receipt.attestation_result.as_ref().and_then(|result| endorsements_of(&result.0));
        let digest = self.support.endorsements.digest();
        match (used, &receipt.endorsements) {
            (Some(used), _) if used != digest => {
                let statement = "the releaser's attestation result names other endorsements than these";
                self.claim(NAME, ClaimVerdict::Refuted, Voucher::Releaser, statement);
                return None;
            }
            (_, None) => self.claim(NAME, ClaimVerdict::NotClaimed, Voucher::Releaser, "the evidence came without any"),
            (Some(_), Some(_)) => {
                let statement = format!("the releaser used these very endorsements, digest {digest}");
                self.check(NAME, Voucher::Releaser, Ok(statement));
            }
            (None, Some(_)) => {
                let statement = "makers' endorsements and enrolments came with the evidence";
                self.check(NAME, Voucher::Coordinator, Ok(statement.into()));
            }
        }
        let own = self.trust.map_or(&[][..], |trust| &trust.enrollers);
        let counted: Vec<_> = enrollers.iter().filter(|key| spec.enrollers.contains(key)).collect();
        if let Some(stranger) = counted.iter().find(|key| !own.contains(key)) {
            let statement =
                format!("enrolled by {stranger}, whom the requester's spec names and your trust file does not");
            self.claim("enrolment", ClaimVerdict::Unanchored, Voucher::Enroller, statement);
        } else if let Some(enroller) = counted.first() {
            let statement = format!("enrolled by {enroller}, whom your trust file names");
            self.claim("enrolment", ClaimVerdict::Proven, Voucher::Enroller, statement);
        }
        Some(())
    }

    fn evidence(
        &mut self,
        run: &Run<'_>,
        bytes: &[u8],
        (challenge, challenge_issued_at): (Challenge, UnixTime),
        then: UnixTime,
        released: bool,
    ) -> Option<Verified> {
        let expected = Expected {
            network: run.spec.network,
            challenge,
            challenge_issued_at,
            purpose: ExpectedPurpose::Task { spec: run.spec.digest(), attempt: run.lease.attempt },
            node: run.lease.node,
            boot: Expect::Any,
            task_key: Expect::Any,
            report_key: Expect::Any,
            agent_key: Expect::Any,
            tls_key: Expect::Any,
            posture: Expect::Any,
        };
        let verified = self.verify_evidence("evidence", run.spec, bytes, &expected, then)?;
        self.verdict.valid_now = Some(match verified.check_at(self.now) {
            Ok(()) => Validity::Valid,
            Err(refusal) => Validity::Invalid(refusal.reason().to_string()),
        });
        self.verdict.provenance = Some(verified.provenance());
        let result = appraise(&verified, &run.spec.reference_values, &run.spec.policy);
        self.verdict.tier = Some(result.tier());
        self.appraisal(&result, released);
        self.reference_values(run, &verified);
        Some(verified)
    }

    /// Verifies evidence at a time. A root that only the spec names makes it, and whatever rests on it, unanchored.
    pub(super) fn verify_evidence(
        &mut self,
        name: &'static str,
        spec: &TaskSpec,
        bytes: &[u8],
        expected: &Expected,
        then: UnixTime,
    ) -> Option<Verified> {
        let own = own_anchors(self.trust);
        let support = &self.support;
        let (result, anchored) = match verify_at(bytes, expected, &own, support, then) {
            Err(refusal) if refusal.check() == ROOT_UNKNOWN => {
                (verify_at(bytes, expected, &own_and_spec_anchors(self.trust, spec), support, then), false)
            }
            result => (result, true),
        };
        match result {
            Ok(verified) => {
                self.verdict.valid_then = Some(Validity::Valid);
                self.evidence_anchored &= anchored;
                if anchored {
                    let statement = format!(
                        "node {} signed for this very attempt and these very keys; provenance {}",
                        expected.node,
                        verified.provenance()
                    );
                    self.claim(name, ClaimVerdict::Proven, Voucher::Hardware, statement);
                } else {
                    let statement = "the evidence chains to a root that the spec names and your trust file does not";
                    self.claim(name, ClaimVerdict::Unanchored, Voucher::Hardware, statement);
                }
                Some(verified)
            }
            Err(refusal) if refusal.check() == ROOT_UNKNOWN => {
                let statement = "the evidence chains to a root that neither the spec nor your trust file names";
                self.claim(name, ClaimVerdict::Refuted, Voucher::Hardware, statement);
                None
            }
            Err(refusal) => {
                self.verdict.valid_then = Some(Validity::Invalid(refusal.reason().to_string()));
                let statement = format!("{}: {}", refusal.check(), refusal.reason());
                self.claim(name, ClaimVerdict::Refuted, Voucher::Hardware, statement);
                None
            }
        }
    }

    /// The spec's policy, applied again. The result is worth what the evidence is worth.
    fn appraisal(&mut self, result: &AttestationResult, released: bool) {
        let (verdict, voucher) = match (self.evidence_anchored, self.trust) {
            (true, Some(_)) => (ClaimVerdict::Proven, Voucher::Verifier),
            (true, None) => (ClaimVerdict::Proven, Voucher::Hardware),
            (false, _) => (ClaimVerdict::Unanchored, Voucher::Requester),
        };
        match result.decision() {
            Decision::Meets => {
                let statement = format!("the evidence meets the requester's policy: tier {}", result.tier());
                self.claim("appraisal", verdict, voucher, statement);
            }
            Decision::Fails(reasons) => {
                let first = reasons
                    .first()
                    .map_or_else(String::new, |reason| format!("{}: {}", reason.check(), reason.reason()));
                if released {
                    let statement =
                        format!("released although the evidence does not meet the requester's policy ({first})");
                    self.claim("appraisal", ClaimVerdict::Refuted, voucher, statement);
                } else {
                    self.claim("appraisal", verdict, voucher, format!("rightly denied ({first})"));
                }
            }
        }
    }

    fn reference_values(&mut self, run: &Run<'_>, verified: &Verified) {
        let Some(trust) = self.trust else { return };
        let own = appraise(verified, &trust.reference_values, &run.spec.policy);
        // The measurement alone: evidence that was rightly denied for something else may still be of a known agent.
        let measurement = own.checks().iter().find(|check| check.name() == MEASUREMENT);
        let is_named = measurement.is_some_and(|check| check.verdict() == Verdict::Pass);
        if !is_named && measurement.is_some_and(|check| check.weight() == Weight::Informative) {
            let statement = "the policy asks for nothing about what runs on the node";
            self.claim("reference-values", ClaimVerdict::NotClaimed, Voucher::Verifier, statement);
        } else if is_named {
            let statement = "the agent's measurement is one that your reference values name";
            self.claim("reference-values", ClaimVerdict::Proven, Voucher::Verifier, statement);
        } else {
            let statement =
                "the agent's measurement is not one that your reference values name; the requester's spec alone does";
            self.claim("reference-values", ClaimVerdict::Unanchored, Voucher::Requester, statement);
        }
    }

    fn grant(&mut self, run: &Run<'_>, verified: &Verified, release: Option<&Signed<ReleaseStatement>>) {
        let entries = run.entries;
        let task_key = verified.binding().task_key.as_ref().map(starminer_verify::TaskKey::digest);
        let grant = self.open::<Grant>("grant", Voucher::Releaser, self.receipt.grant.as_ref(), |grant| {
            let Some(release) = release else { return Err("a grant without a release".into()) };
            let links = grant.release == release.digest()
                && grant.spec == run.spec.digest()
                && grant.lease == run.lease.digest()
                && grant.task == run.spec.task
                && grant.attempt == run.lease.attempt
                && grant.evidence == release.evidence
                && grant.policy == release.policy;
            if !links {
                return Err("the grant is for another release".into());
            }
            if grant.releaser != run.spec.releaser {
                return Err("the grant is not signed by the releaser that the spec names".into());
            }
            if Some(release.task_key) != task_key {
                return Err("the release names another task key than the evidence".into());
            }
            match entries.find(EntryKind::Released, release.digest()) {
                Some((index, _)) if *index == grant.release_index => {
                    Ok("the key was sealed to the attested task key, after the release was in the log".into())
                }
                _ => Err("the grant names another place in the log than its release has".into()),
            }
        });
        if let Some(grant) = grant {
            self.logged("grant-logged", entries, EntryKind::Granted, grant.digest());
        }
    }
}

/// The makers' roots and those simulated ones that the verifier's trust file names.
fn own_anchors(trust: Option<&NetworkTrust>) -> TrustAnchors {
    let roots = trust.into_iter().flat_map(NetworkTrust::simulated_root_ids);
    TrustAnchors::makers().with_simulated_roots(roots).unwrap_or_else(|_| TrustAnchors::makers())
}

/// The same and those that the requester's signed policy names: enough to check links by, never to prove a claim.
fn own_and_spec_anchors(trust: Option<&NetworkTrust>, spec: &TaskSpec) -> TrustAnchors {
    let own = own_anchors(trust);
    let named = spec.policy.fields().accepted_simulated_roots.iter().copied();
    own.clone().with_simulated_roots(named).unwrap_or(own)
}

fn verify_at(
    bytes: &[u8],
    expected: &Expected,
    anchors: &TrustAnchors,
    support: &OpenedSet,
    now: UnixTime,
) -> Result<Verified, Refusal> {
    let evidence = Evidence::parse(bytes).map_err(Refusal::from)?;
    verify(
        evidence,
        &Context {
            expected: expected.clone(),
            endorsements: &support.endorsements,
            trust_anchors: anchors,
            enrolments: &support.enrolments,
            now,
        },
    )
}

/// Which endorsements an attestation result (EAR JSON) says were used.
fn endorsements_of(ear: &[u8]) -> Option<Digest> {
    let ear: serde_json::Value = serde_json::from_slice(ear).ok()?;
    let submodule = ear.get("submods")?.as_object()?.values().next()?;
    serde_json::from_value(submodule.get("ear_starminer_endorsements")?.clone()).ok()
}

/// When the challenge was issued, on the log's clock: as long before the release was logged as, by the releaser's clock, the decision came
/// after the challenge. The two clocks are never compared, so that a coordinator whose clock is wrong refutes nobody's receipt.
fn issued_by_log(release: &ReleaseStatement, logged_at: UnixTime) -> UnixTime {
    match release.decided_at.since(release.challenge_issued_at) {
        Some(age) => UnixTime(logged_at.0.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))),
        // Decided before it was asked for: no age is right.
        None => UnixTime(u64::MAX),
    }
}

fn release_links(
    release: &ReleaseStatement,
    run: &Run<'_>,
    evidence: Digest,
    challenge: &ChallengeStatement,
    attestation_result: Option<&Base64Bytes>,
    granted: bool,
) -> Result<String, String> {
    let links = release.task == run.spec.task
        && release.attempt == run.lease.attempt
        && release.node == run.lease.node
        && release.spec == run.spec.digest()
        && release.lease == run.lease.digest()
        && release.challenge == challenge.challenge
        && release.challenge_issued_at == challenge.issued_at
        && release.evidence == evidence
        && release.policy == run.spec.policy.digest();
    if !links {
        return Err("the release is of another attempt, evidence or policy".into());
    }
    if release.releaser != run.spec.releaser {
        return Err("the release is not signed by the releaser that the spec names".into());
    }
    match attestation_result {
        Some(result) if Digest::of(&result.0) == release.attestation_result => {
            Ok("the releaser appraised this very evidence by the spec's policy and released".into())
        }
        Some(_) => Err("the attestation result is not the one that the release names".into()),
        // It is handed over with the grant: a releaser that ended in between leaves a release of which nothing came.
        None if !granted && !run.entries.has(EntryKind::Granted, run.lease.attempt) => {
            Ok("the releaser approved this very evidence; it ended before it granted anything".into())
        }
        None => Err("the attestation result that the release names is missing".into()),
    }
}
