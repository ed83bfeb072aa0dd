//! Kernels as they are launched, without buffers.

use cubecl::ir::{AddressType, ElemType};
use cubecl::prelude::*;

use super::devices::Device;
use crate::cube::config::Config;
use crate::cube::decode::combine;
use crate::cube::decode::sizes::SizesCompilationArg;
use crate::cube::decode::table::SectionsCompilationArg;
use crate::cube::mma::size::units;
use crate::cube::round::Rounding;
use crate::cube::{cache, few_rows, mma, stats, unit, wgmma};

fn buffer() -> BufferCompilationArg {
    BufferCompilationArg { inplace: None }
}

fn settings(units: usize, address: AddressType) -> KernelSettings {
    KernelSettings::new(
        *CubeDim::new_1d(units as u32),
        ExecutionMode::Unchecked,
        address,
    )
}

fn sections() -> SectionsCompilationArg {
    SectionsCompilationArg {
        counts: (),
        entries: (),
        list: (),
    }
}

fn sizes() -> SizesCompilationArg {
    SizesCompilationArg {
        sections: sections(),
        items: (),
        kv_heads: (),
        group: (),
        splits: (),
        record_rows: (),
        item_rows: (),
    }
}

/// A kernel by what follows the properties of the device: B is a tensor or a buffer, S a scalar, and C and D are what kernels
/// of the cache and of decode are told of a call.
macro_rules! kernel {
    (@ B) => { buffer() };
    (@ S) => { () };
    (@ C) => { sections() };
    (@ D) => { sizes() };
    ($kernel:ty, $device:expr, $units:expr, [$($argument:ident)*], $($comptime:expr),*) => {
        Box::new(<$kernel>::new(
            settings($units, $device.address),
            $device.properties.clone(),
            $device.target.clone(),
            $(kernel!(@ $argument),)*
            $($comptime),*
        ))
    };
}

/// The kernels of an engine.
pub(super) struct Engine {
    pub(super) forward: Make,
    pub(super) dq: Make,
    pub(super) dkdv: Make,
}

/// Makes a kernel.
pub(super) type Make = fn(&Device, Config, ElemType) -> Box<dyn CubeKernel>;

/// A kernel of an engine, what it is compiled for, and which of its buffers it writes.
pub(super) struct Launch {
    pub(super) kernel: &'static str,
    pub(super) make: Make,
    pub(super) config: Config,
    pub(super) written: &'static [usize],
}

/// Every kernel of an engine; `config` is by the kernel.
pub(super) fn launches(engine: &Engine, config: impl Fn(&str) -> Config) -> [Launch; 5] {
    let one = config("forward");
    let launch = |kernel, make, written| Launch {
        kernel,
        make,
        config: config(kernel),
        written,
    };
    let keys = |kernel, keys: bool, values: bool| Launch {
        config: Config {
            keys,
            values,
            ..config(kernel)
        },
        ..launch(kernel, engine.dkdv, &[5])
    };
    let outputs: &[usize] = if one.rounding { &[3, 4, 5] } else { &[3, 5] };
    [
        launch("forward", engine.forward, outputs),
        launch("dq", engine.dq, &[5]),
        keys("dkdv", true, true),
        keys("dk", true, false),
        keys("dv", false, true),
    ]
}

pub(super) const UNIT: Engine = Engine {
    forward: |device, config, dtype| {
        kernel!(
            unit::forward::forward::Forward, device, config.unit.units,
            [B B B B B B B S S S S S],
            unit::size::LANES, config, dtype
        )
    },
    dq: |device, config, dtype| {
        kernel!(
            unit::dq::dq::Dq, device, config.unit.units,
            [B B B B B B B S S S S S],
            unit::size::LANES, config, dtype
        )
    },
    dkdv: |device, config, dtype| {
        kernel!(
            unit::dkdv::dkdv::Dkdv, device, config.unit.units,
            [B B B B B B B S S S S S S S S S],
            unit::size::LANES, config, dtype
        )
    },
};

pub(super) const MMA: Engine = Engine {
    forward: |device, config, dtype| {
        kernel!(
            mma::forward::forward::Forward, device, units(config.owned.rows, config.parts),
            [B B B B B B B S S S S S],
            mma::LANES, config, dtype
        )
    },
    dq: |device, config, dtype| {
        kernel!(
            mma::dq::dq::Dq, device, units(config.owned.rows, config.parts),
            [B B B B B B B S S S S S],
            mma::LANES, config, dtype
        )
    },
    dkdv: |device, config, dtype| {
        kernel!(
            mma::dkdv::dkdv::Dkdv, device, units(config.owned.rows, config.parts),
            [B B B B B B B S S S S S S S S S S],
            mma::LANES, config, dtype
        )
    },
};

pub(super) const WGMMA: Engine = Engine {
    forward: |device, config, dtype| {
        kernel!(
            wgmma::forward::forward::Forward, device, wgmma::size::units(config.owned.rows),
            [B B B B B B B S S S S S S],
            mma::LANES, config, dtype
        )
    },
    dq: |device, config, dtype| {
        kernel!(
            wgmma::dq::dq::Dq, device, wgmma::size::units(config.owned.rows),
            [B B B B B B B S S S S S],
            mma::LANES, config, dtype
        )
    },
    dkdv: |device, config, dtype| {
        kernel!(
            wgmma::dkdv::dkdv::Dkdv, device, wgmma::size::units(config.owned.rows),
            [B B B B B B B S S S S S S S S S S B B S S S S B S S],
            mma::LANES, config, dtype
        )
    },
};

/// dK that keeps dS, with dV where one pass computes `both`, and dQ by what it keeps.
pub(super) fn kept_launches(both: bool, config: impl Fn(&str) -> Config) -> [Launch; 2] {
    [
        Launch {
            kernel: "dkdv_kept",
            make: WGMMA.dkdv,
            config: Config {
                keys: true,
                values: both,
                kept_bands: 2,
                ..config("dkdv")
            },
            written: &[5, 7],
        },
        Launch {
            kernel: "dq_kept",
            make: |device, config, dtype| {
                kernel!(
                    wgmma::dq_kept::dq_kept::DqKept, device, wgmma::size::units(config.owned.rows),
                    [B B B B B B S S S S S S S S S],
                    mma::LANES, config, dtype
                )
            },
            config: Config {
                kept_bands: 2,
                ..config("dq_kept")
            },
            written: &[4],
        },
    ]
}

/// Of tiles that cubes share: dK, with dV where one pass computes `both`, without dS and with, and dV.
pub(super) fn split_launches(both: bool, config: impl Fn(&str) -> Config) -> [Launch; 3] {
    let launch = |kernel, keys, kept_bands, written| Launch {
        kernel,
        make: WGMMA.dkdv,
        config: Config {
            keys,
            values: both || !keys,
            kept_bands,
            splits: true,
            ..config("dkdv")
        },
        written,
    };
    [
        launch("dkdv_split", true, 0, &[5, 9]),
        launch("dkdv_kept_split", true, 2, &[5, 7, 9]),
        launch("dv_split", false, 0, &[5, 9]),
    ]
}

/// What adds the sums of cubes that share a tile.
pub(super) fn add_sums(device: &Device, config: Config, dtype: ElemType) -> Box<dyn CubeKernel> {
    kernel!(
        wgmma::split::add_sums::AddSums, device, wgmma::split::UNITS,
        [B B B S S S S S S S S S S],
        wgmma::split::LANES, config, dtype
    )
}

/// The pass before the gradients, which engines share.
pub(super) fn prepass(
    device: &Device,
    value_dim: usize,
    rounding: bool,
    dtype: ElemType,
) -> Box<dyn CubeKernel> {
    kernel!(
        stats::prepass::Prepass, device, stats::UNITS,
        [B B B B B B S S S],
        stats::LANES, value_dim, rounding, dtype
    )
}

/// Decode of the unit engine.
pub(super) const UNIT_DECODE: Make = |device, config, dtype| {
    kernel!(
        unit::decode::decode::Decode, device, config.unit.units,
        [B B B B B B S S S S S D S],
        unit::size::LANES, config, dtype
    )
};

/// Decode of the engine of tensor cores.
pub(super) const MMA_DECODE: Make = |device, config, dtype| {
    kernel!(
        mma::decode::decode::Decode, device, units(config.owned.rows, 1),
        [B B B B B B S S S S S D S],
        mma::LANES, config, dtype
    )
};

/// What combines the parts of a list, which engines share.
pub(super) fn combine(
    device: &Device,
    value_dim: usize,
    sharers: usize,
    dtype: ElemType,
) -> Box<dyn CubeKernel> {
    let (across, down) = combine::layout(value_dim, sharers);
    kernel!(
        combine::combine::Combine, device, across * down,
        [B B B B S D S],
        combine::LANES, value_dim, sharers, Rounding::Conversion, dtype
    )
}

/// The copies to pages and from them.
pub(super) fn copies(device: &Device, lanes: usize, dtype: ElemType) -> [Box<dyn CubeKernel>; 2] {
    [
        kernel!(
            cache::write::write::Write, device, cache::UNITS,
            [B B B C S S S S S],
            lanes, dtype
        ),
        kernel!(
            cache::read::read::Read, device, cache::UNITS,
            [B B B B C S S S S S],
            lanes, dtype
        ),
    ]
}

/// Products of up to `most` rows with a matrix that lies column by column, and with one that lies row by row.
pub(super) fn products(
    device: &Device,
    most: usize,
    lanes: usize,
    dtype: ElemType,
) -> [Box<dyn CubeKernel>; 2] {
    [
        kernel!(
            few_rows::product::by_columns::ByColumns, device, few_rows::product::UNITS,
            [B B B S S S S],
            lanes, most, lanes, Rounding::Conversion, dtype
        ),
        kernel!(
            few_rows::product::by_rows::ByRows, device, few_rows::product::UNITS,
            [B B B S S S S],
            lanes, most, lanes, Rounding::Conversion, dtype
        ),
    ]
}

/// The norm of rows.
pub(super) fn norm(device: &Device, lanes: usize, dtype: ElemType) -> Box<dyn CubeKernel> {
    kernel!(
        few_rows::norm::norm::Norm, device, few_rows::norm::UNITS,
        [B B B S S S S],
        lanes, lanes, Rounding::Conversion, dtype
    )
}

/// Rotary positions of rows.
pub(super) fn rotation(device: &Device, lanes: usize, dtype: ElemType) -> Box<dyn CubeKernel> {
    kernel!(
        few_rows::rotation::rotate::Rotate, device, few_rows::rotation::UNITS,
        [B B B B B S S S S],
        lanes, lanes, Rounding::Conversion, dtype
    )
}
