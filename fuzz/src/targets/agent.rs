//! The target of `starminer-agent`: the channel's messages, in both directions.

use starminer_agent::testing::{FromTask, Phase, ToTask};

use super::json_round_trip;
use crate::Outcome;
use crate::seeds::Seed;
use crate::world::{self, Ending, world};

/// Phases in their order.
const PHASES: [Phase; 7] =
    [Phase::Starting, Phase::Waiting, Phase::Leased, Phase::Keyed, Phase::Opening, Phase::Running, Phase::Reported];

pub fn messages(data: &[u8]) -> Outcome {
    let to = json_round_trip::<ToTask>(data);
    let from = json_round_trip::<FromTask>(data);
    let Some(from) = from else {
        return match to {
            Some(to) => Outcome::accepted(std::mem::discriminant(&to)),
            None => Outcome::refused("form"),
        };
    };
    assert!(to.is_none(), "a message goes one way");
    let after = PHASES.map(|phase| phase.after(&from));
    for (phase, after) in PHASES.into_iter().zip(after) {
        assert!(after.is_none_or(|after| after >= phase), "a process goes back to an earlier phase");
    }
    assert_eq!(Phase::Reported.after(&from), None, "there is nothing to say after the report");
    Outcome::accepted(after.map(|after| after.map(|after| after as u8)))
}

pub(crate) fn seeds() -> Vec<Seed> {
    let receipt = &world().story(Ending::Completed).receipt;
    let (lease, challenge, grant) = (receipt.lease.clone(), receipt.challenge.clone(), receipt.grant.clone());
    let (Some(lease), Some(challenge), Some(grant), Some(report)) = (lease, challenge, grant, receipt.report.clone())
    else {
        unreachable!("it completed")
    };
    let refusal =
        starminer_verify::Refusal::new(starminer_verify::Party::Requester, "spec.expired", "expired", "submit again");
    let digest = starminer_verify::Digest([9; 32]);
    let record =
        starminer_agent::testing::CompiledRecord { component: digest, adapter: Some(digest), compiled: digest };
    let to = [
        ("lease", ToTask::Lease { spec: lease.clone(), lease }),
        ("objects", ToTask::Objects { first: 0 }),
        ("grant", ToTask::Grant { challenge, grant }),
        ("compiled", ToTask::Compiled { found: Some(record) }),
    ];
    let key = world::task_key().public_key().to_vec();
    let from = [
        ("ready", FromTask::Ready { in_force: "seccomp\n".into() }),
        ("keys", FromTask::Keys { task_key: key.into(), report_key: world::requester_public() }),
        ("lease-refused", FromTask::LeaseRefused { refusal }),
        ("grant-taken", FromTask::GrantTaken),
        ("compiled-made", FromTask::CompiledMade { key: digest, record }),
        ("outputs-wanted", FromTask::OutputsWanted { count: 3 }),
        ("checkpoint", FromTask::Checkpoint { statement: report.clone() }),
        ("report", FromTask::Report { report }),
    ];
    let json = |bytes: Result<Vec<u8>, serde_json::Error>| bytes.expect("messages are JSON");
    let to = to.into_iter().map(|(name, message)| (name, json(serde_json::to_vec(&message))));
    let from = from.into_iter().map(|(name, message)| (name, json(serde_json::to_vec(&message))));
    to.chain(from).map(|(name, bytes)| ("agent-messages", name.to_owned(), bytes)).collect()
}
