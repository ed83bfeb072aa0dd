//! A call like another one on tensors of its own, to be timed.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cubecl::client::Client;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::server::Handle;

use super::attention::CubeAttention;
use super::error::CubeError;
use super::select::Choice;
use super::tensors::{DeviceTensor, ForwardOutputs, KeyGradients, SavedOutputs};
use crate::{AttentionProblem, AttentionShape, SequenceSpan};

/// Most query rows of a trial, all heads and sequences together: cubes enough for a large device, and milliseconds there.
const MOST_ROWS: usize = 1 << 17;

/// What is run.
pub(super) struct Trial {
    client: Client,
    problem: Arc<AttentionProblem>,
    dtype: ElemType,
    tensors: OnceLock<Tensors>,
    /// Those that were run.
    calls: Mutex<Vec<Arc<CubeAttention>>>,
}

struct Tensors {
    q: DeviceTensor,
    k: DeviceTensor,
    v: DeviceTensor,
    saved: SavedOutputs,
    dq: DeviceTensor,
    keys: KeyGradients,
}

impl Trial {
    /// A trial of `problem`, of no more than [`MOST_ROWS`] rows: as many of its tokens as there may be, then sequences.
    pub(super) fn new(client: &Client, problem: &AttentionProblem, dtype: ElemType) -> Self {
        Self {
            client: client.clone(),
            problem: Arc::new(shortened(problem)),
            dtype,
            tensors: OnceLock::new(),
            calls: Mutex::default(),
        }
    }

    pub(super) fn problem(&self) -> &AttentionProblem {
        &self.problem
    }

    /// Launches the forward pass and all backward passes.
    pub(super) fn run(&self, choice: &Choice) -> Result<(), CubeError> {
        let call = self.call(choice)?;
        let Tensors { q, k, v, .. } = self.tensors();
        let Tensors {
            saved, dq, keys, ..
        } = self.tensors();
        call.forward(q, k, v, &saved.forward)?;
        call.backward(q, k, v, saved, Some(dq), Some(keys))
    }

    fn call(&self, choice: &Choice) -> Result<Arc<CubeAttention>, CubeError> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(call) = calls.iter().find(|call| call.choice() == choice) {
            return Ok(call.clone());
        }
        let (problem, choice) = (self.problem.clone(), choice.clone());
        let call = CubeAttention::with_choice(&self.client, problem, self.dtype, choice)?;
        let call = Arc::new(call);
        calls.push(call.clone());
        Ok(call)
    }

    fn tensors(&self) -> &Tensors {
        self.tensors.get_or_init(|| {
            let shape = self.problem.shape();
            let zeros = |bytes: usize| self.client.create_from_slice(&vec![0; bytes]);
            let tensor = |sizes: [usize; 4]| DeviceTensor {
                handle: zeros(elements(sizes) * self.dtype.size()),
                strides: strides(sizes),
            };
            let rows = || -> Handle {
                zeros(shape.batch * shape.num_heads * shape.seq_q * size_of::<f32>())
            };
            let forward = ForwardOutputs {
                out: tensor(shape.out_sizes()),
                rounding: (self.dtype != ElemType::Float(FloatKind::F32))
                    .then(|| tensor(shape.out_sizes())),
                lse: rows(),
            };
            let [dk, dv] = [shape.k_sizes(), shape.v_sizes()].map(elements);
            Tensors {
                q: tensor(shape.q_sizes()),
                k: tensor(shape.k_sizes()),
                v: tensor(shape.v_sizes()),
                saved: SavedOutputs {
                    forward,
                    d_out: tensor(shape.out_sizes()),
                    d_lse: rows(),
                },
                dq: tensor(shape.q_sizes()),
                keys: KeyGradients {
                    handle: zeros((dk + dv) * self.dtype.size()),
                    dk: Some(strides(shape.k_sizes())),
                    dv: Some((dk, strides(shape.v_sizes()))),
                },
            }
        })
    }
}

fn elements(sizes: [usize; 4]) -> usize {
    sizes.iter().product()
}

fn strides([_, heads, tokens, width]: [usize; 4]) -> [usize; 4] {
    [heads * tokens * width, tokens * width, width, 1]
}

/// The call with fewer tokens and sequences, its last query on its last key where a table does not end before.
fn shortened(problem: &AttentionProblem) -> AttentionProblem {
    let (shape, pattern) = (problem.shape(), problem.pattern());
    let table = |blocks: usize| blocks.saturating_mul(pattern.block_size());
    let (table_q, table_kv) = pattern
        .max_blocks()
        .map_or((usize::MAX, usize::MAX), |(q, kv)| (table(q), table(kv)));
    let most = (MOST_ROWS / shape.num_heads).max(1);
    // The longest of the sequences, as often as the tokens of all make it.
    let spans = || problem.sequences().iter().map(|sequence| sequence.span);
    let longest = |lengths: &dyn Fn(SequenceSpan) -> usize| {
        let longest = spans().map(lengths).max();
        longest.unwrap_or(1).max(1)
    };
    let longest_q = longest(&|span| span.q_len);
    let seq_q = longest_q.min(most).min(table_q);
    let seq_kv = longest(&|span| span.kv_len).min(most).min(table_kv);
    let queries: usize = spans().map(|span| span.q_len).sum();
    let batch = (queries / longest_q).clamp(1, (most / seq_q).max(1));
    let span = SequenceSpan {
        q_start: seq_kv.saturating_sub(seq_q).min(table_q - seq_q),
        q_len: seq_q,
        kv_start: 0,
        kv_len: seq_kv,
    };
    let shape = AttentionShape {
        batch,
        seq_q,
        seq_kv,
        ..*shape
    };
    let spans = Some(vec![span; batch]);
    AttentionProblem::new(shape, pattern, Some(problem.scale()), spans)
        .expect("less of a call is a call")
}
