//! Kernels of the unit engine, for every compiler of C++.

use cubecl::ir::ElemType;

use super::devices::{Device, cuda, hip, metal};
use super::kernels::{UNIT, launches, prepass};
use super::{BF16, F16, F32, class_name, lowered};
use crate::cube::config::Config;
use crate::cube::round::Rounding;
use crate::cube::tile::Tile;
use crate::cube::unit::tile::{OWNED, SHARED_BYTES, VISITED};

/// What WebGPU promises.
const SHARED: usize = 16 * 1024;

/// Block, and dims of queries and values: several blocks to a tile, one, parts of one that end in the middle; one slice and
/// many, slices of half the size.
const CLASSES: [(usize, usize, usize); 5] = [
    (16, 64, 64),
    (64, 16, 16),
    (64, 128, 128),
    (200, 256, 256),
    (200, 40, 64),
];

#[test]
fn kernels_of_units_lower_for_cuda() {
    lower(&[cuda()]);
}

#[test]
fn kernels_of_units_lower_for_hip() {
    // Classes take turns: the compiler is the same, and these kernels have no use for planes.
    lower(&hip());
}

#[test]
fn kernels_of_units_lower_for_metal() {
    lower(&[metal()]);
}

fn lower(devices: &[Device]) {
    for (turn, dtype) in [F32, F16, BF16].into_iter().enumerate() {
        for (at, (block, head_dim, value_dim)) in CLASSES.into_iter().enumerate() {
            // Not each with each: that takes minutes, and these hardly meet.
            let table = (at + turn) % 2 == 1;
            let owned = Tile {
                rows: OWNED,
                block,
                table,
            };
            let config = Config {
                owned,
                visited: Tile {
                    rows: VISITED,
                    ..owned
                },
                head_dim,
                value_dim,
                rounding: table && dtype != F32,
                results: Rounding::Conversion,
                keys: false,
                values: false,
                approximate_exp2: false,
            };
            lower_class(&devices[at % devices.len()], config, dtype);
        }
        for (at, (value_dim, rounding)) in [(64, false), (40, true)].into_iter().enumerate() {
            let device = &devices[at % devices.len()];
            let name = format!("prepass-{dtype:?}-{value_dim}-{rounding}");
            let kernel = prepass(device, value_dim, rounding, dtype);
            let kernel = lowered(device, &name, &*kernel, &[5]);
            assert_eq!(kernel.shared_memory_size, 0, "{name}");
        }
    }
}

fn lower_class(device: &Device, config: Config, dtype: ElemType) {
    for launch in launches(&UNIT, |_| config) {
        let name = format!("unit-{}-{}", launch.kernel, class_name(config, dtype));
        let kernel = (launch.make)(device, launch.config, dtype);
        let kernel = lowered(device, &name, &*kernel, launch.written);
        // What calls are checked against.
        assert_eq!(kernel.shared_memory_size, SHARED_BYTES, "{name}");
        assert!(kernel.shared_memory_size <= SHARED, "{name}");
        assert!(kernel.source.contains(device.barrier), "{name}: no barrier");
    }
}
