//! Limits on what one operation reads and holds. Locations and signatures are untrusted input, so every loop over
//! them is bounded here.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use ocikit_image::{Error, Source, SourceExt};
use ocikit_spec::{Descriptor, Digest};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The maximum number of signatures of one digest that are examined.
pub(crate) const MAX_SIGNATURES_OF_DIGEST: usize = 1000;
/// The maximum number of signatures that one operation examines.
pub(crate) const MAX_SIGNATURES: usize = 10_000;
/// The maximum number of manifests and indexes below a root that are signed or verified.
pub(crate) const MAX_SUBJECTS: usize = 2000;
/// The maximum size of a sigstore bundle or of an attestation's statement, in bytes.
pub(crate) const MAX_BUNDLE_BYTES: u64 = 16 << 20;
/// The maximum size of a Notary Project envelope or a simple signing payload, in bytes. Real ones have a few
/// thousand.
pub(crate) const MAX_ENVELOPE_BYTES: u64 = 1 << 20;
/// The maximum size of the manifest of one signature, in bytes. Real ones have about a thousand.
pub(crate) const MAX_SIGNATURE_MANIFEST_BYTES: u64 = 256 << 10;
/// The maximum size of a certificate in a signature, in bytes.
pub(crate) const MAX_CERTIFICATE_BYTES: usize = 64 << 10;
/// The maximum number of bytes of signatures and subjects that one operation reads.
pub(crate) const MAX_READ_BYTES: u64 = 512 << 20;
/// The maximum number of bytes of predicates that one operation returns.
pub(crate) const MAX_PREDICATE_BYTES: u64 = 32 << 20;
/// The maximum number of bytes of signatures that one operation creates or extends.
pub(crate) const MAX_CREATED_BYTES: u64 = 64 << 20;
/// The maximum number of bytes of signature manifests that one operation creates or extends. A parsed manifest takes
/// up to twenty times its size.
pub(crate) const MAX_CREATED_MANIFEST_BYTES: u64 = 6 << 20;
/// The maximum number of refused signatures listed per signer and digest. The rest are only counted.
pub(crate) const MAX_REFUSED: usize = 100;
/// The maximum number of refused signatures that one operation lists.
pub(crate) const MAX_REFUSED_TOTAL: usize = 10_000;

/// The maximum number of bytes that are read and checked concurrently.
const MAX_READING_BYTES: u64 = 32 << 20;
/// A parsed document takes about this many times its size in memory.
const DOCUMENT_FACTOR: u64 = 8;

/// The counters of one operation, checked against the limits above.
#[derive(Debug)]
pub(crate) struct SignatureBudget {
    max_read: u64,
    signatures: AtomicUsize,
    read: AtomicU64,
    predicates: AtomicU64,
    made: AtomicU64,
    made_manifests: AtomicU64,
    refused: AtomicUsize,
    reading: Semaphore,
}

/// Bytes that were read. They count against the budget until this is dropped.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) bytes: Bytes,
    pub(crate) permit: SemaphorePermit<'a>,
}

impl Default for SignatureBudget {
    fn default() -> SignatureBudget {
        SignatureBudget {
            max_read: MAX_READ_BYTES,
            signatures: AtomicUsize::new(0),
            read: AtomicU64::new(0),
            predicates: AtomicU64::new(0),
            made: AtomicU64::new(0),
            made_manifests: AtomicU64::new(0),
            refused: AtomicUsize::new(0),
            reading: Semaphore::new(permits(MAX_READING_BYTES) as usize),
        }
    }
}

impl SignatureBudget {
    /// Returns a budget that reads at most this many bytes.
    #[cfg(test)]
    pub(crate) fn reading_at_most(max_read: u64) -> SignatureBudget {
        SignatureBudget { max_read, ..SignatureBudget::default() }
    }

    /// Reads a blob once the budget has room for it. To avoid a deadlock, a caller that holds a `Reading` must not
    /// request another.
    pub(crate) async fn read(&self, source: &dyn Source, blob: &Descriptor) -> Result<Reading<'_>, Error> {
        self.read_as(source, blob, 1).await
    }

    /// Reads a manifest or index, which takes several times its size once parsed.
    pub(crate) async fn document(&self, source: &dyn Source, document: &Descriptor) -> Result<Reading<'_>, Error> {
        self.read_as(source, document, DOCUMENT_FACTOR).await
    }

    async fn read_as(&self, source: &dyn Source, blob: &Descriptor, factor: u64) -> Result<Reading<'_>, Error> {
        let over = || format!("signatures and their subjects have more than {} bytes in total", self.max_read);
        spend(&self.read, blob.size, self.max_read).map_err(|()| limit(source, over()))?;
        let wanted = permits(blob.size.saturating_mul(factor)).min(permits(MAX_READING_BYTES));
        // The semaphore is never closed, so this does not fail.
        let permit = self.reading.acquire_many(wanted).await.map_err(|closed| Error::broken(source, closed))?;
        Ok(Reading { bytes: source.read(blob).await?, permit })
    }

    /// Counts a signature that is about to be examined, the `number`th of its subject.
    pub(crate) fn count_signature(&self, subject: &Digest, number: usize) -> Result<(), Error> {
        if number > MAX_SIGNATURES_OF_DIGEST {
            let what = format!("it has more than {MAX_SIGNATURES_OF_DIGEST} possible signatures");
            return Err(limit(subject, what));
        }
        if self.signatures.fetch_add(1, Ordering::Relaxed) >= MAX_SIGNATURES {
            let what = format!("it and the manifests below it have more than {MAX_SIGNATURES} possible signatures");
            return Err(limit(subject, what));
        }
        Ok(())
    }

    /// Counts a predicate that is returned.
    pub(crate) fn count_predicate(&self, subject: &Digest, bytes: usize) -> Result<(), Error> {
        let over = || format!("its attestations have more than {MAX_PREDICATE_BYTES} bytes in total");
        spend(&self.predicates, bytes as u64, MAX_PREDICATE_BYTES).map_err(|()| limit(subject, over()))
    }

    /// Counts the bytes of a new signature, or of the existing signatures that it is added to.
    pub(crate) fn count_created(&self, subject: &Digest, bytes: u64) -> Result<(), Error> {
        let over = || {
            format!(
                "the signatures of it and of the manifests below it have more than {MAX_CREATED_BYTES} bytes in total"
            )
        };
        spend(&self.made, bytes, MAX_CREATED_BYTES).map_err(|()| limit(subject, over()))
    }

    /// Counts the manifest of a new signature.
    pub(crate) fn count_created_manifest(&self, subject: &Digest, bytes: usize) -> Result<(), Error> {
        let over =
            || format!("the manifests of its signatures have more than {MAX_CREATED_MANIFEST_BYTES} bytes in total");
        spend(&self.made_manifests, bytes as u64, MAX_CREATED_MANIFEST_BYTES).map_err(|()| limit(subject, over()))
    }

    /// Returns whether one more refused signature is listed, when `before` are listed already.
    pub(crate) fn lists_refused(&self, before: usize) -> bool {
        before < MAX_REFUSED && self.refused.fetch_add(1, Ordering::Relaxed) < MAX_REFUSED_TOTAL
    }
}

fn spend(spent: &AtomicU64, bytes: u64, max: u64) -> Result<(), ()> {
    let add = |before: u64| before.checked_add(bytes).filter(|sum| *sum <= max);
    spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map(drop).map_err(drop)
}

/// Returns the error for a limit that was exceeded.
pub(crate) fn limit(place: impl ToString, what: impl Into<String>) -> Error {
    Error::Unsupported { place: place.to_string(), what: what.into() }
}

/// Returns the number of permits for this many bytes; one permit is 1 KiB.
fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use ocikit_image::Memory;
    use ocikit_spec::MediaType;

    use super::*;

    fn is_limit<T>(outcome: Result<T, Error>, words: &str) -> bool {
        matches!(outcome, Err(Error::Unsupported { what, .. }) if what.contains(words))
    }

    #[tokio::test]
    async fn bytes_read_per_operation_are_bounded() {
        let (memory, budget) = (Memory::new(), SignatureBudget::reading_at_most(250));
        memory.insert(vec![1; 100]);
        let blob = Descriptor::of(MediaType::OCTET_STREAM, &[1; 100]);
        for _ in 0..2 {
            assert_eq!(budget.read(&memory, &blob).await.unwrap().bytes.len(), 100);
        }
        assert!(is_limit(budget.read(&memory, &blob).await.map(drop), "250 bytes"));
        // The size in a descriptor counts before anything is read.
        let claims = Descriptor { size: u64::MAX, ..blob };
        assert!(is_limit(SignatureBudget::default().read(&memory, &claims).await.map(drop), "536870912 bytes"));
    }

    #[tokio::test]
    async fn bytes_read_concurrently_are_bounded() {
        let (memory, budget) = (Memory::new(), SignatureBudget::default());
        let large = vec![0; 16 << 20];
        let blob = Descriptor::of(MediaType::OCTET_STREAM, &large);
        memory.insert(large);
        let one = budget.read(&memory, &blob).await.unwrap();
        let two = budget.read(&memory, &blob).await.unwrap();
        assert_eq!(budget.reading.available_permits(), 0);
        drop((one, two));
        // A long document takes all permits, however large it is once parsed.
        let document = Descriptor { size: 4 << 20, ..blob };
        assert!(budget.document(&memory, &document).await.is_err(), "its size is wrong");
        assert_eq!(budget.reading.available_permits(), (MAX_READING_BYTES >> 10) as usize);
    }

    #[test]
    fn signatures_are_counted() {
        let (budget, subject) = (SignatureBudget::default(), Digest::sha256_of(b""));
        assert!(is_limit(budget.count_signature(&subject, MAX_SIGNATURES_OF_DIGEST + 1), "1000 possible signatures"));
        for number in 0..MAX_SIGNATURES {
            budget.count_signature(&subject, number % MAX_SIGNATURES_OF_DIGEST).unwrap();
        }
        assert!(is_limit(budget.count_signature(&subject, 1), "10000 possible signatures"));
        assert!(is_limit(budget.count_created(&subject, MAX_CREATED_BYTES + 1), "67108864 bytes"));
        assert!(is_limit(budget.count_predicate(&subject, 33 << 20), "33554432 bytes"));
        assert!(budget.lists_refused(MAX_REFUSED - 1) && !budget.lists_refused(MAX_REFUSED));
    }
}
