//! NaN wherever a call must not read.

use s2_attention_kernels::AttentionProblem;

use super::Tensors;

/// NaN in K and V blocks that no query of the key/value head attends, and in the padding of both sides. Returns the key rows poisoned.
pub fn poison(problem: &AttentionProblem, tensors: &mut Tensors) -> usize {
    let (shape, pattern) = (problem.shape(), problem.pattern());
    let (block, group) = (pattern.block_size(), pattern.group_size());
    let fill = |rows: &mut [f32], row: usize, width: usize| {
        rows[row * width..][..width].fill(f32::NAN);
    };
    let mut poisoned = 0;
    for sequence in problem.sequences() {
        let (batch, span) = (sequence.item, &sequence.span);
        for kv_head in 0..shape.num_kv_heads {
            let attended = |key_block: usize| {
                (kv_head * group..(kv_head + 1) * group).any(|head| {
                    (span.q_start..span.q_start + span.q_len)
                        .any(|query| pattern.attends(head, query / block, key_block))
                })
            };
            for token in 0..sequence.kv_rows {
                if token >= span.kv_len || !attended((span.kv_start + token) / block) {
                    let head = batch * shape.num_kv_heads + kv_head;
                    let row = head * shape.seq_kv + sequence.kv_row + token;
                    fill(&mut tensors.k, row, shape.head_dim);
                    fill(&mut tensors.v, row, shape.value_dim);
                    poisoned += 1;
                }
            }
        }
        for head in 0..shape.num_heads {
            for token in span.q_len..sequence.q_rows {
                let head = batch * shape.num_heads + head;
                let row = head * shape.seq_q + sequence.q_row + token;
                fill(&mut tensors.q, row, shape.head_dim);
                fill(&mut tensors.d_out, row, shape.value_dim);
                if let Some(d_lse) = &mut tensors.d_lse {
                    fill(d_lse, row, 1);
                }
            }
        }
    }
    poisoned
}
