//! Rows and columns are on the path of kernels: asking for one allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use s2_attention_pattern::{PatternConfig, Preset, Rule};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn rows_and_columns_allocate_nothing() {
    let ranges = Rule::Ranges {
        strides: vec![1, 4, 8, 16],
        range_blocks: vec![4, 16, 64],
    };
    let configs = [
        Preset::Phi3Small.config(32, 8),
        PatternConfig::new(ranges, 16, 8),
        PatternConfig::new(
            Rule::SinkWindow {
                sink_blocks: 2,
                left: 4,
                right: Some(4),
            },
            16,
            8,
        ),
        PatternConfig::new(
            Rule::BidirectionalRelative {
                local_left: 2,
                local_right: 2,
                vert_stride: 4,
            },
            16,
            8,
        ),
    ];
    for config in configs {
        let pattern = config.build().unwrap();
        let before = ALLOCATIONS.with(Cell::get);
        let mut sum = 0;
        for head in 0..pattern.num_heads() {
            for block in 0..200 {
                sum += pattern.head(head).row(block, 0..200).iter().sum::<usize>();
                sum += pattern
                    .head(head)
                    .column(block, 0..200)
                    .iter()
                    .sum::<usize>();
            }
        }
        assert!(sum > 0);
        assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0, "{pattern}");
    }
}
