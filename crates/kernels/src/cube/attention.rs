//! Attention on a CubeCL device.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use cubecl::client::Client;
use cubecl::ir::ElemType;

use super::checks::{check_dtype, check_problem, max_buffer, processors};
use super::config::Config;
use super::error::CubeError;
use super::indexed::Indexed;
use super::keep::Keep;
use super::kept::{KeptPlan, explain_kept};
use super::select::{Choice, Engine, candidates, explain, is_on, say};
use super::split::{Split, Splits, Splitting};
use super::tensors::{DeviceTensor, ForwardOutputs, KeyGradients, SavedOutputs};
use super::tile::Tile;
use super::tune::fastest;
use super::{mma, unit, wgmma};
use crate::AttentionProblem;

/// Buffers of the passes: queries, keys, values, four that a pass reads or writes beside them, of which the index is one, and the
/// one that CubeCL adds. Where `out` keeps nothing of its rounding, another buffer stands in its place.
pub(super) const BINDINGS: usize = 8;

/// A call, checked for a device and ready to be launched any number of times.
///
/// What it holds on the device takes a few words a head where all heads have a closed form, a few for each sequence, and two for
/// each tile where sequences differ in length. A custom mask is a table of its blocks, and one head with such a mask makes tables
/// of all: a pattern of both kinds runs better as two calls.
#[derive(Clone)]
pub struct CubeAttention {
    pub(super) client: Client,
    pub(super) problem: Arc<AttentionProblem>,
    pub(super) dtype: ElemType,
    pub(super) choice: Choice,
    pub(super) inference: Indexed,
    pub(super) training: Indexed,
    /// Stands where a kernel has a tensor that it does not touch: of the call, since a launch would wait for an allocation.
    pub(super) unused: DeviceTensor,
    keep: Keep,
    /// What gradients keep between their passes, once they are asked for.
    kept: Arc<OnceLock<Option<KeptPlan>>>,
    pub(super) splits: Arc<Splits>,
}

impl CubeAttention {
    /// Checks `problem` for the device of `client`, chooses an engine and sends what kernels need of pattern and
    /// positions.
    ///
    /// With `S2_AUTOTUNE=1` in the environment this is [`CubeAttention::tuned`].
    ///
    /// # Errors
    /// A [`CubeError`] for what the device or the kernels cannot run.
    pub fn new(
        client: &Client,
        problem: Arc<AttentionProblem>,
        dtype: ElemType,
    ) -> Result<Self, CubeError> {
        Self::with_engine(client, problem, dtype, None)
    }

    /// [`CubeAttention::new`] with this engine, where there is one.
    ///
    /// # Errors
    /// Those of [`CubeAttention::new`], and [`CubeError::Engine`] where the engine does not run this call.
    pub fn with_engine(
        client: &Client,
        problem: Arc<AttentionProblem>,
        dtype: ElemType,
        engine: Option<Engine>,
    ) -> Result<Self, CubeError> {
        Self::choose(client, problem, dtype, engine, is_on("S2_AUTOTUNE"))
    }

    /// [`CubeAttention::new`] with the tile sizes that are the fastest for calls like this one.
    ///
    /// The first call of a class (type, widths, block size, heads of a group, density) waits for the device, which measures
    /// both passes of each candidate on tensors of its own. CubeCL's autotune keeps what was the fastest, also for later runs
    /// of the program.
    ///
    /// # Errors
    /// Those of [`CubeAttention::new`], and [`CubeError::Launch`] where a kernel fails.
    pub fn tuned(
        client: &Client,
        problem: Arc<AttentionProblem>,
        dtype: ElemType,
    ) -> Result<Self, CubeError> {
        Self::choose(client, problem, dtype, None, true)
    }

    /// All tile sizes that can run `problem`, the one that [`CubeAttention::new`] takes first. They are of one engine: the
    /// faster one, or `engine` where there is one.
    ///
    /// # Errors
    /// Those of [`CubeAttention::with_engine`].
    pub fn candidates(
        client: &Client,
        problem: &AttentionProblem,
        dtype: ElemType,
        engine: Option<Engine>,
    ) -> Result<Vec<Choice>, CubeError> {
        check_dtype(client, dtype)?;
        check_problem(problem)?;
        candidates(client, problem, dtype, engine)
    }

    /// [`CubeAttention::new`] with one of the [`CubeAttention::candidates`].
    ///
    /// # Errors
    /// Those of [`CubeAttention::new`], and [`CubeError::Tiles`] for what is no candidate.
    pub fn with_tiles(
        client: &Client,
        problem: Arc<AttentionProblem>,
        dtype: ElemType,
        choice: &Choice,
    ) -> Result<Self, CubeError> {
        let tiles = choice.tiles();
        let candidates = Self::candidates(client, &problem, dtype, Some(choice.engine))?;
        let Some(candidate) = candidates.iter().find(|of| of.tiles() == tiles) else {
            return Err(CubeError::Tiles {
                seen: tiles,
                accepted: candidates.iter().map(Choice::tiles).collect(),
            });
        };
        let choice = Choice {
            why: choice.why.clone(),
            ..candidate.clone()
        };
        Self::with_choice(client, problem, dtype, choice)
    }

    fn choose(
        client: &Client,
        problem: Arc<AttentionProblem>,
        dtype: ElemType,
        engine: Option<Engine>,
        tuned: bool,
    ) -> Result<Self, CubeError> {
        let mut candidates = Self::candidates(client, &problem, dtype, engine)?;
        let choice = if tuned {
            fastest(client, &problem, dtype, &candidates)?
        } else {
            candidates.swap_remove(0)
        };
        explain(client, &problem, dtype, &choice);
        Self::with_choice(client, problem, dtype, choice)
    }

    /// A call that is checked, with one of its candidates.
    pub(super) fn with_choice(
        client: &Client,
        problem: Arc<AttentionProblem>,
        dtype: ElemType,
        choice: Choice,
    ) -> Result<Self, CubeError> {
        let inference = Indexed::new(client, &problem, choice.inference_rows)?;
        let training = if choice.training_rows == choice.inference_rows {
            inference.clone()
        } else {
            Indexed::new(client, &problem, choice.training_rows)?
        };
        Ok(Self {
            client: client.clone(),
            problem,
            dtype,
            choice,
            inference,
            training,
            unused: DeviceTensor {
                handle: client.empty(8 * size_of::<f32>()),
                strides: [0, 0, 0, 1],
            },
            keep: Keep::of_environment()?,
            kept: Arc::default(),
            splits: Arc::new(Splits::new(Splitting::of_environment()?)),
        })
    }

    /// The call.
    pub fn problem(&self) -> &AttentionProblem {
        &self.problem
    }

    /// The call, as it is shared: calls of one problem can be told by its address.
    pub fn shared_problem(&self) -> &Arc<AttentionProblem> {
        &self.problem
    }

    /// Bytes that its index takes on the device.
    pub fn index_bytes(&self) -> usize {
        let shared = self.choice.inference_rows == self.choice.training_rows;
        self.inference.bytes() + if shared { 0 } else { self.training.bytes() }
    }

    /// What runs it, and why.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// Launches the forward pass.
    ///
    /// # Errors
    /// A [`CubeError`] for strides or buffers that do not fit, before anything is launched, and [`CubeError::Launch`] where
    /// a kernel fails at its first launch.
    pub fn forward(
        &self,
        q: &DeviceTensor,
        k: &DeviceTensor,
        v: &DeviceTensor,
        outputs: &ForwardOutputs,
    ) -> Result<(), CubeError> {
        let shape = self.problem.shape();
        self.check_inputs(&[
            ("q", q, shape.q_sizes()),
            ("k", k, shape.k_sizes()),
            ("v", v, shape.v_sizes()),
        ])?;
        self.check_output("out", &outputs.out, shape.out_sizes())?;
        if let Some(rounding) = &outputs.rounding {
            self.check_output("rounding", rounding, shape.out_sizes())?;
        }
        self.check_rows("lse", &outputs.lse)?;
        let of = self.of_forward(outputs);
        self.check_resources("forward", of, 1)?;
        match self.choice.engine {
            Engine::Unit => unit::launch::forward(self, q, k, v, outputs)?,
            Engine::Mma | Engine::Wgmma => mma::launch::forward(self, q, k, v, outputs)?,
        }
        let config = Config {
            rounding: outputs.rounding.is_some(),
            ..self.config(of)
        };
        self.launched("forward", config, &outputs.out.handle)
    }

    /// The tiles of a forward pass.
    pub(super) fn of_forward(&self, outputs: &ForwardOutputs) -> &Indexed {
        match outputs.rounding {
            Some(_) => &self.training,
            None => &self.inference,
        }
    }

    /// Launches the backward passes for the gradients that have a place.
    ///
    /// Where dQ and dK are asked for, of heads wider than 64 on the engine of Hopper's GPUs, dS is kept from one pass for the other, of as few
    /// heads at a time as keep the device busy: buffers of at most nine quarters of the bytes of what is read and written. `S2_KEEP=0` in the
    /// environment computes it again instead, `S2_KEEP=1` keeps it for narrow heads too, as much at a time as that allows, and
    /// `S2_KEEP=512MiB` at most so much, in however many parts of whole key/value heads that takes.
    ///
    /// Where few heads would leave processors of such a GPU idle, cubes share tiles of keys, and what they sum takes a buffer too;
    /// `S2_SPLIT=1` keeps them from it, and `S2_SPLIT=2` to `16` has so many share every tile but those of tables. Heads that are taken in parts may share
    /// others than all at once: dK and dV then have the same bits each time, but not those of a call without dQ.
    ///
    /// # Errors
    /// A [`CubeError`] for strides or buffers that do not fit, before anything is launched, and [`CubeError::Launch`] where
    /// a kernel fails at its first launch. [`CubeError::Count`] where `S2_SPLIT` asks for more sums than a buffer of the device holds, before
    /// dK and dV are launched.
    pub fn backward(
        &self,
        q: &DeviceTensor,
        k: &DeviceTensor,
        v: &DeviceTensor,
        saved: &SavedOutputs,
        dq: Option<&DeviceTensor>,
        keys: Option<&KeyGradients>,
    ) -> Result<(), CubeError> {
        let shape = self.problem.shape();
        let forward = &saved.forward;
        let mut inputs = vec![
            ("q", q, shape.q_sizes()),
            ("k", k, shape.k_sizes()),
            ("v", v, shape.v_sizes()),
            ("out", &forward.out, shape.out_sizes()),
            ("d_out", &saved.d_out, shape.out_sizes()),
        ];
        inputs.extend(
            forward
                .rounding
                .iter()
                .map(|rounding| ("rounding", rounding, shape.out_sizes())),
        );
        self.check_inputs(&inputs)?;
        self.check_rows("lse", &forward.lse)?;
        self.check_rows("d_lse", &saved.d_lse)?;
        if let Some(dq) = dq {
            self.check_output("dq", dq, shape.q_sizes())?;
        }
        if let Some(keys) = keys {
            self.check_keys(keys)?;
        }
        self.check_resources("backward", &self.training, 2)?;

        let stats = self.prepass(saved)?;
        let config = Config {
            rounding: forward.rounding.is_some(),
            ..self.config(&self.training)
        };
        self.launched("prepass", config, &stats)?;
        if let (Some(target), Some(keys)) = (dq, keys)
            && let Some(plan) = self.kept(keys)
        {
            mma::launch::all_gradients(self, q, k, v, &saved.d_out, &stats, target, keys, plan)?;
            let config = Config {
                kept_bands: plan.kept.bands,
                ..self.config(&self.training)
            };
            return self.launched("dq_kept", config, &target.handle);
        }
        if let Some(target) = dq {
            match self.choice.engine {
                Engine::Unit => unit::launch::dq(self, q, k, v, &saved.d_out, &stats, target)?,
                Engine::Mma | Engine::Wgmma => {
                    mma::launch::dq(self, q, k, v, &saved.d_out, &stats, target)?
                }
            }
            self.launched("dq", self.config(&self.training), &target.handle)?;
        }
        if let Some(target) = keys {
            match self.choice.engine {
                Engine::Unit => unit::launch::dkdv(self, q, k, v, &saved.d_out, &stats, target)?,
                Engine::Mma | Engine::Wgmma => {
                    mma::launch::dkdv(self, q, k, v, &saved.d_out, &stats, target, None)?
                }
            }
        }
        Ok(())
    }

    /// What gradients of queries and these keys keep between their passes, where that pays and there is memory for it: see [`Keep`].
    fn kept(&self, keys: &KeyGradients) -> Option<&KeptPlan> {
        if self.choice.engine != Engine::Wgmma || keys.dk.is_none() {
            return None;
        }
        let plan = self.kept.get_or_init(|| {
            let (shape, owned) = (self.problem.shape(), self.training.owned);
            let visited = Tile {
                rows: wgmma::size::VISITED,
                ..owned
            };
            let most = max_buffer(self.client.properties());
            let budget = self.keep.budget(shape, self.dtype.size());
            let plan = budget.and_then(|budget| {
                let (budget, any_parts) = (budget.min(most), self.keep != Keep::Wide);
                KeptPlan::new(
                    &self.client,
                    &self.problem,
                    owned,
                    visited,
                    budget,
                    any_parts,
                )
            });
            say(|| explain_kept(shape, plan.as_ref()));
            plan
        });
        plan.as_ref()
    }

    /// How dK and dV of some key/value heads are split, by cubes of this class.
    pub(super) fn split(&self, kv_heads: &Range<usize>, config: Config) -> Option<Split> {
        let (places, tiles) = (&self.training.key_places, [config.owned, config.visited]);
        let processors = processors(self.client.properties());
        (self.splits).of(kv_heads, &self.problem, places, tiles, processors)
    }
}
