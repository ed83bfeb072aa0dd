//! Calls that are ready for launches on a device, kept for the next time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::DType;
use burn_cubecl::CubeDevice;
use burn_cubecl::cubecl::ir::ElemType;
use s2_attention_kernels::AttentionProblem;
use s2_attention_kernels::cache::CacheProblem;
use s2_attention_kernels::cube::{CubeAttention, CubeDecode, CubeError};

/// Calls of a kind that are kept ready at most, the last ones used.
const KEPT: usize = 64;
/// Bytes that they may hold on their devices: a mask of many blocks takes megabytes.
const KEPT_BYTES: usize = 64 << 20;

/// A kind of call.
pub(super) trait Call: Sized + 'static {
    /// What it is made of.
    type Problem: PartialEq;

    fn new(
        device: &CubeDevice,
        problem: Arc<Self::Problem>,
        elem: ElemType,
    ) -> Result<Self, CubeError>;

    fn problem(&self) -> &Arc<Self::Problem>;

    /// Bytes that it holds on its device.
    fn bytes(&self) -> usize;

    /// Those of the kind that are ready.
    fn kept() -> &'static Mutex<Calls<Self>>;
}

impl Call for CubeAttention {
    type Problem = AttentionProblem;

    fn new(
        device: &CubeDevice,
        problem: Arc<AttentionProblem>,
        elem: ElemType,
    ) -> Result<Self, CubeError> {
        Self::new(&device.client(), problem, elem)
    }

    fn problem(&self) -> &Arc<AttentionProblem> {
        self.shared_problem()
    }

    fn bytes(&self) -> usize {
        self.index_bytes()
    }

    fn kept() -> &'static Mutex<Calls<Self>> {
        static CALLS: Mutex<Calls<CubeAttention>> = Mutex::new(Calls(VecDeque::new()));
        &CALLS
    }
}

impl Call for CubeDecode {
    type Problem = CacheProblem;

    fn new(
        device: &CubeDevice,
        problem: Arc<CacheProblem>,
        elem: ElemType,
    ) -> Result<Self, CubeError> {
        Self::new(&device.client(), problem, elem)
    }

    fn problem(&self) -> &Arc<CacheProblem> {
        Self::problem(self)
    }

    fn bytes(&self) -> usize {
        self.index_bytes()
    }

    fn kept() -> &'static Mutex<Calls<Self>> {
        static CALLS: Mutex<Calls<CubeDecode>> = Mutex::new(Calls(VecDeque::new()));
        &CALLS
    }
}

/// A call ready for launches. Layers and steps repeat their calls: what a device needs of the pattern is sent once.
pub(super) fn prepared<C: Call>(
    device: &CubeDevice,
    problem: &Arc<C::Problem>,
    dtype: DType,
) -> Result<Arc<C>, CubeError> {
    let lock = || C::kept().lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(call) = lock().take(device, problem, dtype) {
        return Ok(call);
    }
    // Other threads go on with their calls meanwhile. Of two that build the same one, both are right.
    let elem = dtype_to_elem_type(dtype);
    let call = Arc::new(C::new(device, problem.clone(), elem)?);
    lock().keep(device, dtype, &call);
    Ok(call)
}

type Prepared<C> = (CubeDevice, DType, Arc<C>);

/// The last calls, the latest first.
pub(super) struct Calls<C>(VecDeque<Prepared<C>>);

impl<C: Call> Calls<C> {
    fn take(
        &mut self,
        device: &CubeDevice,
        problem: &Arc<C::Problem>,
        dtype: DType,
    ) -> Option<Arc<C>> {
        let find = |same: &dyn Fn(&Arc<C::Problem>) -> bool| {
            let same = |(on, of, call): &Prepared<C>| {
                on == device && *of == dtype && same(C::problem(call))
            };
            self.0.iter().position(same)
        };
        // Layers that keep their problem are found without a look at its tables.
        let at = find(&|other| Arc::ptr_eq(other, problem)).or_else(|| find(&|o| o == problem))?;
        let found = self.0.remove(at)?;
        let call = found.2.clone();
        self.0.push_front(found);
        Some(call)
    }

    fn keep(&mut self, device: &CubeDevice, dtype: DType, call: &Arc<C>) {
        self.0.push_front((device.clone(), dtype, call.clone()));
        let bytes = self.0.iter().map(|(_, _, call)| call.bytes());
        self.0.truncate(kept(bytes));
    }
}

/// How many of the latest calls are kept, by the bytes that each holds on its device: the latest in any case.
fn kept(bytes: impl Iterator<Item = usize>) -> usize {
    let sums = bytes.scan(0, |sum: &mut usize, bytes| {
        *sum = sum.saturating_add(bytes);
        Some(*sum)
    });
    sums.take(KEPT)
        .take_while(|sum| *sum <= KEPT_BYTES)
        .count()
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::{KEPT, KEPT_BYTES, kept};

    #[test]
    fn calls_are_kept_by_number_and_by_bytes() {
        let calls = |bytes: usize| std::iter::repeat_n(bytes, 1000);
        assert_eq!(kept(calls(1000)), KEPT);
        assert_eq!(kept(calls(KEPT_BYTES / 3)), 3);
        assert_eq!(kept(calls(KEPT_BYTES + 1)), 1);
        assert_eq!(kept([1, KEPT_BYTES, 1].into_iter()), 1);
        assert_eq!(kept(calls(usize::MAX)), 1);
    }
}
