//! A cache in the middle of a step whose items are all decoded: its words and pages can be tampered with.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use s2_attention_kernels::cache::{Append, CacheProblem, Step};
use s2_attention_kernels::cpu::{Real, Stored};
use s2_attention_pattern::Pattern;

use super::harness::{Cache, convert, decode, tables};
use crate::support::cache::{Attended, Model, StepRows, causal_pattern};

/// A written step, with the pages and words that decoding reads.
#[derive(Debug, Clone)]
pub struct State<F> {
    pub problem: CacheProblem,
    pub step: Step,
    pub rows: StepRows,
    pub words: Vec<i32>,
    pub k_pages: Vec<F>,
    pub v_pages: Vec<F>,
    /// With the history of the step's tokens.
    pub model: Model,
}

impl<F: Real + Stored<F>> State<F> {
    /// Sequences of `past` tokens each that get `new` tokens.
    pub fn new(model: &Model, lengths: &[(usize, usize)], rng: &mut StdRng) -> Self {
        let mut model = model.clone();
        let longest = lengths.iter().map(|(past, new)| past + new).max().unwrap();
        let mut cache = Cache::<F>::new(tables(&model.pattern, longest, true), &model);
        let sequences: Vec<_> = lengths.iter().map(|_| cache.add()).collect();
        for &sequence in &sequences {
            model.histories.insert(sequence, Default::default());
        }
        let appends = |of: &dyn Fn(&(usize, usize)) -> usize| -> Vec<Append> {
            let appends = sequences.iter().zip(lengths);
            appends
                .map(|(&sequence, length)| Append {
                    sequence,
                    tokens: of(length),
                })
                .collect()
        };
        let (pasts, news) = (appends(&|length| length.0), appends(&|length| length.1));
        // Written only: what the prompts' queries would attend is of no interest.
        let rows = model.draw(lengths.iter().map(|length| length.0).sum(), rng);
        let step = cache.tables.begin(&pasts).unwrap();
        cache.write(&step, &rows);
        model.append(&step, &rows);
        cache.tables.commit(&step);
        cache.poison();
        let rows = model.draw(lengths.iter().map(|length| length.1).sum(), rng);
        let step = cache.tables.begin(&news).unwrap();
        cache.write(&step, &rows);
        model.append(&step, &rows);
        Self {
            problem: cache.problem(&step, step.items().len()),
            words: step.words(),
            step,
            rows,
            k_pages: cache.k_pages,
            v_pages: cache.v_pages,
            model,
        }
    }

    /// Of a random pattern, lengths and widths.
    pub fn random(seed: u64) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed);
        let block = rng.random_range(1..=24);
        let lengths: Vec<(usize, usize)> = (0..rng.random_range(1..=3))
            .map(|_| (rng.random_range(0..=150), rng.random_range(1..=16)))
            .collect();
        let longest = lengths.iter().map(|(past, new)| past + new).max().unwrap();
        let pattern = causal_pattern(rng, block, longest.div_ceil(block));
        let model = Model::new(&pattern, rng.random_range(1..=40), rng.random_range(1..=40));
        Self::new(&model, &lengths, rng)
    }

    pub fn pattern(&self) -> &Pattern {
        self.problem.pattern()
    }

    /// Decodes what is in the words and pages.
    pub fn decode(&self) -> Attended {
        let shape = self.problem.shape();
        let mut out = vec![F::from_f64(f64::NAN); shape.rows * shape.num_heads * shape.value_dim];
        let mut lse = vec![F::from_f64(f64::NAN); shape.rows * shape.num_heads];
        decode(
            &self.problem,
            &self.words,
            &convert(&self.rows.q),
            [&self.k_pages[..], &self.v_pages[..]],
            (&mut out, &mut lse),
        );
        Attended {
            out: out.into_iter().map(F::to_f64).collect(),
            lse: lse.into_iter().map(F::to_f64).collect(),
        }
    }

    /// What decoding must give.
    pub fn expected(&self) -> Attended {
        let mut all = Attended::default();
        for item in self.step.items() {
            let Attended { out, lse } = self.model.expected(item, &self.rows);
            all.out.extend(out);
            all.lse.extend(lse);
        }
        all
    }

    /// The entries of an item's key/value head: `(block, page)`.
    pub fn list(&self, item: usize, kv_head: usize) -> Vec<(usize, usize)> {
        let layout = self.problem.layout();
        let count = self.words[layout.count(item, kv_head)] as usize;
        let entries = (0..count).map(|nth| layout.entry(item, kv_head, nth));
        let entry = |at: usize| (self.words[at] as usize, self.words[at + 1] as usize);
        entries.map(entry).collect()
    }

    /// Whether a query head attends a key block from a row of an item, by the written rule.
    pub fn attends(&self, item: usize, row: usize, head: usize, block: usize) -> bool {
        let item = &self.step.items()[item];
        let query = item.kv_len - item.q_len + row;
        let query_block = query / self.pattern().block_size();
        block <= query_block && self.pattern().attends(head, query_block, block)
    }
}
