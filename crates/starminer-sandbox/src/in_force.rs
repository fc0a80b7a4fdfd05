//! What protects a task process, as read back from the kernel.
//!
//! The names are stable: they become posture in evidence, and policies refer to them. This module holds and transports
//! the findings; [`crate::Sealing::enter`] makes them. Meanings and order: `specs/sandbox.md`, section "Protections".

use std::fmt;

/// One protection with a stable name. `specs/sandbox.md` says what must hold before each is reported in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protection {
    /// `no-network`: no socket can be made, and the network namespace (where there is one) is empty.
    NoNetwork,
    /// `no-new-privileges`: no program that is executed can gain privileges.
    NoNewPrivileges,
    /// `seccomp`: the system call allow-list is installed.
    Seccomp,
    /// `user-namespace`: a user namespace of its own.
    UserNamespace,
    /// `mount-namespace`: a mount namespace of its own whose root is empty and read-only.
    MountNamespace,
    /// `pid-namespace`: it is process 1 of its own namespace, so it sees and signals nobody else.
    PidNamespace,
    /// `landlock`: opening anything in the file system is refused by Landlock.
    Landlock,
    /// `rlimits`: the limits of the profile hold and cannot be raised.
    Rlimits,
    /// `non-dumpable`: other processes of the user cannot read or trace it.
    NonDumpable,
    /// `core-dumps-off`: no core dump is written, neither to a file nor to a handler.
    CoreDumpsOff,
    /// `keys-locked`: pages of secrets stay out of swap and out of dumps.
    KeysLocked,
    /// `capabilities-dropped`: no capability is left, and none can come back.
    CapabilitiesDropped,
    /// `ptrace-refused`: nobody traces it, nobody without privileges can start to, and it cannot trace others.
    PtraceRefused,
}

impl Protection {
    /// All protections, in the order in which they are reported.
    pub const ALL: [Self; 13] = [
        Self::NoNetwork,
        Self::NoNewPrivileges,
        Self::Seccomp,
        Self::UserNamespace,
        Self::MountNamespace,
        Self::PidNamespace,
        Self::Landlock,
        Self::Rlimits,
        Self::NonDumpable,
        Self::CoreDumpsOff,
        Self::KeysLocked,
        Self::CapabilitiesDropped,
        Self::PtraceRefused,
    ];

    /// The stable posture name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoNetwork => "no-network",
            Self::NoNewPrivileges => "no-new-privileges",
            Self::Seccomp => "seccomp",
            Self::UserNamespace => "user-namespace",
            Self::MountNamespace => "mount-namespace",
            Self::PidNamespace => "pid-namespace",
            Self::Landlock => "landlock",
            Self::Rlimits => "rlimits",
            Self::NonDumpable => "non-dumpable",
            Self::CoreDumpsOff => "core-dumps-off",
            Self::KeysLocked => "keys-locked",
            Self::CapabilitiesDropped => "capabilities-dropped",
            Self::PtraceRefused => "ptrace-refused",
        }
    }

    /// The protection with that posture name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protection| protection.name() == name)
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of protections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProtectionSet(u16);

impl ProtectionSet {
    pub(crate) const EMPTY: Self = Self(0);

    pub(crate) fn insert(&mut self, protection: Protection) {
        self.0 |= 1 << protection as u16;
    }

    pub(crate) const fn contains(self, protection: Protection) -> bool {
        self.0 & (1 << protection as u16) != 0
    }
}

/// Whether a protection holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It holds; the kernel said so when asked.
    InForce,
    /// It does not hold, for this reason (one line for people, without secrets).
    Absent(String),
}

impl State {
    /// In force if `holds`, else absent for `reason`.
    pub(crate) fn from(holds: bool, reason: impl FnOnce() -> String) -> Self {
        if holds { Self::InForce } else { Self::Absent(reason()) }
    }

    /// Whether the protection holds.
    #[must_use]
    pub const fn is_in_force(&self) -> bool {
        matches!(self, Self::InForce)
    }
}

/// What is in force in a task process. Made by [`crate::Sealing::enter`]; the agent reads it from the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// In the order of [`Protection::ALL`].
    states: [State; Protection::ALL.len()],
}

/// Longest encoded [`InForce`] that [`InForce::decode`] reads, in bytes.
pub const MAX_ENCODED_BYTES: usize = 8 << 10;

/// Longest reason in bytes that is carried; longer ones are cut.
const MAX_REASON_BYTES: usize = 256;

/// Bytes that do not say what is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task process sent a posture that cannot be read: {0}")]
pub struct UnreadablePosture(&'static str);

impl InForce {
    pub(crate) fn new(state_of: impl FnMut(Protection) -> State) -> Self {
        Self { states: Protection::ALL.map(state_of) }
    }

    /// The state of one protection.
    #[must_use]
    pub fn state(&self, protection: Protection) -> &State {
        &self.states[protection as usize]
    }

    /// Every protection by its stable posture name, with its state.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &State)> {
        Protection::ALL.into_iter().map(Protection::name).zip(&self.states)
    }

    /// One line per protection, `name` or `name TAB reason`, for the trip over the channel.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut text = String::new();
        for (name, state) in self.iter() {
            text.push_str(name);
            if let State::Absent(reason) = state {
                text.push('\t');
                text.extend(one_line(reason));
            }
            text.push('\n');
        }
        text.into_bytes()
    }

    /// Reads what [`InForce::encode`] wrote: every protection once, in order, nothing else.
    ///
    /// # Errors
    /// If the bytes are too long, not UTF-8, or do not list exactly the known protections in order.
    pub fn decode(bytes: &[u8]) -> Result<Self, UnreadablePosture> {
        if bytes.len() > MAX_ENCODED_BYTES {
            return Err(UnreadablePosture("too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| UnreadablePosture("not UTF-8"))?;
        let mut lines = text.strip_suffix('\n').ok_or(UnreadablePosture("cut short"))?.split('\n');
        let mut states = Protection::ALL.map(|_| State::InForce);
        for (state, protection) in states.iter_mut().zip(Protection::ALL) {
            let line = lines.next().ok_or(UnreadablePosture("a protection is missing"))?;
            let (name, reason) = match line.split_once('\t') {
                Some((name, reason)) => (name, Some(reason)),
                None => (line, None),
            };
            if name != protection.name() {
                return Err(UnreadablePosture("a protection is unknown or out of order"));
            }
            if let Some(reason) = reason {
                *state = State::Absent(reason.to_owned());
            }
        }
        match lines.next() {
            None => Ok(Self { states }),
            Some(_) => Err(UnreadablePosture("more than the known protections")),
        }
    }
}

/// The characters of `reason` that fit into one bounded line.
fn one_line(reason: &str) -> impl Iterator<Item = char> + '_ {
    let end = (0..=MAX_REASON_BYTES.min(reason.len())).rev().find(|&end| reason.is_char_boundary(end));
    reason[..end.unwrap_or(0)].chars().map(|c| if c.is_control() { ' ' } else { c })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> InForce {
        InForce::new(|protection| match protection {
            Protection::Landlock => State::Absent("not\tin this\nkernel".into()),
            Protection::KeysLocked => State::Absent("é".repeat(400)),
            _ => State::InForce,
        })
    }

    #[test]
    fn survives_the_trip_over_the_channel() {
        let decoded = InForce::decode(&sample().encode()).expect("own encoding");
        assert_eq!(decoded.state(Protection::Seccomp), &State::InForce);
        assert_eq!(decoded.state(Protection::Landlock), &State::Absent("not in this kernel".into()));
        let State::Absent(reason) = decoded.state(Protection::KeysLocked) else { panic!("lost the absence") };
        assert!(reason.len() <= MAX_REASON_BYTES);
        assert_eq!(InForce::decode(&decoded.encode()), Ok(decoded));
    }

    #[test]
    fn refuses_what_it_did_not_write() {
        let good = String::from_utf8(sample().encode()).expect("own encoding is text");
        let check = |bytes: &[u8], why: &str| assert!(InForce::decode(bytes).is_err(), "{why}");
        check(b"", "empty");
        check(good.trim_end().as_bytes(), "cut short");
        check(good.replacen("no-network\n", "", 1).as_bytes(), "one missing");
        check(good.replacen("no-network", "no-net", 1).as_bytes(), "one unknown");
        check(format!("{good}seccomp\n").as_bytes(), "one twice");
        check(&[good.as_bytes(), b"\xff\n"].concat(), "not UTF-8");
        check(&vec![b'a'; MAX_ENCODED_BYTES + 1], "endless");
    }

    #[test]
    fn names_are_stable_and_unique() {
        let names: Vec<_> = Protection::ALL.map(Protection::name).to_vec();
        assert_eq!(
            names,
            [
                "no-network",
                "no-new-privileges",
                "seccomp",
                "user-namespace",
                "mount-namespace",
                "pid-namespace",
                "landlock",
                "rlimits",
                "non-dumpable",
                "core-dumps-off",
                "keys-locked",
                "capabilities-dropped",
                "ptrace-refused"
            ]
        );
        for (index, protection) in Protection::ALL.into_iter().enumerate() {
            assert_eq!(protection as usize, index, "ALL must follow the declaration");
            assert_eq!(Protection::from_name(protection.name()), Some(protection));
        }
        assert_eq!(Protection::from_name("Seccomp"), None);
    }
}
