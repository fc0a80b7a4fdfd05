//! The bits of guest policy and platform information.

/// What the guest's owner allowed at launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GuestPolicy(pub u64);

impl GuestPolicy {
    const fn bit(self, index: u32) -> bool {
        self.0 >> index & 1 == 1
    }
    /// The lowest firmware API that may run the guest: major, minor.
    #[must_use]
    pub const fn abi(self) -> (u8, u8) {
        let [minor, major, ..] = self.0.to_le_bytes();
        (major, minor)
    }
    /// Host SMT is allowed.
    #[must_use]
    pub const fn smt(self) -> bool {
        self.bit(16)
    }
    /// A migration agent is allowed.
    #[must_use]
    pub const fn migration_agent(self) -> bool {
        self.bit(18)
    }
    /// Debugging by the host is allowed, which reads and writes guest memory.
    #[must_use]
    pub const fn debug(self) -> bool {
        self.bit(19)
    }
    /// Only one socket may run the guest.
    #[must_use]
    pub const fn single_socket(self) -> bool {
        self.bit(20)
    }
    /// CXL devices and memory are allowed.
    #[must_use]
    pub const fn cxl(self) -> bool {
        self.bit(21)
    }
    /// AES-256-XTS is required for memory.
    #[must_use]
    pub const fn aes_256_xts(self) -> bool {
        self.bit(22)
    }
    /// Power readings have to be off.
    #[must_use]
    pub const fn rapl_disabled(self) -> bool {
        self.bit(23)
    }
    /// Ciphertext hiding has to be on.
    #[must_use]
    pub const fn ciphertext_hiding(self) -> bool {
        self.bit(24)
    }
    /// The host may not move or swap the guest's pages.
    #[must_use]
    pub const fn page_swap_disabled(self) -> bool {
        self.bit(25)
    }
}

/// How the platform is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlatformInfo(pub u64);

impl PlatformInfo {
    const fn bit(self, index: u32) -> bool {
        self.0 >> index & 1 == 1
    }
    /// SMT is on.
    #[must_use]
    pub const fn smt(self) -> bool {
        self.bit(0)
    }
    /// Transparent encryption of all memory is on.
    #[must_use]
    pub const fn tsme(self) -> bool {
        self.bit(1)
    }
    /// Memory has ECC.
    #[must_use]
    pub const fn ecc(self) -> bool {
        self.bit(2)
    }
    /// Power readings are off.
    #[must_use]
    pub const fn rapl_disabled(self) -> bool {
        self.bit(3)
    }
    /// Ciphertext hiding is on.
    #[must_use]
    pub const fn ciphertext_hiding(self) -> bool {
        self.bit(4)
    }
    /// Memory was searched for aliases since reset, and has none.
    #[must_use]
    pub const fn alias_check_complete(self) -> bool {
        self.bit(5)
    }
    /// Trusted I/O is on.
    #[must_use]
    pub const fn trusted_io(self) -> bool {
        self.bit(7)
    }
}
