//! A huge logit in a block that a query drops must not move its output; in one that it keeps, it must.

use super::state::State;
use crate::support::cache::Attended;
use crate::support::needle;

/// Plants a key that every query of a key/value head agrees with in a page, and holds every query to the pattern's word.
/// Returns how many dropped and kept it.
fn plant(
    state: &State<f32>,
    before: &Attended,
    item: usize,
    kv_head: usize,
    key: usize,
    page: usize,
) -> [usize; 2] {
    let shape = state.problem.shape();
    let (heads, d, dv) = (shape.num_heads, shape.head_dim, shape.value_dim);
    let block_size = state.pattern().block_size();
    let mut planted = state.clone();
    let slot = page * block_size + key % block_size;
    needle::plant(
        &mut planted.k_pages[slot * d..][..d],
        &mut planted.v_pages[slot * dv..][..dv],
    );
    let after = planted.decode();
    let mut seen = [0, 0];
    for (index, other) in state.step.items().iter().enumerate() {
        for row in 0..other.q_len {
            let query = other.kv_len - other.q_len + row;
            for head in 0..heads {
                let kept = index == item
                    && head / state.pattern().group_size() == kv_head
                    && key <= query
                    && state.attends(index, row, head, key / block_size);
                let at = ((other.q_row + row) * heads + head) * dv;
                needle::hold(kept, &before.out[at..][..dv], &after.out[at..][..dv])
                    .unwrap_or_else(|miss| {
                        panic!("item {index}, query {query}, head {head}, key {key} of item {item}: {miss}")
                    });
                seen[usize::from(kept)] += 1;
            }
        }
    }
    seen
}

#[test]
fn needles_move_what_attends_them_and_nothing_else() {
    let [mut dropped, mut kept] = [0, 0];
    for seed in 5000..5040 {
        let mut state = State::<f32>::random(seed);
        let shape = *state.problem.shape();
        let block_size = state.pattern().block_size();
        needle::share_component(&mut state.rows.q, &mut state.k_pages, shape.head_dim);
        let before = state.decode();
        for (index, item) in state.step.items().iter().enumerate() {
            for kv_head in 0..shape.num_kv_heads {
                let list = state.list(index, kv_head);
                for block in 0..item.kv_len.div_ceil(block_size) {
                    let key = ((block + 1) * block_size).min(item.kv_len) - 1;
                    if let Some(&(_, page)) = list.iter().find(|(listed, _)| *listed == block) {
                        let seen = plant(&state, &before, index, kv_head, key, page);
                        dropped += seen[0];
                        kept += seen[1];
                        continue;
                    }
                    // There is no place for a needle in a block without a page: nothing may ask for it.
                    let heads = state.pattern().heads().query_heads(kv_head);
                    let asked = heads
                        .flat_map(|head| (0..item.q_len).map(move |row| (head, row)))
                        .any(|(head, row)| state.attends(index, row, head, block));
                    assert!(!asked, "seed {seed}: block {block} has no page");
                    dropped += 1;
                }
            }
        }
    }
    println!("{dropped} pairs dropped, {kept} kept");
    assert!(dropped > 40_000 && kept > 4_000);
}
