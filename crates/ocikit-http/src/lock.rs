use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex. The values behind the mutexes of the clients are valid after every statement, so a panic of another
/// holder does not make them unusable.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
