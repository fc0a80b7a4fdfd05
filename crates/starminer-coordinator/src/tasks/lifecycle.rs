//! What happens without anybody's statement: leases are given and run out, nodes go away, specs expire, and the coordinator says in
//! a report of its own why a task failed.

use std::sync::Arc;

use starminer_receipt::{Envelope, Lease, Outcome, Report, ReportAuthor, ReportPredicate, Signer};
use starminer_verify::{Attempt, BootId, NodeId, PublicKey, Refusal, TaskId};
use starminer_wire::TaskState;

use super::event::{EventBody, Settles};
use super::machine::Tasks;
use super::queue::{Offer, QueueKey, Standing};
use super::steps::because;
use super::task::Task;
use crate::clock::Now;

/// Most overdue steps that one tick deals with; the rest follow with the next.
const TICK_BOUND: usize = 256;

/// The machine's signer as a sized type.
struct ByRef<'s>(&'s (dyn Signer + Send + Sync));

impl Signer for ByRef<'_> {
    fn public_key(&self) -> PublicKey {
        self.0.public_key()
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }
}

impl Tasks {
    /// Gives waiting tasks to waiting nodes. Called once after the commands of a batch.
    pub fn assign(&mut self, now: Now) {
        if self.offers.is_empty() || self.queue.is_empty() {
            return;
        }
        let queue: Vec<QueueKey> = self.queue.iter().copied().collect();
        for key in queue {
            if self.offers.is_empty() {
                return;
            }
            let Some(task) = self.tasks.get(&key.task).cloned() else { continue };
            if now.wall >= task.spec.expires_at {
                continue; // the next tick ends it
            }
            if let Some((node, offer)) = self.choose(&task, now) {
                self.lease(&task, node, offer, now);
            }
        }
    }

    /// The suitable node that has a checkpoint of the task, the newest that is known before any other. Else that one is waited for, for a while; else
    /// the one with the most free places, and one whose last attempt at this task failed only if there is no other.
    fn choose(&self, task: &Task, now: Now) -> Option<(NodeId, Offer)> {
        let failed = task.failed_node();
        let holder = task.holder();
        let suits = |node: &NodeId| self.nodes.get(node).is_some_and(|standing| standing.suits(&task.spec.policy, now));
        let offers = || self.offers.iter().filter(|(node, _)| suits(node));
        let keeps_state = task.spec.limits.state_bytes > 0;
        // A checkpoint that its task refused is no reason to go back.
        let tried = keeps_state && holder.is_none() && task.checkpoint.is_some();
        if keeps_state && !tried {
            let has = offers()
                .filter(|(node, offer)| task.may_be_held_by(**node) && offer.holds.binary_search(&task.id).is_ok());
            if let Some((node, offer)) = has.max_by_key(|(node, _)| (Some(**node) == holder, std::cmp::Reverse(**node)))
            {
                return Some((*node, offer.clone()));
            }
            let ended_ms = task.attempts.last().map_or(0, |last| last.since_ms);
            let waits = now.mono_ms < ended_ms.saturating_add(self.waits.resume_ms);
            // One that is here and says that it has none has lost it.
            let comes = |holder: NodeId| task.may_be_held_by(holder) && !self.offers.contains_key(&holder);
            if waits && holder.is_some_and(comes) {
                return None;
            }
        }
        offers()
            .max_by_key(|(node, offer)| (Some(**node) != failed, offer.free_places, std::cmp::Reverse(**node)))
            .map(|(node, offer)| (*node, offer.clone()))
    }

    fn lease(&mut self, task: &Task, node: NodeId, offer: Offer, now: Now) {
        let attempt = Attempt(task.attempts.last().map_or(1, |last| last.attempt.0.saturating_add(1)));
        let lease = Lease {
            network: self.network,
            task: task.id,
            spec: task.spec.digest(),
            node,
            attempt,
            issued_at: now.wall,
            expires_at: now.wall.saturating_add_millis(self.waits.lease_ms(&task.spec)),
            coordinator: self.signer.public_key(),
        };
        let lease =
            Envelope::sign(lease, &ByRef(&*self.signer)).expect("the lease names this signer and counts from 1");
        let left = offer.free_places.saturating_sub(1);
        let boot = offer.boot;
        self.set_offer(node, (left > 0).then_some(Offer { free_places: left, ..offer }));
        self.record(Some(task.id), Some(attempt), Some(node), EventBody::Leased { lease: Arc::new(lease), boot }, now);
    }

    /// Ends what is overdue.
    pub(super) fn tick(&mut self, now: Now) {
        let overdue: Vec<TaskId> =
            self.overdue.iter().take_while(|(at, _)| *at <= now.mono_ms).take(TICK_BOUND).map(|(_, id)| *id).collect();
        for id in overdue {
            let Some(task) = self.tasks.get(&id).cloned() else { continue };
            let Some(live) = task.live() else { continue };
            match live.state() {
                TaskState::Challenged => self.end_attempt(&task, &because::node_silent(), now),
                TaskState::Granted => self.end_attempt(&task, &because::lease_expired(), now),
                _ => {
                    self.expire_lease(&task, &because::releaser_silent(), now);
                    self.fail(id, because::releaser_silent(), now);
                }
            }
        }
        let silent: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|(_, standing)| standing.counts() && !standing.counts_at(now))
            .map(|(node, _)| *node)
            .collect();
        for node in silent {
            self.suspend(node, because::attestation_missed(), now);
        }
        let expired: Vec<TaskId> =
            self.expiring.iter().take_while(|(at, _)| *at <= now.wall).take(TICK_BOUND).map(|(_, id)| *id).collect();
        for id in expired {
            let Some(task) = self.tasks.get(&id).cloned() else { continue };
            self.expire_lease(&task, &because::spec_expired(), now);
            self.fail(id, because::spec_expired(), now);
        }
    }

    /// Ends what a node runs and would not be given any more as it stands.
    pub(super) fn end_unsuited_attempts(&mut self, node: NodeId, standing: &Standing, now: Now) {
        let ids: Vec<TaskId> = self.by_node.get(&node).map(|tasks| tasks.iter().copied().collect()).unwrap_or_default();
        for id in ids {
            let Some(task) = self.tasks.get(&id).cloned() else { continue };
            if !standing.suits(&task.spec.policy, now) {
                self.end_attempt(&task, &because::standing_fell(), now);
            }
        }
    }

    /// Ends every attempt of a node, or those of other starts of its agent than `but`.
    pub(super) fn end_attempts_of(&mut self, node: NodeId, but: Option<BootId>, refusal: &Refusal, now: Now) {
        let ids: Vec<TaskId> = self.by_node.get(&node).map(|tasks| tasks.iter().copied().collect()).unwrap_or_default();
        for id in ids {
            let Some(task) = self.tasks.get(&id).cloned() else { continue };
            if task.live().is_some_and(|live| Some(live.boot) != but) {
                self.end_attempt(&task, refusal, now);
            }
        }
    }

    /// Ends the attempt under way; the task is queued again while attempts are left, and fails otherwise.
    fn end_attempt(&mut self, task: &Task, refusal: &Refusal, now: Now) {
        self.expire_lease(task, refusal, now);
        if !self.attempts_left(task, now) {
            self.fail(task.id, refusal.clone(), now);
        }
    }

    fn expire_lease(&mut self, task: &Task, refusal: &Refusal, now: Now) {
        if let Some(live) = task.live() {
            let body = EventBody::Expired { lease: live.lease.digest(), refusal: refusal.clone() };
            self.record(Some(task.id), Some(live.attempt), Some(live.node), body, now);
        }
    }

    /// Ends a task whose attempt, if there was one, has ended, with a report of the coordinator.
    pub(super) fn fail(&mut self, id: TaskId, refusal: Refusal, now: Now) {
        let Some(task) = self.tasks.get(&id).cloned() else { return };
        let last = task.attempts.last();
        let predicate = ReportPredicate {
            author: ReportAuthor::Coordinator,
            signer: self.signer.public_key(),
            network: self.network,
            task: id,
            spec: task.spec.digest(),
            node: last.map(|last| last.node),
            attempt: last.map(|last| last.attempt),
            lease: last.map(|last| last.lease.digest()),
            evidence: last.and_then(|last| last.evidence.as_ref().map(|kept| kept.digest)),
            grant: last.and_then(|last| last.grant.as_ref().map(|kept| kept.digest)),
            engine: None,
            workload: None,
            inputs: Vec::new(),
            outcome: Outcome::Failed { refusal },
            output_secret: None,
            outputs: Vec::new(),
            sealed_details: None,
            sandbox: Vec::new(),
            resumed: None,
        };
        let report = Envelope::sign(Report::new(predicate), &ByRef(&*self.signer))
            .expect("a report of no outputs keeps its rules");
        let body = EventBody::Reported {
            report: Arc::new(report),
            agent_statement: None,
            closing_evidence: None,
            settles: Settles::Task,
        };
        self.record(Some(id), last.map(|last| last.attempt), last.map(|last| last.node), body, now);
    }
}
