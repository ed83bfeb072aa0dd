//! Decode on a cache that is written, read and evicted step by step, against attention to all tokens.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use s2_attention_kernels::cache::StepKind;
use s2_attention_pattern::{Pattern, PatternConfig};

use super::cached::{Layer, NewTokens};
use super::cached_decode::Decoded;
use super::engine::Engine;
use super::storage::{Layout, Storage};
use super::support::Results;
use super::support::cache::causal_pattern;
use super::support::golden::Golden;
use super::support::needle;
use super::support::random::{CLASSES, Class, STD};
use super::worst::{Expected, Worst};
use super::{Effort, ensure, in_types};

/// Classes where few kernels are compiled.
const FEW_CLASSES: usize = 3;
/// Steps of a random run.
const STEPS: usize = 6;
/// Most tokens of a sequence.
const MOST_TOKENS: usize = 150;

/// The golden data with their queries as new tokens, random runs of steps of mixed lengths with NaN in every page that is not to be
/// read, the same bits with eviction and without, needles, and patterns that must be missed; in every type.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &Storage::ALL, of_type)
}

fn of_type(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let mut worst = Worst::default();
    let (mut files, mut queries) = (0, 0);
    for golden in effort.golden_in(engine.storage) {
        let held = golden_queries(engine, golden, &mut worst);
        let held = held.map_err(|miss| format!("{}: {miss}", golden.name))?;
        queries += held;
        files += usize::from(held > 0);
    }
    ensure(files > 2, || {
        format!("only {files} golden files are decoded")
    })?;

    let classes = if effort.all_kernels {
        &CLASSES[..]
    } else {
        &CLASSES[..FEW_CLASSES]
    };
    let seeds = effort.numbers(effort.runs);
    let runs = seeds.len();
    let mut seen = Seen::default();
    for seed in seeds {
        let class = classes[seed as usize % classes.len()];
        let layout = Layout::ALL[(seed as usize / classes.len()) % 3];
        random_run(
            &engine.with_layout(layout),
            class,
            seed,
            effort,
            &mut worst,
            &mut seen,
        )
        .map_err(|miss| format!("seed {seed}, {class:?} as {layout:?}: {miss}"))?;
    }
    ensure(seen.decoded > runs && seen.prefills > 0, || {
        format!("only {seen:?} in {runs} runs")
    })?;
    let ratios = ratios(engine, &mut worst)?;
    let pairs = needles(engine)?;
    wrong_patterns_miss(engine)?;
    Ok(format!(
        "{queries} queries of {files} files, {} items decoded and {} read back in {runs} runs, {ratios} items of 1 to 32 query \
         heads a key/value head, {pairs} needles, {worst}",
        seen.decoded, seen.prefills
    ))
}

/// What random runs came to.
#[derive(Debug, Default)]
struct Seen {
    decoded: usize,
    prefills: usize,
}

/// The keys of a file but the last few as a prompt, and those with their queries as new tokens. How many queries were held: none
/// where the call is not one of a cache.
fn golden_queries(engine: &Engine, golden: &Golden, worst: &mut Worst) -> Result<usize, String> {
    let shape = golden.shape;
    let problem = golden.problem();
    let pattern = problem.pattern();
    let span = golden.span;
    let continues = span.kv_start == 0 && span.q_start + span.q_len == shape.seq_kv;
    if !pattern.is_causal() || !continues {
        return Ok(0);
    }
    let new = shape.seq_q.min(16);
    let old = shape.seq_kv - new;
    let mut queries = 0;
    for item in 0..shape.batch {
        let mut layer = Layer::new(
            engine,
            pattern,
            [shape.head_dim, shape.value_dim],
            None,
            (1, shape.seq_kv),
            true,
        )?;
        // `[tokens, heads, width]` of some tokens of the file's `[b, h, s, width]`.
        let rows = |values: &[f32], heads: usize, seq: usize, width: usize, tokens: [usize; 2]| {
            let mut rows = Vec::new();
            for token in tokens[0]..tokens[1] {
                for head in 0..heads {
                    let at = ((item * heads + head) * seq + token) * width;
                    let row = &values[at..at + width];
                    rows.extend(row.iter().map(|x| engine.storage.round(*x)));
                }
            }
            rows
        };
        let keys = |tokens| {
            let (heads, seq) = (shape.num_kv_heads, shape.seq_kv);
            [
                rows(&golden.tensors.k, heads, seq, shape.head_dim, tokens),
                rows(&golden.tensors.v, heads, seq, shape.value_dim, tokens),
            ]
        };
        if old > 0 {
            let unread = vec![0.0; old * shape.num_heads * shape.head_dim];
            let prompt = layer.append_rows(&[old], unread, keys([0, old]))?;
            layer.commit(&prompt)?;
        }
        let last = [shape.seq_q - new, shape.seq_q];
        let q = rows(
            &golden.tensors.q,
            shape.num_heads,
            shape.seq_q,
            shape.head_dim,
            last,
        );
        let tokens = layer.append_rows(&[new], q, keys([old, shape.seq_kv]))?;
        let decoded = layer.decode(&tokens, 1)?.ok_or("nothing to decode")?;
        let mut held = Vec::new();
        compare(&layer, &tokens, &decoded, pattern, &mut held)?;
        worst.hold_together(&held)?;
        queries += new;
    }
    Ok(queries)
}

/// Puts every item that was decoded to `held`, beside attention under a pattern.
fn compare(
    layer: &Layer,
    new: &NewTokens,
    decoded: &Decoded,
    pattern: &Pattern,
    held: &mut Vec<(Results, Expected)>,
) -> Result<(), String> {
    for number in new.step.items_of(StepKind::Decode) {
        if let Some(expected) = layer.expected(new, number, pattern)? {
            held.push((layer.of_item(new, number, decoded, &expected), expected));
        }
    }
    Ok(())
}

/// New tokens of a sequence: none, one, a few, or a chunk of a prompt.
fn chunk(rng: &mut StdRng) -> usize {
    match rng.random_range(0..10) {
        0 => 0,
        1..5 => 1,
        5..8 => rng.random_range(2..=16),
        _ => rng.random_range(17..=50),
    }
}

fn random_run(
    engine: &Engine,
    class: Class,
    seed: u64,
    effort: &Effort,
    worst: &mut Worst,
    seen: &mut Seen,
) -> Result<(), String> {
    let rng = &mut StdRng::seed_from_u64(3_000_000 + seed);
    let pattern = causal_pattern(rng, class.block, MOST_TOKENS.div_ceil(class.block));
    let sequences = rng.random_range(1..=3);
    let scale = (rng.random_bool(0.3)).then(|| -0.7 / (class.head_dim as f64).sqrt());
    let dims = [class.head_dim, class.value_dim];
    let size = (sequences, MOST_TOKENS);
    let mut layer = Layer::new(engine, &pattern, dims, scale, size, true)?;
    let mut kept = Layer::new(engine, &pattern, dims, scale, size, false)?;
    let mut held = Vec::new();
    for step in 0..STEPS {
        let room = |sequence| MOST_TOKENS - layer.tokens(sequence);
        let tokens: Vec<usize> = (0..sequences).map(|at| chunk(rng).min(room(at))).collect();
        let rows: u64 = rng.random();
        let rows = || StdRng::seed_from_u64(rows);
        let new = layer.append(&tokens, STD, &mut rows())?;
        let same = kept.append(&tokens, STD, &mut rows())?;
        let launches = if step + 1 == STEPS {
            effort.repeats.div_ceil(10).max(2)
        } else {
            1
        };
        if let Some(decoded) = layer.decode(&new, launches)? {
            compare(&layer, &new, &decoded, &pattern, &mut held)?;
            let unevicted = kept.decode(&same, 1)?.ok_or("nothing to decode")?;
            let bits = |x: &Decoded| -> Vec<u64> {
                x.out.iter().chain(&x.lse).map(|x| x.to_bits()).collect()
            };
            ensure(bits(&decoded) == bits(&unevicted), || {
                format!("step {step}: other bits without eviction\n{pattern:?}")
            })?;
        }
        seen.prefills += layer.read(&new)?;
        layer.commit(&new)?;
        kept.commit(&same)?;
    }
    seen.decoded += held.len();
    worst
        .hold_together(&held)
        .map_err(|miss| format!("{miss}\n{pattern:?}"))
}

/// Few and many query heads that share keys, and tokens: up to 512 rows.
fn ratios(engine: &Engine, worst: &mut Worst) -> Result<usize, String> {
    let rng = &mut StdRng::seed_from_u64(8);
    let mut items = 0;
    for ratio in [1, 2, 4, 5, 8, 32] {
        let config = PatternConfig::local_stride(1, 3, 16, 2 * ratio).with_num_kv_heads(2);
        let pattern = config.build().map_err(|error| error.to_string())?;
        let mut layer = Layer::new(engine, &pattern, [16; 2], None, (2, 120), true)?;
        let mut held = Vec::new();
        for tokens in [[70, 41], [1, 1], [16, 3], [0, 16]] {
            let new = layer.append(&tokens, STD, rng)?;
            if let Some(decoded) = layer.decode(&new, 1)? {
                compare(&layer, &new, &decoded, &pattern, &mut held)?;
            }
            layer.commit(&new)?;
        }
        worst
            .hold_together(&held)
            .map_err(|miss| format!("{ratio} heads: {miss}"))?;
        // All but the prompts, and the sequence that gets no token.
        ensure(held.len() == 5, || {
            format!("{ratio} heads: {} items decoded", held.len())
        })?;
        items += held.len();
    }
    Ok(items)
}

/// A local window and strides of each query head, three of which share a key/value head.
fn strided(offset: i64) -> Result<Pattern, String> {
    let config = PatternConfig::local_stride(2, 4, 16, 6)
        .with_num_kv_heads(2)
        .with_head_offset(offset);
    config.build().map_err(|error| error.to_string())
}

/// A prompt, and a few tokens after it.
fn continued(
    engine: &Engine,
    planted: Option<(usize, usize)>,
) -> Result<(Layer, NewTokens), String> {
    let (prompt, new, width) = (137, 3, 16);
    let pattern = strided(0)?;
    let mut layer = Layer::new(engine, &pattern, [width; 2], None, (1, 200), true)?;
    let rng = &mut StdRng::seed_from_u64(5);
    let mut rows = |tokens: usize, heads: usize| -> Vec<f32> {
        let values = (0..tokens * heads * width).map(|_| rng.random_range(-1.5..1.5));
        values.map(|x| engine.storage.round(x)).collect()
    };
    let mut sides = [rows(prompt, 2), rows(prompt, 2)];
    let [q_old, mut q_new] = [rows(prompt, 6), rows(new, 6)];
    let later = [rows(new, 2), rows(new, 2)];
    let [keys, values] = &mut sides;
    needle::share_component(&mut q_new, keys, width);
    if let Some((kv_head, token)) = planted {
        let at = (token * 2 + kv_head) * width;
        needle::plant(&mut keys[at..at + width], &mut values[at..at + width]);
    }
    let first = layer.append_rows(&[prompt], q_old, sides)?;
    layer.commit(&first)?;
    let tokens = layer.append_rows(&[new], q_new, later)?;
    Ok((layer, tokens))
}

/// A huge logit in the last key of each block moves the rows that attend the block, and no others.
fn needles(engine: &Engine) -> Result<usize, String> {
    let (layer, new) = continued(engine, None)?;
    let before = layer.decode(&new, 1)?.ok_or("nothing to decode")?;
    let item = new.step.items()[0];
    let (block, dv) = (layer.pattern.block_size(), layer.dims[1]);
    let rows = before.lse.len() / 6;
    let mut seen = [0, 0];
    for kv_head in 0..2 {
        for key in (block - 1..137).step_by(block) {
            let (layer, new) = continued(engine, Some((kv_head, key)))?;
            let after = layer.decode(&new, 1)?.ok_or("nothing to decode")?;
            for (head, row) in (0..6).flat_map(|head| (0..item.q_len).map(move |row| (head, row))) {
                let query = item.kv_len - item.q_len + row;
                let kept =
                    head / 3 == kv_head && layer.pattern.attends(head, query / block, key / block);
                let at = (head * rows + row) * dv;
                needle::hold(kept, &before.out[at..][..dv], &after.out[at..][..dv])
                    .map_err(|miss| format!("key {key}, head {head}, query {query}: {miss}"))?;
                seen[usize::from(kept)] += 1;
            }
        }
    }
    ensure(seen[0] > 100 && seen[1] > 40, || {
        format!("only {seen:?} needles")
    })?;
    Ok(seen[0] + seen[1])
}

/// The bars can be missed: by attention under other patterns.
fn wrong_patterns_miss(engine: &Engine) -> Result<(), String> {
    let (layer, new) = continued(engine, None)?;
    let decoded = layer.decode(&new, 1)?.ok_or("nothing to decode")?;
    let hold = |pattern: &Pattern| {
        let mut held = Vec::new();
        compare(&layer, &new, &decoded, pattern, &mut held)?;
        Ok::<_, String>(Worst::default().hold_together(&held))
    };
    hold(&layer.pattern)??;
    let one_more = PatternConfig::local_stride(3, 4, 16, 6).with_num_kv_heads(2);
    let one_more = one_more.build().map_err(|error| error.to_string())?;
    for (name, wrong) in [("an offset", strided(1)?), ("a local block more", one_more)] {
        ensure(hold(&wrong)?.is_err(), || format!("the bars hold {name}"))?;
    }
    Ok(())
}
