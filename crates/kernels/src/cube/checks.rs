//! What is refused before anything is launched.

use cubecl::client::Client;
use cubecl::ir::{DeviceProperties, ElemType, FloatKind};
use cubecl::server::Handle;

use super::attention::{BINDINGS, CubeAttention};
use super::columns::FAR;
use super::error::CubeError;
use super::indexed::Indexed;
use super::mma;
use super::select::Engine;
use super::tensors::{DeviceTensor, KeyGradients};
use super::unit::size::LANES;
use super::wgmma;
use crate::AttentionProblem;

impl CubeAttention {
    pub(super) fn check_resources(
        &self,
        kernel: &'static str,
        of: &Indexed,
        owns: usize,
    ) -> Result<(), CubeError> {
        let shape = self.problem.shape();
        let (shared, units) = match self.choice.engine {
            Engine::Unit => {
                let dims = [shape.head_dim, shape.value_dim];
                let size = self.choice.unit;
                (size.shared_bytes(dims, owns), size.units)
            }
            Engine::Mma => (
                mma::size::shared_bytes(of.owned.rows, shape, self.choice.products),
                mma::size::units(of.owned.rows, 1),
            ),
            // Rings have as many slots as there is shared memory for.
            Engine::Wgmma => (0, wgmma::size::units(of.owned.rows)),
        };
        let needs = Needs {
            bindings: BINDINGS,
            shared,
            units,
        };
        check_needs(&self.client, kernel, needs)
    }

    /// Tensors that are read.
    pub(super) fn check_inputs(
        &self,
        tensors: &[(&'static str, &DeviceTensor, [usize; 4])],
    ) -> Result<(), CubeError> {
        for (name, tensor, sizes) in tensors {
            self.check_tensor(name, &tensor.handle, 0, tensor.strides, *sizes)?;
        }
        Ok(())
    }

    /// A tensor that is written: of its own elements each.
    pub(super) fn check_output(
        &self,
        name: &'static str,
        tensor: &DeviceTensor,
        sizes: [usize; 4],
    ) -> Result<(), CubeError> {
        self.check_tensor(name, &tensor.handle, 0, tensor.strides, sizes)?;
        check_apart(name, tensor.strides, sizes)
    }

    pub(super) fn check_keys(&self, keys: &KeyGradients) -> Result<(), CubeError> {
        let shape = self.problem.shape();
        let mut dk_end = 0;
        if let Some(strides) = keys.dk {
            dk_end = self.check_tensor("dk", &keys.handle, 0, strides, shape.k_sizes())?;
            check_apart("dk", strides, shape.k_sizes())?;
        }
        if let Some((at, strides)) = keys.dv {
            self.check_tensor("dv", &keys.handle, at, strides, shape.v_sizes())?;
            check_apart("dv", strides, shape.v_sizes())?;
            if at < dk_end {
                return Err(CubeError::Overlap {
                    tensor: "dv",
                    seen: strides,
                    with: format!("dk, which ends at element {dk_end}, after {at}"),
                });
            }
        }
        Ok(())
    }

    /// A value in f32 for each query row.
    pub(super) fn check_rows(
        &self,
        tensor: &'static str,
        handle: &Handle,
    ) -> Result<(), CubeError> {
        check_len(tensor, handle, self.rows(), size_of::<f32>())
    }

    /// Returns the end of the tensor in its buffer.
    fn check_tensor(
        &self,
        tensor: &'static str,
        handle: &Handle,
        at: usize,
        strides: [usize; 4],
        sizes: [usize; 4],
    ) -> Result<usize, CubeError> {
        let lanes = match self.choice.engine {
            Engine::Unit => LANES,
            Engine::Mma | Engine::Wgmma => mma::LANES,
        };
        check_tensor(tensor, handle, at, strides, sizes, (lanes, self.dtype))
    }
}

/// Whether a tensor from element `at` of its buffer on is one of vectors of so many elements of a type. Returns its end there.
pub(super) fn check_tensor(
    tensor: &'static str,
    handle: &Handle,
    at: usize,
    strides: [usize; 4],
    sizes: [usize; 4],
    (lanes, dtype): (usize, ElemType),
) -> Result<usize, CubeError> {
    let aligned =
        strides[3] == 1 && at % lanes == 0 && strides[..3].iter().all(|stride| stride % lanes == 0);
    if !aligned {
        return Err(CubeError::Strides {
            tensor,
            seen: strides,
            accepted: lanes,
        });
    }
    check_offset(tensor, handle, (lanes, dtype))?;
    // Absurd strides reach beyond any buffer, not around to its start.
    let last = strides.iter().zip(sizes).fold(at, |last, (stride, size)| {
        last.saturating_add(stride.saturating_mul(size - 1))
    });
    let needed = last.saturating_add(1);
    check_len(tensor, handle, needed, dtype.size())?;
    Ok(needed)
}

/// Whether a buffer begins where a vector may.
pub(super) fn check_offset(
    tensor: &'static str,
    handle: &Handle,
    (lanes, dtype): (usize, ElemType),
) -> Result<(), CubeError> {
    let accepted = (lanes * dtype.size()) as u64;
    let seen = handle.offset_start.unwrap_or(0);
    if seen % accepted != 0 {
        return Err(CubeError::Offset {
            tensor,
            seen,
            accepted,
        });
    }
    Ok(())
}

/// Whether a buffer holds `needed` elements of so many bytes.
pub(super) fn check_len(
    tensor: &'static str,
    handle: &Handle,
    needed: usize,
    bytes: usize,
) -> Result<(), CubeError> {
    let seen = handle.size_in_used() as usize / bytes;
    if needed > seen {
        return Err(CubeError::Buffer {
            tensor,
            seen,
            needed,
        });
    }
    Ok(())
}

/// What a kernel needs of a device.
pub(super) struct Needs {
    /// Buffers, with the one that CubeCL adds for lengths and scalars.
    pub(super) bindings: usize,
    /// Bytes of shared memory.
    pub(super) shared: usize,
    /// Units of a cube.
    pub(super) units: usize,
}

/// Whether a device has what a kernel needs.
pub(super) fn check_needs(
    client: &Client,
    kernel: &'static str,
    needs: Needs,
) -> Result<(), CubeError> {
    let hardware = &client.properties().hardware;
    let all = [
        ("buffers", needs.bindings, hardware.max_bindings as usize),
        (
            "bytes of shared memory",
            needs.shared,
            hardware.max_shared_memory_size,
        ),
        (
            "units a cube",
            needs.units,
            hardware.max_units_per_cube as usize,
        ),
    ];
    match all.into_iter().find(|(_, needed, seen)| needed > seen) {
        Some((what, needed, seen)) => Err(CubeError::Resource {
            kernel,
            what,
            needed,
            seen,
            device: client.name().to_owned(),
        }),
        None => Ok(()),
    }
}

/// Whether kernels can count so many.
pub(super) fn check_count(what: &'static str, seen: usize) -> Result<(), CubeError> {
    check_at_most(what, seen, i32::MAX as usize)
}

/// Whether there are no more than kernels take.
pub(super) fn check_at_most(
    what: &'static str,
    seen: usize,
    accepted: usize,
) -> Result<(), CubeError> {
    if seen > accepted {
        return Err(CubeError::Count {
            what,
            seen,
            accepted,
        });
    }
    Ok(())
}

/// Whether no two elements share a place: along the axes from the smallest stride on, each step is beyond all before.
pub(super) fn check_apart(
    tensor: &'static str,
    strides: [usize; 4],
    sizes: [usize; 4],
) -> Result<(), CubeError> {
    let mut axes: Vec<(usize, usize)> = (strides.into_iter().zip(sizes))
        .filter(|(_, size)| *size > 1)
        .collect();
    axes.sort_unstable();
    let mut reach = 0;
    for (stride, size) in axes {
        if stride <= reach {
            return Err(CubeError::Overlap {
                tensor,
                seen: strides,
                with: "itself".to_owned(),
            });
        }
        reach += stride * (size - 1);
    }
    Ok(())
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
    check_dims(shape.head_dim, shape.value_dim)?;
    problem.f32_scale().map_err(|_| CubeError::Scale {
        seen: format!("{:e}", problem.scale()),
    })?;
    let ends = problem.sequences().iter().flat_map(|sequence| {
        [
            sequence.span.q_start + sequence.q_rows,
            sequence.span.kv_start + sequence.kv_rows,
        ]
    });
    // Rows of packed documents are counted like positions.
    let ends = ends.chain([shape.seq_q, shape.seq_kv]);
    let (seen, accepted) = (ends.max().unwrap_or(0), FAR as usize);
    if seen > accepted {
        return Err(CubeError::Position { seen, accepted });
    }
    // Half of what 32 bits count: the rows of a grid may go a little beyond, and statistics are two numbers a row.
    let rows = shape.batch.saturating_mul(shape.num_heads);
    let (seen, accepted) = (rows.saturating_mul(shape.seq_q), i32::MAX as usize);
    if seen > accepted {
        return Err(CubeError::Rows { seen, accepted });
    }
    Ok(())
}

pub(super) fn check_dims(head_dim: usize, value_dim: usize) -> Result<(), CubeError> {
    for (axis, seen) in [("head_dim", head_dim), ("value_dim", value_dim)] {
        if !(8..=256).contains(&seen) || seen % 8 != 0 {
            return Err(CubeError::HeadDim { axis, seen });
        }
    }
    Ok(())
}

/// Bytes of the largest buffer of the device.
pub(super) fn max_buffer(properties: &DeviceProperties) -> usize {
    usize::try_from(properties.memory.max_page_size).unwrap_or(usize::MAX)
}

/// The processors of the device; 0 where they are not known.
pub(super) fn processors(properties: &DeviceProperties) -> usize {
    let processors = properties.hardware.num_streaming_multiprocessors;
    processors.unwrap_or(0) as usize
}

/// Words that an index may have: places in it have 32 bits with a sign, and it is bound as one buffer.
pub(super) fn max_index_words(client: &Client) -> usize {
    (max_buffer(client.properties()) / size_of::<i32>()).min(i32::MAX as usize)
}
