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
#[derive(Debug, Clone, Copy)]
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

    /// One row of `width` elements.
    ///
    /// # Safety
    /// No other reference to the row may be alive, in this thread or another.
    pub(super) unsafe fn row_mut(
        &self,
        batch: usize,
        head: usize,
        token: usize,
        width: usize,
    ) -> &'a mut [T] {
        let start = offset(self.strides, batch, head, token);
        assert!(start + width <= self.len, "row outside of the output");
        // SAFETY: in bounds by the assertion, unshared by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), width) }
    }
}

fn offset(strides: [usize; 3], batch: usize, head: usize, token: usize) -> usize {
    batch * strides[0] + head * strides[1] + token * strides[2]
}
