//! Kernels of the engine of tensor cores, for the devices that have them.

use cubecl::ir::ElemType;

use super::devices::{Device, cuda, cuda_long, hip};
use super::kernels::{Launch, MMA, launches};
use super::{BF16, F16, class_name, lowered};
use crate::AttentionShape;
use crate::cube::attention::BINDINGS;
use crate::cube::config::Config;
use crate::cube::mma::products::Products;
use crate::cube::mma::size::{dq_pass, forward_pass, key_pass, shared_bytes, sums_both};
use crate::cube::round::Rounding;
use crate::cube::tile::Tile;
use crate::cube::unit::size::SLICES;

/// Dims of keys and values, block and owned rows.
pub(super) type Class = ([usize; 2], usize, usize);

/// Whole blocks, several and parts of them to a tile, padding, two launches for dK and dV, values wider and narrower than keys.
pub(super) const CLASSES: [Class; 9] = [
    ([128, 128], 64, 128),
    ([128, 128], 64, 64),
    ([64, 64], 16, 64),
    ([64, 64], 128, 64),
    ([64, 64], 200, 32),
    ([40, 40], 48, 64),
    ([16, 16], 64, 64),
    ([256, 256], 64, 128),
    ([64, 192], 64, 128),
];

/// The kernels that calls of a class launch.
pub(super) fn class_launches(
    ([head_dim, value_dim], block, rows): Class,
    table: bool,
    products: Products,
) -> impl Iterator<Item = Launch> {
    let owned = Tile { rows, block, table };
    let all = launches(&MMA, |kernel| {
        let keys = |wanted| key_pass(rows, head_dim, value_dim, wanted, products);
        let pass = match kernel {
            "forward" => forward_pass(rows, head_dim, value_dim, products),
            "dq" => dq_pass(rows, head_dim, products),
            "dk" => keys((true, false)),
            "dv" => keys((false, true)),
            _ => keys((true, true)),
        };
        Config {
            owned,
            visited: Tile {
                rows: pass.visited,
                ..owned
            },
            head_dim,
            value_dim,
            rounding: table,
            unit: SLICES,
            results: Rounding::Conversion,
            keys: false,
            values: false,
            kept_bands: 0,
            splits: false,
            parts: pass.parts,
            instructions: false,
            products,
            slots: 0,
            brain: false,
        }
    });
    let both = sums_both(head_dim, value_dim, products);
    all.into_iter()
        .filter(move |launch| both || !(launch.config.keys && launch.config.values))
}

/// Whether a kernel is lowered in every run. Those of dK alone and of dV alone are parts of the kernel of both: where there is
/// one, they are lowered in every run for the first class only.
pub(super) fn is_telling(at: usize, launch: &Launch, dims: [usize; 2], products: Products) -> bool {
    let alone = launch.config.keys != launch.config.values;
    !alone || at == 0 || !sums_both(dims[0], dims[1], products)
}

/// Those of AMD's GPUs, whose planes have 32 units and whose cubes 64 KiB of shared memory: where it fits fewer rows are owned,
/// as calls have it.
#[test]
fn kernels_of_tensor_cores_lower_for_hip() {
    // Each class for one device.
    lower_for_hip(|at, which, launch, class| {
        (at / 2 + which) % 2 == 0 && is_telling(at, launch, class.0, Products::Wmma)
    });
}

#[test]
#[ignore = "minutes: every class for both devices"]
fn all_kernels_of_tensor_cores_lower_for_hip() {
    lower_for_hip(|at, which, launch, class| {
        (at / 2 + which) % 2 != 0 || !is_telling(at, launch, class.0, Products::Wmma)
    });
}

fn lower_for_hip(is_in: impl Fn(usize, usize, &Launch, Class) -> bool) {
    for (which, device) in hip().into_iter().enumerate() {
        let gfx = device.name;
        let builtin = match gfx {
            "gfx1100" => "_w32(",
            "gfx1200" => "_w32_gfx12(",
            _ => {
                assert!(Products::of(&device.properties, F16).is_err(), "{gfx}");
                continue;
            }
        };
        for (turn, dtype) in [F16, BF16].into_iter().enumerate() {
            assert_eq!(Products::of(&device.properties, dtype), Ok(Products::Wmma));
            // Each class in one type, the other for the next device.
            let classes = CLASSES.into_iter().enumerate();
            for (at, (dims, block, rows)) in classes.filter(|(at, _)| (at + turn + which) % 2 == 0)
            {
                let bytes = |rows| shared_bytes(rows, &shape(dims), Products::Wmma);
                let shared = device.properties.hardware.max_shared_memory_size;
                let fitting = [rows, 64, 32]
                    .into_iter()
                    .find(|rows| bytes(*rows) <= shared);
                assert_eq!(fitting.is_none(), dims == [256, 256], "{gfx}: {dims:?}");
                let Some(rows) = fitting else {
                    continue;
                };
                let class = (dims, block, rows);
                let all = class_launches(class, at % 2 == 1, Products::Wmma);
                for launch in all.filter(|launch| is_in(at, which, launch, class)) {
                    let class = class_name(launch.config, dtype);
                    let name = format!("wmma-{}-{class}", launch.kernel);
                    let kernel = (launch.make)(&device, launch.config, dtype);
                    let kernel = lowered(&device, &name, &*kernel, launch.written);
                    let counted = bytes(rows);
                    assert!(
                        kernel.shared_memory_size <= counted,
                        "{name}: {} bytes of shared memory, not {counted}",
                        kernel.shared_memory_size
                    );
                    let of = if dtype == F16 { "f16" } else { "bf16" };
                    let builtin = format!("__builtin_amdgcn_wmma_f32_16x16x16_{of}{builtin}");
                    for part in [device.barrier, &builtin] {
                        assert!(kernel.source.contains(part), "{name}: no {part}");
                    }
                }
            }
        }
    }
}

/// Each class in one type.
#[test]
fn kernels_of_tensor_cores_lower_for_cuda() {
    lower_for_cuda(|at, turn, launch, class| {
        at % 2 == turn && is_telling(at, launch, class.0, Products::Mma)
    });
}

#[test]
#[ignore = "minutes: every class in the other type"]
fn all_kernels_of_tensor_cores_lower_for_cuda() {
    lower_for_cuda(|at, turn, launch, class| {
        at % 2 != turn || !is_telling(at, launch, class.0, Products::Mma)
    });
    lower_with_long_addresses(|launch| launch.config.keys != launch.config.values);
}

fn lower_for_cuda(is_in: impl Fn(usize, usize, &Launch, Class) -> bool) {
    let device = cuda();
    for (turn, dtype) in [F16, BF16].into_iter().enumerate() {
        assert_eq!(Products::of(&device.properties, dtype), Ok(Products::Mma));
        let classes = CLASSES.into_iter().enumerate();
        for (at, class) in classes {
            let all = class_launches(class, (at / 2 + turn) % 2 == 1, Products::Mma);
            let launches = all.filter(|launch| is_in(at, turn, launch, class));
            lower_class(&device, class, launches, dtype);
        }
    }
}

/// Buffers of more elements than 32 bits count.
#[test]
fn kernels_of_tensor_cores_lower_with_long_addresses() {
    // The kernels of dK alone and of dV alone count their addresses as that of both does.
    lower_with_long_addresses(|launch| launch.config.keys == launch.config.values);
}

fn lower_with_long_addresses(is_in: impl Fn(&Launch) -> bool) {
    let all = class_launches(CLASSES[0], false, Products::Mma);
    lower_class(&cuda_long(), CLASSES[0], all.filter(is_in), BF16);
}

fn shape([head_dim, value_dim]: [usize; 2]) -> AttentionShape {
    AttentionShape {
        batch: 1,
        num_heads: 1,
        num_kv_heads: 1,
        seq_q: 1,
        seq_kv: 1,
        head_dim,
        value_dim,
    }
}

fn lower_class(
    device: &Device,
    class: Class,
    launches: impl Iterator<Item = Launch>,
    dtype: ElemType,
) {
    let (dims, _, rows) = class;
    for launch in launches {
        // As calls have it.
        let config = Config {
            instructions: device.properties.features.copy_async,
            ..launch.config
        };
        let name = format!("mma-{}-{}", launch.kernel, class_name(config, dtype));
        let kernel = (launch.make)(device, config, dtype);
        let kernel = lowered(device, &name, &*kernel, launch.written);
        // What calls are checked against.
        assert_eq!(kernel.buffers.len() + 1, BINDINGS, "{name}");
        let counted = shared_bytes(rows, &shape(dims), Products::Mma);
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
        // A copy takes a pointer of 64 bits, and an address and a size of 32.
        let copies = |line: &&str| line.contains("cp.async") && line.contains("16, ");
        for line in kernel.source.lines().filter(copies) {
            let operands = |register: &str| line.matches(register).count();
            assert_eq!(
                (operands("\"l\"("), operands("\"r\"(")),
                (1, 2),
                "{name}: {line}"
            );
        }
    }
}
