use std::ops::Index;

use crate::error::{Error, Result};

/// The results of one operation on several targets, in the order in which the targets were given.
///
/// A target that fails does not stop the others, so a call that returns has not necessarily succeeded. [`all`](Self::all)
/// fails if any target failed; iterating gives the result of each.
///
/// ```
/// use ocikit_image::{Error, PerTarget};
///
/// let results: PerTarget<u32> = [Ok(1), Err(Error::not_found("tag 2", "memory")), Ok(3)].into_iter().collect();
/// assert_eq!(results.failures().map(|(position, _)| position).collect::<Vec<_>>(), [1]);
/// assert!(results.all().unwrap_err().is_not_found());
/// ```
#[must_use = "a target may have failed: use `.all()?`, or look at each result"]
#[derive(Debug)]
pub struct PerTarget<T>(Vec<Result<T>>);

impl<T> PerTarget<T> {
    /// Returns the values of all targets.
    ///
    /// # Errors
    ///
    /// The first failure, in the order of the targets.
    pub fn all(self) -> Result<Vec<T>> {
        self.0.into_iter().collect()
    }

    /// Returns an iterator over the result of each target.
    pub fn iter(&self) -> std::slice::Iter<'_, Result<T>> {
        self.0.iter()
    }

    /// Returns the targets that failed, by position, and their errors.
    pub fn failures(&self) -> impl Iterator<Item = (usize, &Error)> {
        self.0.iter().enumerate().filter_map(|(position, result)| Some((position, result.as_ref().err()?)))
    }

    /// Returns the number of targets.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no targets.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Returns the result of the target at a position.
///
/// # Panics
///
/// If there are fewer targets.
impl<T> Index<usize> for PerTarget<T> {
    type Output = Result<T>;

    fn index(&self, position: usize) -> &Result<T> {
        &self.0[position]
    }
}

impl<T> FromIterator<Result<T>> for PerTarget<T> {
    fn from_iter<I: IntoIterator<Item = Result<T>>>(results: I) -> PerTarget<T> {
        PerTarget(results.into_iter().collect())
    }
}

impl<T> IntoIterator for PerTarget<T> {
    type Item = Result<T>;
    type IntoIter = std::vec::IntoIter<Result<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a PerTarget<T> {
    type Item = &'a Result<T>;
    type IntoIter = std::slice::Iter<'a, Result<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
