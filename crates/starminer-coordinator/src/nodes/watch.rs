//! Continuous attestation: what the evidence of a node says, compared with what the evidence before said.
//!
//! Policy judges each evidence for itself. What shows only in the difference is here: that the machine was started anew, that a register
//! moved under a running agent, that an old state of the TPM was put back, that the host lost what was in force around it. Kept in memory: after a start of the coordinator, the first
//! evidence of each node is where the comparison begins, but for the TPM's counters, which are kept with the node.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use starminer_verify::{
    AkName, BootId, CHANGING_REGISTERS, Digest, HostMeasure, NodeId, Party, PostureItem, PostureState, Refusal,
    Verified, fallen_posture,
};

use crate::tasks::{ROLLED_BACK, TpmCounters};

/// Most nodes that are remembered; as many as there can be admitted by default.
const REMEMBERED: usize = 16_384;

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeState {
    boot: BootId,
    tpm: Option<TpmState>,
    host: Vec<PostureItem<HostMeasure>>,
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
        Self { boot: evidence.binding().boot, tpm, host: evidence.posture().host().to_vec() }
    }

    /// How far its TPM is.
    pub(super) fn counters(&self) -> Option<TpmCounters> {
        let tpm = self.tpm.as_ref()?;
        Some(TpmCounters {
            ak_name: Digest::of(tpm.ak_name.as_ref()?.as_bytes()),
            reset_count: tpm.reset_count,
            restart_count: tpm.restart_count,
            clock_ms: tpm.clock_ms,
        })
    }

    /// What was in force around this very start of the agent and is not any more. A node is not admitted with it: of its own word it was better. As
    /// nothing is admitted that is worse than what was admitted before, nothing that was ever in force is forgotten.
    fn fallen(&self, later: &Self) -> Option<Refusal> {
        if self.boot != later.boot {
            return None;
        }
        let before = self.host.iter().filter(|item| item.state() == PostureState::InForce);
        fallen_posture(&later.not_in_force(before.map(PostureItem::name)))
    }

    /// Which of these measures are not in force, and what is stated of them.
    pub(super) fn not_in_force(&self, names: impl IntoIterator<Item = HostMeasure>) -> Vec<PostureItem<HostMeasure>> {
        let stated = |name: HostMeasure| {
            let stated = self.host.iter().find(|item| item.name() == name);
            stated.cloned().unwrap_or_else(|| PostureItem::new(name, PostureState::NotChecked, "not stated"))
        };
        names.into_iter().map(stated).filter(|item| item.state() != PostureState::InForce).collect()
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

/// What a node is not admitted with, however good the rest is: that its TPM was further before.
fn rolled_back(before: &TpmCounters, later: &TpmCounters) -> Option<Refusal> {
    later.are_before(before).then(|| {
        let reason = format!(
            "the TPM's counters went back: resets {}, restarts {}, clock {} ms, and then {}, {}, {} ms",
            before.reset_count,
            before.restart_count,
            before.clock_ms,
            later.reset_count,
            later.restart_count,
            later.clock_ms
        );
        let remedy = "an old state of the TPM, or of the whole machine, was put back: go on with the newest, or let the node have a new TPM and a new identity";
        Refusal::new(Party::Node, ROLLED_BACK, reason, remedy)
    })
}

/// Starts of one node that are remembered after another took their place.
const REMEMBERED_STARTS: usize = 4;

/// The last state of each node.
#[derive(Debug, Default)]
pub(super) struct Watch {
    nodes: Mutex<HashMap<NodeId, Watched>>,
    /// How far the TPM of each node ever was, under each of the last keys that quoted it, the newest last.
    counters: Mutex<HashMap<NodeId, Vec<TpmCounters>>>,
}

/// Keys of one node whose counters are remembered.
const REMEMBERED_KEYS: usize = 4;

/// One of them makes room for a new node: whoever brings many makes others' forgotten one by one.
fn make_room<V>(all: &mut HashMap<NodeId, V>, node: &NodeId) {
    if all.len() >= REMEMBERED
        && !all.contains_key(node)
        && let Some(other) = all.keys().next().copied()
    {
        all.remove(&other);
    }
}

fn with_counters(mut known: Vec<TpmCounters>, newest: Option<TpmCounters>) -> Vec<TpmCounters> {
    if let Some(newest) = newest {
        known.retain(|counters| counters.ak_name != newest.ak_name);
        if known.len() >= REMEMBERED_KEYS {
            known.remove(0);
        }
        known.push(newest);
    }
    known
}

#[derive(Debug)]
struct Watched {
    state: NodeState,
    /// Starts of the agent that others took the place of, the newest last.
    replaced: VecDeque<BootId>,
}

impl Watch {
    /// Takes up what an earlier start of the coordinator kept.
    pub(super) fn restore(&self, node: NodeId, counters: Vec<TpmCounters>) {
        if counters.is_empty() {
            return;
        }
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).insert(node, counters);
    }

    /// Whether the TPM of this node was further before.
    pub(super) fn rolled_back(&self, node: &NodeId, later: &NodeState) -> Option<Refusal> {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let later = later.counters()?;
        counters.get(node)?.iter().find_map(|before| rolled_back(before, &later))
    }

    /// How far the TPM of this node is by all that is known of it: what evidence does not speak of stays as it was.
    pub(super) fn counters(&self, node: &NodeId, state: &NodeState) -> Vec<TpmCounters> {
        let kept = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        with_counters(kept.get(node).cloned().unwrap_or_default(), state.counters())
    }

    /// What happened since the last evidence of this node, if that was anything.
    pub(super) fn change(&self, node: &NodeId, later: &NodeState) -> Option<Refusal> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.get(node).and_then(|watched| watched.state.change(later))
    }

    /// What the host lost since the last evidence of this node that was admitted.
    pub(super) fn fallen(&self, node: &NodeId, later: &NodeState) -> Option<Refusal> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.get(node).and_then(|watched| watched.state.fallen(later))
    }

    /// Takes the new state, once the coordinator acted upon it. Returns whether this start of the agent had been followed by another: each
    /// is named at random, so that two processes are running with one identity.
    pub(super) fn keep(&self, node: NodeId, state: NodeState) -> bool {
        if let Some(counters) = state.counters() {
            let mut kept = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
            make_room(&mut kept, &node);
            let known = kept.remove(&node).unwrap_or_default();
            kept.insert(node, with_counters(known, Some(counters)));
        }
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut nodes, &node);
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
#[allow(clippy::unwrap_used)]
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
        NodeState { boot: BootId([1; 16]), tpm: Some(tpm), host: Vec::new() }
    }

    #[test]
    fn what_was_in_force_has_to_stay_so_under_one_start_of_the_agent() {
        use HostMeasure::{PtraceRestricted, SecureBoot, SwapOff};
        use PostureState::{Absent, InForce, NotChecked};
        let of = |boot: u8, host: &[(HostMeasure, PostureState)]| NodeState {
            boot: BootId([boot; 16]),
            host: host.iter().map(|(name, state)| PostureItem::new(*name, *state, "seen")).collect(),
            ..state()
        };
        let before = of(1, &[(SwapOff, InForce), (PtraceRestricted, Absent), (SecureBoot, InForce)]);
        let check = |boot, host: &[(HostMeasure, PostureState)]| {
            before.fallen(&of(boot, host)).map(|refusal| (refusal.check().to_owned(), refusal.reason().to_owned()))
        };
        let code = |host: &[(HostMeasure, PostureState)]| check(1, host).map(|(code, _)| code);
        assert_eq!(before.fallen(&before), None);
        assert_eq!(code(&[(SwapOff, InForce), (PtraceRestricted, NotChecked), (SecureBoot, InForce)]), None);
        assert_eq!(code(&[(SwapOff, InForce), (PtraceRestricted, InForce), (SecureBoot, InForce)]), None);
        let (code, reason) = check(1, &[(SwapOff, Absent), (SecureBoot, NotChecked)]).unwrap();
        assert_eq!(code, "node.posture-swap_off");
        assert_eq!(reason, "not in force any more: swap_off (seen), secure_boot (seen)");
        // What is not stated any more is not in force any more.
        let (code, reason) = check(1, &[(SwapOff, InForce)]).unwrap();
        assert_eq!(
            (code.as_str(), reason.as_str()),
            ("node.posture-secure_boot", "not in force any more: secure_boot (not stated)")
        );
        // The next start of the agent begins anew.
        assert_eq!(check(2, &[]), None);
    }

    #[test]
    fn what_a_node_does_not_survive() {
        type Alter = fn(&mut TpmState);
        let with = |alter: Alter| {
            let mut later = state();
            alter(later.tpm.as_mut().expect("it has one"));
            state().change(&later).map(|refusal| refusal.check().to_owned())
        };
        let codes: [(Alter, Option<&str>); 9] = [
            (|_| {}, None),
            (|tpm| tpm.clock_ms = 5_000, None),
            (|tpm| tpm.reset_count = 4, Some("node.new-boot")),
            (|tpm| (tpm.reset_count, tpm.clock_ms) = (4, 900), Some("node.new-boot")),
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
    fn a_tpm_that_was_further_before_is_an_old_state_put_back() {
        type Alter = fn(&mut TpmState);
        let node = NodeId(starminer_verify::PublicKey([1; 32]));
        let with = |alter: Alter| {
            let mut later = state();
            alter(later.tpm.as_mut().expect("it has one"));
            later
        };
        let (watch, restored) = (Watch::default(), Watch::default());
        assert_eq!(watch.rolled_back(&node, &state()), None, "nothing is known of it");
        watch.keep(node, state());
        // What the coordinator keeps is all that it needs after a start.
        restored.restore(node, watch.counters(&node, &state()));
        let cases: [(Alter, bool); 8] = [
            (|_| {}, false),
            (|tpm| tpm.clock_ms = 1_001, false),
            (|tpm| tpm.clock_ms = 999, true),
            (|tpm| tpm.reset_count = 2, true),
            (|tpm| tpm.restart_count = 0, true),
            (|tpm| (tpm.reset_count, tpm.restart_count, tpm.clock_ms) = (4, 0, 1), false),
            (|tpm| (tpm.reset_count, tpm.clock_ms) = (2, 9_000), true),
            // Another key: another TPM, or one that was cleared. It is enrolled anew.
            (|tpm| (tpm.ak_name, tpm.reset_count) = (AkName::from_bytes(&[0, 11, 6]), 0), false),
        ];
        for (place, (alter, is)) in cases.into_iter().enumerate() {
            for watch in [&watch, &restored] {
                let refusal = watch.rolled_back(&node, &with(alter));
                assert_eq!(refusal.is_some(), is, "{place}");
                assert!(refusal.is_none_or(|refusal| refusal.check() == ROLLED_BACK));
            }
        }
    }

    #[test]
    fn evidence_under_another_key_or_without_a_tpm_hides_nothing() {
        let node = NodeId(starminer_verify::PublicKey([1; 32]));
        let with = |key: u8, reset_count: u32| {
            let mut state = state();
            let tpm = state.tpm.as_mut().expect("it has one");
            (tpm.ak_name, tpm.reset_count) = (AkName::from_bytes(&[0, 11, key]), reset_count);
            state
        };
        let watch = Watch::default();
        watch.keep(node, with(5, 7));
        for between in [with(6, 1), NodeState { tpm: None, ..state() }] {
            watch.keep(node, between);
            assert_eq!(watch.rolled_back(&node, &with(5, 6)).unwrap().check(), ROLLED_BACK);
            assert_eq!(watch.rolled_back(&node, &with(5, 8)), None);
        }
        // What is written down says all of it, whatever the newest evidence speaks of.
        let restored = Watch::default();
        restored.restore(node, watch.counters(&node, &NodeState { tpm: None, ..state() }));
        assert!(restored.rolled_back(&node, &with(5, 6)).is_some());
        assert!(restored.rolled_back(&node, &with(6, 0)).is_some());
        // So many keys, and no more.
        for key in 10..20 {
            watch.keep(node, with(key, 3));
        }
        assert_eq!(watch.counters(&node, &state()).len(), REMEMBERED_KEYS);
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
