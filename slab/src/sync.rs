//! The one switch between the real primitives and loom's: everything that a model checks imports
//! its atomics and locks from here.

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(not(loom))]
pub use parking_lot::{Mutex, MutexGuard};

#[cfg(loom)]
pub use self::model::{Mutex, MutexGuard};

/// True under the model checker: structures are then made as small as they can be, and nothing is
/// left to chance, so that every order of events can be tried.
pub const MODELLED: bool = cfg!(loom);

/// Waits a little for another thread to leave a short critical section: busily at first, then by
/// giving the processor up, for the other may have lost its own.
#[cfg(not(loom))]
#[inline]
pub fn relax(spins: &mut u32) {
    *spins += 1;
    if *spins < 64 {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

#[cfg(loom)]
pub fn relax(_spins: &mut u32) {
    loom::thread::yield_now();
}

/// parking_lot's shape over loom's mutex.
#[cfg(loom)]
mod model {
    pub use loom::sync::MutexGuard;

    #[derive(Default)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Mutex<T> {
            Mutex(loom::sync::Mutex::new(value))
        }
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }
}
