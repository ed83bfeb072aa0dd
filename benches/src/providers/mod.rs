//! Who is timed, and on what.

#[cfg(feature = "timing")]
mod attention;
#[cfg(feature = "timing")]
pub mod burn;
#[cfg(feature = "timing")]
pub mod child;
#[cfg(feature = "timing")]
mod host;
#[cfg(feature = "timing")]
mod matmul;
mod rig;

#[cfg(feature = "timing")]
pub use attention::{Attention, Skipped};
pub use rig::Rig;

use crate::harness::Timing;
use crate::problems::Problem;
use crate::record::{Dtype, Engine};
use crate::summary::{BURN_ATTENTION, BURN_MATMUL, S2_ATTENTION, SDPA_FLASH};

/// A time, and the engine of this library that took it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// The time.
    pub timing: Timing,
    /// `None` for other providers.
    pub engine: Option<Engine>,
}

/// Who computes, by the names in the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Provider {
    /// Burn's matrix product, the yardstick of what the device computes.
    #[value(name = BURN_MATMUL)]
    BurnMatmul,
    /// Burn's own dense attention. On GPUs in a process of its own, which ends when its time is over.
    #[value(name = BURN_ATTENTION)]
    BurnAttention,
    /// This library.
    #[value(name = S2_ATTENTION)]
    S2,
    /// FlashAttention-2 as PyTorch has it, dense.
    #[value(name = SDPA_FLASH)]
    SdpaFlash,
    /// cuDNN through PyTorch, dense.
    #[value(name = "sdpa-cudnn")]
    SdpaCudnn,
    /// PyTorch's FlexAttention over the pattern's blocks.
    #[value(name = "flex-attention")]
    FlexAttention,
    /// The kernels of the method's authors, in Triton.
    #[value(name = "dkernel")]
    Dkernel,
    /// FlashAttention-4 (CuTe DSL), dense or over the pattern's blocks.
    #[value(name = "flash-attn-4")]
    FlashAttention4,
}

impl Provider {
    /// Those of this program.
    pub const NATIVE: [Self; 3] = [Self::BurnMatmul, Self::BurnAttention, Self::S2];
    /// Those of `benches/baselines`.
    pub const PEERS: [Self; 5] = [
        Self::SdpaFlash,
        Self::SdpaCudnn,
        Self::FlexAttention,
        Self::Dkernel,
        Self::FlashAttention4,
    ];

    /// Those of `benches/baselines` that are timed at decode, where none are named.
    pub const DECODE_PEERS: [Self; 3] = [Self::SdpaFlash, Self::SdpaCudnn, Self::Dkernel];

    /// The name in the rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::BurnMatmul => BURN_MATMUL,
            Self::BurnAttention => BURN_ATTENTION,
            Self::S2 => S2_ATTENTION,
            Self::SdpaFlash => SDPA_FLASH,
            Self::SdpaCudnn => "sdpa-cudnn",
            Self::FlexAttention => "flex-attention",
            Self::Dkernel => "dkernel",
            Self::FlashAttention4 => "flash-attn-4",
        }
    }

    /// Whether it computes the problem itself rather than something larger.
    pub fn computes(self, problem: &Problem) -> bool {
        match self {
            Self::BurnMatmul => false,
            Self::S2 | Self::FlashAttention4 => true,
            Self::BurnAttention | Self::SdpaFlash | Self::SdpaCudnn => problem.is_dense(),
            Self::FlexAttention | Self::Dkernel => !problem.is_dense(),
        }
    }
}

/// The product of two square matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matmul {
    /// Rows and columns.
    pub size: usize,
    /// Type of the elements.
    pub dtype: Dtype,
}

impl Matmul {
    /// The name in the rows.
    pub fn problem(&self) -> String {
        format!("matmul_{}_{}", self.size, self.dtype)
    }

    /// Floating-point operations: a multiplication and an addition for each of `size^3` terms.
    pub fn flops(&self) -> f64 {
        2.0 * (self.size as f64).powi(3)
    }
}
