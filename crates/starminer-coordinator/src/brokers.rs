//! Relays evidence between requesters and brokers: a requester asks, the broker sees the question in its poll and answers.
//!
//! In memory alone and bounded: nothing here is worth keeping over a restart. The coordinator reads neither question nor answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use starminer_receipt::Base64Bytes;
use starminer_verify::{Challenge, Party, PublicKey};
use starminer_wire::{BrokerEvidenceRequest, ProblemStatus};
use tokio::sync::{Notify, oneshot};

use crate::refused::Refused;

/// Most questions that wait for one broker.
const QUESTIONS_BOUND: usize = 256;
/// After this long without an answer, the broker is shown a question again.
const REPEAT_MS: u64 = 5_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Brokers {
    brokers: Mutex<HashMap<PublicKey, Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    questions: HashMap<Challenge, Question>,
    asked: Arc<Notify>,
}

#[derive(Debug)]
struct Question {
    shown_ms: Option<u64>,
    answer: oneshot::Sender<Base64Bytes>,
}

/// A question that waits for its answer; dropping it takes it back.
#[derive(Debug)]
pub struct Asked {
    brokers: Arc<Brokers>,
    request: BrokerEvidenceRequest,
    /// The answer.
    pub answer: oneshot::Receiver<Base64Bytes>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut brokers = self.brokers.lock();
        if let Some(waiting) = brokers.get_mut(&self.request.broker)
            && waiting.questions.get(&self.request.challenge).is_some_and(|question| question.answer.is_closed())
        {
            waiting.questions.remove(&self.request.challenge);
        }
    }
}

impl Brokers {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PublicKey, Waiting>> {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a broker. The caller has looked whether it is there.
    ///
    /// # Errors
    /// `broker.busy`, and `broker.challenge-used` for a challenge that is waiting already.
    pub fn ask(self: &Arc<Self>, request: BrokerEvidenceRequest) -> Result<Asked, Refused> {
        let mut brokers = self.lock();
        let waiting = brokers.entry(request.broker).or_default();
        if waiting.questions.len() >= QUESTIONS_BOUND {
            return Err(Refused::unavailable("broker.busy", "too many requesters wait for this broker", 1000));
        }
        if waiting.questions.contains_key(&request.challenge) {
            return Err(Refused::of(
                ProblemStatus::Conflict,
                Party::Requester,
                "broker.challenge-used",
                "this challenge is waiting for an answer already",
                "draw a fresh random challenge for each question",
            ));
        }
        let (sender, answer) = oneshot::channel();
        waiting.questions.insert(request.challenge, Question { shown_ms: None, answer: sender });
        waiting.asked.notify_waiters();
        Ok(Asked { brokers: self.clone(), request, answer })
    }

    /// What tells when a broker is asked next.
    #[must_use]
    pub fn asked(&self, broker: PublicKey) -> Arc<Notify> {
        self.lock().entry(broker).or_default().asked.clone()
    }

    /// The questions that a broker was not shown lately.
    #[must_use]
    pub fn questions(&self, broker: PublicKey, now_ms: u64) -> Vec<BrokerEvidenceRequest> {
        let mut brokers = self.lock();
        let Some(waiting) = brokers.get_mut(&broker) else { return Vec::new() };
        let mut shown = Vec::new();
        for (challenge, question) in &mut waiting.questions {
            if question.shown_ms.is_none_or(|shown| now_ms.saturating_sub(shown) >= REPEAT_MS) {
                question.shown_ms = Some(now_ms);
                shown.push(BrokerEvidenceRequest { broker, challenge: *challenge });
            }
        }
        shown
    }

    /// A broker answers.
    ///
    /// # Errors
    /// `broker.request-unknown` where nobody waits for it (any more).
    pub fn answer(&self, broker: PublicKey, challenge: Challenge, evidence: Base64Bytes) -> Result<(), Refused> {
        let question = self.lock().get_mut(&broker).and_then(|waiting| waiting.questions.remove(&challenge));
        let unknown = || {
            Refused::of(
                ProblemStatus::NotFound,
                Party::Broker,
                "broker.request-unknown",
                "nobody waits for an answer to this challenge",
                "answer sooner; nothing else is to be done",
            )
        };
        question.ok_or_else(unknown)?.answer.send(evidence).map_err(|_| unknown())
    }

    /// Forgets brokers that are not there and that nobody asks.
    pub fn forget(&self, is_present: impl Fn(&PublicKey) -> bool) {
        self.lock().retain(|broker, waiting| {
            waiting.questions.retain(|_, question| !question.answer.is_closed());
            !waiting.questions.is_empty() || is_present(broker) || Arc::strong_count(&waiting.asked) > 1
        });
    }
}
