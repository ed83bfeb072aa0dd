//! The first launch of a kernel compiles it: what fails then is an error that names the kernel.
//!
//! CubeCL launches without waiting. A kernel that cannot be compiled or launched leaves its outputs marked, which shows when
//! they are read. The mark is there once the launch is through the queue of the host, long before the device is done: it is
//! asked for after the first launch of each kernel, which takes as long as its compilation, and never again.

use std::sync::{PoisonError, RwLock};

use cubecl::client::Client;
use cubecl::device::DeviceId;
use cubecl::ir::ElemType;
use cubecl::server::Handle;
use hashbrown::HashSet;

use super::attention::CubeAttention;
use super::config::Config;
use super::error::CubeError;
use super::few_rows::MatrixOrder;
use super::round::Rounding;
use super::select::Engine;

/// What a kernel is compiled for, and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Compiled {
    runtime: &'static str,
    device: DeviceId,
    kernel: &'static str,
    engine: Engine,
    dtype: ElemType,
    class: Class,
}

/// What else a kernel is compiled for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// Attention, and decode over the pages of a cache.
    Attention(Config),
    /// What combines the parts of decode.
    Combine {
        value_dim: usize,
        sharers: usize,
        results: Rounding,
    },
    /// Copies to the pages of a cache and from them.
    Copy { lanes: usize },
    /// The product of a few rows and a matrix.
    Product {
        order: MatrixOrder,
        most: usize,
        lanes: usize,
    },
    /// The norm of rows.
    Norm { lanes: usize },
    /// Rotary positions of rows.
    Rotation { lanes: usize },
}

/// Kernels that were launched.
static COMPILED: RwLock<Option<HashSet<Compiled>>> = RwLock::new(None);

impl CubeAttention {
    /// [`launched`] of a kernel of this call.
    pub(super) fn launched(
        &self,
        kernel: &'static str,
        config: Config,
        output: &Handle,
    ) -> Result<(), CubeError> {
        let engine = self.choice.engine;
        launched(
            &self.client,
            engine,
            kernel,
            self.dtype,
            Class::Attention(config),
            output,
        )
    }
}

/// To be called after a launch of `kernel` of that class, which writes `output`.
///
/// # Errors
/// [`CubeError::Launch`] where it is the first one, and failed.
pub(super) fn launched(
    client: &Client,
    engine: Engine,
    kernel: &'static str,
    dtype: ElemType,
    class: Class,
    output: &Handle,
) -> Result<(), CubeError> {
    let compiled = Compiled {
        runtime: client.name(),
        device: client.service_id().device,
        kernel,
        engine,
        dtype,
        class,
    };
    let known = |set: &Option<HashSet<_>>| set.as_ref().is_some_and(|set| set.contains(&compiled));
    // A recorded graph runs later: what it did not record shows when the recording ends.
    if known(&COMPILED.read().unwrap_or_else(PoisonError::into_inner)) || client.is_capturing() {
        return Ok(());
    }
    client.check([output]).map_err(|error| CubeError::Launch {
        kernel,
        engine,
        device: client.name().to_owned(),
        message: error.to_string(),
    })?;
    let mut set = COMPILED.write().unwrap_or_else(PoisonError::into_inner);
    set.get_or_insert_default().insert(compiled);
    Ok(())
}

#[cfg(all(test, feature = "wgpu"))]
#[path = "first_launch_tests.rs"]
mod tests;
