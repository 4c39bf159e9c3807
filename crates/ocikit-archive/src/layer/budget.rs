//! The resource budget of an operation, shared by all layers that it reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::limit::{Limit, MAX_ENTRIES, MAX_INFLATION_RATIO, MAX_LOOKUP_BYTES, MAX_TREE_BYTES, MIN_INFLATED_BYTES};

/// The memory of a file in a tree in addition to its path, in bytes: node, metadata, allocations.
const FILE_BYTES: u64 = 300;

/// Counts the resources that one operation uses for reading layers. Clones share the count.
///
/// ```
/// use ocikit_archive::layer::{Budget, Limit, MIN_INFLATED_BYTES};
///
/// let budget = Budget::new();
/// budget.inflated(MIN_INFLATED_BYTES)?;
/// let error = budget.inflated(1).unwrap_err();
/// assert_eq!(error.limit(), Some(Limit::InflatedBytes(MIN_INFLATED_BYTES)));
/// # Ok::<(), ocikit_archive::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Budget(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    tree_bytes: AtomicU64,
    entries: AtomicU64,
    compressed: AtomicU64,
    inflated: AtomicU64,
    lookups: AtomicU64,
}

impl Budget {
    /// Creates an unused budget.
    pub fn new() -> Budget {
        Budget::default()
    }

    /// Announces a layer of this compressed size, which raises the limit of decompressed bytes.
    pub fn layer(&self, compressed: u64) {
        let add = |sum: u64| Some(sum.saturating_add(compressed));
        // The update never fails, because the function always returns a value.
        let _ = self.0.compressed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Counts bytes that were decompressed, or that a sparse file expands to.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] with [`Limit::InflatedBytes`].
    pub fn inflated(&self, bytes: u64) -> Result<()> {
        let compressed = self.0.compressed.load(Ordering::Relaxed);
        let limit = compressed.saturating_mul(MAX_INFLATION_RATIO).saturating_add(MIN_INFLATED_BYTES);
        spend(&self.0.inflated, bytes, limit, Limit::InflatedBytes(limit))
    }

    /// Counts an entry of a layer.
    pub(crate) fn entry(&self) -> Result<()> {
        spend(&self.0.entries, 1, MAX_ENTRIES, Limit::Entries)
    }

    /// Counts the bytes of a path that is looked up.
    pub(crate) fn lookup(&self, bytes: usize) -> Result<()> {
        spend(&self.0.lookups, bytes as u64 + 1, MAX_LOOKUP_BYTES, Limit::LookupBytes)
    }
}

fn spend(count: &AtomicU64, amount: u64, limit: u64, exceeded: Limit) -> Result<()> {
    let before = count.fetch_add(amount, Ordering::Relaxed);
    match before.checked_add(amount) {
        Some(sum) if sum <= limit => Ok(()),
        _ => {
            // A rejected amount is not counted, so that the sum never wraps.
            count.fetch_sub(amount, Ordering::Relaxed);
            Err(Error::Limit(exceeded))
        }
    }
}

/// The memory that a collection has reserved in a budget, returned on drop.
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Reservation {
    pub(crate) fn of(budget: &Budget) -> Reservation {
        Reservation { budget: budget.clone(), bytes: 0 }
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Reserves memory for a file with this many bytes of path and other variable data.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<()> {
        let cost = FILE_BYTES + bytes as u64;
        spend(&self.budget.0.tree_bytes, cost, MAX_TREE_BYTES, Limit::TreeBytes)?;
        self.bytes += cost;
        Ok(())
    }

    /// Sets the reservation to exactly this amount.
    pub(crate) fn set(&mut self, files: usize, bytes: u64) -> Result<()> {
        let total = FILE_BYTES.saturating_mul(files as u64).saturating_add(bytes);
        match total.checked_sub(self.bytes) {
            Some(more) => spend(&self.budget.0.tree_bytes, more, MAX_TREE_BYTES, Limit::TreeBytes)?,
            None => drop(self.budget.0.tree_bytes.fetch_sub(self.bytes - total, Ordering::Relaxed)),
        }
        self.bytes = total;
        Ok(())
    }

    /// Returns the reservation of a file.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        let cost = (FILE_BYTES + bytes as u64).min(self.bytes);
        self.bytes -= cost;
        self.budget.0.tree_bytes.fetch_sub(cost, Ordering::Relaxed);
    }
}

impl Clone for Reservation {
    /// A cloned collection reserves the same amount again, regardless of the limit.
    fn clone(&self) -> Reservation {
        self.budget.0.tree_bytes.fetch_add(self.bytes, Ordering::Relaxed);
        Reservation { budget: self.budget.clone(), bytes: self.bytes }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.0.tree_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_layer_may_inflate_to_more() {
        let budget = Budget::new();
        budget.layer(1 << 30);
        budget.inflated(MIN_INFLATED_BYTES + (100 << 30)).unwrap();
        assert!(matches!(budget.inflated(1), Err(Error::Limit(Limit::InflatedBytes(_)))));
        assert!(matches!(budget.inflated(u64::MAX), Err(Error::Limit(Limit::InflatedBytes(_)))));
    }

    #[test]
    fn dropped_collections_return_their_memory() {
        let budget = Budget::new();
        let mut held = Reservation::of(&budget);
        let half = (MAX_TREE_BYTES / 2) as usize;
        held.take(half).unwrap();
        let error = Reservation::of(&budget).take(half).unwrap_err();
        assert_eq!(error.limit(), Some(Limit::TreeBytes));
        drop(held);
        Reservation::of(&budget).take(half).unwrap();
        let mut held = Reservation::of(&budget);
        held.take(5).unwrap();
        held.give_back(5);
        assert_eq!(budget.0.tree_bytes.load(Ordering::Relaxed), 0);
    }
}
