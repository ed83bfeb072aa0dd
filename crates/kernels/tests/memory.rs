//! Memory beyond inputs and outputs grows with the sequence, not with its square.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use s2_attention_kernels::cache::{Append, BlockTables, CacheLimits, CacheProblem, CacheShape};
use s2_attention_kernels::cpu::{Gradients, Rows, RowsMut, Saved, backward, decode, forward};
use s2_attention_kernels::{AttentionProblem, AttentionShape};
use s2_attention_pattern::PatternConfig;

/// Counts the bytes alive and their peak.
struct Counting;

static ALIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let alive = ALIVE.fetch_add(layout.size(), SeqCst) + layout.size();
        PEAK.fetch_max(alive, SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALIVE.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that the call held beyond what was alive before it.
fn peak_of(call: impl FnOnce()) -> usize {
    let before = ALIVE.load(SeqCst);
    PEAK.store(before, SeqCst);
    call();
    PEAK.load(SeqCst) - before
}

/// One test, since others would allocate beside it.
#[test]
fn working_memory() {
    is_linear_in_the_sequence();
    of_decoding_is_that_of_a_short_sequence();
}

fn pool_of(threads: usize) -> rayon::ThreadPool {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.unwrap()
}

fn of_decoding_is_that_of_a_short_sequence() {
    const DIM: usize = 32;
    let peaks = [2_000, 200_000].map(|tokens| {
        let pattern = PatternConfig::dense(16, 2).build().unwrap();
        let limits = CacheLimits {
            pages: None,
            max_tokens: tokens + 1,
        };
        let mut tables = BlockTables::new(pattern.clone(), limits, true).unwrap();
        let sequence = tables.add();
        let step = tables.begin(&[Append { sequence, tokens }]).unwrap();
        tables.commit(&step);
        let appends = [Append {
            sequence,
            tokens: 1,
        }];
        let words = tables.begin(&appends).unwrap().words();
        let shape = CacheShape {
            items: 1,
            rows: 1,
            num_heads: 2,
            num_kv_heads: 2,
            head_dim: DIM,
            value_dim: DIM,
            pages: tables.num_pages(),
            capacity: tables.capacity(),
            decode_tokens: 1,
            max_tokens: tokens + 1,
        };
        let problem = CacheProblem::new(shape, &pattern, None).unwrap();
        let pages = vec![0.1_f32; problem.key_pool().len()];
        let q = [0.1; 2 * DIM];
        let (mut out, mut lse) = ([0.0; 2 * DIM], [0.0; 2]);
        let strides = [0, DIM, 2 * DIM];
        let pool = pool_of(2);
        peak_of(|| {
            let (q, out) = (Rows::new(&q, strides), RowsMut::new(&mut out, strides));
            pool.install(|| decode(&problem, q, &pages, &pages, &words, out, &mut lse));
        })
    });
    println!("decoding held {peaks:?} bytes");
    // Scores of all keys would be 200,000 numbers a head: 1.6 MB.
    assert!(peaks[1] < peaks[0] + (1 << 20), "{peaks:?}");
}

fn is_linear_in_the_sequence() {
    // Threads that end give memory back late: both pools stay until all is measured.
    let (two, one) = (pool_of(2), pool_of(1));
    // Two threads work on one head after the other, or on both at once: how much they hold is not the same each time.
    peaks(&two);
    let [
        (forward_short, backward_short),
        (forward_long, backward_long),
    ] = peaks(&one);
    // Four times the tokens: at most four times the memory.
    assert!(
        forward_long <= 4 * forward_short,
        "{forward_short} -> {forward_long}"
    );
    assert!(
        backward_long <= 4 * backward_short,
        "{backward_short} -> {backward_long}"
    );
}

/// The most bytes that forward and backward pass hold at two lengths, none as many as there are scores.
fn peaks(pool: &rayon::ThreadPool) -> [(usize, usize); 2] {
    const HEADS: usize = 2;
    const DIM: usize = 32;
    pool.broadcast(|_| ());
    [8192, 32768].map(|seq| {
        // Wide local windows: 64 of every row's blocks are kept.
        let pattern = PatternConfig::local_stride(64, 8, 16, HEADS)
            .build()
            .unwrap();
        let shape = AttentionShape {
            batch: 1,
            num_heads: HEADS,
            num_kv_heads: HEADS,
            seq_q: seq,
            seq_kv: seq,
            head_dim: DIM,
            value_dim: DIM,
        };
        let problem = AttentionProblem::new(shape, &pattern, None, None).unwrap();
        let input = vec![0.1_f32; HEADS * seq * DIM];
        let [mut out, mut dq, mut dk, mut dv] = [(); 4].map(|_| vec![0.0_f32; input.len()]);
        let mut lse = vec![0.0; HEADS * seq];
        let strides = [0, seq * DIM, DIM];
        let rows = || Rows::new(&input, strides);
        let forward_peak = peak_of(|| {
            let out = RowsMut::new(&mut out, strides);
            pool.install(|| forward(&problem, rows(), rows(), rows(), out, &mut lse));
        });
        let backward_peak = peak_of(|| {
            let saved = Saved {
                q: rows(),
                k: rows(),
                v: rows(),
                out: Rows::new(&out, strides),
                lse: &lse,
                d_out: rows(),
                d_lse: None,
            };
            let gradients = Gradients {
                dq: Some(RowsMut::new(&mut dq, strides)),
                dk: Some(RowsMut::new(&mut dk, strides)),
                dv: Some(RowsMut::new(&mut dv, strides)),
            };
            pool.install(|| backward(&problem, saved, gradients));
        });
        // The scores of one head alone would be seq * seq numbers.
        assert!(
            forward_peak < 8 << 20,
            "forward pass held {forward_peak} bytes at {seq}"
        );
        assert!(
            backward_peak < seq * seq / 2,
            "backward pass held {backward_peak} bytes at {seq}"
        );
        (forward_peak, backward_peak)
    })
}
