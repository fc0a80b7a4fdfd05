//! One check of verification or appraisal, with its verdict and reason.
//!
//! "Not checked" is a verdict of its own and never counts as a pass. Names are stable and dotted; they are the codes of
//! the refusals that follow from them. Source: `specs/policy.md`, section "Checks".

use std::borrow::Cow;
use std::fmt;

use crate::refusal::{Party, Refusal};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It was made and holds.
    Pass,
    /// It was made and does not hold.
    Fail,
    /// It was not or could not be made.
    NotChecked,
}

impl Verdict {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::NotChecked => "not-checked",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a check means for the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Weight {
    /// Anything but a pass refuses.
    Required,
    /// Told, and without influence on the decision.
    Informative,
}

impl Weight {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Informative => "informative",
        }
    }
}

/// One check and how it came out. Only verification and appraisal make them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub(crate) name: Cow<'static, str>,
    pub(crate) verdict: Verdict,
    pub(crate) weight: Weight,
    pub(crate) reason: Cow<'static, str>,
    pub(crate) party: Party,
    pub(crate) remedy: Cow<'static, str>,
}

impl Check {
    pub(crate) fn pass(name: impl Into<Cow<'static, str>>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            verdict: Verdict::Pass,
            weight: Weight::Required,
            reason: reason.into(),
            party: Party::Node,
            remedy: Cow::Borrowed(""),
        }
    }

    /// Stable dotted name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it came out.
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// What it means for the decision.
    pub const fn weight(&self) -> Weight {
        self.weight
    }

    /// Why it came out so.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The refusal that follows from it: none where it passed or is informative.
    pub fn refusal(&self) -> Option<Refusal> {
        (self.weight == Weight::Required && self.verdict != Verdict::Pass)
            .then(|| Refusal::new(self.party, self.name.clone(), self.reason.clone(), self.remedy.clone()))
    }
}
