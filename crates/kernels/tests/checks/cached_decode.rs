//! Decode of a step of a [`Layer`], and what it must give.

use std::collections::HashSet;

use s2_attention_kernels::cache::StepKind;
use s2_attention_kernels::{AttentionProblem, SequenceSpan};
use s2_attention_pattern::Pattern;

use super::cached::{Layer, NewTokens, by_head, entries};
use super::ensure;
use super::storage::Storage;
use super::support::cache::call_shape;
use super::support::{Results, Tensors};
use super::worst::Expected;

/// What decode gave: `out [heads, rows, value_dim]` and `lse [rows, heads]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub out: Vec<f64>,
    pub lse: Vec<f64>,
}

impl Layer {
    /// Decodes the items of a few new tokens, with NaN in the pages of blocks that none of their rows attends; nothing where there
    /// are no such items.
    ///
    /// # Errors
    /// Launches that fail, and rows that are written though they are nobody's.
    pub fn decode(&self, new: &NewTokens, launches: usize) -> Result<Option<Decoded>, String> {
        let items = new.step.items_of(StepKind::Decode);
        if items.is_empty() {
            return Ok(None);
        }
        let pools = self.poisoned(new, &items);
        self.decode_with(new, &items, &pools, launches).map(Some)
    }

    fn decode_with(
        &self,
        new: &NewTokens,
        items: &[usize],
        pools: &[Vec<f32>; 2],
        launches: usize,
    ) -> Result<Decoded, String> {
        let heads = self.heads()[0];
        let (call, words) = self.call(new, items)?;
        self.engine
            .count(format!("decode {}", call.choice().engine));
        let q = self.place(&new.q, heads, self.dims[0]);
        let [k, v] = [0, 1].map(|side| self.upload(&pools[side]));
        let mut first = None;
        for launch in 0..launches {
            let out = self.engine.unwritten([1, heads, new.rows, self.dims[1]]);
            let lse = self.engine.floats(&vec![f32::NAN; new.rows * heads]);
            call.decode(&q.tensor, &k, &v, &words, &out.tensor, &lse)
                .map_err(|error| error.to_string())?;
            let decoded = Decoded {
                out: self.engine.read(&out.tensor.handle, 0, out.axes)?,
                lse: self.engine.read_all(&lse, Storage::F32)?,
            };
            let bits = |decoded: &Decoded| -> Vec<u64> {
                let all = decoded.out.iter().chain(&decoded.lse);
                all.map(|x| x.to_bits()).collect()
            };
            match &first {
                None => first = Some(decoded),
                Some(first) => ensure(bits(first) == bits(&decoded), || {
                    format!("launch {launch} has other bits than the first")
                })?,
            }
        }
        let decoded = first.ok_or("no launch")?;
        let mut owned = vec![false; new.rows];
        for item in items.iter().map(|item| new.step.items()[*item]) {
            owned[item.q_row..item.q_row + item.q_len].fill(true);
        }
        for row in (0..new.rows).filter(|row| !owned[*row]) {
            let nobodys = (0..heads).all(|head| {
                let at = (head * new.rows + row) * self.dims[1];
                let out = &decoded.out[at..at + self.dims[1]];
                out.iter().all(|x| x.is_nan()) && decoded.lse[row * heads + head].is_nan()
            });
            ensure(nobodys, || {
                format!("row {row} is written, which no item owns")
            })?;
        }
        Ok(decoded)
    }

    /// The pools with NaN in every page that is not listed, and in those of blocks that no row attends.
    fn poisoned(&self, new: &NewTokens, items: &[usize]) -> [Vec<f32>; 2] {
        let (kv_heads, block) = (self.heads()[1], self.pattern.block_size());
        let mut read = HashSet::new();
        for &number in items {
            let item = new.step.items()[number];
            for kv_head in 0..kv_heads {
                let entries = entries(new, number, kv_head);
                let attended = entries.filter(|(j, _)| {
                    let heads = self.pattern.heads().query_heads(kv_head);
                    heads.into_iter().any(|head| {
                        let mut queries = item.kv_len - item.q_len..item.kv_len;
                        queries.any(|query| {
                            *j <= query / block && self.pattern.attends(head, query / block, *j)
                        })
                    })
                });
                read.extend(attended.map(|(_, page)| page));
            }
        }
        let mut pools = self.pools.clone();
        for (pool, width) in pools.iter_mut().zip(self.dims) {
            for (page, values) in pool.chunks_exact_mut(block * width).enumerate() {
                if !read.contains(&page) {
                    values.fill(f32::NAN);
                }
            }
        }
        pools
    }

    /// What attention of an item to all tokens of its sequence gives; nothing where it has no new tokens.
    ///
    /// # Errors
    /// Patterns that are not for these heads.
    pub fn expected(
        &self,
        new: &NewTokens,
        number: usize,
        pattern: &Pattern,
    ) -> Result<Option<Expected>, String> {
        let [heads, kv_heads] = self.heads();
        let item = new.step.items()[number];
        if item.q_len == 0 {
            return Ok(None);
        }
        let shape = call_shape(pattern, [item.q_len, item.kv_len], self.dims);
        let span = SequenceSpan {
            q_start: item.kv_len - item.q_len,
            q_len: item.q_len,
            kv_start: 0,
            kv_len: item.kv_len,
        };
        let problem = AttentionProblem::new(shape, pattern, self.scale, Some(vec![span]));
        let problem = problem.map_err(|error| error.to_string())?;
        let [d, dv] = self.dims;
        let q = &new.q[item.q_row * heads * d..][..item.q_len * heads * d];
        let history = &self.sequences[number].sides;
        let tensors = Tensors {
            q: by_head(q, heads, d),
            k: by_head(&history[0], kv_heads, d),
            v: by_head(&history[1], kv_heads, dv),
            d_out: vec![0.0; heads * item.q_len * dv],
            d_lse: None,
        };
        let expected = Expected::new(&problem, &tensors, self.engine.storage);
        Ok(Some(expected))
    }

    /// What decode gave of an item, beside which gradients are those that are expected.
    pub fn of_item(
        &self,
        new: &NewTokens,
        number: usize,
        decoded: &Decoded,
        expected: &Expected,
    ) -> Results {
        let (heads, dv) = (self.heads()[0], self.dims[1]);
        let item = new.step.items()[number];
        let rows = item.q_row..item.q_row + item.q_len;
        let of_heads = (0..heads).flat_map(|head| rows.clone().map(move |row| (head, row)));
        Results {
            out: (of_heads.clone())
                .flat_map(|(head, row)| &decoded.out[(head * new.rows + row) * dv..][..dv])
                .copied()
                .collect(),
            lse: of_heads
                .map(|(head, row)| decoded.lse[row * heads + head])
                .collect(),
            ..expected.results.clone()
        }
    }
}
