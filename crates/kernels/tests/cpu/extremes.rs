//! NaN and infinity where they must show and where they must not, scores beyond f32's digits, views that are refused.

use rand::SeedableRng;
use rand::rngs::StdRng;
use s2_attention_kernels::cpu::{self, Rows, RowsMut};
use s2_attention_kernels::{AttentionProblem, AttentionShape};
use s2_attention_pattern::{BlockMask, PatternConfig, Rule};

use crate::engine::{self, Layout};
use crate::support::{Tensors, compare, oracle, random};

const SEQ: usize = 64;
const DIM: usize = 8;

fn call(rule: Rule, std: f32) -> (AttentionProblem, Tensors) {
    let shape = AttentionShape {
        batch: 1,
        num_heads: 1,
        num_kv_heads: 1,
        seq_q: SEQ,
        seq_kv: SEQ,
        head_dim: DIM,
        value_dim: DIM,
    };
    let pattern = PatternConfig::new(rule, 16, 1).build().unwrap();
    let problem = AttentionProblem::new(shape, &pattern, None, None).unwrap();
    let tensors = random::tensors(&shape, std, true, &mut StdRng::seed_from_u64(21));
    (problem, tensors)
}

#[test]
fn a_query_of_nan_shows() {
    let dense = || Rule::Dense { causal: true };
    let sparse = Rule::LocalStride {
        local_blocks: 1,
        vert_stride: 2,
    };
    for rule in [dense(), sparse] {
        for token in [0, 5, SEQ - 1] {
            let (problem, mut tensors) = call(rule.clone(), 1.0);
            tensors.q[token * DIM..][..DIM].fill(f32::NAN);
            let (out, lse) = engine::forward::<f32>(&problem, &tensors, Layout::Bhsd);
            for i in 0..SEQ {
                let nan = i == token;
                assert_eq!(
                    lse[i].is_nan(),
                    nan,
                    "lse of query {i}, NaN in query {token}"
                );
                let row = &out[i * DIM..][..DIM];
                assert!(row.iter().all(|x| x.is_nan() == nan), "out of query {i}");
            }
        }
    }
    let (problem, mut tensors) = call(dense(), 1.0);
    tensors.k.fill(f32::NAN);
    let (out, lse) = engine::forward::<f32>(&problem, &tensors, Layout::Bhsd);
    assert!(out.iter().chain(&lse).all(|x| x.is_nan()));
}

#[test]
fn nothing_of_a_query_that_attends_nothing_reaches_a_gradient() {
    // Blocks of 16: the second row is empty.
    let kept = [[0, 1], [2, 2], [0, 2], [0, 3]];
    let mask = (0..16).map(|n| {
        let [first, last] = kept[n / 4];
        n / 4 != 1 && (n % 4 == first || n % 4 == last)
    });
    let mask = BlockMask::new([1, 4, 4], &mask.collect::<Vec<_>>(), false).unwrap();
    let (problem, tensors) = call(Rule::Custom(mask), 1.0);
    let expected = engine::run::<f32>(&problem, &tensors, Layout::Bhsd);
    let empty = 16..32;
    assert!(
        expected.lse[empty.clone()]
            .iter()
            .all(|lse| *lse == f64::NEG_INFINITY)
    );
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut poisoned = tensors.clone();
        let rows = empty.start * DIM..empty.end * DIM;
        poisoned.q[rows.clone()].fill(poison);
        poisoned.d_out[rows].fill(poison);
        if let Some(d_lse) = &mut poisoned.d_lse {
            d_lse[empty.clone()].fill(poison);
        }
        let results = engine::run::<f32>(&problem, &poisoned, Layout::Bhsd);
        assert_eq!(compare::difference(&results, &expected), None, "{poison}");
    }
}

/// Scores of a hundred million: lse keeps no digit after the point, and `2^(score - lse)` must not run away.
#[test]
fn gradients_of_huge_scores_stay_in_bounds() {
    let (problem, tensors) = call(Rule::Dense { causal: true }, 1e4);
    // dS = P (dP - D) is at most the size of dP, so no gradient is larger than this.
    let largest = |values: &[f32]| {
        values
            .iter()
            .fold(0.0_f64, |max, x| max.max(x.abs().into()))
    };
    let d_scores = 2.0 * DIM as f64 * largest(&tensors.d_out) * largest(&tensors.v)
        + tensors.d_lse.as_deref().map_or(0.0, largest);
    let bound = SEQ as f64 * d_scores * largest(&tensors.q).max(largest(&tensors.k));
    for results in [
        engine::run::<f32>(&problem, &tensors, Layout::Bhsd),
        engine::run::<f64>(&problem, &tensors, Layout::Bhsd),
    ] {
        for (name, gradient) in &results.named()[2..] {
            assert!(
                gradient.iter().all(|x| x.abs() <= bound),
                "{name} above {bound:e}"
            );
        }
    }
}

#[test]
fn f64_gradients_have_the_digits_of_f64() {
    for std in [1.5, 5.0] {
        let (problem, tensors) = call(Rule::Dense { causal: true }, std);
        let results = engine::run::<f64>(&problem, &tensors, Layout::Bhsd);
        let expected = oracle(&problem, &tensors);
        let bars = compare::Tolerance {
            out: 1e-12,
            lse: 1e-12,
            gradients: 1e-10,
        };
        compare::results(&results, &expected, bars).unwrap_or_else(|miss| panic!("{std}: {miss}"));
    }
}

fn forward_with(out_strides: [usize; 3], q_strides: [usize; 3]) {
    let (problem, tensors) = call(Rule::Dense { causal: true }, 1.0);
    let mut out = vec![0.0; SEQ * DIM];
    let mut lse = vec![0.0; SEQ];
    let strides = [SEQ * DIM, SEQ * DIM, DIM];
    cpu::forward(
        &problem,
        Rows::new(&tensors.q, q_strides),
        Rows::new(&tensors.k, strides),
        Rows::new(&tensors.v, strides),
        RowsMut::new(&mut out, out_strides),
        &mut lse,
    );
}

#[test]
#[should_panic(expected = "out: rows overlap")]
fn overlapping_rows_are_refused() {
    forward_with([0, 0, DIM - 1], [0, 0, DIM]);
}

#[test]
#[should_panic(expected = "out: 512 elements do not hold")]
fn strides_beyond_the_output_are_refused() {
    forward_with([0, 0, usize::MAX / 2], [0, 0, DIM]);
}

#[test]
#[should_panic(expected = "q: 512 elements do not hold")]
fn strides_beyond_an_input_are_refused() {
    forward_with([0, 0, DIM], [0, 0, DIM + 1]);
}
