//! Packed documents, and padding before the tokens: sequences are calls of their own, and nothing leaks between them.

use s2_attention_kernels::{AttentionProblem, AttentionShape, PackedSequences, SequenceSpan};
use s2_attention_pattern::PatternConfig;

use super::engine::Engine;
use super::layouts::same;
use super::storage::{Layout, Storage};
use super::support::golden::Golden;
use super::support::packed::{
    alone, packed_case, padded_case, poison_others, results_of, tensors_of,
};
use super::support::random::{self, CLASSES, Case};
use super::support::{Tensors, compare, oracle, poison::poison};
use super::worst::{Expected, Worst};
use super::{Effort, ensure, in_types};

/// Classes where few kernels are compiled.
const FEW_CLASSES: usize = 5;
const FEW_CLASSES_OF_HALVES: usize = 2;

/// All of it, in every type.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &Storage::ALL, of_type)
}

fn of_type(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let mut worst = Worst::default();
    let files = golden_documents(engine, effort, &mut worst)?;
    let calls = random_calls(engine, effort, &mut worst)?;
    blocks_begin_anew(engine, &mut worst)?;
    Ok(format!(
        "{files} files as documents between documents of NaN, {calls} random calls with NaN in every second sequence, \
         {worst}"
    ))
}

/// Random documents and random padding against the oracle; then NaN in padding and in every second sequence, which must
/// change no bit of the others.
fn random_calls(engine: &Engine, effort: &Effort, worst: &mut Worst) -> Result<usize, String> {
    let classes = match (effort.all_kernels, engine.storage) {
        (true, _) => &CLASSES[..],
        (false, Storage::F32) => &CLASSES[..FEW_CLASSES],
        (false, _) => &CLASSES[..FEW_CLASSES_OF_HALVES],
    };
    let seeds = effort.numbers(effort.random.div_ceil(2));
    let calls = seeds.len();
    for seed in seeds {
        let class = classes[seed as usize % classes.len()];
        let case = if seed % 3 == 0 {
            padded_case
        } else {
            packed_case
        };
        let Case { problem, tensors } = case(class, 3_000_000 + seed);
        let engine = engine.with_layout(Layout::ALL[(seed / 2) as usize % 3]);
        hold_alone(&engine, &problem, &tensors, worst, seed % 2)
            .map_err(|miss| format!("seed 3_000_000 + {seed}, {class:?}: {miss}\n{problem:?}"))?;
    }
    Ok(calls)
}

fn hold_alone(
    engine: &Engine,
    problem: &AttentionProblem,
    tensors: &Tensors,
    worst: &mut Worst,
    parity: u64,
) -> Result<(), String> {
    let clean = worst.run(engine, problem, tensors)?;
    let mut padding = tensors.clone();
    poison(problem, &mut padding);
    let poisoned = engine.run(problem, &padding)?;
    same(compare::difference(&poisoned, &clean))
        .map_err(|miss| format!("NaN that nobody attends: {miss}"))?;

    let kept = |number: usize| number as u64 % 2 == parity;
    let poisoned = engine.run(problem, &poison_others(problem, tensors, kept))?;
    let sequences = problem.sequences().iter().enumerate();
    for (number, sequence) in sequences.filter(|(number, _)| kept(*number)) {
        let part = |all| results_of(problem, sequence, all);
        same(compare::difference(&part(&poisoned), &part(&clean)))
            .map_err(|miss| format!("NaN around sequence {number}: {miss}"))?;
    }
    Ok(())
}

/// The items of golden files as documents, with documents of NaN before, between and behind them.
fn golden_documents(engine: &Engine, effort: &Effort, worst: &mut Worst) -> Result<usize, String> {
    let files = effort.golden_in(engine.storage);
    let files: Vec<_> = files
        .filter_map(|golden| Some((golden, packed(golden)?)))
        .collect();
    ensure(files.len() >= 4, || {
        format!("only {} files are packed", files.len())
    })?;
    let files = effort.share.part_of(files);
    let count = files.len();
    for (golden, (problem, tensors)) in files {
        let held = engine.run(&problem, &tensors).and_then(|results| {
            for (item, number) in documents_of(golden).enumerate() {
                let part = results_of(&problem, &problem.sequences()[number], &results);
                let single = golden.problem();
                let at = &single.sequences()[item];
                let expected = match engine.storage {
                    Storage::F32 => Expected {
                        tensors: tensors_of(&single, at, &golden.tensors),
                        results: results_of(&single, at, &golden.results),
                        plains: None,
                    },
                    // What golden files hold is not of rounded inputs.
                    storage => {
                        let alone = alone(&single, at).ok_or("a golden file without tokens")?;
                        let tensors = tensors_of(&single, at, &golden.tensors);
                        Expected::new(&alone, &tensors, storage)
                    }
                };
                worst.hold(&part, &expected)?;
            }
            Ok(())
        });
        held.map_err(|miss| format!("{}, packed: {miss}", golden.name))?;
    }
    Ok(count)
}

/// Tokens of the documents of NaN.
const FILLERS: [usize; 3] = [3, 1, 90];

/// Where the items of a file are among the documents.
fn documents_of(golden: &Golden) -> impl Iterator<Item = usize> {
    (0..golden.shape.batch).map(|item| 2 * item + 1)
}

/// The items of a file between other documents; `None` where their positions are not those of documents.
fn packed(golden: &Golden) -> Option<(AttentionProblem, Tensors)> {
    let shape = golden.shape;
    let span = SequenceSpan {
        q_start: shape.seq_kv.checked_sub(shape.seq_q)?,
        kv_start: 0,
        ..golden.span
    };
    if golden.span != span {
        return None;
    }
    let (mut q, mut kv) = (vec![0], vec![0]);
    let mut push = |q_len: usize, kv_len: usize| {
        q.push(q[q.len() - 1] + q_len);
        kv.push(kv[kv.len() - 1] + kv_len);
    };
    let pattern = golden.config.build().ok()?;
    let table = pattern.max_blocks().map_or(usize::MAX, |(q, kv)| q.min(kv));
    for item in 0..=shape.batch {
        let filler = FILLERS[item % FILLERS.len()];
        let filler = filler.min(table.saturating_mul(pattern.block_size()));
        push(filler, filler);
        if item < shape.batch {
            push(shape.seq_q, shape.seq_kv);
        }
    }
    let documents = PackedSequences::new(&q, &kv).ok()?;
    let packed = AttentionShape {
        batch: 1,
        seq_q: documents.total_q(),
        seq_kv: documents.total_kv(),
        ..shape
    };
    let tensor = |values: &[f32], heads: usize, width: usize, side: &[usize], seq: usize| {
        let total = side[side.len() - 1];
        let mut all = vec![f32::NAN; heads * total * width];
        for (item, document) in documents_of(golden).enumerate() {
            for head in 0..heads {
                let from = &values[(item * heads + head) * seq * width..][..seq * width];
                let at = (head * total + side[document]) * width;
                all[at..at + seq * width].copy_from_slice(from);
            }
        }
        all
    };
    let queries = |values: &[f32], width| tensor(values, shape.num_heads, width, &q, shape.seq_q);
    let keys = |values: &[f32], width| tensor(values, shape.num_kv_heads, width, &kv, shape.seq_kv);
    let tensors = Tensors {
        q: queries(&golden.tensors.q, shape.head_dim),
        k: keys(&golden.tensors.k, shape.head_dim),
        v: keys(&golden.tensors.v, shape.value_dim),
        d_out: queries(&golden.tensors.d_out, shape.value_dim),
        d_lse: (golden.tensors.d_lse.as_ref()).map(|d_lse| queries(d_lse, 1)),
    };
    let problem = AttentionProblem::packed(packed, &pattern, None, &documents).ok()?;
    Some((problem, tensors))
}

/// Documents that begin within a block of the packed whole hold to blocks of their own, and miss what they would be if blocks
/// went on from one to the next.
fn blocks_begin_anew(engine: &Engine, worst: &mut Worst) -> Result<(), String> {
    let documents = PackedSequences::from_lengths(&[40, 71, 100]);
    let documents = documents.map_err(|error| error.to_string())?;
    let shape = AttentionShape {
        batch: 1,
        num_heads: 4,
        num_kv_heads: 2,
        seq_q: 211,
        seq_kv: 211,
        head_dim: 16,
        value_dim: 16,
    };
    let config = PatternConfig::local_stride(1, 3, 16, 4).with_num_kv_heads(2);
    let pattern = config.build().map_err(|error| error.to_string())?;
    let problem = AttentionProblem::packed(shape, &pattern, None, &documents)
        .map_err(|error| error.to_string())?;
    let rng = &mut rand::SeedableRng::seed_from_u64(31);
    let tensors = random::tensors(&shape, 1.5, true, rng);
    let results = worst.run(engine, &problem, &tensors)?;
    for sequence in &problem.sequences()[1..] {
        let mut going_on = *sequence;
        going_on.span.q_start += sequence.q_row;
        going_on.span.kv_start += sequence.kv_row;
        let Some(wrong) = alone(&problem, &going_on) else {
            return Err("a document without tokens".to_owned());
        };
        let wrong = oracle(&wrong, &tensors_of(&problem, sequence, &tensors));
        let part = results_of(&problem, sequence, &results);
        // Far beyond what any type rounds.
        let far = |name: &str, seen: &[f64], wrong: &[f64]| {
            let missed = compare::tensor(name, seen, wrong, 0.1).is_err();
            ensure(missed, || format!("{name} is that of blocks that go on"))
        };
        for ((name, seen), (_, wrong)) in part.named().into_iter().zip(wrong.named()) {
            far(name, seen, wrong)?;
        }
    }
    Ok(())
}
