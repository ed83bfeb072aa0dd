//! The call that each layer makes in a step.

use burn::tensor::Tensor;
use s2_attention_kernels::cache::{StepItem, StepKind};

use super::pool::{Call, Pool};
use super::{CacheLayer, KvCache};
use crate::functional::{check_dtypes, same_device};
use crate::{Layout, S2AttentionError, S2AttentionOptions, try_s2_attention};

impl KvCache {
    /// What the new tokens of the step attend in a layer: themselves, and what came before them in their sequence. Keeps their
    /// keys and values for later steps.
    ///
    /// Sequences with up to [`MAX_DECODE_TOKENS`](super::MAX_DECODE_TOKENS) new tokens are one call for all of them, over the
    /// pages alone; each of the others is an ordinary attention call of its own. Called again within a step, as a graph that is
    /// captured does, it writes the same pages again: the keys and values given last stay. No gradients pass.
    ///
    /// # Shapes
    /// Rows are those of [`CacheStep`](super::CacheStep). There may be more at the end, which no sequence owns: their output
    /// means nothing.
    /// - q: `[1, rows, num_heads, head_dim]`, rotated
    /// - k: `[1, rows, num_kv_heads, head_dim]`, rotated
    /// - v: `[1, rows, num_kv_heads, value_dim]`
    /// - output: `[1, rows, num_heads, value_dim]`, of the dtype of the cache
    ///
    /// # Errors
    /// [`S2AttentionError::NoStep`], [`S2AttentionError::Layer`], and for shapes, dtypes or devices that are not those of the
    /// cache, or more rows than its device takes. Nothing has run then.
    pub fn try_attend(
        &mut self,
        layer: usize,
        q: Tensor<4>,
        k: Tensor<4>,
        v: Tensor<4>,
    ) -> Result<Tensor<4>, S2AttentionError> {
        let tracked = q.device().is_autodiff();
        let [q, k, v] = [q, k, v].map(|tensor| match tensor.device().is_autodiff() {
            true => tensor.inner(),
            false => tensor,
        });
        let step = self.step.as_ref().ok_or(S2AttentionError::NoStep)?;
        let accepted = self.pools.len();
        let (group, pool) = (self.pools.get_mut(layer)).ok_or(S2AttentionError::Layer {
            seen: layer,
            accepted,
        })?;
        check_rows(&q, &k, &v, &pool.layer, step.rows())?;
        check_dtypes(&[
            ("the cache", self.dtype),
            ("q", q.dtype()),
            ("k", k.dtype()),
            ("v", v.dtype()),
        ])?;
        same_device(&[
            ("the cache", self.device.clone()),
            ("q", q.device()),
            ("k", k.device()),
            ("v", v.device()),
        ])?;
        let group = &self.groups[*group];
        let table = group.all().ok_or(S2AttentionError::NoStep)?;
        // There may be more rows than the step was checked for when it began. Nothing is launched before all of them are.
        let rows = q.dims()[1];
        let call = pool.call(rows, table)?;
        let prefills = step.items().iter();
        prefills
            .filter(|item| item.kind == StepKind::Prefill)
            .try_for_each(|item| pool.check_read(&call.problem, item))?;
        let decoded = group.decoded().filter(|table| table.sizes.layout.items > 0);
        let decoded = decoded.map(|table| pool.call(rows, table)).transpose()?;
        let [q, k, v] = [q, k, v].map(|tensor| tensor.squeeze_dim::<3>(0));
        pool.write(&k, &v, &call);
        let decoded = decoded.map(|call| pool.decode(q.clone(), call));
        let out = Rows { q, k, v, decoded }.attend(pool, step.items(), &call)?;
        pool.attended = true;
        Ok(if tracked {
            Tensor::from_inner(out)
        } else {
            out
        })
    }

    /// Same as [`try_attend`](Self::try_attend).
    ///
    /// # Panics
    /// With the text of the error that [`try_attend`](Self::try_attend) returns.
    pub fn attend(&mut self, layer: usize, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
        self.try_attend(layer, q, k, v)
            .unwrap_or_else(|error| panic!("{error}"))
    }
}

/// The rows of a step, `[rows, heads, width]`.
struct Rows {
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    /// The output of the items that are decoded.
    decoded: Option<Tensor<3>>,
}

impl Rows {
    /// The output of all items, in the order of their rows.
    fn attend(
        self,
        pool: &Pool,
        items: &[StepItem],
        call: &Call,
    ) -> Result<Tensor<4>, S2AttentionError> {
        let [rows, num_heads, _] = self.q.dims();
        let mut parts: Vec<Tensor<4>> = Vec::new();
        // Rows that have their output.
        let mut done = 0;
        for (index, item) in items.iter().enumerate() {
            if item.kind == StepKind::Prefill {
                parts.extend(self.decoded_rows(done, item.q_row));
                parts.push(self.prefill(pool, index, item, call)?);
                done = item.q_row + item.q_len;
            }
        }
        if let Some(rest) = self.decoded_rows(done, rows) {
            parts.push(rest);
        } else if done < rows {
            let rest = [1, rows - done, num_heads, pool.layer.value_dim];
            parts.push(Tensor::zeros(rest, (&self.q.device(), self.q.dtype())));
        }
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => Tensor::cat(parts, 1),
        })
    }

    /// The output of rows that were decoded.
    fn decoded_rows(&self, from: usize, to: usize) -> Option<Tensor<4>> {
        let decoded = self.decoded.as_ref().filter(|_| from < to)?;
        Some(decoded.clone().narrow(0, from, to - from).unsqueeze_dim(0))
    }

    /// The output of an item with many new tokens: an ordinary call, whose keys are those of the pages and the new ones.
    fn prefill(
        &self,
        pool: &Pool,
        index: usize,
        item: &StepItem,
        call: &Call,
    ) -> Result<Tensor<4>, S2AttentionError> {
        let own = |rows: &Tensor<3>| {
            rows.clone()
                .narrow(0, item.q_row, item.q_len)
                .unsqueeze_dim(0)
        };
        let [k, v] = if item.kv_len == item.q_len {
            [own(&self.k), own(&self.v)]
        } else {
            pool.read([&self.k, &self.v], call, index, item.kv_len)
        };
        // The last query stands on the last key, as it does by default.
        let options = S2AttentionOptions {
            scale: pool.layer.scale,
            layout: Layout::Bshd,
            ..S2AttentionOptions::default()
        };
        try_s2_attention(own(&self.q), k, v, &pool.layer.pattern, &options)
    }
}

/// Whether the shapes are those of a layer and hold the rows of the step.
fn check_rows(
    q: &Tensor<4>,
    k: &Tensor<4>,
    v: &Tensor<4>,
    layer: &CacheLayer,
    owned: usize,
) -> Result<(), S2AttentionError> {
    let (num_heads, num_kv_heads) = (layer.pattern.num_heads(), layer.pattern.num_kv_heads());
    let rows = q.dims()[1].max(owned);
    let shapes = [
        ("q", q.dims(), [1, rows, num_heads, layer.head_dim]),
        ("k", k.dims(), [1, rows, num_kv_heads, layer.head_dim]),
        ("v", v.dims(), [1, rows, num_kv_heads, layer.value_dim]),
    ];
    for (tensor, seen, accepted) in shapes {
        let width = if tensor == "v" {
            "value_dim"
        } else {
            "head_dim"
        };
        let heads = if tensor == "q" {
            "num_heads"
        } else {
            "num_kv_heads"
        };
        let axes = ["batch", "rows", heads, width].into_iter();
        for ((axis, seen), accepted) in axes.zip(seen).zip(accepted) {
            if seen != accepted {
                // Rows are those of q, unless q itself has too few.
                let other = match (tensor, axis) {
                    ("k" | "v", "rows") => "q",
                    (_, "batch" | "rows") => "the step",
                    _ => "the layer",
                };
                return Err(S2AttentionError::AxisMismatch {
                    tensor,
                    axis,
                    seen,
                    other,
                    accepted,
                });
            }
        }
    }
    Ok(())
}
