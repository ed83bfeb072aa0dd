//! A cache of one layer on the CPU engine: what a program does with block tables and pools.

use s2_attention_kernels::AttentionProblem;
use s2_attention_kernels::cache::{
    Append, BlockTables, CacheError, CacheProblem, CacheShape, PoolShape, SequenceId, Step,
    StepKind,
};
use s2_attention_kernels::cpu::{self, Real, Rows, RowsMut, Stored};
use s2_attention_pattern::Pattern;

use crate::support::cache::{Attended, Model, StepRows, call_shape};

/// Block tables and their pools. Pages that no sequence reads hold NaN.
#[derive(Debug, Clone)]
pub struct Cache<F> {
    pub tables: BlockTables,
    pub sequences: Vec<SequenceId>,
    pub k_pages: Vec<F>,
    pub v_pages: Vec<F>,
    head_dim: usize,
    value_dim: usize,
    scale: Option<f64>,
}

impl<F: Real + Stored<F>> Cache<F> {
    pub fn new(tables: BlockTables, model: &Model) -> Self {
        Self {
            tables,
            sequences: Vec::new(),
            k_pages: Vec::new(),
            v_pages: Vec::new(),
            head_dim: model.head_dim,
            value_dim: model.value_dim,
            scale: model.scale,
        }
    }

    pub fn add(&mut self) -> SequenceId {
        let sequence = self.tables.add();
        self.sequences.push(sequence);
        sequence
    }

    pub fn fork(&mut self, of: SequenceId) -> Result<SequenceId, CacheError> {
        let sequence = self.tables.fork(of)?;
        self.sequences.push(sequence);
        Ok(sequence)
    }

    pub fn remove(&mut self, sequence: SequenceId) {
        self.tables.remove(sequence).unwrap();
        self.sequences.retain(|&kept| kept != sequence);
        self.poison();
    }

    pub fn reset(&mut self, sequence: SequenceId) {
        self.tables.reset(sequence).unwrap();
        self.poison();
    }

    /// Begins a step, carries it out and commits it.
    pub fn step(
        &mut self,
        appends: &[Append],
        rows: &StepRows,
    ) -> Result<(Step, Attended), CacheError> {
        let step = self.tables.begin(appends)?;
        let attended = self.carry_out(&step, rows);
        self.tables.commit(&step);
        self.poison();
        Ok((step, attended))
    }

    /// Writes the new rows of a step, and attends.
    pub fn carry_out(&mut self, step: &Step, rows: &StepRows) -> Attended {
        let [k, v] = self.write(step, rows);
        self.attend(step, &rows.q, [&k, &v])
    }

    /// Writes the new keys and values of a step, and returns them.
    pub fn write(&mut self, step: &Step, rows: &StepRows) -> [Vec<F>; 2] {
        let [keys, values] = self.grow();
        let new = [convert(&rows.k), convert(&rows.v)];
        let pools = [(keys, &mut self.k_pages), (values, &mut self.v_pages)];
        for ((pool, pages), new) in pools.into_iter().zip(&new) {
            cpu::cache_copy(&pool, step.copies(), pages);
            let new = packed(new, self.tables.pattern().num_kv_heads(), pool.width);
            let (layout, words) = (step.layout(), step.words());
            cpu::cache_write(&pool, &layout, &words, new, step.rows(), pages);
        }
        new
    }

    /// The output of the step's queries, of decoded items and of prefills.
    pub fn attend(&self, step: &Step, q: &[f32], new: [&[F]; 2]) -> Attended {
        let heads = self.tables.pattern().num_heads();
        let mut out = vec![F::from_f64(f64::NAN); step.rows() * heads * self.value_dim];
        let mut lse = vec![F::from_f64(f64::NAN); step.rows() * heads];
        let q: Vec<F> = convert(q);
        let decoded = step.items_of(StepKind::Decode);
        if !decoded.is_empty() && step.rows() > 0 {
            let problem = self.problem(step, decoded.len());
            let pages = [&self.k_pages[..], &self.v_pages[..]];
            let words = step.words_of(&decoded);
            decode(&problem, &words, &q, pages, (&mut out, &mut lse));
        }
        for item in step.items_of(StepKind::Prefill) {
            self.prefill(step, item, (&q, new), (&mut out, &mut lse));
        }
        Attended {
            out: out.into_iter().map(F::to_f64).collect(),
            lse: lse.into_iter().map(F::to_f64).collect(),
        }
    }

    /// The call of `items` items of a step.
    pub fn problem(&self, step: &Step, items: usize) -> CacheProblem {
        let pattern = self.tables.pattern();
        let shape = CacheShape {
            items,
            rows: step.rows(),
            num_heads: pattern.num_heads(),
            num_kv_heads: pattern.num_kv_heads(),
            head_dim: self.head_dim,
            value_dim: self.value_dim,
            pages: self.tables.num_pages(),
            capacity: self.tables.capacity(),
            decode_tokens: step.decode_tokens(),
            max_tokens: self.tables.limits().max_tokens,
        };
        CacheProblem::new(shape, pattern, self.scale).unwrap()
    }

    /// Reads the keys of a prefill and attends them by an ordinary call. What is not read holds NaN.
    fn prefill(
        &self,
        step: &Step,
        index: usize,
        (q, new): (&[F], [&[F]; 2]),
        (out, lse): (&mut [F], &mut [F]),
    ) {
        let (pattern, item) = (self.tables.pattern(), step.items()[index]);
        let (heads, kv_heads) = (pattern.num_heads(), pattern.num_kv_heads());
        let [keys, values] = self.pools();
        let sides = [
            (keys, &self.k_pages, new[0]),
            (values, &self.v_pages, new[1]),
        ];
        let [k, v] = sides.map(|(pool, pages, new)| {
            let mut target = vec![F::from_f64(f64::NAN); item.kv_len * kv_heads * pool.width];
            cpu::cache_read(
                &pool,
                &step.layout(),
                &step.words(),
                index,
                pages,
                packed(new, kv_heads, pool.width),
                step.rows(),
                RowsMut::new(&mut target, [0, pool.width, kv_heads * pool.width]),
            );
            target
        });
        let dims = [self.head_dim, self.value_dim];
        let shape = call_shape(pattern, [item.q_len, item.kv_len], dims);
        let problem = AttentionProblem::new(shape, pattern, self.scale, None).unwrap();
        let width = heads * self.head_dim;
        let q = &q[item.q_row * width..][..item.q_len * width];
        let width = heads * self.value_dim;
        let out = &mut out[item.q_row * width..][..item.q_len * width];
        let mut head_major = vec![F::ZERO; heads * item.q_len];
        cpu::forward(
            &problem,
            packed(q, heads, self.head_dim),
            packed(&k, kv_heads, self.head_dim),
            packed(&v, kv_heads, self.value_dim),
            RowsMut::new(out, [0, self.value_dim, width]),
            &mut head_major,
        );
        for (row, lse) in lse[item.q_row * heads..]
            .chunks_exact_mut(heads)
            .take(item.q_len)
            .enumerate()
        {
            for (head, lse) in lse.iter_mut().enumerate() {
                *lse = head_major[head * item.q_len + row];
            }
        }
    }

    /// Makes the pools as large as the tables ask.
    fn grow(&mut self) -> [PoolShape; 2] {
        let [keys, values] = self.pools();
        self.k_pages.resize(keys.len(), F::from_f64(f64::NAN));
        self.v_pages.resize(values.len(), F::from_f64(f64::NAN));
        [keys, values]
    }

    pub fn pools(&self) -> [PoolShape; 2] {
        [self.head_dim, self.value_dim].map(|width| PoolShape {
            pages: self.tables.num_pages(),
            block_size: self.tables.pattern().block_size(),
            width,
        })
    }

    /// NaN in the pages that no list holds. Returns their number.
    pub fn poison(&mut self) -> usize {
        let mut listed = vec![false; self.tables.num_pages()];
        for &sequence in &self.sequences {
            for kv_head in 0..self.tables.pattern().num_kv_heads() {
                for entry in self.tables.entries(sequence, kv_head).unwrap() {
                    listed[entry.page as usize] = true;
                }
            }
        }
        let [keys, values] = self.grow();
        let unlisted = listed.iter().enumerate().filter(|(_, listed)| !*listed);
        let mut poisoned = 0;
        for (page, _) in unlisted {
            for (pool, pages) in [(keys, &mut self.k_pages), (values, &mut self.v_pages)] {
                let page = &mut pages[page * pool.page_len()..][..pool.page_len()];
                page.fill(F::from_f64(f64::NAN));
            }
            poisoned += 1;
        }
        poisoned
    }
}

/// Writes `out [rows, heads, dv]` and `lse [rows, heads]` of a table's items.
pub fn decode<F: Real, T: Stored<F>>(
    problem: &CacheProblem,
    words: &[i32],
    q: &[F],
    [k_pages, v_pages]: [&[T]; 2],
    (out, lse): (&mut [F], &mut [F]),
) {
    let shape = problem.shape();
    let q = packed(q, shape.num_heads, shape.head_dim);
    let token = shape.num_heads * shape.value_dim;
    let out = RowsMut::new(out, [0, shape.value_dim, token]);
    cpu::decode(problem, q, k_pages, v_pages, words, out, lse);
}

/// Rows `[tokens, heads, width]` as the engine sees them.
pub fn packed<F>(rows: &[F], heads: usize, width: usize) -> Rows<'_, F> {
    Rows::new(rows, [0, width, heads * width])
}

pub fn convert<F: Real>(values: &[f32]) -> Vec<F> {
    values.iter().map(|&x| F::from_f64(x.into())).collect()
}

/// A causal pattern's tables without a limit of pages.
pub fn tables(pattern: &Pattern, max_tokens: usize, evict: bool) -> BlockTables {
    let limits = s2_attention_kernels::cache::CacheLimits {
        pages: None,
        max_tokens,
    };
    BlockTables::new(pattern.clone(), limits, evict).unwrap()
}
