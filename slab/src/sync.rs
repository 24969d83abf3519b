//! The one switch between the real primitives and loom's: everything that a model checks imports
//! its atomics and locks from here.

use crate::waits::Waits;

#[cfg(not(loom))]
use {crate::waits::LONG, std::time::Instant};

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{Ordering, fence};

#[cfg(not(loom))]
pub use parking_lot::{Mutex, MutexGuard};

#[cfg(loom)]
pub use self::model::{AtomicU32, AtomicU64, Mutex, MutexGuard};

/// True under the model checker: structures are then made as small as they can be, and nothing is
/// left to chance, so that every order of events can be tried.
pub const MODELLED: bool = cfg!(loom);

/// Locks; a wait that is long is counted.
#[cfg(not(loom))]
#[inline]
pub(crate) fn lock<'a, T>(mutex: &'a Mutex<T>, waits: &Waits) -> MutexGuard<'a, T> {
    mutex.try_lock_for(LONG).unwrap_or_else(|| {
        let since = Instant::now();
        let guard = mutex.lock();
        waits.note(LONG + since.elapsed());
        guard
    })
}

#[cfg(loom)]
pub(crate) fn lock<'a, T>(mutex: &'a Mutex<T>, _: &Waits) -> MutexGuard<'a, T> {
    mutex.lock()
}

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
pub fn relax(spins: &mut u32) {
    *spins += 1;
    loom::thread::yield_now();
}

/// loom's primitives in the shapes of the real ones.
#[cfg(loom)]
mod model {
    pub use loom::sync::MutexGuard;

    use super::Ordering::{self, Relaxed};
    use loom::sync::atomic;
    use loom::thread::{ThreadId, current};

    #[derive(Default)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Mutex<T> {
            Mutex(loom::sync::Mutex::new(value))
        }
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    pub type AtomicU32 = Watched<atomic::AtomicU32>;
    pub type AtomicU64 = Watched<atomic::AtomicU64>;

    /// An atomic that remembers who has read it. The checker keeps only the last access to each
    /// object, so one thread's read before its own write would hide another's read from it, and
    /// the orders in which the write comes first would not be tried. A mark for each reader, which
    /// it and every writer overwrite, shows them; marks are never read, and so synchronize nothing.
    pub struct Watched<A> {
        value: A,
        marks: [atomic::AtomicU32; THREADS],
        /// Whose each mark is; the checker runs one thread at a time, so this never waits.
        readers: std::sync::Mutex<Vec<ThreadId>>,
    }

    /// Threads that a model may have.
    const THREADS: usize = 3;

    impl<A> Watched<A> {
        fn watch(value: A) -> Watched<A> {
            let marks = std::array::from_fn(|_| atomic::AtomicU32::new(0));
            Watched { value, marks, readers: Default::default() }
        }

        fn read(&self) -> &A {
            let me = current().id();
            let mut readers = self.readers.lock().unwrap();
            let place = readers.iter().position(|id| *id == me).unwrap_or(readers.len());
            if place == readers.len() {
                readers.push(me);
            }
            drop(readers);
            self.marks[place].store(0, Relaxed);
            &self.value
        }

        fn write(&self) -> &A {
            let me = current().id();
            let readers = self.readers.lock().unwrap().clone();
            for (mark, _) in self.marks.iter().zip(readers).filter(|(_, id)| *id != me) {
                mark.store(0, Relaxed);
            }
            &self.value
        }
    }

    impl Watched<atomic::AtomicU32> {
        pub fn new(value: u32) -> Self {
            Watched::watch(atomic::AtomicU32::new(value))
        }
        pub fn load(&self, order: Ordering) -> u32 {
            self.read().load(order)
        }
        pub fn store(&self, value: u32, order: Ordering) {
            self.write().store(value, order);
        }
        pub fn swap(&self, value: u32, order: Ordering) -> u32 {
            self.write().swap(value, order)
        }
        pub fn fetch_or(&self, bits: u32, order: Ordering) -> u32 {
            self.write().fetch_or(bits, order)
        }
        pub fn fetch_and(&self, bits: u32, order: Ordering) -> u32 {
            self.write().fetch_and(bits, order)
        }
        pub fn fetch_max(&self, value: u32, order: Ordering) -> u32 {
            self.write().fetch_max(value, order)
        }
        pub fn compare_exchange(
            &self,
            from: u32,
            to: u32,
            done: Ordering,
            failed: Ordering,
        ) -> Result<u32, u32> {
            self.write().compare_exchange(from, to, done, failed)
        }
    }

    impl Watched<atomic::AtomicU64> {
        pub fn new(value: u64) -> Self {
            Watched::watch(atomic::AtomicU64::new(value))
        }
        pub fn load(&self, order: Ordering) -> u64 {
            self.read().load(order)
        }
        pub fn store(&self, value: u64, order: Ordering) {
            self.write().store(value, order);
        }
    }
}
