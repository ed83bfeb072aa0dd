//! Kernels of the engine of tensor cores, for the devices that have them.

use cubecl::ir::ElemType;

use super::devices::{Device, cuda};
use super::kernels::{Launch, MMA, launches};
use super::{BF16, F16, class_name, lowered};
use crate::AttentionShape;
use crate::cube::config::Config;
use crate::cube::mma::size::{BOTH_SUMS, parts, shared_bytes, visited_backward, visited_forward};
use crate::cube::round::Rounding;
use crate::cube::tile::Tile;
use crate::cube::unit::size::SLICES;

/// Head dim, block and owned rows: whole blocks, several and parts of them to a tile, padding, two launches for dK and dV.
pub(super) const CLASSES: [(usize, usize, usize); 8] = [
    (128, 64, 128),
    (128, 64, 64),
    (64, 16, 64),
    (64, 128, 64),
    (64, 200, 32),
    (40, 48, 64),
    (16, 64, 64),
    (256, 64, 128),
];

/// The kernels that calls of a class launch.
pub(super) fn class_launches(
    (dim, block, rows): (usize, usize, usize),
    table: bool,
) -> impl Iterator<Item = Launch> {
    let owned = Tile { rows, block, table };
    let all = launches(&MMA, |kernel, sums| {
        let parts = parts(rows, dim * sums);
        let visited = match kernel {
            "forward" => visited_forward(dim),
            _ => visited_backward(dim * sums, parts),
        };
        Config {
            owned,
            visited: Tile {
                rows: visited,
                ..owned
            },
            head_dim: dim,
            value_dim: dim,
            rounding: table,
            unit: SLICES,
            results: Rounding::Conversion,
            keys: false,
            values: false,
            parts,
            instructions: false,
        }
    });
    all.into_iter()
        .filter(move |launch| dim <= BOTH_SUMS || !(launch.config.keys && launch.config.values))
}

#[test]
fn kernels_of_tensor_cores_lower_for_cuda() {
    let device = cuda();
    for (turn, dtype) in [F16, BF16].into_iter().enumerate() {
        for (at, class) in CLASSES.into_iter().enumerate() {
            lower_class(&device, class, (at + turn) % 2 == 1, dtype);
        }
    }
}

fn lower_class(device: &Device, class: (usize, usize, usize), table: bool, dtype: ElemType) {
    let (dim, _, rows) = class;
    let shape = AttentionShape {
        batch: 1,
        num_heads: 1,
        num_kv_heads: 1,
        seq_q: 1,
        seq_kv: 1,
        head_dim: dim,
        value_dim: dim,
    };
    for launch in class_launches(class, table) {
        // As calls have it.
        let config = Config {
            instructions: device.properties.features.copy_async,
            ..launch.config
        };
        let name = format!("mma-{}-{}", launch.kernel, class_name(config, dtype));
        let kernel = (launch.make)(device, config, dtype);
        let kernel = lowered(device, &name, &*kernel, launch.written);
        // What calls are checked against.
        let counted = shared_bytes(rows, &shape);
        assert!(
            kernel.shared_memory_size <= counted,
            "{name}: {} bytes of shared memory, not {counted}",
            kernel.shared_memory_size
        );
        for part in [
            device.barrier,
            "ldmatrix",
            "mma.sync",
            "ex2.approx",
            "cp.async",
        ] {
            assert!(kernel.source.contains(part), "{name}: no {part}");
        }
    }
}
