//! The pages of one layer.

use std::sync::Arc;

use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use s2_attention_kernels::cache::{CacheProblem, CacheShape, StepItem};
use s2_attention_kernels::{AttentionProblem, AttentionShape};

use super::CacheLayer;
use super::group::{Table, TableSizes};
use crate::S2AttentionError;
use crate::functional::{check_cache_call, check_cache_read, checked_problem};
use crate::ops::{PagesCall, S2AttentionOps, Side};

/// Calls that a pool keeps: a mixed step makes two.
const KEPT_PROBLEMS: usize = 2;

/// Keys and values of one layer, `[pages, block, width]` each.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) layer: CacheLayer,
    /// Whether the layer has attended in the present step.
    pub(super) attended: bool,
    keys: Tensor<3>,
    values: Tensor<3>,
    /// The calls that were made last: steps repeat them.
    problems: Vec<Arc<CacheProblem>>,
}

impl Pool {
    /// A pool of at least one page: there is no tensor of none.
    pub(super) fn new(layer: CacheLayer, pages: usize, dtype: DType, device: &Device) -> Self {
        let block = layer.pattern.block_size();
        let new = |width| empty([pages.max(1), block, width], device, dtype);
        Self {
            keys: new(layer.head_dim),
            values: new(layer.value_dim),
            layer,
            attended: false,
            problems: Vec::new(),
        }
    }

    pub(super) fn pages(&self) -> usize {
        self.keys.dims()[0]
    }

    /// Bytes of one page, of keys and of values.
    pub(super) fn page_bytes(&self) -> usize {
        self.layer.page_bytes(self.keys.dtype())
    }

    /// Makes room for `pages`: by a quarter more than there was, so that the copies of a growing cache are few, and no more than
    /// `most` where that is enough.
    pub(super) fn grow(&mut self, pages: usize, most: usize) {
        let old = self.pages();
        if pages <= old {
            return;
        }
        let pages = pages.max((old + old.div_ceil(4)).min(most));
        for tensor in [&mut self.keys, &mut self.values] {
            tensor.inplace(|tensor| {
                // Flat: a new buffer is assigned to in a copy, whose rows a device may lay apart where it has any.
                let [_, block, width] = tensor.dims();
                let larger = empty([pages, block, width], &tensor.device(), tensor.dtype());
                let [larger, tensor] = [larger, tensor].map(|pages| pages.flatten::<1>(0, 2));
                let filled = tensor.dims()[0];
                let larger = larger.slice_assign(0..filled, tensor);
                larger.reshape([pages, block, width])
            });
        }
    }

    /// Copies pages, `(from, to)`; none is on both sides.
    pub(super) fn copy(&mut self, copies: &[(usize, usize)]) {
        if copies.is_empty() {
            return;
        }
        let from: Vec<i32> = copies.iter().map(|(from, _)| *from as i32).collect();
        let from = TensorData::new(from, [copies.len()]);
        for tensor in [&mut self.keys, &mut self.values] {
            let from = Tensor::<1, Int>::from_data(from.clone(), (&tensor.device(), DType::I32));
            // A buffer of its own, so that the pool has one owner again when it is written.
            let copied = tensor.clone().select(0, from);
            for (index, (_, to)) in copies.iter().enumerate() {
                let page = copied.clone().narrow(0, index, 1);
                tensor.inplace(|tensor| tensor.slice_assign(*to..*to + 1, page));
            }
        }
    }

    /// The call of a step of so many rows with a table, which the device can run.
    pub(super) fn call(&mut self, rows: usize, table: Table) -> Result<Call, S2AttentionError> {
        let shape = self.layer.shape(rows, self.pages(), table.sizes);
        let kept = (self.problems.iter()).position(|problem| *problem.shape() == shape);
        let problem = match kept {
            Some(kept) => self.problems.remove(kept),
            None => Arc::new(self.checked(shape)?),
        };
        self.problems.insert(0, problem.clone());
        self.problems.truncate(KEPT_PROBLEMS);
        Ok(Call {
            words: table.words,
            problem,
        })
    }

    /// Whether the device can run the call of a step of so many rows, and of them the items that are not decoded.
    pub(super) fn check<'a>(
        &self,
        rows: usize,
        sizes: TableSizes,
        mut prefills: impl Iterator<Item = &'a StepItem>,
    ) -> Result<(), S2AttentionError> {
        let problem = self.checked(self.layer.shape(rows, self.pages(), sizes))?;
        prefills.try_for_each(|item| {
            self.check_read(&problem, item)?;
            let shape = AttentionShape {
                batch: 1,
                num_heads: self.layer.pattern.num_heads(),
                num_kv_heads: self.layer.pattern.num_kv_heads(),
                seq_q: item.q_len,
                seq_kv: item.kv_len,
                head_dim: self.layer.head_dim,
                value_dim: self.layer.value_dim,
            };
            let (pattern, scale) = (&self.layer.pattern, self.layer.scale);
            let attention = AttentionProblem::new(shape, pattern, scale, None)?;
            checked_problem(&self.keys.device(), self.keys.dtype(), attention).map(|_| ())
        })
    }

    /// Whether the device can read an item of a call that is not decoded. The first tokens of a sequence are not read.
    pub(super) fn check_read(
        &self,
        problem: &CacheProblem,
        item: &StepItem,
    ) -> Result<(), S2AttentionError> {
        if item.kv_len == item.q_len {
            return Ok(());
        }
        let (device, dtype) = (self.keys.device(), self.keys.dtype());
        check_cache_read(&device, dtype, problem, item.kv_len)
    }

    fn checked(&self, shape: CacheShape) -> Result<CacheProblem, S2AttentionError> {
        let problem = CacheProblem::new(shape, &self.layer.pattern, self.layer.scale)?;
        check_cache_call(&self.keys.device(), self.keys.dtype(), &problem)?;
        Ok(problem)
    }

    /// Writes the new keys and values of a step, `[rows, kv_heads, width]`.
    pub(super) fn write(&mut self, k: &Tensor<3>, v: &Tensor<3>, call: &Call) {
        let sides = [
            (&mut self.keys, k, Side::Keys),
            (&mut self.values, v, Side::Values),
        ];
        for (pages, rows, side) in sides {
            pages.inplace(|pages| {
                Tensor::from_dispatch(Dispatch::s2_cache_write(
                    pages.into_dispatch(),
                    rows.clone().into_dispatch(),
                    call.words.clone().into_dispatch(),
                    call.pages(side),
                ))
            });
        }
    }

    /// All keys and values of an item, `[1, kv_len, kv_heads, width]`: those of before from pages, the new ones from the rows.
    pub(super) fn read(
        &self,
        [k, v]: [&Tensor<3>; 2],
        call: &Call,
        item: usize,
        kv_len: usize,
    ) -> [Tensor<4>; 2] {
        let sides = [(&self.keys, k, Side::Keys), (&self.values, v, Side::Values)];
        sides.map(|(pages, rows, side)| {
            Tensor::from_dispatch(Dispatch::s2_cache_read(
                pages.clone().into_dispatch(),
                rows.clone().into_dispatch(),
                call.words.clone().into_dispatch(),
                call.pages(side),
                item,
                kv_len,
            ))
        })
    }

    /// What the items of a table attend in pages, `[rows, num_heads, value_dim]`.
    pub(super) fn decode(&self, q: Tensor<3>, call: Call) -> Tensor<3> {
        let (out, _) = Dispatch::s2_decode(
            q.into_dispatch(),
            self.keys.clone().into_dispatch(),
            self.values.clone().into_dispatch(),
            call.words.into_dispatch(),
            call.problem,
        );
        Tensor::from_dispatch(out)
    }
}

/// Pages that nothing is in: those that no step wrote are never read. Devices may lay the rows of a new tensor apart; these are
/// next to each other, as kernels write them.
fn empty(shape: [usize; 3], device: &Device, dtype: DType) -> Tensor<3> {
    Tensor::<1>::empty([shape.iter().product::<usize>()], (device, dtype)).reshape(shape)
}

/// A checked call, and the words of its table.
pub(super) struct Call {
    words: Tensor<1, Int>,
    pub(super) problem: Arc<CacheProblem>,
}

impl Call {
    fn pages(&self, side: Side) -> PagesCall {
        PagesCall {
            problem: self.problem.clone(),
            side,
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::{DType, Device, Int, Tensor};
    use s2_attention_kernels::cache::TableLayout;

    use super::{CacheLayer, Pool, Table, TableSizes};
    use crate::PatternConfig;
    use crate::found::found;

    /// One item.
    const LAYOUT: TableLayout = TableLayout {
        items: 1,
        kv_heads: 1,
        capacity: 1,
    };

    /// The CPU, and the GPU where there is one.
    fn devices() -> impl Iterator<Item = Device> {
        [Device::flex()]
            .into_iter()
            .chain(found().then(Device::default))
    }

    fn table<const N: usize>(device: &Device, words: [i32; N], decode_tokens: usize) -> Table {
        Table {
            words: Tensor::<1, Int>::from_ints(words, device),
            sizes: TableSizes {
                layout: LAYOUT,
                decode_tokens,
                max_tokens: 2,
            },
        }
    }

    fn layer() -> CacheLayer {
        CacheLayer {
            pattern: PatternConfig::dense(2, 1).build().unwrap(),
            head_dim: 8,
            value_dim: 16,
            scale: None,
        }
    }

    fn pool() -> Pool {
        Pool::new(layer(), 4, DType::F32, &Device::flex())
    }

    fn places(pool: &Pool) -> [*const u8; 2] {
        [&pool.keys, &pool.values].map(|tensor| {
            let primitive = tensor.clone().try_into_primitive::<Flex>().unwrap();
            primitive.bytes().as_ptr()
        })
    }

    fn page(pool: &Pool, page: usize) -> Vec<f32> {
        page_of(&pool.keys, page)
    }

    fn page_of(pages: &Tensor<3>, page: usize) -> Vec<f32> {
        let page = pages.clone().narrow(0, page, 1).into_data();
        page.try_to_vec().unwrap()
    }

    /// A pool with one owner is written in place, also after pages of it were copied.
    #[test]
    fn pages_are_written_where_they_are() {
        let mut pool = pool();
        let before = places(&pool);
        // One item of 2 rows at positions 0 and 1, whose block is on page 3.
        let table = table(&Device::flex(), [0, 2, 2, 1, 0, 3], 2);
        let call = pool.call(2, table).unwrap();
        let rows = |width| Tensor::<3>::ones([2, 1, width], &Device::flex());
        for _ in 0..2 {
            pool.write(&rows(8), &rows(16), &call);
            pool.copy(&[(3, 1), (3, 0)]);
        }
        assert_eq!(places(&pool), before);
        assert_eq!(
            [0, 1, 3].map(|index| page(&pool, index)),
            [(); 3].map(|()| vec![1.0; 16])
        );
        pool.grow(5, 100);
        assert_eq!((pool.pages(), page(&pool, 3)), (5, vec![1.0; 16]));
        pool.grow(3, 100);
        assert_eq!(pool.pages(), 5);
        // By a quarter, and no more than there may be.
        pool.grow(6, 100);
        assert_eq!(pool.pages(), 7);
        pool.grow(8, 8);
        assert_eq!((pool.pages(), page(&pool, 3)), (8, vec![1.0; 16]));
    }

    /// What others hold of a pool is not changed under them, and the pool itself is. Rows of 96 bytes: CUDA lays those of a new tensor 128
    /// bytes apart.
    #[test]
    fn pages_with_other_owners_are_copied() {
        for device in devices() {
            let layer = CacheLayer {
                head_dim: 24,
                value_dim: 24,
                ..layer()
            };
            let mut pool = Pool::new(layer, 3, DType::F32, &device);
            let step = |pool: &mut Pool, page: i32, value: f32| {
                let call = pool.call(2, table(&device, [0, 2, 2, 1, 0, page], 2));
                let rows = Tensor::<3>::full([2, 1, 24], value, &device);
                pool.write(&rows, &rows, &call.unwrap());
            };
            for (page, value) in [(0, 1.0), (1, 2.0), (2, 3.0)] {
                step(&mut pool, page, value);
            }
            let (keys, values) = (pool.keys.clone(), pool.values.clone());
            step(&mut pool, 1, 7.0);
            let hold = |[keys, values]: [&Tensor<3>; 2], expected: &[(usize, f32)]| {
                for (page, value) in expected {
                    assert_eq!(page_of(keys, *page), [*value; 48], "keys of page {page}");
                    assert_eq!(
                        page_of(values, *page),
                        [*value; 48],
                        "values of page {page}"
                    );
                }
            };
            hold([&pool.keys, &pool.values], &[(0, 1.0), (1, 7.0), (2, 3.0)]);
            pool.grow(9, 100);
            step(&mut pool, 8, 9.0);
            hold(
                [&pool.keys, &pool.values],
                &[(0, 1.0), (1, 7.0), (2, 3.0), (8, 9.0)],
            );
            hold([&keys, &values], &[(0, 1.0), (1, 2.0), (2, 3.0)]);
        }
    }
}
