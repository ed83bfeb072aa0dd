//! Strided views of 4-axis tensors: batch, head and row strides are free, the elements of a row are neighbours.

use std::marker::PhantomData;

/// A read-only view of `[batch, heads, seq, width]`, in any order of the first three axes.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, T> {
    data: &'a [T],
    strides: [usize; 3],
}

impl<'a, T> Rows<'a, T> {
    /// `strides` are those of batch, head and token, in elements; the last axis has stride 1.
    pub fn new(data: &'a [T], strides: [usize; 3]) -> Self {
        Self { data, strides }
    }

    /// # Panics
    /// If the view does not hold the sizes `[batch, heads, seq, width]`.
    pub(super) fn check(&self, name: &str, sizes: [usize; 4]) {
        check_bounds(name, self.data.len(), self.strides, sizes);
    }

    /// The tokens of one head from `token` on.
    pub(super) fn from(&self, batch: usize, head: usize, token: usize) -> &'a [T] {
        &self.data[offset(self.strides, batch, head, token)..]
    }

    /// Elements between neighbouring tokens.
    pub(super) fn row_stride(&self) -> usize {
        self.strides[2]
    }
}

/// A view of `[batch, heads, seq, width]` that several threads write to, each its own rows.
#[derive(Debug)]
pub struct RowsMut<'a, T> {
    data: *mut T,
    len: usize,
    strides: [usize; 3],
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: the view stands for a `&mut [T]`; `row_mut`'s contract keeps threads on disjoint rows.
unsafe impl<T: Send> Send for RowsMut<'_, T> {}
unsafe impl<T: Send> Sync for RowsMut<'_, T> {}

impl<'a, T> RowsMut<'a, T> {
    /// `strides` are those of batch, head and token, in elements; the last axis has stride 1.
    pub fn new(data: &'a mut [T], strides: [usize; 3]) -> Self {
        Self {
            data: data.as_mut_ptr(),
            len: data.len(),
            strides,
            lifetime: PhantomData,
        }
    }

    /// # Panics
    /// If the view does not hold the sizes `[batch, heads, seq, width]`, or two of its rows overlap.
    pub(super) fn check(&self, name: &str, sizes: [usize; 4]) {
        check_bounds(name, self.len, self.strides, sizes);
        // From the innermost axis outwards, a step is at least as long as all that lies within it.
        let mut axes = [0, 1, 2].map(|axis| (self.strides[axis], sizes[axis]));
        axes.sort_unstable();
        let mut within = sizes[3];
        for (stride, size) in axes {
            assert!(
                size <= 1 || stride >= within,
                "{name}: rows overlap: strides {:?} for sizes {sizes:?}",
                self.strides
            );
            within += stride * size.saturating_sub(1);
        }
    }

    /// One row of `width` elements.
    ///
    /// # Safety
    /// The view has passed [`check`](Self::check) with sizes that hold the row, and no other reference to the row is
    /// alive, in this thread or another.
    pub(super) unsafe fn row_mut(
        &self,
        batch: usize,
        head: usize,
        token: usize,
        width: usize,
    ) -> &'a mut [T] {
        let start = offset(self.strides, batch, head, token);
        debug_assert!(start + width <= self.len);
        // SAFETY: in bounds by the check, unshared by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), width) }
    }
}

fn offset(strides: [usize; 3], batch: usize, head: usize, token: usize) -> usize {
    batch * strides[0] + head * strides[1] + token * strides[2]
}

/// After this, no offset of an element within `sizes` overflows or lies outside of `len`.
fn check_bounds(name: &str, len: usize, strides: [usize; 3], sizes: [usize; 4]) {
    let end = (0..3).try_fold(sizes[3], |end, axis| {
        strides[axis]
            .checked_mul(sizes[axis].saturating_sub(1))?
            .checked_add(end)
    });
    assert!(
        end.is_some_and(|end| end <= len),
        "{name}: {len} elements do not hold sizes {sizes:?} with strides {strides:?}"
    );
}
