//! What this program's own providers run on.

#[cfg(feature = "timing")]
use anyhow::anyhow;
use anyhow::bail;

use super::{Matmul, Measured, Provider};
use crate::harness::{Effort, Timing};
use crate::machine::Machine;
use crate::problems::Problem;
use crate::record::{Backend, Engine, Pass};

#[cfg(all(feature = "kernels", feature = "timing"))]
use super::child;
#[cfg(feature = "timing")]
use super::{Attention, burn};
#[cfg(feature = "kernels")]
use crate::gpu::Gpu;

/// A device with what runs on it.
pub enum Rig {
    /// The CPU, through Burn.
    #[cfg(feature = "timing")]
    Cpu(::burn::tensor::Device, Machine),
    /// A GPU: this library by its kernels alone, Burn's own providers in processes of their own.
    #[cfg(feature = "kernels")]
    Gpu(Box<Gpu>, Machine),
}

impl Rig {
    /// The device of a backend. Where none is asked for, the CPU if Burn's is built in, else the GPU.
    ///
    /// # Errors
    /// A backend that is not built in, and a device that is not there.
    pub fn open(asked: Option<Backend>) -> anyhow::Result<Self> {
        let asked = asked.or(cfg!(feature = "flex").then_some(Backend::Flex));
        #[cfg(feature = "timing")]
        if asked == Some(Backend::Flex) {
            return Ok(Self::Cpu(burn::device(Backend::Flex)?, Machine::cpu()?));
        }
        #[cfg(feature = "kernels")]
        if !matches!(asked, Some(Backend::Flex | Backend::Torch)) {
            let gpu = Gpu::new(asked)?;
            let machine = gpu.machine()?;
            return Ok(Self::Gpu(Box::new(gpu), machine));
        }
        let asked = asked.map_or("none".to_owned(), |backend| backend.to_string());
        bail!(
            "--backend {asked}: flex and the GPU backends are accepted, where this program is built with the feature of that name"
        )
    }

    /// The same, where this library runs by this engine alone, if one is asked for.
    ///
    /// # Errors
    /// An engine that GPUs do not have, and any on the CPU.
    pub fn with_engine(self, asked: Option<Engine>) -> anyhow::Result<Self> {
        let Some(asked) = asked else {
            return Ok(self);
        };
        match self {
            #[cfg(feature = "timing")]
            Self::Cpu(..) => bail!("--engine {asked}: the CPU has one, which needs no name"),
            #[cfg(feature = "kernels")]
            Self::Gpu(gpu, machine) => Ok(Self::Gpu(Box::new(gpu.with_engine(asked)?), machine)),
        }
    }

    /// What rows call it.
    pub fn backend(&self) -> Backend {
        match self {
            #[cfg(feature = "timing")]
            Self::Cpu(..) => Backend::Flex,
            #[cfg(feature = "kernels")]
            Self::Gpu(gpu, _) => gpu.backend,
        }
    }

    /// What rows say about the machine.
    pub fn machine(&self) -> &Machine {
        match self {
            #[cfg(feature = "timing")]
            Self::Cpu(_, machine) => machine,
            #[cfg(feature = "kernels")]
            Self::Gpu(_, machine) => machine,
        }
    }

    /// The set of problems that is made for it.
    pub fn default_set(&self) -> &'static str {
        match self {
            #[cfg(feature = "timing")]
            Self::Cpu(..) => "cpu",
            #[cfg(feature = "kernels")]
            Self::Gpu(..) => "gpu",
        }
    }

    /// The providers of this program that run on it.
    pub fn providers(&self) -> &'static [Provider] {
        if cfg!(feature = "timing") {
            &Provider::NATIVE
        } else {
            &[Provider::S2]
        }
    }

    /// How long to measure on it.
    pub fn effort(&self, runs: usize, limit: std::time::Duration) -> Effort {
        match self {
            #[cfg(feature = "timing")]
            Self::Cpu(..) => Effort::cpu(runs, limit),
            #[cfg(feature = "kernels")]
            Self::Gpu(..) => Effort::gpu(runs, limit),
        }
    }

    /// Times one pass of attention.
    ///
    /// # Errors
    /// A point that is left out, and why.
    pub fn attention(
        &self,
        provider: Provider,
        problem: &Problem,
        pass: Pass,
        effort: &Effort,
    ) -> anyhow::Result<Measured> {
        match (self, provider) {
            #[cfg(feature = "timing")]
            (Self::Cpu(..), _) if pass.is_of_host() => Err(no_host_time(pass)),
            #[cfg(feature = "timing")]
            (Self::Cpu(device, machine), Provider::S2 | Provider::BurnAttention) => {
                let (who, engine) = match provider {
                    Provider::S2 => (Attention::S2, Some(Engine::Flex)),
                    _ => (Attention::Burn, None),
                };
                let timing = who.time(problem, pass, device, effort, machine.free_bytes)?;
                Ok(Measured { timing, engine })
            }
            #[cfg(all(feature = "kernels", feature = "timing"))]
            (Self::Gpu(gpu, _), Provider::S2) if pass == Pass::HostOperation => Ok(Measured {
                engine: Some(gpu.own_choice(problem)?),
                timing: child::attention(gpu.backend, provider, problem, pass, effort)?,
            }),
            #[cfg(feature = "kernels")]
            (Self::Gpu(gpu, _), Provider::S2) if pass != Pass::HostOperation => {
                gpu.time(problem, pass, effort)
            }
            #[cfg(all(feature = "kernels", feature = "timing"))]
            (Self::Gpu(gpu, _), Provider::BurnAttention) => Ok(Measured {
                timing: child::attention(gpu.backend, provider, problem, pass, effort)?,
                engine: None,
            }),
            (_, other) => bail!(
                "{pass} of {} does not run on {} in this program",
                other.name(),
                self.backend()
            ),
        }
    }

    /// Times a pass of Burn's matrix product.
    ///
    /// # Errors
    /// A point that is left out, and why.
    #[cfg_attr(
        not(feature = "timing"),
        expect(unused_variables, reason = "what would be timed is Burn")
    )]
    pub fn matmul(&self, matmul: &Matmul, pass: Pass, effort: &Effort) -> anyhow::Result<Timing> {
        match self {
            #[cfg(feature = "timing")]
            Self::Cpu(..) if pass.is_of_host() => Err(no_host_time(pass)),
            #[cfg(feature = "timing")]
            Self::Cpu(device, _) => Ok(matmul.time(device, effort)?),
            #[cfg(all(feature = "kernels", feature = "timing"))]
            Self::Gpu(gpu, _) => child::matmul(gpu.backend, matmul, pass, effort),
            #[cfg(all(feature = "kernels", not(feature = "timing")))]
            Self::Gpu(..) => bail!("Burn is not in this program"),
        }
    }
}

/// Why the CPU has no time of the host alone.
#[cfg(feature = "timing")]
fn no_host_time(pass: Pass) -> anyhow::Error {
    anyhow!("{pass} is for GPUs: on the CPU, the call is the work")
}
