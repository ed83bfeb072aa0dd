//! Tables that name what is not there, and slices that are too short, are refused before anything is read or written.

use std::panic::{AssertUnwindSafe, catch_unwind};

use s2_attention_kernels::cache::TableLayout;

use super::state::State;

/// The message of the panic of decoding a state that was tampered with.
fn panic_of(tamper: impl Fn(&mut State<f32>, TableLayout)) -> String {
    // Several items with lists of several pages.
    let states = (9000..9200).map(State::<f32>::random);
    let mut fit = states.filter(|state| {
        let items = state.problem.layout().items;
        items > 1 && (0..items).all(|item| state.list(item, 0).len() > 1)
    });
    let mut state = fit.next().unwrap();
    let layout = state.problem.layout();
    tamper(&mut state, layout);
    let panic = catch_unwind(AssertUnwindSafe(|| state.decode())).unwrap_err();
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().unwrap().to_string(),
    }
}

fn assert_panics(with: &str, tamper: impl Fn(&mut State<f32>, TableLayout)) {
    let message = panic_of(tamper);
    assert!(message.contains(with), "{message}");
}

#[test]
fn words() {
    assert_panics("words, got", |state, _| _ = state.words.pop());
    assert_panics("item 1: q_row, q_len and kv_len are", |state, layout| {
        state.words[layout.item(1)] = -1;
    });
    assert_panics("item 0: q_row, q_len and kv_len are", |state, layout| {
        let at = layout.item(0);
        state.words[at + 1] = state.words[at + 2] + 1;
    });
    // The second item's rows are the first one's too.
    assert_panics("items own the rows", |state, layout| {
        state.words[layout.item(1)] = 0
    });
    assert_panics("items own the rows", |state, layout| {
        state.words[layout.item(1)] = state.problem.shape().rows as i32;
    });
    assert_panics("there is room for", |state, layout| {
        state.words[layout.count(0, 0)] = layout.capacity as i32 + 1;
    });
    assert_panics("item 1, key/value head 0", |state, layout| {
        state.words[layout.entry(1, 0, 1) + 1] = state.problem.shape().pages as i32;
    });
    assert_panics("blocks ascend", |state, layout| {
        let [first, second] = [0, 1].map(|nth| layout.entry(0, 0, nth));
        state.words[second] = state.words[first];
    });
}

#[test]
fn pages() {
    assert_panics("elements, got", |state, _| _ = state.k_pages.pop());
    assert_panics("elements, got", |state, _| _ = state.v_pages.pop());
}
