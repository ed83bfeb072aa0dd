//! How much memory a pass holds: an allocator that counts and leaves the rest to the system.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[global_allocator]
static ALLOCATOR: Counting = Counting {
    held: AtomicUsize::new(0),
    peak: AtomicUsize::new(0),
};

/// Each call is handed on as it is, so that zeroed and grown allocations cost what they cost without counting.
struct Counting {
    held: AtomicUsize,
    peak: AtomicUsize,
}

/// The most bytes that `call` holds at once on the host beyond what was held before it, and what it returns.
pub fn peak_bytes<T>(call: impl FnOnce() -> T) -> (u64, T) {
    let before = ALLOCATOR.held.load(Relaxed);
    ALLOCATOR.peak.store(before, Relaxed);
    let result = call();
    (
        ALLOCATOR.peak.load(Relaxed).saturating_sub(before) as u64,
        result,
    )
}

impl Counting {
    fn add(&self, pointer: *mut u8, bytes: usize) -> *mut u8 {
        if !pointer.is_null() {
            let held = self.held.fetch_add(bytes, Relaxed) + bytes;
            self.peak.fetch_max(held, Relaxed);
        }
        pointer
    }
}

// SAFETY: every call is the system allocator's, with the caller's arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.add(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.add(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) };
        self.held.fetch_sub(layout.size(), Relaxed);
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let grown = self.add(unsafe { System.realloc(pointer, layout, size) }, size);
        if !grown.is_null() {
            self.held.fetch_sub(layout.size(), Relaxed);
        }
        grown
    }
}
