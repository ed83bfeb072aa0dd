//! The fastest of the candidates for calls of a class: measured once by CubeCL's autotune, which Burn's users know how to
//! configure, to log and to ship.

use std::fmt;
use std::sync::Arc;

use cubecl::client::Client;
use cubecl::ir::ElemType;
use cubecl::tune::{AutotuneKey, LocalTuner, Tunable, TunableSet};
use serde::{Deserialize, Serialize};

use super::error::CubeError;
use super::select::Choice;
use super::table::takes_tables;
use super::trial::Trial;
use crate::AttentionProblem;

/// Results by device, then by class. Those of another version are of other kernels.
static TUNER: LocalTuner<Class, String> =
    LocalTuner::new(concat!("s2-attention-", env!("CARGO_PKG_VERSION")));

/// Calls that the same tile sizes are the fastest for. Lengths are of no account beyond what a [`Trial`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Class {
    engine: String,
    dtype: String,
    head_dim: usize,
    value_dim: usize,
    block_size: usize,
    /// Query heads a key/value head.
    group: usize,
    causal: bool,
    /// Whether block lists come from tables.
    table: bool,
    /// The power of 2 of the rows of the trial.
    rows: u32,
    /// The power of 2 of the key blocks of a row.
    blocks: u32,
    /// What there was to choose from: CubeCL keeps a place in this list.
    tiles: Vec<String>,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl AutotuneKey for Class {}

impl Class {
    fn new(trial: &AttentionProblem, dtype: ElemType, candidates: &[Choice]) -> Self {
        let (shape, pattern) = (trial.shape(), trial.pattern());
        let tokens = |end: usize| end.div_ceil(pattern.block_size());
        let span = &trial.sequences()[0].span;
        let (rows, columns) = (tokens(span.q_start + span.q_len), tokens(span.kv_len));
        // The last row is the longest of causal patterns.
        let row = |head| pattern.head(head).row(rows - 1, 0..columns).count();
        let blocks = (0..shape.num_heads).map(row).sum::<usize>() / shape.num_heads;
        Self {
            engine: candidates[0].engine.to_string(),
            dtype: format!("{dtype:?}"),
            head_dim: shape.head_dim,
            value_dim: shape.value_dim,
            block_size: pattern.block_size(),
            group: pattern.group_size(),
            causal: pattern.is_causal(),
            table: takes_tables(pattern),
            rows: (shape.batch * shape.num_heads * shape.seq_q).ilog2(),
            blocks: blocks.max(1).ilog2(),
            tiles: candidates.iter().map(Choice::tiles).collect(),
        }
    }
}

/// The fastest of `candidates`, which are all of one engine.
///
/// # Errors
/// [`CubeError::Launch`] where the first one does not run, and [`CubeError::Index`] where a table does not fit.
pub(super) fn fastest(
    client: &Client,
    problem: &AttentionProblem,
    dtype: ElemType,
    candidates: &[Choice],
) -> Result<Choice, CubeError> {
    let first = &candidates[0];
    if candidates.len() == 1 {
        return Ok(explained(first, "the only tile size"));
    }
    let trial = Arc::new(Trial::new(client, problem, dtype));
    let class = Class::new(trial.problem(), dtype, candidates);
    let key = class.clone();
    let mut set: TunableSet<Class, Arc<Trial>, (), String> =
        TunableSet::new_cloning_inputs(move |_: &Arc<Trial>| key.clone());
    for candidate in candidates {
        let (name, candidate) = (candidate.tiles(), candidate.clone());
        let run = move |trial: Arc<Trial>| trial.run(&candidate).map_err(|e| e.to_string());
        set = set.with(Tunable::identified(name, run));
    }
    let set = Arc::new(set);
    let device = device(client);
    let mut settled = TUNER.fastest_identity(&device, &set, &class);
    if settled.is_none() {
        // One that cannot run at all is an error here, and would end the program there.
        trial.run(first)?;
        TUNER.execute(&device, client, set.clone(), trial);
        settled = TUNER.fastest_identity(&device, &set, &class);
    }
    let fastest = candidates
        .iter()
        .find(|choice| Some(choice.tiles()) == settled);
    Ok(match fastest {
        Some(fastest) => {
            let why = format!(
                "the fastest of {}, by CubeCL's autotune",
                class.tiles.join(", ")
            );
            explained(fastest, &why)
        }
        None => explained(first, "CubeCL's autotune has not settled"),
    })
}

fn explained(choice: &Choice, why: &str) -> Choice {
    Choice {
        why: format!("{}; {why}", choice.why),
        ..choice.clone()
    }
}

fn device(client: &Client) -> String {
    let id = client.service_id().device;
    let processors = client.properties().hardware.num_streaming_multiprocessors;
    let processors = processors.unwrap_or(0);
    format!(
        "{}-{}-{}-{processors}",
        client.name(),
        id.type_id,
        id.index_id
    )
}

#[cfg(all(test, feature = "wgpu"))]
#[path = "tune_tests.rs"]
mod tests;
