//! Kernels of the engine of Hopper's GPUs.

use cubecl::ir::{DeviceProperties, ElemType};
use s2_attention_pattern::PatternConfig;

use super::devices::cuda;
use super::kernels::{Launch, WGMMA, add_sums, kept_launches, launches, split_launches};
use super::mma::is_telling;
use super::{BF16, F16, class_name, lowered};
use crate::cube::config::Config;
use crate::cube::kept::keeps_scores;
use crate::cube::mma::LANES;
use crate::cube::mma::products::Products;
use crate::cube::mma::size::sums_both;
use crate::cube::round::Rounding;
use crate::cube::select::wgmma_rows;
use crate::cube::tile::Tile;
use crate::cube::unit::size::SLICES;
use crate::cube::wgmma::size::{
    FILLERS, TURN_FILLERS, VISITED, forward_bytes, forward_slots, gradient_bytes, gradient_slots,
    kept_bytes, kept_slots,
};
use crate::{AttentionProblem, AttentionShape};

/// Bytes of shared memory that a cube of these GPUs may have.
const MOST: usize = 227 * 1024;

/// Dims of keys and values, block, rows that cubes own for inference and for training, and whether by tables: whole blocks,
/// several and parts of them to a tile, padding, columns that are not full.
const CLASSES: [([usize; 2], usize, [usize; 2], bool); 18] = [
    ([256, 256], 64, [128, 64], false),
    ([256, 256], 64, [64, 64], true),
    ([192, 192], 64, [128, 128], false),
    ([192, 128], 64, [128, 128], true),
    ([128, 128], 128, [128, 128], false),
    ([128, 128], 64, [192, 128], false),
    ([128, 128], 32, [192, 128], true),
    ([128, 128], 64, [64, 64], true),
    ([128, 128], 64, [64, 64], false),
    ([64, 64], 64, [64, 64], false),
    ([64, 64], 16, [192, 128], false),
    ([64, 64], 64, [192, 128], false),
    ([80, 40], 128, [128, 128], true),
    ([16, 16], 200, [64, 64], false),
    ([40, 128], 72, [128, 128], false),
    ([96, 64], 48, [192, 128], true),
    ([160, 200], 32, [128, 64], false),
    ([128, 256], 64, [128, 64], false),
];

/// Each class in one type.
#[test]
fn kernels_of_groups_lower_for_cuda() {
    for (at, class) in CLASSES.into_iter().enumerate() {
        lower_class(class, [BF16, F16][at % 2], |launch| {
            is_telling(at, launch, class.0, Products::Mma)
        });
    }
}

#[test]
#[ignore = "minutes: every class in the other type"]
fn all_kernels_of_groups_lower_for_cuda() {
    for (at, class) in CLASSES.into_iter().enumerate() {
        lower_class(class, [F16, BF16][at % 2], |_| true);
        lower_class(class, [BF16, F16][at % 2], |launch| {
            !is_telling(at, launch, class.0, Products::Mma)
        });
    }
}

/// Rows that cubes may own by the shared memory of a device that has the instructions, and devices that have none for a ring.
#[test]
fn rings_that_do_not_fit_are_refused() {
    let problem = |[head_dim, value_dim]: [usize; 2], heads, tokens| {
        let pattern = PatternConfig::dense(64, heads).build().unwrap();
        let shape = AttentionShape {
            batch: 1,
            num_heads: heads,
            num_kv_heads: heads,
            seq_q: tokens,
            seq_kv: tokens,
            head_dim,
            value_dim,
        };
        AttentionProblem::new(shape, &pattern, None, None).unwrap()
    };
    let mut properties = DeviceProperties::clone(&cuda().properties);
    "ptx_sm90".clone_into(&mut properties.identity.fingerprint);
    let rows = |properties: &DeviceProperties, dims| wgmma_rows(properties, &problem(dims, 1, 64));
    for (dims, accepted) in [
        ([128, 128], vec![[192, 128], [128, 128], [64, 64]]),
        // Wide heads: of 256, cubes of gradients have memory for 64 rows.
        ([192, 192], vec![[128, 128], [128, 64], [64, 64]]),
        ([192, 128], vec![[128, 128], [128, 64], [64, 64]]),
        ([256, 256], vec![[128, 64], [64, 64]]),
    ] {
        assert_eq!(rows(&properties, dims), Ok(accepted), "{dims:?}");
    }
    // Other devices have other engines, and so has this one under the compiler that knows nothing of asynchronous copies.
    for other in ["ptx_sm80", "ptx_sm89", "ptx_sm100", "ptx_sm120"] {
        let mut other_device = properties.clone();
        other.clone_into(&mut other_device.identity.fingerprint);
        let why = rows(&other_device, [128, 128]).unwrap_err();
        assert!(why.ends_with(&format!("not {other}")), "{why}");
    }
    let mut other_compiler = properties.clone();
    other_compiler.features.copy_async = false;
    let why = rows(&other_compiler, [128, 128]).unwrap_err();
    assert!(why.contains("the feature `cuda-cpp`"), "{why}");
    // Cubes of fewer rows first where those of more are too few for all processors.
    properties.hardware.num_streaming_multiprocessors = Some(132);
    for (dims, heads, accepted) in [
        ([128, 128], 1, vec![[64, 64], [128, 128], [192, 128]]),
        ([256, 256], 1, vec![[64, 64], [128, 64]]),
        ([128, 128], 50, vec![[128, 128], [192, 128], [64, 64]]),
        ([256, 256], 50, vec![[128, 64], [64, 64]]),
        ([128, 128], 66, vec![[192, 128], [128, 128], [64, 64]]),
    ] {
        let found = wgmma_rows(&properties, &problem(dims, heads, 300));
        assert_eq!(found, Ok(accepted), "{dims:?}, {heads} heads");
    }
    properties.hardware.num_streaming_multiprocessors = None;
    let why = rows(&properties, [264, 64]).unwrap_err();
    assert!(why.contains("at most 256 are accepted"), "{why}");
    properties.hardware.max_shared_memory_size = 140 << 10;
    assert_eq!(rows(&properties, [128, 128]), Ok(vec![[64, 64]]));
    properties.hardware.max_shared_memory_size = 99 << 10;
    for dims in [[128, 128], [256, 256]] {
        let why = rows(&properties, dims).unwrap_err();
        assert!(
            why.contains("101376 bytes of shared memory are too few"),
            "{why}"
        );
    }
}

fn lower_class(
    (dims, block, rows, table): ([usize; 2], usize, [usize; 2], bool),
    dtype: ElemType,
    is_in: impl Fn(&Launch) -> bool,
) {
    let device = cuda();
    let [head_dim, value_dim] = dims;
    let shape = AttentionShape {
        batch: 1,
        num_heads: 1,
        num_kv_heads: 1,
        seq_q: 1,
        seq_kv: 1,
        head_dim,
        value_dim,
    };
    // Of a class with as many rows for both.
    let keeps = rows[0] == rows[1] && table;
    let owned = |kernel: &str| Tile {
        rows: rows[usize::from(kernel != "forward" || keeps)],
        block,
        table,
    };
    let config = |kernel: &str| Config {
        owned: owned(kernel),
        visited: Tile {
            rows: VISITED,
            ..owned(kernel)
        },
        head_dim,
        value_dim,
        rounding: keeps,
        unit: SLICES,
        results: Rounding::Conversion,
        keys: false,
        values: false,
        kept_bands: 0,
        splits: false,
        parts: 1,
        products: Products::Mma,
        instructions: true,
        slots: match kernel {
            "forward" => forward_slots(owned(kernel).rows, &shape, MOST),
            "dq_kept" => kept_slots(owned(kernel).rows, &shape, MOST),
            _ => gradient_slots(owned(kernel).rows, &shape, MOST),
        }
        .expect("a ring fits"),
        brain: dtype == BF16,
    };
    let both = sums_both(head_dim, value_dim, Products::Mma);
    let launched = |launch: &Launch| both || !(launch.config.keys && launch.config.values);
    let all = launches(&WGMMA, config).into_iter();
    let kept = kept_launches(both, config).into_iter();
    let split = split_launches(both, config).into_iter();
    let may_keep = |launch: &Launch| {
        launch.config.kept_bands == 0 || keeps_scores(launch.config.owned, launch.config.visited)
    };
    for launch in all
        .chain(kept.chain(split).filter(may_keep))
        .filter(|launch| launched(launch) && is_in(launch))
    {
        let name = format!(
            "wgmma-{}-{}",
            launch.kernel,
            class_name(launch.config, dtype)
        );
        let rows = launch.config.owned.rows;
        let kernel = (launch.make)(&device, launch.config, dtype);
        let kernel = lowered(&device, &name, &*kernel, launch.written);
        let counted = match launch.kernel {
            "forward" => forward_bytes(rows, &shape, launch.config.slots),
            "dq_kept" => kept_bytes(rows, &shape, launch.config.slots),
            _ => gradient_bytes(rows, &shape, launch.config.slots),
        };
        assert!(
            kernel.shared_memory_size <= counted && counted <= MOST,
            "{name}: {} bytes of shared memory, not {counted}",
            kernel.shared_memory_size
        );
        let dtype = if launch.config.brain { "bf16" } else { "f16" };
        for part in [
            &format!("k16.f32.{dtype}.{dtype}"),
            "mbarrier.try_wait",
            "cp.async.mbarrier.arrive.noinc",
            "cp.async.cg",
            "fence.proxy.async",
        ] {
            assert!(kernel.source.contains(part), "{name}: no {part}");
        }
        let of_queries = matches!(launch.kernel, "forward" | "dq" | "dq_kept");
        let fillers = if of_queries { FILLERS } else { TURN_FILLERS };
        // Chunks of full columns, and of what is after them where no unit has padding, are copied unasked, each by one unit; no others.
        let of_scores = if launch.kernel == "dq_kept" {
            rows * VISITED * 2 / 16 / FILLERS
        } else {
            0
        };
        let copied: usize = (dims.iter().take(if of_scores > 0 { 1 } else { 2 }))
            .map(|dim| {
                let (full, rest) = (dim / 64 * 64, dim % 64);
                let rest = if (rest / LANES).is_power_of_two() && rest % 16 == 0 {
                    (VISITED * rest / LANES).div_ceil(fillers)
                } else {
                    0
                };
                VISITED * full / LANES / fillers + rest
            })
            .sum();
        let copies = kernel.source.matches("], 16;").count();
        // Rows of small blocks of queries are looked up, and all of tables.
        let whole = of_queries || launch.config.visited.slots() == 1;
        let whole = whole && !launch.config.visited.table;
        assert_eq!(
            copies,
            if whole { copied + of_scores } else { 0 },
            "{name}: copies of all bytes"
        );
        // Cubes of one group have registers enough.
        let changes = kernel.source.contains("setmaxnreg");
        assert_eq!(changes, rows > 64, "{name}");
        if launch.config.splits {
            let sums = add_sums(
                &device,
                launch.config,
                if launch.config.brain { BF16 } else { F16 },
            );
            lowered(&device, &format!("{name}-add_sums"), &*sums, &[1]);
        }
    }
}
