//! Continuous attestation: what the evidence of a node says, compared with what the evidence before said.
//!
//! Policy judges each evidence for itself. What shows only in the difference is here: that the machine was started anew, that a register
//! moved under a running agent, that a clock went back. Kept in memory: after a start of the coordinator, the first evidence of each
//! node is where the comparison begins.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use starminer_verify::{AkName, BootId, CHANGING_REGISTERS, NodeId, Party, Refusal, Verified};

/// Most nodes that are remembered; as many as there can be admitted by default.
const REMEMBERED: usize = 16_384;

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeState {
    boot: BootId,
    tpm: Option<TpmState>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct TpmState {
    ak_name: Option<AkName>,
    reset_count: u32,
    restart_count: u32,
    clock_ms: u64,
    registers: BTreeMap<(&'static str, u8), Vec<u8>>,
    violations: usize,
}

impl NodeState {
    /// Out of verified evidence.
    pub(super) fn of(evidence: &Verified) -> Self {
        let tpm = evidence.tpm().map(|claims| {
            let clock = claims.quote().clock();
            let values = claims.quote().pcrs().into_iter().flat_map(|values| values.iter());
            let registers = values
                .filter(|(_, index, _)| !CHANGING_REGISTERS.contains(index))
                .map(|(bank, index, value)| ((bank.name(), index), value.to_vec()));
            TpmState {
                ak_name: evidence.binding().ak_name.clone(),
                reset_count: clock.reset_count,
                restart_count: clock.restart_count,
                clock_ms: clock.clock_ms,
                registers: registers.collect(),
                violations: claims.ima().map_or(0, starminer_verify::parts::ImaClaims::violations),
            }
        });
        Self { boot: evidence.binding().boot, tpm }
    }

    /// What happened between the two that a node does not survive; the later state may be admitted for itself.
    fn change(&self, later: &Self) -> Option<Refusal> {
        let changed = |check: &'static str, reason: String, remedy: &'static str| {
            Some(Refusal::new(Party::Node, check, reason, remedy))
        };
        let (Some(before), after) = (&self.tpm, &later.tpm) else { return None };
        let Some(after) = after else {
            let remedy = "give the agent its TPM back";
            return changed("node.tpm-gone", "the TPM takes no part in the evidence any more".into(), remedy);
        };
        if before.ak_name != after.ak_name {
            let remedy = "if the TPM was replaced or cleared on purpose, nothing: it is enrolled anew";
            return changed("node.other-tpm-key", "another TPM key quotes than before".into(), remedy);
        }
        if (before.reset_count, before.restart_count) != (after.reset_count, after.restart_count) {
            let reason = format!(
                "the machine was started anew: resets {} and then {}, restarts {} and then {}",
                before.reset_count, after.reset_count, before.restart_count, after.restart_count
            );
            let remedy = "if the restart was meant, nothing: the node is admitted again by its new evidence";
            return changed("node.new-boot", reason, remedy);
        }
        if after.clock_ms < before.clock_ms {
            let remedy = "look for an exchanged or restored TPM";
            return changed("node.tpm-clock", "the TPM's clock went back without a reset".into(), remedy);
        }
        // One that is not quoted any more may have changed as well.
        let moved = before.registers.iter().find(|(name, value)| after.registers.get(name) != Some(value));
        if let Some(((bank, index), _)) = moved {
            let reason =
                format!("PCR {index} of bank {bank} changed, or is not quoted any more, while the machine ran");
            return changed("node.pcr-changed", reason, "find out what measured into it, and start the machine anew");
        }
        if after.violations > before.violations {
            let reason = format!("IMA saw {} more violations", after.violations - before.violations);
            let remedy = "find the file that was written while it was open or measured, and start the machine anew";
            return changed("node.ima-violation", reason, remedy);
        }
        None
    }
}

/// Starts of one node that are remembered after another took their place.
const REMEMBERED_STARTS: usize = 4;

/// The last state of each node.
#[derive(Debug, Default)]
pub(super) struct Watch {
    nodes: Mutex<HashMap<NodeId, Watched>>,
}

#[derive(Debug)]
struct Watched {
    state: NodeState,
    /// Starts of the agent that others took the place of, the newest last.
    replaced: VecDeque<BootId>,
}

impl Watch {
    /// What happened since the last evidence of this node, if that was anything.
    pub(super) fn change(&self, node: &NodeId, later: &NodeState) -> Option<Refusal> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.get(node).and_then(|watched| watched.state.change(later))
    }

    /// Takes the new state, once the coordinator acted upon it. Returns whether this start of the agent had been followed by another: each
    /// is named at random, so that two processes are running with one identity.
    pub(super) fn keep(&self, node: NodeId, state: NodeState) -> bool {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if nodes.len() >= REMEMBERED && !nodes.contains_key(&node) {
            nodes.clear();
        }
        let boot = state.boot;
        let mut replaced = VecDeque::new();
        if let Some(before) = nodes.remove(&node) {
            replaced = before.replaced;
            if before.state.boot != boot {
                if replaced.len() == REMEMBERED_STARTS {
                    replaced.pop_front();
                }
                replaced.push_back(before.state.boot);
            }
        }
        let returned = replaced.contains(&boot);
        nodes.insert(node, Watched { state, replaced });
        returned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> NodeState {
        let registers = [(("sha256", 0), vec![1; 32]), (("sha256", 7), vec![2; 32])].into_iter().collect();
        let tpm = TpmState {
            ak_name: AkName::from_bytes(&[0, 11, 5]),
            reset_count: 3,
            restart_count: 1,
            clock_ms: 1_000,
            registers,
            violations: 0,
        };
        NodeState { boot: BootId([1; 16]), tpm: Some(tpm) }
    }

    #[test]
    fn what_a_node_does_not_survive() {
        type Alter = fn(&mut TpmState);
        let with = |alter: Alter| {
            let mut later = state();
            alter(later.tpm.as_mut().expect("it has one"));
            state().change(&later).map(|refusal| refusal.check().to_owned())
        };
        let codes: [(Alter, Option<&str>); 10] = [
            (|_| {}, None),
            (|tpm| tpm.clock_ms = 5_000, None),
            (|tpm| tpm.clock_ms = 999, Some("node.tpm-clock")),
            (|tpm| tpm.reset_count = 4, Some("node.new-boot")),
            (|tpm| tpm.reset_count = 2, Some("node.new-boot")),
            (|tpm| tpm.restart_count = 2, Some("node.new-boot")),
            (|tpm| drop(tpm.registers.insert(("sha256", 7), vec![3; 32])), Some("node.pcr-changed")),
            (|tpm| drop(tpm.registers.remove(&("sha256", 0))), Some("node.pcr-changed")),
            (|tpm| tpm.violations = 1, Some("node.ima-violation")),
            (|tpm| tpm.ak_name = AkName::from_bytes(&[0, 11, 6]), Some("node.other-tpm-key")),
        ];
        for (alter, code) in codes {
            assert_eq!(with(alter).as_deref(), code);
        }
        let without = NodeState { tpm: None, ..state() };
        assert_eq!(
            state().change(&without).map(|refusal| refusal.check().to_owned()).as_deref(),
            Some("node.tpm-gone")
        );
        assert_eq!(without.change(&state()), None);
        assert_eq!(without.change(&NodeState { boot: BootId([2; 16]), ..without.clone() }), None);
    }

    #[test]
    fn two_processes_with_one_identity_take_turns() {
        let watch = Watch::default();
        let node = NodeId(starminer_verify::PublicKey([1; 32]));
        let start = |number: u8| watch.keep(node, NodeState { boot: BootId([number; 16]), ..state() });
        // One process at a time, started over and over.
        assert!((1..100).all(|number| !start(number)));
        // It renews.
        assert!(!start(99));
        // A second one beside it.
        assert!(!start(200));
        assert!(start(99));
        assert!(start(200));
        // Other nodes are none of this one.
        assert!(
            !watch.keep(NodeId(starminer_verify::PublicKey([2; 32])), NodeState { boot: BootId([99; 16]), ..state() })
        );
    }
}
