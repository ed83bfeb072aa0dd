//! Which engine runs a call, by the properties of the device.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use cubecl::client::Client;
use cubecl::ir::features::Plane;
use cubecl::ir::{DeviceProperties, ElemType, FloatKind};

use super::checks::processors;
use super::error::CubeError;
use super::mma;
use super::mma::products::Products;
use super::table::takes_tables;
use super::unit::size::{CubeSize, SLICES, WHOLE};
use super::wgmma;
use crate::AttentionProblem;

/// A set of kernels that share a way to multiply tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// Plain multiply-adds in f32: any device, any type.
    Unit,
    /// Tensor cores with 2-byte operands and f32 sums.
    Mma,
    /// The same by four planes together: Hopper's GPUs.
    Wgmma,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Unit => "unit",
            Engine::Mma => "mma",
            Engine::Wgmma => "wgmma",
        })
    }
}

/// What runs a call, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The kernels.
    pub engine: Engine,
    /// Rows that a cube owns in a forward pass that keeps nothing for gradients.
    pub inference_rows: usize,
    /// Rows that a cube owns in all other passes.
    pub training_rows: usize,
    /// Most rows that it visits at a time.
    pub visited_rows: usize,
    /// How units share rows, for the unit engine.
    pub(super) unit: CubeSize,
    /// How planes multiply, for the engine of tensor cores.
    pub(super) products: Products,
    /// Why this one.
    pub why: String,
}

impl Choice {
    /// The sizes of its tiles: `128 x 64 rows`, those that a cube owns and those that it visits; `192 and 128 x 64 rows` where a
    /// cube owns more rows in a forward pass that keeps nothing for gradients than in others.
    pub fn tiles(&self) -> String {
        let rows = match (self.engine, self.unit.whole) {
            (Engine::Mma | Engine::Wgmma, _) => "",
            (Engine::Unit, true) => " whole",
            (Engine::Unit, false) => " sliced",
        };
        let (inference, training) = (self.inference_rows, self.training_rows);
        let owned = if inference == training {
            training.to_string()
        } else {
            format!("{inference} and {training}")
        };
        format!("{owned} x {}{rows} rows", self.visited_rows)
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, tiles of {}: {}",
            self.engine,
            self.tiles(),
            self.why
        )
    }
}

/// Whether a variable of the environment is 1.
pub(super) fn is_on(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}

/// What can run `problem` in `dtype`, the rule's choice first; or holds the device to what is `forced`.
///
/// All are of one engine: the faster one, where the device has what it takes.
pub(super) fn candidates(
    client: &Client,
    problem: &AttentionProblem,
    dtype: ElemType,
    forced: Option<Engine>,
) -> Result<Vec<Choice>, CubeError> {
    let tensor_cores = mma_rows(client.properties(), problem, dtype);
    let units = unit_sizes(client.properties(), problem);
    let groups = tensor_cores
        .clone()
        .and_then(|_| wgmma_rows(client.properties(), problem));
    if forced == Some(Engine::Wgmma) || (forced.is_none() && groups.is_ok()) {
        let rows = groups;
        let choice = |[inference_rows, training_rows]: [usize; 2]| Choice {
            engine: Engine::Wgmma,
            inference_rows,
            training_rows,
            visited_rows: mma::size::VISITED,
            unit: SLICES,
            products: Products::Mma,
            why: match forced {
                Some(_) => "forced".to_owned(),
                None => format!("four planes multiply tiles of {dtype:?} together in hardware"),
            },
        };
        return match rows {
            Ok(rows) => Ok(rows.into_iter().map(choice).collect()),
            Err(why) => Err(CubeError::Engine {
                engine: Engine::Wgmma,
                device: client.name().to_owned(),
                why,
            }),
        };
    }
    Ok(match (forced, tensor_cores) {
        (None | Some(Engine::Mma), Ok((products, rows))) => {
            let why = match forced {
                Some(_) => "forced".to_owned(),
                None => format!("the device multiplies {products} tiles of {dtype:?} in hardware"),
            };
            let choice = |rows| Choice {
                engine: Engine::Mma,
                inference_rows: rows,
                training_rows: rows,
                visited_rows: mma::size::VISITED,
                unit: SLICES,
                products,
                why: why.clone(),
            };
            rows.into_iter().map(choice).collect()
        }
        (Some(Engine::Mma), Err(why)) => {
            return Err(CubeError::Engine {
                engine: Engine::Mma,
                device: client.name().to_owned(),
                why,
            });
        }
        (forced, tensor_cores) => {
            let why = match (forced, tensor_cores) {
                (None, Err(why)) => why,
                _ => "forced".to_owned(),
            };
            let choice = |unit: CubeSize| Choice {
                engine: Engine::Unit,
                inference_rows: unit.owned,
                training_rows: unit.owned,
                visited_rows: unit.visited,
                unit,
                products: Products::Mma,
                why: why.clone(),
            };
            units.into_iter().map(choice).collect()
        }
    })
}

/// Cubes that multiply and add, the better first: whole rows where there is shared memory for them, slices of rows.
fn unit_sizes(properties: &DeviceProperties, problem: &AttentionProblem) -> Vec<CubeSize> {
    let (hardware, shape) = (&properties.hardware, problem.shape());
    let dims = [shape.head_dim, shape.value_dim];
    let has = |feature| properties.features.plane.contains(feature);
    let whole = CubeSize {
        planes: has(Plane::Ops)
            && has(Plane::Sync)
            && hardware.plane_size_min as usize >= WHOLE.across,
        ..WHOLE
    };
    // The pass of the gradients owns rows of both operands.
    let fits = whole.shared_bytes(dims, 2) <= hardware.max_shared_memory_size
        && whole.units <= hardware.max_units_per_cube as usize;
    [whole, SLICES]
        .into_iter()
        .filter(|size| fits || !size.whole)
        .collect()
}

/// How tensor cores multiply tiles of a type, or why they do not.
pub(super) fn tensor_cores(
    properties: &DeviceProperties,
    dtype: ElemType,
) -> Result<Products, String> {
    let hardware = &properties.hardware;
    let halves = [FloatKind::F16, FloatKind::BF16].map(ElemType::Float);
    if !halves.contains(&dtype) {
        return Err(format!(
            "{dtype:?} is not rounded to a type of tensor cores"
        ));
    }
    let products = Products::of(properties, dtype)?;
    let plane = (hardware.plane_size_min, hardware.plane_size_max);
    if plane != (mma::size::PLANE as u32, mma::size::PLANE as u32) {
        return Err(format!("planes of {plane:?} units, not 32"));
    }
    Ok(products)
}

/// How tensor cores multiply, and rows that a cube's tile on them may have, the better first; or why there can be none.
fn mma_rows(
    properties: &DeviceProperties,
    problem: &AttentionProblem,
    dtype: ElemType,
) -> Result<(Products, Vec<usize>), String> {
    let hardware = &properties.hardware;
    let products = tensor_cores(properties, dtype)?;
    let fits = |rows: &usize| {
        mma::size::shared_bytes(*rows, problem.shape(), products) <= hardware.max_shared_memory_size
            && mma::size::units(*rows, 1) <= hardware.max_units_per_cube as usize
    };
    let tiles = mma_tiles(problem, processors(properties)).into_iter();
    let tiles: Vec<usize> = tiles.filter(fits).collect();
    if tiles.is_empty() {
        return Err(format!(
            "{} bytes of shared memory and {} units a cube are too few",
            hardware.max_shared_memory_size, hardware.max_units_per_cube
        ));
    }
    Ok((products, tiles))
}

/// Rows that a cube may own where four planes multiply together, for inference and for training, the better first; or why
/// there can be none.
pub(super) fn wgmma_rows(
    properties: &DeviceProperties,
    problem: &AttentionProblem,
) -> Result<Vec<[usize; 2]>, String> {
    let shape = problem.shape();
    let dims = [shape.head_dim, shape.value_dim];
    if properties.identity.fingerprint != "ptx_sm90" || !properties.features.copy_async {
        return Err(format!(
            "it takes instructions of compute capability 9.0 and the feature `cuda-cpp`, not {}",
            properties.identity.fingerprint
        ));
    }
    if dims.iter().any(|dim| *dim > 256) {
        return Err(format!("heads of {dims:?}; at most 256 are accepted"));
    }
    let most = properties.hardware.max_shared_memory_size;
    let fits = |[inference, training]: &[usize; 2]| {
        wgmma::size::forward_slots(*inference, shape, most).is_some()
            && wgmma::size::gradient_slots(*training, shape, most).is_some()
    };
    let processors = processors(properties);
    // Three groups hide more of what each waits for, and read keys and values less often. Gradients, and what
    // rounding loses, leave registers for two.
    let block = problem.pattern().block_size();
    let whole = 192usize.is_multiple_of(block) || block.is_multiple_of(192);
    // Wide heads have registers for one or two groups.
    let mut rows = if wgmma::size::is_wide(dims) {
        vec![[128, 128], [128, 64], [64, 64]]
    } else {
        vec![[192, 128], [128, 128], [64, 64]]
    };
    if !enough_cubes(problem, 128, processors) {
        rows.reverse();
    } else if rows[0][0] == 192 && !enough_cubes(problem, 192, processors) {
        rows.swap(0, 1);
    }
    rows.retain(|[inference, _]| whole || *inference != 192);
    let rows: Vec<[usize; 2]> = rows.into_iter().filter(fits).collect();
    if rows.is_empty() {
        return Err(format!(
            "{most} bytes of shared memory are too few for a ring of heads of {dims:?}"
        ));
    }
    Ok(rows)
}

/// Whether cubes that own `rows` rows are enough for the whole device.
fn enough_cubes(problem: &AttentionProblem, rows: usize, processors: usize) -> bool {
    let shape = problem.shape();
    shape.batch * shape.num_heads * shape.seq_q.div_ceil(rows) >= processors
}

/// Rows that a cube may own, the better first.
///
/// Twice the rows read keys and values half as often, and visit the blocks of two tiles for each: that pays for wide heads,
/// where there are cubes enough for the whole device.
fn mma_tiles(problem: &AttentionProblem, processors: usize) -> [usize; 3] {
    let shape = problem.shape();
    if shape.head_dim.max(shape.value_dim) > 64 && enough_cubes(problem, 128, processors) {
        [128, 64, 32]
    } else {
        [64, 32, 128]
    }
}

/// Says what was chosen, once for calls of a class, where `S2_EXPLAIN` is 1.
pub(super) fn explain(
    client: &Client,
    problem: &AttentionProblem,
    dtype: ElemType,
    choice: &Choice,
) {
    let shape = problem.shape();
    say(|| {
        format!(
            "s2-attention on {}: {dtype:?}, head dims {} and {}, blocks of {}{}: {choice}",
            client.name(),
            shape.head_dim,
            shape.value_dim,
            problem.pattern().block_size(),
            if takes_tables(problem.pattern()) {
                " by tables"
            } else {
                ""
            },
        )
    });
}

/// Says a line once, where `S2_EXPLAIN` is 1.
pub(super) fn say(line: impl FnOnce() -> String) {
    if !is_on("S2_EXPLAIN") {
        return;
    }
    static SAID: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let line = line();
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.get_or_insert_default().insert(line.clone()) {
        eprintln!("{line}");
    }
}
