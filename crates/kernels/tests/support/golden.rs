//! The golden data: inputs, results and gradients computed by PyTorch in float64, stored as f32.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use s2_attention_kernels::{AttentionProblem, AttentionShape, SequenceSpan};
use s2_attention_pattern::{BlockMask, PatternConfig, Rule};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::{Results, Tensors, pattern_config, widen};

/// One file: a call, and what it must give.
#[derive(Debug, Clone)]
pub struct Golden {
    /// Folder and stem of the file.
    pub name: String,
    pub config: PatternConfig,
    pub shape: AttentionShape,
    /// Where every sequence of the batch stands.
    pub span: SequenceSpan,
    pub tensors: Tensors,
    pub results: Results,
}

impl Golden {
    /// The call under its own pattern.
    pub fn problem(&self) -> AttentionProblem {
        self.problem_with(&self.config)
    }

    /// The call under another pattern.
    pub fn problem_with(&self, config: &PatternConfig) -> AttentionProblem {
        let pattern = config.build().unwrap();
        let spans = vec![self.span; self.shape.batch];
        AttentionProblem::new(self.shape, &pattern, None, Some(spans)).unwrap()
    }
}

/// All files.
pub fn all() -> Vec<Golden> {
    all_in(Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../kernels/tests/golden"
    )))
}

/// All files of another folder.
pub fn all_in(root: &Path) -> Vec<Golden> {
    let mut files = Vec::new();
    for folder in ["attention", "attention_more"] {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files.sort();
    let golden: Vec<Golden> = files.iter().map(|file| read(file)).collect();
    assert_eq!(golden.len(), 30);
    golden
}

/// The file of that stem.
pub fn named(stem: &str) -> Golden {
    let mut all = all().into_iter();
    all.find(|golden| golden.name.ends_with(&format!("/{stem}")))
        .unwrap_or_else(|| panic!("no golden file is called {stem}"))
}

fn read(path: &Path) -> Golden {
    let bytes = fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata: &HashMap<String, String> = header.metadata().as_ref().unwrap();
    let written: Value = serde_json::from_str(&metadata["config"]).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let size = |name: &str, axis: usize| file.tensor(name).unwrap().shape()[axis];
    let shape = AttentionShape {
        batch: size("q", 0),
        num_heads: size("q", 1),
        num_kv_heads: size("k", 1),
        seq_q: size("q", 2),
        seq_kv: size("k", 2),
        head_dim: size("q", 3),
        value_dim: size("v", 3),
    };
    let number = |key: &str| written[key].as_u64().map(|number| number as usize);
    let span = SequenceSpan {
        q_start: number("q_start").or(number("past")).unwrap(),
        q_len: shape.seq_q,
        kv_start: number("kv_start").unwrap_or(0),
        kv_len: shape.seq_kv,
    };
    let mut config = pattern_config::config(&written);
    if written["kind"] == "custom" {
        config.rule = Rule::Custom(block_mask(&file, written["causal"].as_bool().unwrap()));
    }
    let tensor = |name: &str| floats(&file, name).unwrap_or_else(|| panic!("no tensor {name}"));
    let result = |name: &str| widen(&tensor(name));
    let folder = path.parent().and_then(Path::file_name).unwrap();
    Golden {
        name: format!(
            "{}/{}",
            folder.display(),
            path.file_stem().unwrap().display()
        ),
        config,
        shape,
        span,
        tensors: Tensors {
            q: tensor("q"),
            k: tensor("k"),
            v: tensor("v"),
            d_out: tensor("d_out"),
            d_lse: floats(&file, "d_lse"),
        },
        results: Results {
            out: result("out"),
            lse: result("lse"),
            dq: result("dq"),
            dk: result("dk"),
            dv: result("dv"),
        },
    }
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Option<Vec<f32>> {
    let view = file.tensor(name).ok()?;
    assert_eq!(view.dtype(), Dtype::F32);
    let (numbers, _) = view.data().as_chunks::<4>();
    Some(
        numbers
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect(),
    )
}

fn block_mask(file: &SafeTensors<'_>, causal: bool) -> BlockMask {
    let view = file.tensor("block_mask").unwrap();
    let shape: [usize; 3] = view.shape().try_into().unwrap();
    let kept: Vec<bool> = view.data().iter().map(|&kept| kept != 0).collect();
    BlockMask::new(shape, &kept, causal).unwrap()
}
