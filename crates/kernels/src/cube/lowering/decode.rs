//! Decode of both engines, what combines its parts, and the cache's copies.

use cubecl::ir::ElemType;

use super::devices::{Device, cuda, cuda_long, hip, metal};
use super::kernels::{MMA_DECODE, UNIT_DECODE, combine, copies};
use super::{BF16, F16, F32, class_name, lowered};
use crate::cube::cache;
use crate::cube::config::Config;
use crate::cube::decode::combine::{shared_bytes, sharers};
use crate::cube::decode::plan::{BINDINGS, UNIT_ROWS, VISITED, mma_bytes, unit_bytes, unit_size};
use crate::cube::mma::products::Products;
use crate::cube::round::Rounding;
use crate::cube::tile::Tile;
use crate::cube::unit::size::SLICES;

/// What WebGPU promises.
const SHARED: usize = 16 * 1024;

/// Block, and dims of keys and values: several blocks to a visit, some that do not fill it, two and more visits of a block.
const CLASSES: [(usize, [usize; 2]); 6] = [
    (64, [128, 128]),
    (16, [64, 64]),
    (5, [48, 24]),
    (200, [80, 96]),
    (1, [16, 16]),
    (128, [256, 256]),
];

fn config(rows: usize, block: usize, [head_dim, value_dim]: [usize; 2], table: bool) -> Config {
    let owned = Tile { rows, block, table };
    Config {
        owned,
        visited: Tile {
            rows: VISITED,
            ..owned
        },
        unit: SLICES,
        head_dim,
        value_dim,
        rounding: false,
        results: Rounding::Conversion,
        keys: false,
        values: false,
        kept_bands: 0,
        splits: false,
        parts: 1,
        instructions: false,
        products: Products::Mma,
        slots: 0,
        brain: false,
    }
}

fn lower_units(devices: &[Device]) {
    for (turn, dtype) in [F32, F16, BF16].into_iter().enumerate() {
        for (at, (block, dims)) in CLASSES.into_iter().enumerate() {
            let device = &devices[at % devices.len()];
            let rows = UNIT_ROWS[(at + turn / 2) % 3];
            let mut small = device.properties.as_ref().clone();
            small.hardware.max_shared_memory_size = SHARED;
            // They take turns: the sources are long.
            let properties = [device.properties.as_ref(), &small][(at + turn) % 2];
            let size = unit_size(properties, rows, dims);
            let config = Config {
                unit: size,
                ..config(rows, block, dims, at % 2 == 1)
            };
            let shared = unit_bytes(size, dims);
            let accepted = properties.hardware.max_shared_memory_size;
            let kind = if size.whole { "whole" } else { "slices" };
            let name = format!("unit-{kind}-decode-{}", class_name(config, dtype));
            assert!(shared <= accepted, "{name}: {shared}");
            let kernel = lowered(device, &name, &*UNIT_DECODE(device, config, dtype), &[3]);
            assert_eq!(kernel.shared_memory_size, shared, "{name}");
            assert_eq!(kernel.buffers.len() + 1, BINDINGS, "{name}");
            assert!(kernel.source.contains(device.barrier), "{name}: no barrier");
        }
        for (at, (value_dim, splits)) in [(128, 3), (24, 12), (256, 99)].into_iter().enumerate() {
            let device = &devices[at % devices.len()];
            let sharers = sharers(splits);
            let name = format!("combine-{dtype:?}-{value_dim}-{sharers}");
            let kernel = combine(device, value_dim, sharers, dtype);
            let kernel = lowered(device, &name, &*kernel, &[1, 2]);
            let shared = shared_bytes(value_dim, sharers);
            assert_eq!(kernel.shared_memory_size, shared, "{name}");
            assert!(shared <= SHARED, "{name}: {shared}");
            assert!(kernel.buffers.len() < BINDINGS, "{name}");
        }
        let device = &devices[turn % devices.len()];
        let lanes = cache::lanes(&device.properties, dtype);
        for (at, kernel) in copies(device, lanes, dtype).into_iter().enumerate() {
            let name = format!("cache-{}-{dtype:?}", ["write", "read"][at]);
            let kernel = lowered(device, &name, &*kernel, &[[1], [2]][at]);
            assert!(kernel.buffers.len() < BINDINGS, "{name}");
        }
    }
}

#[test]
fn decode_by_units_lowers_for_cuda() {
    lower_units(&[cuda()]);
}

#[test]
fn decode_by_units_lowers_for_hip() {
    lower_units(&hip());
}

#[test]
fn decode_by_units_lowers_for_metal() {
    lower_units(&[metal()]);
}

#[test]
fn decode_by_tensor_cores_lowers_for_cuda() {
    // By CubeCL's C++ compiler; in terms that others take too; in buffers of more elements than 32 bits count.
    let kinds = [
        (cuda(), true, 1),
        (cuda(), false, 3),
        (cuda_long(), true, 6),
    ];
    for (device, instructions, every) in kinds {
        let classes = CLASSES.into_iter().enumerate().step_by(every);
        for (at, (block, dims)) in classes {
            let config = Config {
                instructions,
                ..config([16, 64, 32][at % 3], block, dims, at % 2 == 1)
            };
            let dtype = [BF16, F16][at % 2];
            let parts: &[&str] = if instructions {
                &["ldmatrix", "mma.sync", "ex2.approx", "cp.async"]
            } else {
                &["ldmatrix", "mma.sync"]
            };
            lower_mma(&device, config, dtype, parts);
        }
    }
}

#[test]
fn decode_by_tensor_cores_lowers_for_hip() {
    for device in hip() {
        if Products::of(&device.properties, F16).is_err() {
            continue;
        }
        for (at, (block, dims)) in CLASSES.into_iter().enumerate() {
            let rows = if dims[0] > 128 {
                16
            } else {
                [16, 64, 32][at % 3]
            };
            let config = Config {
                products: Products::Wmma,
                ..config(rows, block, dims, at % 2 == 1)
            };
            if mma_bytes(rows, dims) <= device.properties.hardware.max_shared_memory_size {
                lower_mma(
                    &device,
                    config,
                    [BF16, F16][at % 2],
                    &["__builtin_amdgcn_wmma_f32"],
                );
            }
        }
    }
}

fn lower_mma(device: &Device, config: Config, dtype: ElemType, parts: &[&str]) {
    let kind = if config.instructions { "fast-" } else { "" };
    let name = format!("mma-{kind}decode-{}", class_name(config, dtype));
    let kernel = lowered(device, &name, &*MMA_DECODE(device, config, dtype), &[3]);
    assert_eq!(kernel.buffers.len() + 1, BINDINGS, "{name}");
    let counted = mma_bytes(config.owned.rows, [config.head_dim, config.value_dim]);
    assert!(
        kernel.shared_memory_size <= counted,
        "{name}: {} bytes of shared memory, not {counted}",
        kernel.shared_memory_size
    );
    for part in parts.iter().chain(&[device.barrier]) {
        assert!(kernel.source.contains(part), "{name}: no {part}");
    }
}
