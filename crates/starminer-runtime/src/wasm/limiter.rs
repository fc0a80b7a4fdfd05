//! Memory of a guest: what it asks for, what it gets, and what happens when it does not stop asking.

use wasmtime::{ResourceLimiter, Result};

use crate::HostFault;

/// Times a guest may be told that there is no more memory before it is stopped. Allocators ask again with less, and
/// programs may go on without; an endless loop of asking ends here.
const MAX_DENIALS: u32 = 1024;
/// Elements of all tables together: 8 bytes of the host's memory each.
const MAX_TABLE_ELEMENTS: usize = 1 << 20;
/// Core instances, tables and memories of one component.
const MAX_INSTANCES: usize = 256;
const MAX_TABLES: usize = 256;
const MAX_MEMORIES: usize = 32;

/// The guest kept asking for memory beyond its limit.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the guest asked for memory beyond its limit {MAX_DENIALS} times")]
pub(super) struct MemoryLimitReached;

/// Counts the linear memories of one store together.
pub(super) struct MemoryLimiter {
    limit_bytes: usize,
    held_bytes: usize,
    peak_bytes: usize,
    table_elements: usize,
    denials: u32,
}

impl MemoryLimiter {
    pub(super) fn new(limit_bytes: u64) -> Self {
        MemoryLimiter {
            limit_bytes: usize::try_from(limit_bytes).unwrap_or(usize::MAX),
            held_bytes: 0,
            peak_bytes: 0,
            table_elements: 0,
            denials: 0,
        }
    }

    pub(super) fn peak_bytes(&self) -> u64 {
        self.peak_bytes as u64
    }

    /// Whether the guest ever asked for more than its limit.
    pub(super) fn has_denied(&self) -> bool {
        self.denials > 0
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false); // the module's own bound, not ours
        }
        let held = self.held_bytes - current + desired;
        if held > self.limit_bytes {
            self.denials += 1;
            return if self.denials > MAX_DENIALS { Err(MemoryLimitReached.into()) } else { Ok(false) };
        }
        self.held_bytes = held;
        self.peak_bytes = self.peak_bytes.max(held);
        Ok(true)
    }

    /// Growth that we allowed failed, so the system had no memory. The guest must not see that: it would make the
    /// result depend on the machine.
    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> Result<()> {
        Err(HostFault::MEMORY.into())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let elements = self.table_elements - current + desired;
        if elements > MAX_TABLE_ELEMENTS {
            self.denials += 1;
            return if self.denials > MAX_DENIALS { Err(MemoryLimitReached.into()) } else { Ok(false) };
        }
        self.table_elements = elements;
        Ok(true)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> Result<()> {
        Err(HostFault::MEMORY.into())
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}
