//! Wrong tables that the bars must tell from right ones.

use super::state::State;
use crate::support::compare::{F32, tensor};

/// Tampers with the words of random steps and counts those that the bars tell apart from the oracle: at least `least` of
/// 100. What nothing attends cannot be noticed.
fn assert_caught(least: usize, tamper: impl Fn(&mut State<f32>)) {
    let mut caught = 0;
    for seed in 8000..8100 {
        let mut state = State::<f32>::random(seed);
        // Pages that no list holds are not NaN here: a wrong page is to be noticed by its numbers.
        for x in state.k_pages.iter_mut().chain(&mut state.v_pages) {
            if x.is_nan() {
                *x = 0.5;
            }
        }
        let expected = state.expected();
        let right = state.decode();
        tensor("out", &right.out, &expected.out, F32.out)
            .unwrap_or_else(|miss| panic!("seed {seed}: {miss}"));
        tamper(&mut state);
        let wrong = state.decode();
        let out = tensor("out", &wrong.out, &expected.out, F32.out);
        let lse = tensor("lse", &wrong.lse, &expected.lse, F32.lse);
        caught += usize::from(out.is_err() || lse.is_err());
    }
    println!("{caught} caught");
    assert!(caught >= least, "{caught} caught");
}

/// Changes the list of the first item's first head: `(block, page)`.
fn edit(state: &mut State<f32>, edit: impl Fn(&mut Vec<(usize, usize)>)) {
    let layout = state.problem.layout();
    let mut list = state.list(0, 0);
    edit(&mut list);
    state.words[layout.count(0, 0)] = list.len() as i32;
    for (nth, (block, page)) in list.into_iter().enumerate() {
        let at = layout.entry(0, 0, nth);
        (state.words[at], state.words[at + 1]) = (block as i32, page as i32);
    }
}

#[test]
fn a_forgotten_first_block() {
    assert_caught(60, |state| edit(state, |list| _ = list.remove(0)));
}

#[test]
fn a_forgotten_last_block() {
    assert_caught(60, |state| edit(state, |list| _ = list.pop()));
}

#[test]
fn swapped_pages() {
    assert_caught(50, |state| {
        edit(state, |list| {
            let last = list.len() - 1;
            let (first_page, last_page) = (list[0].1, list[last].1);
            list[0].1 = last_page;
            list[last].1 = first_page;
        })
    });
}

#[test]
fn a_length_off_by_one() {
    assert_caught(90, |state| {
        let at = state.problem.layout().item(0);
        let (q_len, kv_len) = (state.words[at + 1], state.words[at + 2]);
        state.words[at + 2] = (kv_len - 1).max(q_len);
        if kv_len == q_len {
            // Nothing comes before the step: a query less.
            state.words[at + 1] -= 1;
        }
    });
}
