//! Queries that attend nothing, a single token, padding, and keys that nobody attends.

use rand::SeedableRng;
use rand::rngs::StdRng;
use s2_attention_kernels::{AttentionProblem, AttentionShape, SequenceSpan};
use s2_attention_pattern::{BlockMask, PatternConfig, Rule};

use super::engine::Engine;
use super::layouts::same;
use super::storage::Storage;
use super::support::{Results, Tensors, compare, random};
use super::worst::{Worst, rounded};
use super::{Effort, ensure, in_types};

/// All of them, one after the other, in every type.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &Storage::ALL, of_type)
}

fn of_type(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let lines = [
        empty_rows(engine, effort)?,
        a_mask_that_keeps_nothing(engine)?,
        unread_queries(engine)?,
        a_single_token(engine)?,
        padding(engine)?,
        infinite_values(engine)?,
        strides_beyond_the_sequence(engine)?,
        empty_sequences_beyond_a_mask(engine)?,
    ];
    Ok(lines.join("; "))
}

/// The call of `config` and random tensors.
pub fn call(
    shape: AttentionShape,
    config: &PatternConfig,
    scale: Option<f64>,
    spans: Option<Vec<SequenceSpan>>,
    std: f32,
) -> Result<(AttentionProblem, Tensors), String> {
    let tensors = random::tensors(&shape, std, true, &mut StdRng::seed_from_u64(21));
    Ok((problem(shape, config, scale, spans)?, tensors))
}

/// The call of `config` without tensors.
pub fn problem(
    shape: AttentionShape,
    config: &PatternConfig,
    scale: Option<f64>,
    spans: Option<Vec<SequenceSpan>>,
) -> Result<AttentionProblem, String> {
    let pattern = config.build().map_err(|error| error.to_string())?;
    AttentionProblem::new(shape, &pattern, scale, spans).map_err(|error| error.to_string())
}

/// What a query that attends nothing gets.
fn hold_nothing(results: &Results, row: usize, [d, dv]: [usize; 2]) -> Result<(), String> {
    let (out, dq) = (&results.out[row * dv..][..dv], &results.dq[row * d..][..d]);
    let zero = |values: &[f64]| values.iter().all(|&x| x == 0.0);
    let held = results.lse[row] == f64::NEG_INFINITY && zero(out) && zero(dq);
    ensure(held, || {
        format!(
            "row {row} attends nothing: lse {}, out {out:?}, dq {dq:?}",
            results.lse[row]
        )
    })
}

fn empty_rows(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let mut count = 0;
    let stems = [
        "custom_empty_rows",
        "custom_bidirectional",
        "part_after",
        "part_before",
    ];
    for stem in stems {
        let golden = effort.golden_named(stem)?;
        let widths = [golden.shape.head_dim, golden.shape.value_dim];
        let results = engine.run(&golden.problem(), &golden.tensors)?;
        for (row, &lse) in golden.results.lse.iter().enumerate() {
            if lse == f64::NEG_INFINITY {
                hold_nothing(&results, row, widths).map_err(|miss| format!("{stem}: {miss}"))?;
                count += 1;
            }
        }
        // Its keys lie after all queries.
        let keys = || results.dk.iter().chain(&results.dv);
        ensure(stem != "part_after" || keys().all(|&x| x == 0.0), || {
            format!("{stem}: gradients of keys that nobody attends")
        })?;
    }
    // All queries of `part_after`, and more.
    ensure(count >= 150 + 3 * 16, || format!("only {count} empty rows"))?;
    Ok(format!("{count} empty rows"))
}

/// What a neighbour attends does not reach a query that attends nothing, not even infinity.
fn infinite_values(engine: &Engine) -> Result<String, String> {
    let mask = BlockMask::from_fn([1, 2, 2], false, |_, i, j| (i, j) == (1, 0));
    let rule = Rule::Custom(mask.map_err(|error| error.to_string())?);
    let shape = AttentionShape {
        seq_q: 32,
        seq_kv: 32,
        ..ONE_HEAD
    };
    let (problem, mut tensors) = call(shape, &PatternConfig::new(rule, 16, 1), None, None, 1.5)?;
    let widths = [shape.head_dim, shape.value_dim];
    for infinite in [&mut tensors.v, &mut tensors.k] {
        infinite[3 * widths[0]..][..widths[0]].fill(f32::INFINITY);
    }
    let results = engine.run(&problem, &tensors)?;
    for row in 0..16 {
        hold_nothing(&results, row, widths)?;
    }
    Ok("16 empty rows beside infinite keys and values".to_owned())
}

/// Strides that leave one column or none of any sequence, the largest that a pattern takes among them.
fn strides_beyond_the_sequence(engine: &Engine) -> Result<String, String> {
    let shape = AttentionShape {
        num_heads: 8,
        num_kv_heads: 8,
        ..ONE_HEAD
    };
    let results = [1 << 20, (1 << 30) + 1, i32::MAX as usize].map(|stride| {
        let config = PatternConfig::local_stride(1, stride, 16, 8);
        let (problem, tensors) = call(shape, &config, None, None, 1.5)?;
        engine.run(&problem, &tensors)
    });
    // The first block of a stride may be further than 32 bits count.
    let config = PatternConfig::new(
        Rule::BidirectionalRelative {
            local_left: 1,
            local_right: 1 << 30,
            vert_stride: 1 << 30,
        },
        200,
        8,
    );
    let span = SequenceSpan {
        q_start: 4000,
        q_len: 20,
        kv_start: 0,
        kv_len: 20,
    };
    let (problem, tensors) = call(shape, &config, None, Some(vec![span]), 1.5)?;
    Worst::default().run(engine, &problem, &tensors)?;
    let [first, others @ ..] = results;
    let first = first?;
    for other in others {
        same(compare::difference(&other?, &first))?;
    }
    Ok("strides beyond any sequence".to_owned())
}

/// Beside one that the mask covers.
fn empty_sequences_beyond_a_mask(engine: &Engine) -> Result<String, String> {
    let shape = AttentionShape {
        batch: 2,
        num_heads: 2,
        num_kv_heads: 1,
        ..ONE_HEAD
    };
    let mask = BlockMask::from_fn([1, 4, 4], true, |_, i, j| j <= i);
    let rule = Rule::Custom(mask.map_err(|error| error.to_string())?);
    let config = PatternConfig::new(rule, 16, 2).with_num_kv_heads(1);
    let span = |[q_start, q_len, kv_start, kv_len]: [usize; 4]| SequenceSpan {
        q_start,
        q_len,
        kv_start,
        kv_len,
    };
    let far = (1 << 24) + 5;
    for empty in [[far, 0, far, 0], [0, 20, far, 0], [far, 0, 0, 20]] {
        let spans = [[0, 48, 0, 48], empty].map(span).to_vec();
        let (problem, tensors) = call(shape, &config, None, Some(spans), 1.5)?;
        Worst::default()
            .run(engine, &problem, &tensors)
            .map_err(|miss| format!("empty sequence {empty:?}: {miss}"))?;
    }
    Ok("empty sequences beyond a mask".to_owned())
}

const ONE_HEAD: AttentionShape = AttentionShape {
    batch: 1,
    num_heads: 1,
    num_kv_heads: 1,
    seq_q: 48,
    seq_kv: 48,
    head_dim: 16,
    value_dim: 16,
};

fn a_mask_that_keeps_nothing(engine: &Engine) -> Result<String, String> {
    let shape = AttentionShape {
        batch: 1,
        num_heads: 2,
        num_kv_heads: 1,
        seq_q: 50,
        seq_kv: 60,
        head_dim: 16,
        value_dim: 16,
    };
    let mask = BlockMask::from_fn([1, 4, 4], false, |_, _, _| false);
    let rule = Rule::Custom(mask.map_err(|error| error.to_string())?);
    let config = PatternConfig::new(rule, 16, 2).with_num_kv_heads(1);
    let (problem, tensors) = call(shape, &config, None, None, 1.5)?;
    let results = engine.run(&problem, &tensors)?;
    for (name, values) in results.named() {
        let nothing = if name == "lse" {
            f64::NEG_INFINITY
        } else {
            0.0
        };
        ensure(values.iter().all(|&x| x == nothing), || {
            format!("a mask that keeps nothing: {name} is not {nothing}")
        })?;
    }
    Ok("an empty mask".to_owned())
}

/// Whatever a query that attends nothing holds reaches no gradient of others.
fn unread_queries(engine: &Engine) -> Result<String, String> {
    let shape = AttentionShape {
        batch: 1,
        num_heads: 1,
        num_kv_heads: 1,
        seq_q: 64,
        seq_kv: 64,
        head_dim: 16,
        value_dim: 16,
    };
    // Blocks of 16: the second row is empty, and in one tile with rows that are not.
    let kept = [[0, 1], [4, 4], [0, 2], [0, 3]];
    let mask = BlockMask::from_fn([1, 4, 4], false, |_, i, j| kept[i].contains(&j));
    let rule = Rule::Custom(mask.map_err(|error| error.to_string())?);
    let (problem, tensors) = call(shape, &PatternConfig::new(rule, 16, 1), None, None, 1.0)?;
    let expected = engine.run(&problem, &tensors)?;
    let empty = 16..32;
    for row in empty.clone() {
        hold_nothing(&expected, row, [16, 16])?;
    }
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut poisoned = tensors.clone();
        let elements = empty.start * 16..empty.end * 16;
        poisoned.q[elements.clone()].fill(poison);
        poisoned.d_out[elements].fill(poison);
        if let Some(d_lse) = &mut poisoned.d_lse {
            d_lse[empty.clone()].fill(poison);
        }
        let results = engine.run(&problem, &poisoned)?;
        same(compare::difference(&results, &expected))
            .map_err(|miss| format!("{poison} in queries that attend nothing: {miss}"))?;
    }
    Ok("NaN and infinity in queries that attend nothing".to_owned())
}

/// One query and one key: the softmax is 1.
fn a_single_token(engine: &Engine) -> Result<String, String> {
    let shape = AttentionShape {
        batch: 1,
        num_heads: 3,
        num_kv_heads: 1,
        seq_q: 1,
        seq_kv: 1,
        head_dim: 48,
        value_dim: 24,
    };
    let config = PatternConfig::local_stride(1, 4, 5, 3).with_num_kv_heads(1);
    let positions = [0, 4, 5, 1000, 1 << 20];
    for position in positions {
        let span = SequenceSpan {
            q_start: position,
            q_len: 1,
            kv_start: position,
            kv_len: 1,
        };
        let (problem, tensors) = call(shape, &config, Some(0.2), Some(vec![span]), 1.5)?;
        let results = Worst::default()
            .run(engine, &problem, &tensors)
            .map_err(|miss| format!("a token at {position}: {miss}"))?;
        let v = rounded(&tensors, engine.storage).v;
        let mut pairs = results.out.iter().zip(v.iter().cycle());
        ensure(pairs.all(|(&out, &v)| out == f64::from(v)), || {
            format!("a token at {position}: out is not v")
        })?;
    }
    Ok(format!("a single token at {} positions", positions.len()))
}

/// Sequences without queries or without keys beside whole and partial ones.
fn padding(engine: &Engine) -> Result<String, String> {
    let shape = AttentionShape {
        batch: 5,
        num_heads: 4,
        num_kv_heads: 2,
        seq_q: 70,
        seq_kv: 90,
        head_dim: 16,
        value_dim: 16,
    };
    let lengths = [[0, 90], [70, 90], [70, 0], [0, 0], [41, 67]];
    let spans = lengths.map(|[q_len, kv_len]| SequenceSpan {
        q_start: 20,
        q_len,
        kv_start: 0,
        kv_len,
    });
    let config = PatternConfig::local_stride(2, 3, 16, 4).with_num_kv_heads(2);
    let (problem, tensors) = call(shape, &config, None, Some(spans.to_vec()), 1.5)?;
    let results = Worst::default().run(engine, &problem, &tensors)?;
    let (mut queries, mut keys) = (0, 0);
    for (sequence, [q_len, kv_len]) in lengths.into_iter().enumerate() {
        for head in 0..4 {
            for token in q_len..70 {
                hold_nothing(&results, (sequence * 4 + head) * 70 + token, [16, 16])?;
                queries += 1;
            }
        }
        for token in (0..2).flat_map(|head| (kv_len..90).map(move |token| head * 90 + token)) {
            let row = (sequence * 180 + token) * 16;
            let mut gradients = results.dk[row..][..16]
                .iter()
                .chain(&results.dv[row..][..16]);
            ensure(gradients.all(|&x| x == 0.0), || {
                format!("a gradient of padding of sequence {sequence}")
            })?;
            keys += 1;
        }
    }
    Ok(format!("{queries} queries and {keys} keys of padding"))
}
