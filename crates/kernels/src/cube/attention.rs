//! Attention on a CubeCL device: checks, launches.

use std::sync::Arc;

use cubecl::client::Client;
use cubecl::ir::{AddressType, ElemType, FloatKind};
use cubecl::prelude::*;
use cubecl::server::Handle;
use cubecl::zspace::{Shape, Strides};

use super::columns::FAR;
use super::config::UnitConfig;
use super::error::CubeError;
use super::index::Index;
use super::stats;
use super::tile::Tile;
use super::unit::tile::{LANES, OWNED, SHARED_BYTES, UNITS, VISITED};
use super::unit::{dkdv, dq, forward};
use crate::AttentionProblem;

/// A tensor on the device.
#[derive(Debug, Clone)]
pub struct DeviceTensor {
    /// Where it is.
    pub handle: Handle,
    /// Its strides in elements: batch, head, token, element. The last is 1.
    pub strides: [usize; 4],
}

/// What the forward pass writes.
#[derive(Debug, Clone)]
pub struct ForwardOutputs {
    /// `[batch, num_heads, seq_q, value_dim]`.
    pub out: DeviceTensor,
    /// What `out` loses by rounding to a 2-byte type, of the same shape and type: the gradients need it to be as exact as
    /// the type allows. `None` where no gradients will be computed, and for f32.
    pub rounding: Option<DeviceTensor>,
    /// f32 `[batch, num_heads, seq_q]`, contiguous.
    pub lse: Handle,
}

/// What the backward pass reads beside `q`, `k` and `v`.
#[derive(Debug, Clone)]
pub struct SavedOutputs {
    /// What the forward pass wrote.
    pub forward: ForwardOutputs,
    /// The gradient of `out`.
    pub d_out: DeviceTensor,
    /// The gradient of `lse`: f32 `[batch, num_heads, seq_q]`, contiguous.
    pub d_lse: Handle,
}

/// The gradients of `k` and `v`, in one buffer.
#[derive(Debug, Clone)]
pub struct KeyGradients {
    /// The buffer.
    pub handle: Handle,
    /// Strides of dK, which begins with the buffer; `None` where it is not wanted.
    pub dk: Option<[usize; 4]>,
    /// The first element of dV, a multiple of 8, and its strides; `None` where it is not wanted.
    pub dv: Option<(usize, [usize; 4])>,
}

/// A call, checked for a device and ready to be launched any number of times.
#[derive(Clone)]
pub struct CubeAttention {
    client: Client,
    problem: Arc<AttentionProblem>,
    dtype: ElemType,
    owned: Tile,
    index: Index,
    index_handle: Handle,
}

impl CubeAttention {
    /// Checks `problem` for the device of `client` and sends what kernels need of pattern and positions.
    ///
    /// # Errors
    /// A [`CubeError`] for what the device or the kernels cannot run.
    pub fn new(
        client: &Client,
        problem: Arc<AttentionProblem>,
        dtype: ElemType,
    ) -> Result<Self, CubeError> {
        check_dtype(client, dtype)?;
        check_problem(&problem)?;
        let pattern = problem.pattern();
        let table = pattern
            .schedules()
            .iter()
            .any(|head| head.bands().is_none());
        let owned = Tile {
            rows: OWNED,
            block: pattern.block_size(),
            table,
        };
        let index = Index::new(&problem, owned);
        let index_handle = client.create_from_slice(i32::as_bytes(&index.words));
        Ok(Self {
            client: client.clone(),
            problem,
            dtype,
            owned,
            index,
            index_handle,
        })
    }

    /// The call.
    pub fn problem(&self) -> &AttentionProblem {
        &self.problem
    }

    /// Launches the forward pass.
    ///
    /// # Errors
    /// A [`CubeError`] for strides or buffers that do not fit, before anything is launched.
    pub fn forward(
        &self,
        q: &DeviceTensor,
        k: &DeviceTensor,
        v: &DeviceTensor,
        outputs: &ForwardOutputs,
    ) -> Result<(), CubeError> {
        let shape = *self.problem.shape();
        let tensors = [
            ("q", q, shape.q_sizes()),
            ("k", k, shape.k_sizes()),
            ("v", v, shape.v_sizes()),
            ("out", &outputs.out, shape.out_sizes()),
        ];
        self.check_tensors(&tensors)?;
        self.check_resources("forward", 7)?;
        let unused = self.unused();
        let rounding = outputs.rounding.as_ref().unwrap_or(&unused);
        let count = self.grid(self.index.row_tiles * shape.batch * shape.num_heads)?;
        forward::forward::launch(
            &self.client,
            count,
            CubeDim::new_1d(UNITS as u32),
            self.address_type(&tensors.map(|(_, tensor, _)| &tensor.handle)),
            LANES,
            self.arg(q, shape.q_sizes()),
            self.arg(k, shape.k_sizes()),
            self.arg(v, shape.v_sizes()),
            self.arg(&outputs.out, shape.out_sizes()),
            self.arg(rounding, shape.out_sizes()),
            self.floats(&outputs.lse),
            self.index_arg(),
            self.problem.scale() as f32,
            f32::NEG_INFINITY,
            shape.batch as u32,
            shape.num_heads as u32,
            shape.num_kv_heads as u32,
            shape.seq_q as u32,
            UnitConfig {
                rounding: outputs.rounding.is_some(),
                ..self.config()
            },
            self.dtype,
        );
        Ok(())
    }

    /// Launches the backward passes for the gradients that have a place.
    ///
    /// # Errors
    /// A [`CubeError`] for strides or buffers that do not fit, before anything is launched.
    pub fn backward(
        &self,
        q: &DeviceTensor,
        k: &DeviceTensor,
        v: &DeviceTensor,
        saved: &SavedOutputs,
        dq: Option<&DeviceTensor>,
        keys: Option<&KeyGradients>,
    ) -> Result<(), CubeError> {
        let shape = *self.problem.shape();
        let mut tensors = vec![
            ("q", q, shape.q_sizes()),
            ("k", k, shape.k_sizes()),
            ("v", v, shape.v_sizes()),
            ("out", &saved.forward.out, shape.out_sizes()),
            ("d_out", &saved.d_out, shape.out_sizes()),
        ];
        if let Some(dq) = dq {
            tensors.push(("dq", dq, shape.q_sizes()));
        }
        self.check_tensors(&tensors)?;
        if let Some(keys) = keys {
            self.check_keys(keys)?;
        }
        self.check_resources("backward", 7)?;

        let stats = self.prepass(saved)?;
        let stats_len = 2 * self.rows();
        let stats_arg = || unsafe { BufferArg::from_raw_parts(stats.clone(), stats_len) };
        if let Some(target) = dq {
            let count = self.grid(self.index.row_tiles * shape.batch * shape.num_heads)?;
            dq::dq::launch(
                &self.client,
                count,
                CubeDim::new_1d(UNITS as u32),
                self.address_type(&[
                    &q.handle,
                    &k.handle,
                    &v.handle,
                    &saved.d_out.handle,
                    &target.handle,
                ]),
                LANES,
                self.arg(q, shape.q_sizes()),
                self.arg(k, shape.k_sizes()),
                self.arg(v, shape.v_sizes()),
                self.arg(&saved.d_out, shape.out_sizes()),
                stats_arg(),
                self.arg(target, shape.q_sizes()),
                self.index_arg(),
                self.problem.scale() as f32,
                shape.batch as u32,
                shape.num_heads as u32,
                shape.num_kv_heads as u32,
                shape.seq_q as u32,
                self.config(),
                self.dtype,
            );
        }
        if let Some(target) = keys {
            let count = self.grid(self.index.column_tiles * shape.batch * shape.num_kv_heads)?;
            let (dv_at, dv_strides) = target.dv.unwrap_or((0, [0, 0, 0, 1]));
            let d_keys = DeviceTensor {
                handle: target.handle.clone(),
                strides: target.dk.unwrap_or([0, 0, 0, 1]),
            };
            dkdv::dkdv::launch(
                &self.client,
                count,
                CubeDim::new_1d(UNITS as u32),
                self.address_type(&[
                    &q.handle,
                    &k.handle,
                    &v.handle,
                    &saved.d_out.handle,
                    &target.handle,
                ]),
                LANES,
                self.arg(q, shape.q_sizes()),
                self.arg(k, shape.k_sizes()),
                self.arg(v, shape.v_sizes()),
                self.arg(&saved.d_out, shape.out_sizes()),
                stats_arg(),
                self.arg(&d_keys, shape.k_sizes()),
                self.index_arg(),
                self.problem.scale() as f32,
                dv_at / LANES,
                dv_strides[0] / LANES,
                dv_strides[1] / LANES,
                dv_strides[2] / LANES,
                shape.batch as u32,
                shape.num_heads as u32,
                shape.num_kv_heads as u32,
                shape.seq_q as u32,
                shape.seq_kv as u32,
                UnitConfig {
                    keys: target.dk.is_some(),
                    values: target.dv.is_some(),
                    ..self.config()
                },
                self.dtype,
            );
        }
        Ok(())
    }

    /// lse and D of each query.
    fn prepass(&self, saved: &SavedOutputs) -> Result<Handle, CubeError> {
        let shape = *self.problem.shape();
        let rows = self.rows();
        let stats = self.client.empty(2 * rows * size_of::<f32>());
        let unused = self.unused();
        let rounding = saved.forward.rounding.as_ref().unwrap_or(&unused);
        let count = self.grid(rows.div_ceil(UNITS))?;
        stats::prepass::launch(
            &self.client,
            count,
            CubeDim::new_1d(UNITS as u32),
            self.address_type(&[&saved.forward.out.handle, &saved.d_out.handle]),
            LANES,
            self.arg(&saved.forward.out, shape.out_sizes()),
            self.arg(rounding, shape.out_sizes()),
            self.arg(&saved.d_out, shape.out_sizes()),
            self.floats(&saved.forward.lse),
            self.floats(&saved.d_lse),
            unsafe { BufferArg::from_raw_parts(stats.clone(), 2 * rows) },
            self.index_arg(),
            rows as u32,
            shape.num_heads as u32,
            shape.seq_q as u32,
            shape.value_dim,
            LANES,
            saved.forward.rounding.is_some(),
            self.dtype,
        );
        Ok(stats)
    }

    fn config(&self) -> UnitConfig {
        let shape = self.problem.shape();
        UnitConfig {
            owned: self.owned,
            visited: Tile {
                rows: VISITED,
                ..self.owned
            },
            head_dim: shape.head_dim,
            value_dim: shape.value_dim,
            rounding: false,
            keys: false,
            values: false,
        }
    }

    fn rows(&self) -> usize {
        let shape = self.problem.shape();
        shape.batch * shape.num_heads * shape.seq_q
    }

    /// Stands where a kernel has a tensor that it does not touch.
    fn unused(&self) -> DeviceTensor {
        DeviceTensor {
            handle: self.client.empty(LANES * size_of::<f32>()),
            strides: [0, 0, 0, 1],
        }
    }

    fn arg(&self, tensor: &DeviceTensor, sizes: [usize; 4]) -> TensorArg {
        // Checked by `check_tensors`.
        unsafe {
            TensorArg::from_raw_parts(
                tensor.handle.clone(),
                Strides::new(&tensor.strides),
                Shape::new(sizes),
            )
        }
    }

    fn floats(&self, handle: &Handle) -> BufferArg {
        unsafe { BufferArg::from_raw_parts(handle.clone(), self.rows()) }
    }

    fn index_arg(&self) -> BufferArg {
        unsafe { BufferArg::from_raw_parts(self.index_handle.clone(), self.index.words.len()) }
    }

    fn address_type(&self, handles: &[&Handle]) -> AddressType {
        let lens = handles
            .iter()
            .map(|handle| handle.size() as usize / self.dtype.size());
        AddressType::from_len(lens.max().unwrap_or(0))
    }

    /// A grid of at least `cubes`; what is beyond finds nothing to do.
    fn grid(&self, cubes: usize) -> Result<CubeCount, CubeError> {
        let hardware = &self.client.properties().hardware;
        let (width, height) = (
            hardware.max_cube_count.0 as usize,
            hardware.max_cube_count.1 as usize,
        );
        let accepted = width.saturating_mul(height).min(u32::MAX as usize / 2);
        if cubes > accepted {
            return Err(CubeError::Grid {
                device: self.client.name().to_owned(),
                seen: cubes,
                accepted,
            });
        }
        let cubes = cubes.max(1);
        let y = cubes.div_ceil(width);
        Ok(CubeCount::Static(cubes.div_ceil(y) as u32, y as u32, 1))
    }

    fn check_resources(&self, kernel: &'static str, bindings: usize) -> Result<(), CubeError> {
        let hardware = &self.client.properties().hardware;
        let needs = [
            ("buffers", bindings, hardware.max_bindings as usize),
            (
                "bytes of shared memory",
                SHARED_BYTES,
                hardware.max_shared_memory_size,
            ),
            ("units a cube", UNITS, hardware.max_units_per_cube as usize),
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

    fn check_tensors(
        &self,
        tensors: &[(&'static str, &DeviceTensor, [usize; 4])],
    ) -> Result<(), CubeError> {
        for (name, tensor, sizes) in tensors {
            self.check_tensor(name, &tensor.handle, 0, tensor.strides, *sizes)?;
        }
        Ok(())
    }

    fn check_keys(&self, keys: &KeyGradients) -> Result<(), CubeError> {
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
        let aligned = strides[3] == 1
            && at % LANES == 0
            && strides[..3].iter().all(|stride| stride % LANES == 0);
        if !aligned {
            return Err(CubeError::Strides {
                tensor,
                seen: strides,
                accepted: LANES,
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

fn check_dtype(client: &Client, dtype: ElemType) -> Result<(), CubeError> {
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

fn check_problem(problem: &AttentionProblem) -> Result<(), CubeError> {
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
