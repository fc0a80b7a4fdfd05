//! Checks of one piece of hardware evidence, and what they come to.
//!
//! Every check has a stable dotted name, a verdict and a reason. "Not checked" is a verdict of its own and never counts as a pass.

use std::borrow::Cow;

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
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::NotChecked => "not-checked",
        }
    }
}

/// What a check means for the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Weight {
    /// Anything but a pass refuses.
    Required,
    /// Told, and without influence.
    Informative,
}

/// One check and how it came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Stable dotted name, the kind first: `snp.chain`.
    pub name: Cow<'static, str>,
    /// How it came out.
    pub verdict: Verdict,
    /// What that means for the whole.
    pub weight: Weight,
    /// Why, for people: what was found, and what to do where it does not hold.
    pub reason: Cow<'static, str>,
}

/// Checks in the order in which they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks(Vec<Check>);

impl Checks {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Records a check, and tells whether it passed.
    pub fn push(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        verdict: Verdict,
        weight: Weight,
        reason: impl Into<Cow<'static, str>>,
    ) -> bool {
        self.0.push(Check { name: name.into(), verdict, weight, reason: reason.into() });
        verdict == Verdict::Pass
    }

    /// Records a required check that holds, or not.
    pub fn require<R: Into<Cow<'static, str>>>(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        result: Result<R, R>,
    ) -> bool {
        match result {
            Ok(reason) => self.push(name, Verdict::Pass, Weight::Required, reason),
            Err(reason) => self.push(name, Verdict::Fail, Weight::Required, reason),
        }
    }

    /// Records what could not be made and does not decide anything.
    pub fn not_checked(&mut self, name: impl Into<Cow<'static, str>>, reason: impl Into<Cow<'static, str>>) {
        self.push(name, Verdict::NotChecked, Weight::Informative, reason);
    }

    /// Whether every required check passed, of which there has to be one.
    #[must_use]
    pub fn hold(&self) -> bool {
        let mut required = self.0.iter().filter(|check| check.weight == Weight::Required).peekable();
        required.peek().is_some() && required.all(|check| check.verdict == Verdict::Pass)
    }

    /// The checks, oldest first.
    #[must_use]
    pub fn as_slice(&self) -> &[Check] {
        &self.0
    }

    /// Takes over others.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_passes_of_what_is_required_hold() {
        let mut checks = Checks::new();
        assert!(!checks.hold(), "nothing was checked");
        checks.not_checked("a.b", "nobody asked");
        assert!(!checks.hold(), "nothing required was checked");
        assert!(checks.require("a.c", Ok("it is so")));
        assert!(checks.hold());
        checks.push("a.d", Verdict::Fail, Weight::Informative, "it is not, and need not");
        assert!(checks.hold());
        checks.push("a.e", Verdict::NotChecked, Weight::Required, "it should have been");
        assert!(!checks.hold());
    }
}
