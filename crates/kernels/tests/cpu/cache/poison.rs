//! What a step does not attend is never read: NaN there changes nothing.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use s2_attention_kernels::cpu::{Real, Stored};
use s2_attention_pattern::PatternConfig;

use super::state::State;
use crate::support::cache::Model;

/// Fills the pages' slots that must not be read: those of pages that no list of the table names, those behind `kv_len`,
/// and those of blocks that no row and no query head of the key/value head attends. Returns the slots filled.
fn fill<F: Real + Stored<F>>(state: &mut State<F>, with: f64) -> [usize; 2] {
    let shape = *state.problem.shape();
    let block_size = state.pattern().block_size();
    let mut read = vec![false; shape.pages * block_size];
    let mut unattended = 0;
    for (index, item) in state.step.items().iter().enumerate() {
        for kv_head in 0..shape.num_kv_heads {
            for (block, page) in state.list(index, kv_head) {
                let attended =
                    state.pattern().heads().query_heads(kv_head).any(|head| {
                        (0..item.q_len).any(|row| state.attends(index, row, head, block))
                    });
                let tokens = item.kv_len.min((block + 1) * block_size) - block * block_size;
                if attended {
                    read[page * block_size..][..tokens].fill(true);
                } else {
                    unattended += tokens;
                }
            }
        }
    }
    let mut filled = 0;
    for (slot, _) in read.iter().enumerate().filter(|(_, read)| !**read) {
        let (d, dv) = (shape.head_dim, shape.value_dim);
        state.k_pages[slot * d..][..d].fill(F::from_f64(with));
        state.v_pages[slot * dv..][..dv].fill(F::from_f64(with));
        filled += 1;
    }
    [filled, unattended]
}

fn poison_changes_nothing<F: Real + Stored<F>>(seed: u64) -> [usize; 2] {
    let mut state = State::<F>::random(seed);
    fill(&mut state, 7.0);
    let clean = state.decode();
    let filled = fill(&mut state, f64::NAN);
    let poisoned = state.decode();
    assert_eq!(poisoned.difference(&clean), None, "seed {seed}");
    filled
}

#[test]
fn of_random_steps() {
    let [mut poisoned, mut unattended] = [0, 0];
    for seed in 6000..6200 {
        let [all, listed] = match seed % 3 {
            0 => poison_changes_nothing::<f64>(seed),
            _ => poison_changes_nothing::<f32>(seed),
        };
        poisoned += all;
        unattended += listed;
    }
    println!("{poisoned} tokens poisoned, {unattended} of them listed");
    assert!(poisoned > 5000 && unattended > 1500);
}

#[test]
fn words_behind_a_list_are_never_read() {
    for seed in 6200..6230 {
        let mut state = State::<f32>::random(seed);
        let clean = state.decode();
        let layout = state.problem.layout();
        for item in 0..layout.items {
            for kv_head in 0..layout.kv_heads {
                for nth in state.list(item, kv_head).len()..layout.capacity {
                    let at = layout.entry(item, kv_head, nth);
                    state.words[at] = 0;
                    state.words[at + 1] = i32::MIN;
                }
            }
        }
        let garbage = state.decode();
        assert_eq!(garbage.difference(&clean), None, "seed {seed}");
    }
}

/// The other side of the promise: a NaN that is attended shows, in the heads that read it only.
#[test]
fn an_attended_nan_reaches_the_output() {
    let rng = &mut StdRng::seed_from_u64(1);
    let pattern = PatternConfig::local_stride(2, 4, 8, 4).with_num_kv_heads(2);
    let model = Model::new(&pattern.build().unwrap(), 16, 8);
    for of_values in [false, true] {
        let mut state = State::<f32>::new(&model, &[(100, 1)], rng);
        let (heads, dv) = (4, 8);
        let list = state.list(0, 1);
        let (_, page) = list[rng.random_range(list.len() - 2..list.len())];
        if of_values {
            state.v_pages[page * 8 * 8..][..8].fill(f32::NAN);
        } else {
            state.k_pages[page * 8 * 16..][..16].fill(f32::NAN);
        }
        let attended = state.decode();
        for head in 0..heads {
            let out = &attended.out[head * dv..][..dv];
            let expected = if head >= 2 { dv } else { 0 };
            let count = out.iter().filter(|x| x.is_nan()).count();
            assert_eq!(count, expected, "head {head}: {out:?}");
            assert_eq!(attended.lse[head].is_nan(), head >= 2 && !of_values);
        }
    }
}
