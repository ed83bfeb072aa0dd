//! Which engine runs a call, by the properties of the device.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use cubecl::client::Client;
use cubecl::ir::features::{MmaConfig, Plane};
use cubecl::ir::{DeviceProperties, ElemType, FloatKind};

use super::error::CubeError;
use super::mma;
use super::unit::size::{CubeSize, SLICES, WHOLE};
use crate::AttentionProblem;

/// A set of kernels that share a way to multiply tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// Plain multiply-adds in f32: any device, any type.
    Unit,
    /// Tensor cores with 2-byte operands and f32 sums.
    Mma,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Unit => "unit",
            Engine::Mma => "mma",
        })
    }
}

/// What runs a call, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The kernels.
    pub engine: Engine,
    /// Rows that a cube owns.
    pub owned_rows: usize,
    /// Most rows that it visits at a time.
    pub visited_rows: usize,
    /// How units share rows, for the unit engine.
    pub(super) unit: CubeSize,
    /// Why this one.
    pub why: String,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (engine, owned, visited) = (self.engine, self.owned_rows, self.visited_rows);
        write!(f, "{engine}, tiles of {owned} x {visited}: {}", self.why)
    }
}

/// Chooses for `problem` in `dtype`, or holds the device to what is `forced`.
pub(super) fn choose(
    client: &Client,
    problem: &AttentionProblem,
    dtype: ElemType,
    forced: Option<Engine>,
) -> Result<Choice, CubeError> {
    let tensor_cores = mma_rows(client.properties(), problem, dtype);
    let unit = unit_size(client.properties(), problem);
    let choice = match (forced, tensor_cores) {
        (None | Some(Engine::Mma), Ok(rows)) => Choice {
            engine: Engine::Mma,
            owned_rows: rows,
            visited_rows: mma::size::VISITED,
            unit,
            why: match forced {
                Some(_) => "forced".to_owned(),
                None => format!("the device multiplies tiles of {dtype:?} in hardware"),
            },
        },
        (Some(Engine::Mma), Err(why)) => {
            return Err(CubeError::Engine {
                engine: Engine::Mma,
                device: client.name().to_owned(),
                why,
            });
        }
        (forced, tensor_cores) => Choice {
            engine: Engine::Unit,
            owned_rows: unit.owned,
            visited_rows: unit.visited,
            unit,
            why: match (forced, tensor_cores) {
                (None, Err(why)) => why,
                _ => "forced".to_owned(),
            },
        },
    };
    if std::env::var_os("S2_EXPLAIN").is_some_and(|value| value == "1") {
        explain(client, problem, dtype, &choice);
    }
    Ok(choice)
}

/// Rows of a cube that multiplies and adds: whole ones where there is shared memory for them.
fn unit_size(properties: &DeviceProperties, problem: &AttentionProblem) -> CubeSize {
    let (hardware, shape) = (&properties.hardware, problem.shape());
    let dims = [shape.head_dim, shape.value_dim];
    let has = |feature| properties.features.plane.contains(feature);
    let fits = |size: &CubeSize| {
        // The pass of the gradients owns rows of both operands.
        size.shared_bytes(dims, 2) <= hardware.max_shared_memory_size
            && size.units <= hardware.max_units_per_cube as usize
    };
    let size = Some(WHOLE).filter(fits).unwrap_or(SLICES);
    CubeSize {
        planes: size.whole
            && has(Plane::Ops)
            && has(Plane::Sync)
            && hardware.plane_size_min as usize >= size.across,
        ..size
    }
}

/// Rows of a cube's tile on tensor cores, or why there can be none.
fn mma_rows(
    properties: &DeviceProperties,
    problem: &AttentionProblem,
    dtype: ElemType,
) -> Result<usize, String> {
    let (matmul, hardware) = (&properties.features.matmul, &properties.hardware);
    let halves = [FloatKind::F16, FloatKind::BF16].map(ElemType::Float);
    if !halves.contains(&dtype) {
        return Err(format!(
            "{dtype:?} is not rounded to a type of tensor cores"
        ));
    }
    let product = MmaConfig {
        a_type: dtype,
        b_type: dtype,
        cd_type: ElemType::Float(FloatKind::F32),
        m: 16,
        n: 8,
        k: 16,
    };
    if !matmul.mma.contains(&product) {
        return Err(format!("no 16 x 8 x 16 product of {dtype:?} in hardware"));
    }
    if !matmul.ldmatrix.contains(&dtype) {
        return Err(format!("no matrix loads of {dtype:?} from shared memory"));
    }
    let plane = (hardware.plane_size_min, hardware.plane_size_max);
    if plane != (mma::size::PLANE as u32, mma::size::PLANE as u32) {
        return Err(format!("planes of {plane:?} units, not 32"));
    }
    let fits = |rows: &usize| {
        mma::size::shared_bytes(*rows, problem.shape()) <= hardware.max_shared_memory_size
            && mma::size::units(*rows, 1) <= hardware.max_units_per_cube as usize
    };
    let processors = hardware.num_streaming_multiprocessors.unwrap_or(0) as usize;
    let mut tiles = mma_tiles(problem, processors).iter().copied();
    tiles.find(fits).ok_or_else(|| {
        format!(
            "{} bytes of shared memory and {} units a cube are too few",
            hardware.max_shared_memory_size, hardware.max_units_per_cube
        )
    })
}

/// Rows that a cube may own, the better first.
///
/// Twice the rows read keys and values half as often, and visit the blocks of two tiles for each: that pays for wide heads,
/// where there are cubes enough for the whole device.
fn mma_tiles(problem: &AttentionProblem, processors: usize) -> &'static [usize] {
    let shape = problem.shape();
    let cubes = shape.batch * shape.num_heads * shape.seq_q.div_ceil(128);
    if shape.head_dim.max(shape.value_dim) > 64 && cubes >= processors {
        &[128, 64, 32]
    } else {
        &[64, 32]
    }
}

/// Says what was chosen, once for calls of a class.
fn explain(client: &Client, problem: &AttentionProblem, dtype: ElemType, choice: &Choice) {
    static SAID: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let shape = problem.shape();
    let line = format!(
        "s2-attention on {}: {dtype:?}, head dims {} and {}, blocks of {}: {choice}",
        client.name(),
        shape.head_dim,
        shape.value_dim,
        problem.pattern().block_size(),
    );
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.get_or_insert_default().insert(line.clone()) {
        eprintln!("{line}");
    }
}
