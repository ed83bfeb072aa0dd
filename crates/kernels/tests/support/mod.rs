//! Shared by the test binaries; each uses a part.
#![allow(dead_code)]

#[path = "../../../pattern/tests/common/golden.rs"]
mod pattern_config;

pub mod cache;
pub mod compare;
pub mod golden;
pub mod needle;
pub mod packed;
pub mod poison;
pub mod random;

use s2_attention_kernels::{AttentionProblem, AttentionShape, reference};

/// What goes into a call: contiguous `[b, h, s, width]` tensors, and the gradients of its results.
#[derive(Debug, Clone)]
pub struct Tensors {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub d_out: Vec<f32>,
    /// `None` stands for 0.
    pub d_lse: Option<Vec<f32>>,
}

/// What comes out of a call, contiguous. f32 results widen to f64 without loss.
#[derive(Debug, Clone)]
pub struct Results {
    pub out: Vec<f64>,
    pub lse: Vec<f64>,
    pub dq: Vec<f64>,
    pub dk: Vec<f64>,
    pub dv: Vec<f64>,
}

impl Results {
    /// The five tensors by name.
    pub fn named(&self) -> [(&'static str, &[f64]); 5] {
        [
            ("out", &self.out),
            ("lse", &self.lse),
            ("dq", &self.dq),
            ("dk", &self.dk),
            ("dv", &self.dv),
        ]
    }
}

impl Results {
    /// Those of several calls, one after the other.
    pub fn together<'a>(calls: impl Iterator<Item = &'a Self>) -> Self {
        let mut all = Self {
            out: Vec::new(),
            lse: Vec::new(),
            dq: Vec::new(),
            dk: Vec::new(),
            dv: Vec::new(),
        };
        for call in calls {
            all.out.extend(&call.out);
            all.lse.extend(&call.lse);
            all.dq.extend(&call.dq);
            all.dk.extend(&call.dk);
            all.dv.extend(&call.dv);
        }
        all
    }
}

/// The f64 reference of both passes.
pub fn oracle(problem: &AttentionProblem, tensors: &Tensors) -> Results {
    let [q, k, v, d_out] =
        [&tensors.q, &tensors.k, &tensors.v, &tensors.d_out].map(|tensor| widen(tensor));
    let d_lse = match &tensors.d_lse {
        Some(d_lse) => widen(d_lse),
        None => vec![0.0; rows(problem.shape())],
    };
    let reference::Forward { out, lse } = reference::forward(problem, &q, &k, &v);
    let reference::Gradients { dq, dk, dv } =
        reference::backward(problem, &q, &k, &v, &d_out, &d_lse);
    Results {
        out,
        lse,
        dq,
        dk,
        dv,
    }
}

/// Query rows of all heads: the size of `lse`.
pub fn rows(shape: &AttentionShape) -> usize {
    shape.batch * shape.num_heads * shape.seq_q
}

pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}
