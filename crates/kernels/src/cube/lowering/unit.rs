//! Kernels of the unit engine, for every compiler of C++.

use cubecl::ir::ElemType;

use super::devices::{Device, cuda, hip, metal};
use super::kernels::{Launch, UNIT, launches, prepass};
use super::{BF16, F16, F32, class_name, lowered};
use crate::cube::attention::BINDINGS;
use crate::cube::config::Config;
use crate::cube::mma::products::Products;
use crate::cube::round::Rounding;
use crate::cube::stats;
use crate::cube::tile::Tile;
use crate::cube::unit::size::{CubeSize, SLICES, WHOLE};

/// What WebGPU promises, for slices of rows.
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

/// Each class in one type, another for each compiler.
#[test]
fn kernels_of_units_lower_for_cuda() {
    lower(&[cuda()], |at, turn, alone| at % 3 == turn && !alone);
}

#[test]
fn kernels_of_units_lower_for_hip() {
    // Classes take turns: the compiler is the same, and these kernels have no use for planes.
    lower(&hip(), |at, turn, alone| (at + 1) % 3 == turn && !alone);
}

#[test]
fn kernels_of_units_lower_for_metal() {
    lower(&[metal()], |at, turn, alone| (at + 2) % 3 == turn && !alone);
}

#[test]
#[ignore = "minutes: every class in the other types"]
fn all_kernels_of_units_lower() {
    lower(&[cuda()], |at, turn, alone| at % 3 != turn || alone);
    lower(&hip(), |at, turn, alone| (at + 1) % 3 != turn || alone);
    lower(&[metal()], |at, turn, alone| (at + 2) % 3 != turn || alone);
}

/// `is_in` takes the numbers of the class and of the type, and whether a kernel is of dK alone or of dV alone of a class after
/// the first: those are parts of the kernel of both.
fn lower(devices: &[Device], is_in: impl Fn(usize, usize, bool) -> bool) {
    for (turn, dtype) in [F32, F16, BF16].into_iter().enumerate() {
        let classes = CLASSES.into_iter().enumerate();
        for (at, (block, head_dim, value_dim)) in classes {
            // Not each with each: that takes minutes, and these hardly meet.
            let table = (at + turn) % 2 == 1;
            let device = &devices[at % devices.len()];
            let shared = device.properties.hardware.max_shared_memory_size;
            let planes = CubeSize {
                planes: true,
                ..WHOLE
            };
            let fits = |size: &CubeSize| size.shared_bytes([head_dim, value_dim], 2) <= shared;
            for unit in [SLICES, WHOLE, planes].into_iter().filter(fits) {
                let owned = Tile {
                    rows: unit.owned,
                    block,
                    table,
                };
                let config = Config {
                    owned,
                    visited: Tile {
                        rows: unit.visited,
                        ..owned
                    },
                    unit,
                    head_dim,
                    value_dim,
                    rounding: table && dtype != F32,
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
                };
                let launches = launches(&UNIT, |_| config).into_iter().filter(|launch| {
                    let alone = launch.config.keys != launch.config.values;
                    is_in(at, turn, alone && at > 0)
                });
                lower_class(device, config, launches, dtype);
            }
        }
        // Rows that as many units share as ever do, that fewer do, and that some units have one vector more of.
        let classes = [(64, false), (8, true), (40, true)];
        for (at, (value_dim, rounding)) in classes.into_iter().enumerate() {
            let device = &devices[at % devices.len()];
            let name = format!("prepass-{dtype:?}-{value_dim}-{rounding}");
            let kernel = prepass(device, value_dim, rounding, dtype);
            let kernel = lowered(device, &name, &*kernel, &[5]);
            assert_eq!(kernel.shared_memory_size, stats::UNITS * 4, "{name}");
            assert!(kernel.source.contains(device.barrier), "{name}: no barrier");
        }
    }
}

fn lower_class(
    device: &Device,
    config: Config,
    launches: impl Iterator<Item = Launch>,
    dtype: ElemType,
) {
    for launch in launches {
        let (size, dims) = (config.unit, [config.head_dim, config.value_dim]);
        let (rows, class) = (
            match (size.whole, size.planes) {
                (false, _) => "slices",
                (true, false) => "whole",
                (true, true) => "planes",
            },
            class_name(config, dtype),
        );
        let name = format!("unit-{rows}-{}-{class}", launch.kernel);
        let kernel = (launch.make)(device, launch.config, dtype);
        let kernel = lowered(device, &name, &*kernel, launch.written);
        // What calls are checked against.
        assert_eq!(kernel.buffers.len() + 1, BINDINGS, "{name}");
        let owns = if launch.kernel == "forward" { 1 } else { 2 };
        let shared = size.shared_bytes(dims, owns);
        assert_eq!(kernel.shared_memory_size, shared, "{name}");
        assert!(size.whole || shared <= SHARED, "{name}: {shared}");
        assert!(kernel.source.contains(device.barrier), "{name}: no barrier");
    }
}
