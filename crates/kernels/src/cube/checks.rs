//! What is refused before anything is launched.

use cubecl::client::Client;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::server::Handle;

use super::attention::CubeAttention;
use super::columns::FAR;
use super::error::CubeError;
use super::mma;
use super::select::Engine;
use super::tensors::{DeviceTensor, KeyGradients};
use super::unit::tile::{LANES, SHARED_BYTES, UNITS};
use crate::AttentionProblem;

impl CubeAttention {
    pub(super) fn check_resources(
        &self,
        kernel: &'static str,
        bindings: usize,
    ) -> Result<(), CubeError> {
        let hardware = &self.client.properties().hardware;
        let (shared, units) = match self.choice.engine {
            Engine::Unit => (SHARED_BYTES, UNITS),
            Engine::Mma => (
                mma::size::shared_bytes(self.owned.rows, self.problem.shape()),
                mma::size::units(self.owned.rows),
            ),
        };
        let needs = [
            ("buffers", bindings, hardware.max_bindings as usize),
            (
                "bytes of shared memory",
                shared,
                hardware.max_shared_memory_size,
            ),
            ("units a cube", units, hardware.max_units_per_cube as usize),
        ];
        match needs.into_iter().find(|(_, needed, seen)| needed > seen) {
            Some((what, needed, seen)) => Err(CubeError::Resource {
                kernel,
                what,
                needed,
                seen,
                device: self.client.name().to_owned(),
            }),
            None => Ok(()),
        }
    }

    pub(super) fn check_tensors(
        &self,
        tensors: &[(&'static str, &DeviceTensor, [usize; 4])],
    ) -> Result<(), CubeError> {
        for (name, tensor, sizes) in tensors {
            self.check_tensor(name, &tensor.handle, 0, tensor.strides, *sizes)?;
        }
        Ok(())
    }

    pub(super) fn check_keys(&self, keys: &KeyGradients) -> Result<(), CubeError> {
        let shape = self.problem.shape();
        if let Some(strides) = keys.dk {
            self.check_tensor("dk", &keys.handle, 0, strides, shape.k_sizes())?;
        }
        if let Some((at, strides)) = keys.dv {
            self.check_tensor("dv", &keys.handle, at, strides, shape.v_sizes())?;
        }
        Ok(())
    }

    fn check_tensor(
        &self,
        tensor: &'static str,
        handle: &Handle,
        at: usize,
        strides: [usize; 4],
        sizes: [usize; 4],
    ) -> Result<(), CubeError> {
        let lanes = match self.choice.engine {
            Engine::Unit => LANES,
            Engine::Mma => mma::LANES,
        };
        let aligned = strides[3] == 1
            && at % lanes == 0
            && strides[..3].iter().all(|stride| stride % lanes == 0);
        if !aligned {
            return Err(CubeError::Strides {
                tensor,
                seen: strides,
                accepted: lanes,
            });
        }
        let last: usize = strides
            .iter()
            .zip(sizes)
            .map(|(stride, size)| stride * (size - 1))
            .sum();
        let (needed, seen) = (at + last + 1, handle.size() as usize / self.dtype.size());
        if needed > seen {
            return Err(CubeError::Buffer {
                tensor,
                seen,
                needed,
            });
        }
        Ok(())
    }
}

pub(super) fn check_dtype(client: &Client, dtype: ElemType) -> Result<(), CubeError> {
    let known = [FloatKind::F32, FloatKind::F16, FloatKind::BF16].map(ElemType::Float);
    let computes = |dtype: &ElemType| client.properties().supports_type(*dtype);
    if known.contains(&dtype) && computes(&dtype) {
        return Ok(());
    }
    let accepted: Vec<String> = known
        .iter()
        .filter(|dtype| computes(dtype))
        .map(|t| format!("{t:?}"))
        .collect();
    Err(CubeError::DType {
        device: client.name().to_owned(),
        dtype: format!("{dtype:?}"),
        accepted: accepted.join(", "),
    })
}

pub(super) fn check_problem(problem: &AttentionProblem) -> Result<(), CubeError> {
    let shape = problem.shape();
    for (axis, seen) in [("head_dim", shape.head_dim), ("value_dim", shape.value_dim)] {
        if !(8..=256).contains(&seen) || seen % 8 != 0 {
            return Err(CubeError::HeadDim { axis, seen });
        }
    }
    let ends = problem
        .spans()
        .iter()
        .flat_map(|span| [span.q_start + shape.seq_q, span.kv_start + shape.seq_kv]);
    let (seen, accepted) = (ends.max().unwrap_or(0), FAR as usize);
    if seen > accepted {
        return Err(CubeError::Position { seen, accepted });
    }
    Ok(())
}
