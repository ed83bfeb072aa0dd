//! The result row: one measured point, one line of JSON.
//!
//! Every provider writes the same row, in this process or in another language, so that tables, plots and checks read
//! them without knowing who wrote them. A row with an unknown or a missing field is refused; a field that means nothing
//! for a point is `null`.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

/// What a results file holds, one line of JSON each.
pub trait Record: Serialize + DeserializeOwned {
    /// Shared by all that one command found on one machine.
    fn run(&self) -> &str;

    /// The records of a file; empty lines are skipped.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that is no such record.
    fn read(path: &Path) -> Result<Vec<Self>, RecordError> {
        let text = fs::read_to_string(path).map_err(|source| file_error(path, source))?;
        let lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(index, line)| {
                serde_json::from_str(line).map_err(|source| RecordError::Line {
                    path: path.to_owned(),
                    line: index + 1,
                    source,
                })
            })
            .collect()
    }

    /// Adds the record to a file, which is created with its folder where it is missing.
    ///
    /// # Errors
    /// A file that cannot be written.
    fn append(&self, path: &Path) -> Result<(), RecordError> {
        let write = || {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            writeln!(file, "{}", serde_json::to_string(self)?)
        };
        write().map_err(|source| file_error(path, source))
    }
}

/// A record that says where it comes from.
pub trait Origin: Record {
    /// The machine.
    fn device(&self) -> &str;
    /// The commit that was timed.
    fn commit(&self) -> &str;
}

/// One measured point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Shared by all rows that one command timed on one machine.
    pub run: String,
    /// Who computed it, e.g. `burn-s2-attention` or `burn-attention`.
    pub provider: String,
    /// The engine of this library; `null` for others.
    #[serde(deserialize_with = "nullable")]
    pub engine: Option<Engine>,
    /// What it ran on.
    pub backend: Backend,
    /// The name of the problem in the catalogue.
    pub problem: String,
    /// What was timed.
    pub pass: Pass,
    /// Type of the inputs.
    pub dtype: Dtype,
    /// Sequences.
    pub batch: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Query tokens a sequence.
    pub seq_q: usize,
    /// Key tokens a sequence.
    pub seq_kv: usize,
    /// Elements of a query, key or value.
    pub head_dim: usize,
    /// Tokens a block; `null` where there are no blocks.
    #[serde(deserialize_with = "nullable")]
    pub block: Option<usize>,
    /// Local window in blocks, the diagonal included; `null` for other patterns.
    #[serde(deserialize_with = "nullable")]
    pub local_blocks: Option<usize>,
    /// Vertical stride in blocks; `null` for other patterns.
    #[serde(deserialize_with = "nullable")]
    pub vert_stride: Option<usize>,
    /// Whether keys after the query are masked.
    pub causal: bool,
    /// The pattern in words.
    pub pattern: String,
    /// Median time of a run in microseconds.
    pub median_us: f64,
    /// Shortest time of a run in microseconds.
    pub min_us: f64,
    /// Timed runs.
    pub runs: usize,
    /// Most bytes held at once during a run beyond what was held before it; `null` where that cannot be known.
    #[serde(deserialize_with = "nullable")]
    pub peak_bytes: Option<u64>,
    /// Attended over dense token pairs.
    pub density: f64,
    /// Useful TFLOP/s: `4 * pairs * head_dim` forward and 2.5 times that backward, over the median time, where `pairs`
    /// are the attended (query, key) pairs. 0 for passes that compute nothing on the device.
    pub useful_tflops: f64,
    /// The machine.
    pub device: String,
    /// Its driver; `null` where there is none.
    #[serde(deserialize_with = "nullable")]
    pub driver: Option<String>,
    /// Start of the run, UTC.
    pub date: String,
    /// The commit that was timed; `-dirty` after it if the tree had changes.
    pub commit: String,
    /// Versions of what was timed.
    pub versions: BTreeMap<String, String>,
}

/// A field that may be `null` but not absent.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    field: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(field)
}

/// An enum that reads, writes and displays as its names in lower kebab case.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "command", derive(clap::ValueEnum))]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] #[cfg_attr(feature = "command", value(name = $text))] $variant),+
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $($name::$variant => $text),+ })
            }
        }
    };
}

names! {
    /// What was timed.
    Pass {
        /// Attention, without keeping what gradients need.
        Forward = "forward",
        /// Gradients of `q`, `k` and `v` alone, after a forward pass that is not timed.
        Backward = "backward",
        /// Both in one run, as a step of training has them: its forward pass keeps what gradients need, also what `out` loses by
        /// rounding to 2 bytes, which `forward` does not.
        ForwardBackward = "forward-backward",
        /// The host's part of `forward`: from the call until the driver has the launch, without waiting for the device.
        /// Medians of 1,000 calls; `useful_tflops` is 0 and `peak_bytes` is `null`.
        HostForward = "host-forward",
        /// The same of a call through Burn, until Burn has given the driver all that it had put by: this library's operation, and
        /// Burn's matrix product beside it.
        HostOperation = "host-operation",
        /// One or a few new tokens against a cache.
        Decode = "decode",
        /// A prompt into a cache.
        Prefill = "prefill",
        /// A whole step of training.
        TrainStep = "train-step",
    }
}

impl Pass {
    /// Whether it is the host that was timed rather than the device.
    pub fn is_of_host(self) -> bool {
        matches!(self, Self::HostForward | Self::HostOperation)
    }
}

names! {
    /// The engines of this library.
    Engine {
        /// Hopper's warp-group products.
        Wgmma = "wgmma",
        /// Tensor cores by warp.
        Mma = "mma",
        /// Cooperative matrices.
        Cmma = "cmma",
        /// Plain multiply-add on any GPU.
        Unit = "unit",
        /// The CPU engine.
        Flex = "flex",
    }
}

names! {
    /// What a provider ran on.
    Backend {
        /// NVIDIA GPUs, kernels compiled by LLVM.
        Cuda = "cuda",
        /// NVIDIA GPUs, kernels compiled by NVRTC.
        CudaCpp = "cuda-cpp",
        /// Vulkan through SPIR-V.
        Vulkan = "vulkan",
        /// Any GPU through WGSL.
        Wgpu = "wgpu",
        /// Apple GPUs.
        Metal = "metal",
        /// AMD GPUs.
        Rocm = "rocm",
        /// The CPU, in pure Rust.
        Flex = "flex",
        /// PyTorch.
        Torch = "torch",
    }
}

names! {
    /// Type of the inputs.
    Dtype {
        /// IEEE double.
        F64 = "f64",
        /// IEEE single.
        F32 = "f32",
        /// IEEE half.
        F16 = "f16",
        /// bfloat16.
        Bf16 = "bf16",
    }
}

impl Dtype {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// A results file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be opened, read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not a row.
    #[error("{path}:{line}: not a result row: {source}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
}

impl Row {
    /// Whether it is of a dense problem: a pattern of blocks that covers a short sequence is none.
    pub fn is_dense(&self) -> bool {
        self.block.is_none() && self.density == 1.0
    }

    /// Bytes that a row of a copy moves, those that it reads and those that it writes.
    pub fn copied_bytes(&self) -> u64 {
        2 * (self.seq_kv * self.head_dim * self.dtype.size()) as u64
    }
}

impl Record for Row {
    fn run(&self) -> &str {
        &self.run
    }
}

impl Origin for Row {
    fn device(&self) -> &str {
        &self.device
    }

    fn commit(&self) -> &str {
        &self.commit
    }
}

fn file_error(path: &Path, source: io::Error) -> RecordError {
    RecordError::File {
        path: path.to_owned(),
        source,
    }
}
