//! Packed documents and padding before the tokens, with gradients.

use burn::tensor::{DType, Tensor};
use burn_s2_attention::{
    LeftPadding, PackedSequences, PatternConfig, ProblemError, S2AttentionError,
    S2AttentionOptions, s2_attention_packed, s2_attention_packed_with_lse, s2_attention_with_lse,
    try_s2_attention_packed, try_s2_attention_packed_with_lse,
};
use s2_attention_kernels::AttentionProblem;

use super::run::{Call, zeros};
use crate::common::panics::panic_text;
use crate::support::compare::{self, F32};
use crate::support::packed::{packed_case, padded_case, poison_others, results_of};
use crate::support::random::{CLASSES, Case};
use crate::support::{Results, oracle};

/// Of each kind. All in one class, which is three kernels and as many for tables.
const CALLS: u64 = 12;

fn documents(problem: &AttentionProblem) -> PackedSequences {
    let offsets = |side: fn(&burn_s2_attention::SequenceSpan) -> usize| -> Vec<usize> {
        let sequences = problem.sequences().iter();
        let ends = sequences.scan(0, |end, sequence| {
            *end += side(&sequence.span);
            Some(*end)
        });
        std::iter::once(0).chain(ends).collect()
    };
    PackedSequences::new(&offsets(|span| span.q_len), &offsets(|span| span.kv_len)).unwrap()
}

/// `[1, heads, total, width]` to `[total, heads, width]`.
fn packed(tensor: Tensor<4>) -> Tensor<3> {
    tensor.swap_dims(1, 2).squeeze_dim(0)
}

fn attend_packed(problem: &AttentionProblem, inputs: [Tensor<4>; 3]) -> (Tensor<4>, Tensor<3>) {
    let [q, k, v] = inputs.map(packed);
    let (pattern, scale) = (problem.pattern(), Some(problem.scale()));
    let (out, lse) = s2_attention_packed_with_lse(q, k, v, pattern, &documents(problem), scale);
    let out: Tensor<4> = out.unsqueeze_dim(0);
    (out.swap_dims(1, 2), lse.unsqueeze_dim(0))
}

/// A call for each document, and what padding gets behind the last.
fn attend_separately(
    problem: &AttentionProblem,
    [q, k, v]: [Tensor<4>; 3],
) -> (Tensor<4>, Tensor<3>) {
    let shape = problem.shape();
    let (mut outs, mut lses) = (Vec::new(), Vec::new());
    for sequence in problem.sequences() {
        let span = sequence.span;
        let mut padding = sequence.q_rows;
        if span.q_len > 0 && span.kv_len > 0 {
            let keys = |x: &Tensor<4>| x.clone().narrow(2, sequence.kv_row, span.kv_len);
            let queries = q.clone().narrow(2, sequence.q_row, span.q_len);
            let options = S2AttentionOptions::default().with_scale(problem.scale());
            let (out, lse) =
                s2_attention_with_lse(queries, keys(&k), keys(&v), problem.pattern(), &options);
            outs.push(out);
            lses.push(lse);
            padding -= span.q_len;
        }
        if padding > 0 {
            let like = |width: usize| {
                let sizes = [1, shape.num_heads, padding, width];
                Tensor::<4>::zeros(sizes, &q.device())
            };
            outs.push(like(shape.value_dim));
            let lse: Tensor<3> = like(1).squeeze_dim(3);
            lses.push(lse.add_scalar(f64::NEG_INFINITY));
        }
    }
    (Tensor::cat(outs, 2), Tensor::cat(lses, 2))
}

/// Random calls in which every tensor reaches some result.
fn cases(
    case: fn(crate::support::random::Class, u64) -> Case,
) -> impl Iterator<Item = (u64, Case)> {
    (7000..)
        .map(move |seed| (seed, case(CLASSES[0], seed)))
        .filter(|(_, case)| {
            let mut sequences = case.problem.sequences().iter();
            sequences.any(|sequence| sequence.span.q_len > 0 && sequence.span.kv_len > 0)
        })
        .take(CALLS as usize)
}

fn held(name: &str, results: &Results, expected: &Results) {
    compare::results(results, expected, F32).unwrap_or_else(|miss| panic!("{name}: {miss}"));
}

#[test]
fn documents_are_calls_of_their_own() {
    for (seed, Case { problem, tensors }) in cases(packed_case) {
        let call = Call::new(&problem, &tensors);
        let results = call.results_of(|inputs| attend_packed(&problem, inputs));
        held(
            &format!("seed {seed}"),
            &results,
            &oracle(&problem, &tensors),
        );
        // The loss of separate calls leaves lse of minus infinity out.
        let tensors = crate::support::Tensors {
            d_lse: None,
            ..tensors
        };
        let call = Call::new(&problem, &tensors);
        let results = call.results_of(|inputs| attend_packed(&problem, inputs));
        let separate = call.results_of(|inputs| attend_separately(&problem, inputs));
        held(&format!("seed {seed}, separately"), &results, &separate);
    }
}

#[test]
fn nothing_leaks_between_documents() {
    for (seed, Case { problem, tensors }) in cases(packed_case) {
        let run = |tensors| {
            let call = Call::new(&problem, tensors);
            call.results_of(|inputs| attend_packed(&problem, inputs))
        };
        let clean = run(&tensors);
        let kept = |number: usize| number as u64 % 2 == seed % 2;
        let poisoned = run(&poison_others(&problem, &tensors, kept));
        let sequences = problem.sequences().iter().enumerate();
        for (number, sequence) in sequences.filter(|(number, _)| kept(*number)) {
            let part = |all| results_of(&problem, sequence, all);
            let difference = compare::difference(&part(&poisoned), &part(&clean));
            assert_eq!(difference, None, "seed {seed}, document {number}");
        }
    }
}

#[test]
fn padding_may_come_before_the_tokens() {
    for (seed, Case { problem, tensors }) in cases(padded_case) {
        let shape = *problem.shape();
        let rows = |item: usize| {
            let mut of_item = problem.sequences().iter().filter(|s| s.item == item);
            let last = of_item.next_back().unwrap();
            LeftPadding {
                q: shape.seq_q - last.q_rows,
                kv: shape.seq_kv - last.kv_rows,
            }
        };
        // An item that is all padding is one sequence without tokens.
        let padding = (0..shape.batch).map(|item| match rows(item) {
            LeftPadding { q: 0, kv: 0 } if !has_tokens(&problem, item) => LeftPadding {
                q: shape.seq_q,
                kv: shape.seq_kv,
            },
            rows => rows,
        });
        let options = S2AttentionOptions::default()
            .with_scale(problem.scale())
            .with_left_padding(padding.collect());
        let call = Call::new(&problem, &tensors);
        let results = call
            .results_of(|[q, k, v]| s2_attention_with_lse(q, k, v, problem.pattern(), &options));
        held(
            &format!("seed {seed}"),
            &results,
            &oracle(&problem, &tensors),
        );
    }
}

fn has_tokens(problem: &AttentionProblem, item: usize) -> bool {
    let mut of_item = problem.sequences().iter().filter(|s| s.item == item);
    of_item.any(|sequence| sequence.span.q_len + sequence.span.kv_len > 0)
}

#[test]
fn refused_with_the_values() {
    let config = PatternConfig::local_stride(2, 4, 16, 4).with_num_kv_heads(2);
    let pattern = config.build().unwrap();
    let documents = PackedSequences::from_lengths(&[20, 11]).unwrap();
    let inputs = || {
        let tensor = |heads: usize| zeros([30, heads, 16], DType::F32);
        [tensor(4), tensor(2), tensor(2)]
    };
    let [q, k, v] = inputs();
    let error = try_s2_attention_packed(q, k, v, &pattern, &documents, None).unwrap_err();
    let expected = ProblemError::PackedTotal {
        side: "q",
        seen: 31,
        accepted: 30,
    };
    assert_eq!(error, S2AttentionError::Problem(expected));
    let [q, k, v] = inputs();
    let with_lse = try_s2_attention_packed_with_lse(q, k, v, &pattern, &documents, None);
    assert_eq!(with_lse.unwrap_err(), error);
    let [q, k, v] = inputs();
    let text = panic_text(|| drop(s2_attention_packed(q, k, v, &pattern, &documents, None)));
    assert_eq!(text, error.to_string());
}
