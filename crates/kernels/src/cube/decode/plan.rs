//! How a decode call is spread over a device: its engine, the rows of a cube, and how many cubes share a list.

use std::fmt;

use cubecl::ir::features::Plane;
use cubecl::ir::{DeviceProperties, ElemType, FloatKind};

use super::combine;
use super::pages::pages_bytes;
use super::partials::STATS;
use crate::cache::{CacheProblem, CacheShape, MAX_DECODE_TOKENS};
use crate::cube::checks::{Needs, max_buffer};
use crate::cube::columns::FAR;
use crate::cube::config::Config;
use crate::cube::error::CubeError;
use crate::cube::mma;
use crate::cube::mma::decode::PLACES;
use crate::cube::mma::products::Products;
use crate::cube::mma::stage::padded;
use crate::cube::round::Rounding;
use crate::cube::select::{Engine, tensor_cores};
use crate::cube::table::takes_tables;
use crate::cube::tile::Tile;
use crate::cube::unit::size::{CubeSize, SLICES};

/// Buffers of the kernel that visits pages: queries, keys, values, records, table and index, and the one that CubeCL adds. Those of
/// other kernels of a call are fewer.
pub(in crate::cube) const BINDINGS: usize = 7;
/// Rows of keys that a cube visits at a time.
pub(in crate::cube) const VISITED: usize = 32;
/// Most parts of a list.
const MOST_SPLITS: usize = 512;
/// Processors of a device that does not say how many it has.
const PROCESSORS: usize = 16;
/// Most cubes of a processor at a time: of one plane each, and of four.
const MOST_CUBES: (usize, usize) = (16, 8);
/// Shared memory that a cube takes beside its own, on NVIDIA's GPUs.
const RESERVED: usize = 1024;

/// What runs a decode call, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeChoice {
    /// The kernels.
    pub engine: Engine,
    /// Rows of queries that a cube owns: new tokens of an item, times the query heads of a key/value head.
    pub rows: usize,
    /// Parts of each list, a cube for each.
    pub splits: usize,
    /// Cubes that share the rows of an item's key/value head.
    pub(in crate::cube) tiles: usize,
    /// How units share rows, for the unit engine.
    pub(super) unit: CubeSize,
    /// How planes multiply, for the engine of tensor cores.
    pub(super) products: Products,
    /// Why this engine.
    pub why: String,
}

impl fmt::Display for DecodeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} rows, {} parts of a list: {}",
            self.engine, self.rows, self.splits, self.why
        )
    }
}

/// Rows that a cube of the unit engine may own: at most those of a token whose 32 query heads share a key/value head.
pub(in crate::cube) const UNIT_ROWS: [usize; 3] = [4, 16, 32];

/// The cubes of the unit engine that own `rows` rows: whole rows where there is shared memory for them.
pub(in crate::cube) fn unit_size(
    properties: &DeviceProperties,
    rows: usize,
    dims: [usize; 2],
) -> CubeSize {
    let hardware = &properties.hardware;
    let has = |feature| properties.features.plane.contains(feature);
    let across = VISITED;
    let slices = CubeSize {
        owned: rows,
        visited: VISITED,
        across,
        ..SLICES
    };
    let whole = CubeSize {
        whole: true,
        planes: has(Plane::Ops) && has(Plane::Sync) && hardware.plane_size_min as usize >= across,
        ..slices
    };
    if unit_bytes(whole, dims) <= hardware.max_shared_memory_size {
        whole
    } else {
        slices
    }
}

/// Bytes of shared memory of a cube of the unit engine.
pub(in crate::cube) fn unit_bytes(size: CubeSize, dims: [usize; 2]) -> usize {
    size.shared_bytes(dims, 1) + pages_bytes(size.owned, size.visited, 1)
}

/// Bytes of shared memory of a cube of the engine of tensor cores: its rows and a number for each, two visits, and what three of
/// them are about.
pub(in crate::cube) fn mma_bytes(rows: usize, [head_dim, value_dim]: [usize; 2]) -> usize {
    let (keys, values) = (padded(head_dim), padded(value_dim));
    (rows * keys + 2 * VISITED * (keys + values)) * 2
        + rows * 4
        + pages_bytes(rows, VISITED, PLACES)
}

/// New tokens of an item that cubes are made for. Rows of the step may be mostly those of items that are not decoded.
pub(super) fn tokens_of_item(shape: &CacheShape) -> usize {
    shape.decode_tokens.min(MAX_DECODE_TOKENS)
}

/// Chooses the engine of a device: tensor cores where it multiplies the type in hardware, or what is `forced`.
pub(in crate::cube) fn choose(
    (device, properties): (&str, &DeviceProperties),
    problem: &CacheProblem,
    dtype: ElemType,
    forced: Option<Engine>,
) -> Result<DecodeChoice, CubeError> {
    let shape = problem.shape();
    let dims = [shape.head_dim, shape.value_dim];
    // Rows that an item's key/value head has.
    let of_item = tokens_of_item(shape) * (shape.num_heads / shape.num_kv_heads);
    let refused = |engine, why: String| CubeError::Engine {
        engine,
        device: device.to_owned(),
        why,
    };
    let cores = tensor_cores(properties, dtype).and_then(|products| {
        let most = properties.hardware.max_shared_memory_size;
        let sizes = [16, 32, 64].into_iter();
        let fitting: Vec<usize> = sizes
            .filter(|rows| mma_bytes(*rows, dims) <= most)
            .collect();
        let enough = fitting.iter().find(|rows| **rows >= of_item);
        match enough.or(fitting.last()) {
            Some(rows) => Ok((products, *rows)),
            None => Err(format!("{most} bytes of shared memory a cube are too few")),
        }
    });
    let choice = match (forced, cores) {
        (None | Some(Engine::Mma), Ok((products, rows))) => DecodeChoice {
            engine: Engine::Mma,
            rows,
            splits: 1,
            tiles: of_item.div_ceil(rows),
            unit: SLICES,
            products,
            why: match forced {
                Some(_) => "forced".to_owned(),
                None => format!("the device multiplies {products} tiles of {dtype:?} in hardware"),
            },
        },
        (Some(Engine::Mma), Err(why)) => return Err(refused(Engine::Mma, why)),
        (Some(Engine::Wgmma), _) => {
            let why = "decode is bound by what it reads; accepted: mma, unit".to_owned();
            return Err(refused(Engine::Wgmma, why));
        }
        (forced, cores) => {
            let enough = UNIT_ROWS.into_iter().find(|rows| *rows >= of_item);
            let rows = enough.unwrap_or(UNIT_ROWS[2]);
            DecodeChoice {
                engine: Engine::Unit,
                rows,
                splits: 1,
                tiles: of_item.div_ceil(rows),
                unit: unit_size(properties, rows, dims),
                products: Products::Mma,
                why: match (forced, cores) {
                    (None, Err(why)) => why,
                    _ => "forced".to_owned(),
                },
            }
        }
    };
    let splits = splits((device, properties), problem, &choice)?;
    Ok(DecodeChoice { splits, ..choice })
}

/// Parts of each list: so many that all cubes run at once, and the device is full.
fn splits(
    (device, properties): (&str, &DeviceProperties),
    problem: &CacheProblem,
    choice: &DecodeChoice,
) -> Result<usize, CubeError> {
    let shape = problem.shape();
    let hardware = &properties.hardware;
    let dims = [shape.head_dim, shape.value_dim];
    let (bytes, most) = match choice.engine {
        Engine::Unit => (unit_bytes(choice.unit, dims), MOST_CUBES.1),
        _ => (mma_bytes(choice.rows, dims), MOST_CUBES.0),
    };
    let processors = hardware
        .num_streaming_multiprocessors
        .map_or(PROCESSORS, |n| n as usize);
    let of_processor = (hardware.max_shared_memory_size + RESERVED) / (bytes + RESERVED);
    let cubes = shape.items * shape.num_kv_heads * choice.tiles;

    // Records are one buffer, whose places have 32 bits.
    let accepted = max_buffer(properties).min(i32::MAX as usize);
    let needed = record_bytes(shape);
    if needed > accepted {
        return Err(CubeError::Resource {
            kernel: "decode",
            what: "bytes for what parts leave",
            needed,
            seen: accepted,
            device: device.to_owned(),
        });
    }
    let most_splits = MOST_SPLITS.min(accepted / needed);
    let of_processor = of_processor.clamp(1, most);
    Ok((processors * of_processor / cubes).clamp(1, most_splits))
}

/// Rows of each part's records, and those of an item; 0 where rows are those of the queries. The rows of a step may be mostly those
/// of items that are not decoded.
pub(super) fn record_rows(shape: &CacheShape) -> (usize, usize) {
    let by_item = shape.items * MAX_DECODE_TOKENS;
    if shape.rows <= by_item {
        (shape.rows, 0)
    } else {
        (by_item, MAX_DECODE_TOKENS)
    }
}

/// Bytes of the records of a part.
pub(super) fn record_bytes(shape: &CacheShape) -> usize {
    let (rows, _) = record_rows(shape);
    rows * shape.num_heads * (shape.value_dim + STATS) * size_of::<f32>()
}

/// What the kernels of a call are compiled for.
pub(super) fn config(
    (device, properties): (&str, &DeviceProperties),
    problem: &CacheProblem,
    dtype: ElemType,
    choice: &DecodeChoice,
) -> Config {
    let (shape, pattern) = (problem.shape(), problem.pattern());
    let owned = Tile {
        rows: choice.rows,
        block: pattern.block_size().min(FAR as usize),
        table: takes_tables(pattern),
    };
    Config {
        owned,
        visited: Tile {
            rows: VISITED,
            ..owned
        },
        unit: choice.unit,
        head_dim: shape.head_dim,
        value_dim: shape.value_dim,
        rounding: false,
        results: Rounding::of(device, dtype),
        keys: false,
        values: false,
        kept_bands: 0,
        splits: false,
        parts: 1,
        products: choice.products,
        slots: 0,
        brain: dtype == ElemType::Float(FloatKind::BF16),
        // Asynchronous copies are a feature of CubeCL's C++ compiler for CUDA alone, which also takes instructions.
        instructions: properties.features.copy_async,
    }
}

/// Units of a cube that visits pages.
pub(super) fn units(choice: &DecodeChoice) -> usize {
    match choice.engine {
        Engine::Unit => choice.unit.units,
        _ => mma::size::units(choice.rows, 1),
    }
}

/// What both kernels need of a device, whichever takes more.
pub(super) fn needs(shape: &CacheShape, choice: &DecodeChoice) -> Needs {
    let dims = [shape.head_dim, shape.value_dim];
    let bytes = match choice.engine {
        Engine::Unit => unit_bytes(choice.unit, dims),
        _ => mma_bytes(choice.rows, dims),
    };
    let sharers = combine::sharers(choice.splits);
    let (across, down) = combine::layout(shape.value_dim, sharers);
    Needs {
        bindings: BINDINGS,
        shared: bytes.max(combine::shared_bytes(shape.value_dim, sharers)),
        units: units(choice).max(across * down),
    }
}
