//! The `tokens` command: how long a model takes for a token after a long prompt, with sparse layers and with dense ones.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use burn::tensor::{DType, Device, DeviceConfig, FloatDType, Int, Tensor, TensorData, capture};
use burn_s2_attention::cache::{Append, KvCache, KvCacheConfig, SequenceId};
use burn_s2_attention::model::{
    GenerationConfig, HybridTransformer, HybridTransformerConfig, Sampler,
};
use burn_s2_attention::module::column_major;
use burn_s2_attention::{DenseLayers, LayerSchedule, PatternConfig};
use indicatif::ProgressBar;

use crate::output::Output;
use crate::providers::Rig;
use crate::providers::burn::device;
use crate::record::{Backend, Dtype, Record};
use crate::token_record::{TokenRow, WeightOrder};

/// Options of `tokens`. The default model has the shape of Llama 2 7B, with random weights.
#[derive(Debug, clap::Args)]
pub struct TokensArgs {
    /// What to run on: the CPU, or a GPU that this program is built for.
    #[arg(long, value_enum, default_value_t = Backend::Flex)]
    pub backend: Backend,
    /// Type of weights, keys and values.
    #[arg(long, value_enum, default_value_t = Dtype::Bf16)]
    pub dtype: Dtype,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 131_072)]
    pub prompt: usize,
    /// Tokens that are timed.
    #[arg(long, default_value_t = 50)]
    pub tokens: usize,
    /// Tokens of the prompt that are read at a time; a row for each size.
    #[arg(long, value_delimiter = ',', default_value = "8192")]
    pub chunk: Vec<usize>,
    /// Times that the prompt is read and timed, after a reading that is not.
    #[arg(long, default_value_t = 3)]
    pub readings: usize,
    /// Layers.
    #[arg(long, default_value_t = 32)]
    pub layers: usize,
    /// Layers at the beginning that stay dense.
    #[arg(long, default_value_t = 2)]
    pub dense: usize,
    /// Width of the residual stream.
    #[arg(long, default_value_t = 4096)]
    pub d_model: usize,
    /// Width of the feed-forward networks.
    #[arg(long, default_value_t = 11_008)]
    pub d_ff: usize,
    /// How weights lie.
    #[arg(long, value_enum, default_value_t = WeightOrder::Columns)]
    pub weights: WeightOrder,
    /// Query heads.
    #[arg(long, default_value_t = 32)]
    pub heads: usize,
    /// Key/value heads.
    #[arg(long, default_value_t = 32)]
    pub kv_heads: usize,
    /// Distinct tokens.
    #[arg(long, default_value_t = 32_000)]
    pub vocabulary: usize,
    /// Tokens a block.
    #[arg(long, default_value_t = 64)]
    pub block: usize,
    /// Local window in blocks.
    #[arg(long, default_value_t = 16)]
    pub local: usize,
    /// Vertical stride in blocks.
    #[arg(long, default_value_t = 8)]
    pub stride: usize,
    /// Where rows go.
    #[command(flatten)]
    pub output: Output,
}

/// Times the hybrid model, then the dense one. Returns the rows and their file.
///
/// # Errors
/// A backend that is not built in, a model that cannot be had, and results that cannot be written.
pub fn run(args: &TokensArgs) -> anyhow::Result<(Vec<TokenRow>, PathBuf)> {
    ensure!(
        args.prompt > 0 && args.tokens > 1 && args.readings > 0 && !args.chunk.contains(&0),
        "--prompt {}, --tokens {}, --readings {}, --chunk {:?}: from 1, 2, 1 and 1 on are accepted",
        args.prompt,
        args.tokens,
        args.readings,
        args.chunk
    );
    ensure!(
        args.dense < args.layers,
        "--dense {}: fewer than --layers ({}) are accepted",
        args.dense,
        args.layers
    );
    let mut device = device(args.backend)?;
    let float = match args.dtype {
        Dtype::F64 => FloatDType::F64,
        Dtype::F32 => FloatDType::F32,
        Dtype::F16 => FloatDType::F16,
        Dtype::Bf16 => FloatDType::BF16,
    };
    device
        .configure(DeviceConfig::from(float))
        .with_context(|| format!("{:?} weights", args.dtype))?;
    let rig = Rig::open(Some(args.backend))?;
    let machine = args.output.of(rig.machine().clone());
    let path = args.output.path(&machine, "tokens.jsonl");
    let run = args.output.run_id(&machine);
    let mut rows = Vec::new();
    for dense in [args.dense, args.layers] {
        let model = model(args, &device, dense)?;
        let model = match args.weights {
            WeightOrder::Rows => model,
            WeightOrder::Columns => column_major(model),
        };
        let mut first: Option<(usize, Vec<f32>)> = None;
        for &chunk in &args.chunk {
            let read = Reading {
                args,
                chunk,
                model: &model,
                device: &device,
            };
            let (prompt, decoded) = read.time()?;
            match &first {
                Some((other, state)) => check_same([*other, chunk], [state, &prompt.state])?,
                None => first = Some((chunk, prompt.state)),
            }
            let row = TokenRow {
                run: run.clone(),
                backend: args.backend,
                dtype: args.dtype,
                layers: args.layers,
                dense_layers: dense,
                d_model: args.d_model,
                d_ff: args.d_ff,
                heads: args.heads,
                kv_heads: args.kv_heads,
                block: args.block,
                local_blocks: args.local,
                vert_stride: args.stride,
                prompt: args.prompt,
                chunk,
                prompt_seconds: prompt.seconds,
                readings: Some(args.readings),
                token_ms: decoded.median_ms,
                least_ms: decoded.least_ms,
                tokens: args.tokens,
                captured: decoded.captured,
                weights: Some(args.weights),
                memory_bytes: decoded.memory_bytes,
                full_bytes: decoded.full_bytes,
                device: machine.device.clone(),
                driver: machine.driver.clone(),
                date: machine.date.clone(),
                commit: machine.commit.clone(),
                versions: machine.versions.clone(),
            };
            row.append(&path)?;
            rows.push(row);
        }
    }
    Ok((rows, path))
}

/// Random weights: what the model writes does not matter.
fn model(args: &TokensArgs, device: &Device, dense: usize) -> anyhow::Result<HybridTransformer> {
    let pattern = PatternConfig::local_stride(args.local, args.stride, args.block, args.heads)
        .with_num_kv_heads(args.kv_heads)
        .per_kv_head();
    let schedule = LayerSchedule::new(pattern).with_dense_layers(DenseLayers::First(dense));
    let config = HybridTransformerConfig::new(
        args.vocabulary,
        args.d_model,
        args.layers,
        args.heads,
        schedule,
    )
    .with_num_kv_heads(Some(args.kv_heads))
    .with_d_ff(Some(args.d_ff))
    .with_tied_embeddings(false);
    Ok(config.try_init(device)?)
}

/// What is timed: a model that reads its prompt in chunks, and then writes.
struct Reading<'a> {
    args: &'a TokensArgs,
    chunk: usize,
    model: &'a HybridTransformer,
    device: &'a Device,
}

/// A prompt that has been read.
struct Prompt {
    seconds: f64,
    /// What the model holds of its last token.
    state: Vec<f32>,
}

/// What tokens after the prompt took.
struct Decoded {
    median_ms: f64,
    least_ms: f64,
    captured: bool,
    memory_bytes: usize,
    full_bytes: usize,
}

impl Reading<'_> {
    /// The prompt, and the tokens after it.
    fn time(&self) -> anyhow::Result<(Prompt, Decoded)> {
        let longest = self.args.prompt + self.args.tokens + 1;
        let config = KvCacheConfig::new(longest).with_reserve(Some(1));
        let mut cache = self.model.try_kv_cache(&config)?;
        // Kernels are compiled, and choices tuned, while the prompt is read the first time.
        let sequence = cache.try_add()?;
        self.read_prompt(&mut cache, sequence)?;
        let mut readings = Vec::new();
        for _ in 0..self.args.readings {
            cache.try_reset(sequence)?;
            readings.push(self.read_prompt(&mut cache, sequence)?);
        }
        readings.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let prompt = readings.swap_remove(readings.len() / 2);
        let decoded = self.decode(cache, sequence)?;
        Ok((prompt, decoded))
    }

    fn read_prompt(&self, cache: &mut KvCache, sequence: SequenceId) -> anyhow::Result<Prompt> {
        let &Self { args, device, .. } = self;
        let start = Instant::now();
        let bar = ProgressBar::new(args.prompt as u64);
        let (mut read, mut state) = (0, Vec::<f32>::new());
        while read < args.prompt {
            let tokens = self.chunk.min(args.prompt - read);
            cache.try_begin(&[Append { sequence, tokens }])?;
            let numbers = (read..read + tokens).map(|at| (at * 7919 % args.vocabulary) as i32);
            let numbers = TensorData::new(numbers.collect(), [1, tokens]);
            let numbers = Tensor::<2, Int>::from_data(numbers, (device, DType::I32));
            let hidden = self.model.hidden_states_cached(numbers, cache);
            // No more than a chunk is on its way.
            let last = hidden.narrow(1, tokens - 1, 1).into_data();
            state = last.convert::<f32>().try_to_vec().context("a state")?;
            cache.try_commit()?;
            read += tokens;
            bar.set_position(read as u64);
        }
        bar.finish_and_clear();
        let seconds = start.elapsed().as_secs_f64();
        ensure!(
            state.iter().all(|x| x.is_finite()) && state.iter().any(|x| *x != 0.0),
            "after the prompt, in chunks of {}, the model holds nothing, or what is not finite",
            self.chunk
        );
        Ok(Prompt { seconds, state })
    }

    /// Captures a step of one token as a graph where the device has graphs, and times its replays: from the tables of the step
    /// until its token is on the host.
    fn decode(&self, cache: KvCache, sequence: SequenceId) -> anyhow::Result<Decoded> {
        let &Self { args, device, .. } = self;
        let cache = RefCell::new(cache);
        let begin = || {
            cache.borrow_mut().try_begin(&[Append {
                sequence,
                tokens: 1,
            }])
        };
        let token = RefCell::new(Tensor::<2, Int>::zeros([1, 1], (device, DType::I32)));
        begin()?;
        let mut graph = capture(device, || {
            let token = token.borrow().clone();
            self.model.forward_cached(token, &mut cache.borrow_mut())
        });
        // SAFETY: what the step reads and writes is alive: the model, the cache, which is reserved, and the token. Nothing else
        // runs on the device, and the output is read before the next step. Recording is not running: this is the first step.
        let mut next = drawn(unsafe { graph.replay() }.clone())?;
        cache.borrow_mut().commit_replayed();
        let mut times = Vec::new();
        for _ in 0..args.tokens {
            let start = Instant::now();
            begin()?;
            let data = TensorData::new(vec![next], [1, 1]);
            let data = Tensor::<2, Int>::from_data(data, (device, DType::I32));
            token
                .borrow_mut()
                .inplace(|token| token.slice_assign([0..1, 0..1], data));
            // SAFETY: as above.
            next = drawn(unsafe { graph.replay() }.clone())?;
            cache.borrow_mut().commit_replayed();
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let cache = cache.borrow();
        Ok(Decoded {
            median_ms: times[times.len() / 2] * 1e3,
            least_ms: times[0] * 1e3,
            captured: graph.is_hardware(),
            memory_bytes: cache.memory_bytes(),
            full_bytes: cache.full_bytes(args.prompt + args.tokens + 1),
        })
    }
}

/// Two ways to read a prompt must end alike, to rounding in 2 bytes and many layers.
fn check_same(chunks: [usize; 2], states: [&[f32]; 2]) -> anyhow::Result<()> {
    let [a, b] = states;
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut a.iter().copied());
    ensure!(
        a.len() == b.len() && difference < MOST_DIFFERENCE,
        "the prompt in chunks of {} and of {} ends in states that differ by {difference} of their length; below \
         {MOST_DIFFERENCE} is accepted",
        chunks[0],
        chunks[1]
    );
    Ok(())
}

/// Of the length of a state: unrelated ones differ by 1.4.
const MOST_DIFFERENCE: f32 = 0.1;

/// The likeliest token, chosen on the host as a generator does.
fn drawn(logits: Tensor<3>) -> anyhow::Result<i32> {
    let data = logits.try_into_data_as::<f32>().context("the logits")?;
    let logits: Vec<f32> = data.try_to_vec().context("the logits")?;
    let token = Sampler::new(&GenerationConfig::new(1), 0)?.draw(&logits)?;
    i32::try_from(token).context("a token")
}
