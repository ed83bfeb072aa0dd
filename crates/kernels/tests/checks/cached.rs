//! The cache of one layer on the device, driven step by step, beside all tokens of its sequences on the host.

use std::collections::HashSet;
use std::sync::Arc;

use cubecl::prelude::*;
use cubecl::server::Handle;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Normal};
use s2_attention_kernels::cache::{
    self, Append, BlockTables, CacheLimits, CacheProblem, CacheShape, SequenceId, StepItem,
    StepKind, TableLayout,
};
use s2_attention_kernels::cube::{CacheSide, CubeDecode};
use s2_attention_pattern::Pattern;

use super::engine::{Engine, Placed};
use super::ensure;
use super::support::cache::swap_axes;

/// Rows behind those of a step that no item owns.
const NOBODYS: usize = 3;

/// A sequence: its keys and values, `[tokens, kv_heads, width]`.
#[derive(Clone)]
pub(super) struct History {
    id: SequenceId,
    pub(super) sides: [Vec<f32>; 2],
}

/// The cache of a layer.
#[derive(Clone)]
pub struct Layer {
    pub(super) engine: Engine,
    pub pattern: Pattern,
    /// Of keys and of values.
    pub dims: [usize; 2],
    pub(super) scale: Option<f64>,
    tables: Arc<std::sync::Mutex<BlockTables>>,
    pub(super) sequences: Vec<History>,
    /// What the pools hold, and NaN in every page that holds nothing.
    pub(super) pools: [Vec<f32>; 2],
    pages: usize,
}

/// New tokens of some sequences, with their rows of `q`, `k` and `v`: `[rows, heads, width]`.
pub struct NewTokens {
    pub step: cache::Step,
    pub(super) rows: usize,
    pub(super) q: Vec<f32>,
    sides: [Vec<f32>; 2],
}

impl Layer {
    /// `sequences` empty sequences of at most `max_tokens` tokens.
    ///
    /// # Errors
    /// Patterns that a cache refuses.
    pub fn new(
        engine: &Engine,
        pattern: &Pattern,
        dims: [usize; 2],
        scale: Option<f64>,
        (sequences, max_tokens): (usize, usize),
        evict: bool,
    ) -> Result<Self, String> {
        let limits = CacheLimits {
            pages: None,
            max_tokens,
        };
        let tables = BlockTables::new(pattern.clone(), limits, evict);
        let mut tables = tables.map_err(|error| error.to_string())?;
        let pages = sequences * tables.full_pages(max_tokens);
        let nothing = |width: usize| vec![f32::NAN; pages * pattern.block_size() * width];
        Ok(Self {
            engine: engine.clone(),
            sequences: (0..sequences)
                .map(|_| History {
                    id: tables.add(),
                    sides: [Vec::new(), Vec::new()],
                })
                .collect(),
            pattern: pattern.clone(),
            dims,
            scale,
            tables: Arc::new(std::sync::Mutex::new(tables)),
            pools: dims.map(nothing),
            pages,
        })
    }

    pub(super) fn heads(&self) -> [usize; 2] {
        [self.pattern.num_heads(), self.pattern.num_kv_heads()]
    }

    /// Appends tokens to the sequences, with rows from the normal distribution, and writes them to the pools.
    ///
    /// # Errors
    /// Steps that are refused, launches that fail, and pools that hold anything but what was written.
    pub fn append(
        &mut self,
        tokens: &[usize],
        std: f32,
        rng: &mut StdRng,
    ) -> Result<NewTokens, String> {
        let normal = Normal::new(0.0, std).map_err(|error| error.to_string())?;
        let rows = tokens.iter().sum::<usize>();
        let [heads, kv_heads] = self.heads();
        let mut random = |len: usize| -> Vec<f32> {
            let values = normal.sample_iter(&mut *rng).take(rows * len);
            values.map(|x| self.engine.storage.round(x)).collect()
        };
        let q = random(heads * self.dims[0]);
        let sides = self.dims.map(|width| random(kv_heads * width));
        self.append_rows(tokens, q, sides)
    }

    /// As [`Layer::append`], of those rows.
    ///
    /// # Errors
    /// Those of [`Layer::append`].
    pub fn append_rows(
        &mut self,
        tokens: &[usize],
        mut q: Vec<f32>,
        mut sides: [Vec<f32>; 2],
    ) -> Result<NewTokens, String> {
        let appends: Vec<Append> = (self.sequences.iter().zip(tokens))
            .map(|(sequence, &tokens)| Append {
                sequence: sequence.id,
                tokens,
            })
            .collect();
        let step = self
            .lock()
            .begin(&appends)
            .map_err(|error| error.to_string())?;
        let [heads, kv_heads] = self.heads();
        for (item, history) in step.items().iter().zip(&mut self.sequences) {
            for (side, width) in [0, 1].into_iter().zip(self.dims) {
                let row = kv_heads * width;
                let new = &sides[side][item.q_row * row..][..item.q_len * row];
                history.sides[side].extend(new);
            }
        }
        let rows = step.rows() + NOBODYS;
        q.resize(rows * heads * self.dims[0], f32::NAN);
        for (side, width) in sides.iter_mut().zip(self.dims) {
            side.resize(rows * kv_heads * width, f32::NAN);
        }
        let new = NewTokens {
            step,
            rows,
            q,
            sides,
        };
        self.write(&new)?;
        Ok(new)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BlockTables> {
        self.tables
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The call of some items of a step.
    pub(super) fn call(
        &self,
        new: &NewTokens,
        items: &[usize],
    ) -> Result<(CubeDecode, Handle), String> {
        let [heads, kv_heads] = self.heads();
        let layout = new.step.layout_of(items.len());
        let shape = CacheShape {
            items: items.len(),
            rows: new.rows,
            num_heads: heads,
            num_kv_heads: kv_heads,
            head_dim: self.dims[0],
            value_dim: self.dims[1],
            pages: self.pages,
            capacity: layout.capacity,
            decode_tokens: new.step.decode_tokens(),
            max_tokens: self.lock().limits().max_tokens,
        };
        let problem = CacheProblem::new(shape, &self.pattern, self.scale);
        let problem = Arc::new(problem.map_err(|error| error.to_string())?);
        let (client, engine) = (&self.engine.client, self.engine.decodes_by());
        let call = CubeDecode::with_engine(client, problem, self.engine.storage.elem(), engine);
        let call = call.map_err(|error| error.to_string())?;
        let words = client.create_from_slice(i32::as_bytes(&new.step.words_of(items)));
        Ok((call, words))
    }

    /// `values [rows, heads, width]` as a tensor of the engine's layout.
    pub(super) fn place(&self, values: &[f32], heads: usize, width: usize) -> Placed {
        let axes = [1, heads, values.len() / heads / width, width];
        self.engine.place(&by_head(values, heads, width), axes)
    }

    pub(super) fn upload(&self, pool: &[f32]) -> Handle {
        self.engine
            .client
            .create_from_slice(&self.engine.storage.bytes(pool))
    }

    /// Writes the new rows on the device, and holds the pools to what the table says.
    fn write(&mut self, new: &NewTokens) -> Result<(), String> {
        let (kv_heads, block) = (self.heads()[1], self.pattern.block_size());
        let items: Vec<usize> = (0..new.step.items().len()).collect();
        let (call, words) = self.call(new, &items)?;
        for (at, side) in [CacheSide::Keys, CacheSide::Values].into_iter().enumerate() {
            let width = self.dims[at];
            let rows = self.place(&new.sides[at], kv_heads, width);
            let pages = self.upload(&self.pools[at]);
            call.write(side, &rows.tensor, &pages, &words)
                .map_err(|error| error.to_string())?;
            for (number, item) in new.step.items().iter().enumerate() {
                for kv_head in 0..kv_heads {
                    for (listed, page) in entries(new, number, kv_head) {
                        let positions = listed * block..(listed + 1) * block;
                        for position in positions.filter(|p| is_new(item, *p)) {
                            let row = item.q_row + position - (item.kv_len - item.q_len);
                            let from =
                                &new.sides[at][(row * kv_heads + kv_head) * width..][..width];
                            let to = (page * block + position % block) * width;
                            self.pools[at][to..to + width].copy_from_slice(from);
                        }
                    }
                }
            }
            let written = self.engine.read_all(&pages, self.engine.storage)?;
            same_or_nan(&written, &self.pools[at])
                .map_err(|miss| format!("{side:?} as written: {miss}"))?;
        }
        Ok(())
    }

    /// Reads keys and values of every prefill back, and holds them to the history.
    ///
    /// # Errors
    /// Launches that fail, and anything but the listed blocks and the new rows.
    pub fn read(&self, new: &NewTokens) -> Result<usize, String> {
        let (kv_heads, block) = (self.heads()[1], self.pattern.block_size());
        let items: Vec<usize> = (0..new.step.items().len()).collect();
        let (call, words) = self.call(new, &items)?;
        let prefills = new.step.items_of(StepKind::Prefill);
        for &number in &prefills {
            let item = new.step.items()[number];
            for (at, side) in [CacheSide::Keys, CacheSide::Values].into_iter().enumerate() {
                let width = self.dims[at];
                let rows = self.place(&new.sides[at], kv_heads, width);
                let pages = self.upload(&self.pools[at]);
                let out = self.engine.unwritten([1, kv_heads, item.kv_len, width]);
                let (target, tokens) = (&out.tensor, item.kv_len);
                call.read(side, &pages, &rows.tensor, &words, number, target, tokens)
                    .map_err(|error| error.to_string())?;
                let mut expected = vec![f32::NAN; kv_heads * item.kv_len * width];
                let history = by_head(&self.sequences[number].sides[at], kv_heads, width);
                for kv_head in 0..kv_heads {
                    let listed: HashSet<usize> = entries(new, number, kv_head)
                        .map(|(block, _)| block)
                        .collect();
                    let there = |p: &usize| listed.contains(&(p / block)) || is_new(&item, *p);
                    for position in (0..item.kv_len).filter(there) {
                        let at = (kv_head * item.kv_len + position) * width;
                        expected[at..at + width].copy_from_slice(&history[at..at + width]);
                    }
                }
                let strided = out.axes;
                let read = self.engine.read(&out.tensor.handle, 0, strided)?;
                same_or_nan(&read, &expected)
                    .map_err(|miss| format!("{side:?} of item {number}: {miss}"))?;
            }
        }
        Ok(prefills.len())
    }

    /// Ends a step: pages that it frees hold nothing.
    pub fn commit(&mut self, new: &NewTokens) -> Result<(), String> {
        self.lock().commit(&new.step);
        let mut used = HashSet::new();
        for sequence in &self.sequences {
            for kv_head in 0..self.heads()[1] {
                let tables = self.lock();
                let entries = tables.entries(sequence.id, kv_head);
                let entries = entries.map_err(|error| error.to_string())?;
                used.extend(entries.iter().map(|entry| entry.page as usize));
            }
        }
        let block = self.pattern.block_size();
        for (pool, width) in self.pools.iter_mut().zip(self.dims) {
            for (page, values) in pool.chunks_exact_mut(block * width).enumerate() {
                if !used.contains(&page) {
                    values.fill(f32::NAN);
                }
            }
        }
        Ok(())
    }

    /// Tokens of a sequence.
    pub fn tokens(&self, sequence: usize) -> usize {
        self.sequences[sequence].sides[0].len() / (self.heads()[1] * self.dims[0])
    }
}

fn is_new(item: &StepItem, position: usize) -> bool {
    (item.kv_len - item.q_len..item.kv_len).contains(&position)
}

/// Blocks and pages of a list of the whole table.
pub(super) fn entries(
    new: &NewTokens,
    item: usize,
    kv_head: usize,
) -> impl Iterator<Item = (usize, usize)> + use<> {
    let (layout, words): (TableLayout, Vec<i32>) = (new.step.layout(), new.step.words());
    let count = words[layout.count(item, kv_head)] as usize;
    (0..count).map(move |entry| {
        let at = layout.entry(item, kv_head, entry);
        (words[at] as usize, words[at + 1] as usize)
    })
}

/// `[rows, heads, width]` as `[heads, rows, width]`.
pub(super) fn by_head(values: &[f32], heads: usize, width: usize) -> Vec<f32> {
    swap_axes(values, [values.len() / heads / width, heads, width])
}

/// Holds what was read to what was expected, bit for bit but for NaNs.
fn same_or_nan(read: &[f64], expected: &[f32]) -> Result<(), String> {
    ensure(read.len() == expected.len(), || {
        format!("{} elements instead of {}", read.len(), expected.len())
    })?;
    let differs = |(a, b): (&f64, &f32)| !(*a == f64::from(*b) || (a.is_nan() && b.is_nan()));
    match read.iter().zip(expected).position(differs) {
        Some(at) => Err(format!(
            "element {at} is {} instead of {}",
            read[at], expected[at]
        )),
        None => Ok(()),
    }
}
