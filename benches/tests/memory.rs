//! Peak memory; the only test of its process, since the whole process is counted.

use std::hint::black_box;

use s2_bench::memory::peak_bytes;

#[test]
fn peak_memory_counts_what_is_freed_again() {
    let before = black_box(vec![1_u8; 8 << 20]);
    let (peak, kept) = peak_bytes(|| {
        drop(black_box(vec![1_u8; 64 << 20]));
        drop(black_box(vec![0_u8; 32 << 20]));
        black_box(vec![1_u8; 1 << 20])
    });
    assert_eq!((before.len(), kept.len()), (8 << 20, 1 << 20));
    assert!((64 << 20..(64 << 20) + 4096).contains(&peak), "{peak}");
}
