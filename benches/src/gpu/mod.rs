//! The CubeCL engines of this library without Burn around them, on this machine's GPU.

mod call;
mod clock;
mod decode;

use anyhow::{anyhow, bail, ensure};
use cubecl::client::Client;
use s2_attention_kernels::cube;

use crate::harness::Effort;
use crate::machine::Machine;
use crate::panics::caught;
use crate::problems::Problem;
use crate::providers::Measured;
use crate::record::{Backend, Engine, Pass};

use call::{Call, attention, named};
use clock::Clock;

pub use decode::Decoded;

/// The device that CubeCL finds with the runtime that is built in.
///
/// # Errors
/// There is none.
pub fn client() -> anyhow::Result<Client> {
    caught(|| cubecl::Device::default().client()).map_err(|panic| anyhow!("no device: {panic}"))
}

/// A GPU and its clock.
pub struct Gpu {
    client: Client,
    clock: Clock,
    /// The engine that attention must run by; the library's choice for each call where there is none.
    engine: Option<cube::Engine>,
    /// What rows call its runtime.
    pub backend: Backend,
}

impl Gpu {
    /// This machine's GPU; `asked` is what its runtime must be.
    ///
    /// # Errors
    /// No device, or one of another runtime.
    pub fn new(asked: Option<Backend>) -> anyhow::Result<Self> {
        let client = client()?;
        let built = backends(client.name())?;
        if let Some(asked) = asked {
            let names: Vec<String> = built.iter().map(ToString::to_string).collect();
            ensure!(
                built.contains(&asked),
                "--backend {asked}: this program was built for {} and found {}",
                names.join(" or "),
                client.properties().identity.name
            );
        }
        Ok(Self {
            clock: Clock::new(&client),
            engine: None,
            backend: asked.unwrap_or(built[0]),
            client,
        })
    }

    /// The same, where this engine must run attention: points that it does not run are refused.
    ///
    /// # Errors
    /// What is no engine of GPUs.
    pub fn with_engine(self, asked: Engine) -> anyhow::Result<Self> {
        let engine = match asked {
            Engine::Wgmma => cube::Engine::Wgmma,
            Engine::Mma => cube::Engine::Mma,
            Engine::Unit => cube::Engine::Unit,
            Engine::Cmma | Engine::Flex => {
                bail!("--engine {asked}: wgmma, mma and unit are accepted on GPUs")
            }
        };
        Ok(Self {
            engine: Some(engine),
            ..self
        })
    }

    /// The engine that this library chooses for the problem.
    ///
    /// # Errors
    /// What the device or the kernels cannot run, and an engine that was asked for: Burn's operation knows none.
    pub fn own_choice(&self, problem: &Problem) -> anyhow::Result<Engine> {
        if let Some(engine) = self.engine {
            bail!("--engine {engine}: through Burn, the engine is the library's choice");
        }
        named(attention(&self.client, problem, None)?.choice().engine)
    }

    /// What rows say about it.
    ///
    /// # Errors
    /// A clock before 1970.
    pub fn machine(&self) -> anyhow::Result<Machine> {
        Machine::gpu(self.client.properties().identity.name.clone())
    }

    /// Times one pass of this library.
    ///
    /// # Errors
    /// What the device or the kernels cannot run, and points that would take too long.
    pub fn time(&self, problem: &Problem, pass: Pass, effort: &Effort) -> anyhow::Result<Measured> {
        let point = || self.time_point(problem, pass, effort);
        let result = caught(point).unwrap_or_else(|panic| Err(anyhow!("panicked: {panic}")));
        self.client.memory_cleanup()?;
        result
    }

    fn time_point(
        &self,
        problem: &Problem,
        pass: Pass,
        effort: &Effort,
    ) -> anyhow::Result<Measured> {
        let call = Call::new(&self.client, problem, self.engine)?;
        let saved = match pass {
            Pass::Backward => Some(call.saved()?),
            _ => None,
        };
        let (peak_bytes, launch) = self.clock.peak_bytes(|| {
            let launch = call.launch(pass, saved)?;
            launch.run()?;
            Ok(launch)
        })?;
        let timing = match pass {
            Pass::HostForward => self.clock.host(effort, || launch.run())?,
            _ => self
                .clock
                .device(effort, Some(peak_bytes), || launch.run())?,
        };
        Ok(Measured {
            timing,
            engine: Some(call.engine()?),
        })
    }
}

/// What rows call a runtime of CubeCL. CUDA's does not say which of its two compilers it was built with: the first is
/// taken unless the other is asked for.
fn backends(runtime: &str) -> anyhow::Result<&'static [Backend]> {
    Ok(match runtime {
        "cuda" if cfg!(feature = "cuda-cpp") => &[Backend::CudaCpp],
        "cuda" => &[Backend::Cuda, Backend::CudaCpp],
        "hip" => &[Backend::Rocm],
        "wgpu<spirv>" => &[Backend::Vulkan],
        "wgpu<msl>" => &[Backend::Metal],
        "wgpu<wgsl>" => &[Backend::Wgpu],
        other => anyhow::bail!("rows have no name for CubeCL's runtime {other}"),
    })
}
