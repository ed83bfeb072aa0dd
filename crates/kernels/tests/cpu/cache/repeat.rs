//! Two runs give the same bits, whatever the number of threads; pages of half precision give those of their numbers.

use half::{bf16, f16};
use rayon::ThreadPoolBuilder;
use s2_attention_kernels::cpu::Stored;

use super::harness::{convert, decode};
use super::state::State;
use crate::support::cache::Attended;

#[test]
fn random_steps_repeat_bit_for_bit() {
    for seed in 7000..7060 {
        let state = State::<f32>::random(seed);
        let run = |threads: usize| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build();
            pool.unwrap().install(|| state.decode())
        };
        let first = run(2);
        for threads in [1, 2, 5] {
            let difference = run(threads).difference(&first);
            assert_eq!(difference, None, "seed {seed} on {threads} threads");
        }
    }
}

fn halves_widen<T: Stored<f32>>(seed: u64, round: impl Fn(f32) -> T) {
    let mut state = State::<f32>::random(seed);
    let [k, v] = [&state.k_pages, &state.v_pages]
        .map(|pages| pages.iter().map(|&x| round(x)).collect::<Vec<T>>());
    state.k_pages = k.iter().map(|x| x.widen()).collect();
    state.v_pages = v.iter().map(|x| x.widen()).collect();
    let widened = state.decode();
    let mut out = vec![0.0_f32; widened.out.len()];
    let mut lse = vec![0.0_f32; widened.lse.len()];
    let q = convert(&state.rows.q);
    decode(
        &state.problem,
        &state.words,
        &q,
        [&k[..], &v[..]],
        (&mut out, &mut lse),
    );
    let stored = Attended {
        out: out.into_iter().map(f64::from).collect(),
        lse: lse.into_iter().map(f64::from).collect(),
    };
    assert_eq!(stored.difference(&widened), None, "seed {seed}");
}

#[test]
fn pages_of_half_precision() {
    for seed in 7100..7120 {
        halves_widen(seed, f16::from_f32);
        halves_widen(seed, bf16::from_f32);
    }
}
