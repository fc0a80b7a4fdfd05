// expect: E0063
use starminer_verify::*;

fn forget(network: NetworkId, challenge: Challenge, node: NodeId, now: UnixTime) -> Expected {
    Expected {
        network,
        challenge,
        challenge_issued_at: now,
        purpose: ExpectedPurpose::Admission,
        node,
        boot: Expect::Any,
        task_key: Expect::Any,
        report_key: Expect::Any,
        agent_key: Expect::Any,
        posture: Expect::Any,
    }
}

fn main() {
    let _ = forget as usize;
}
