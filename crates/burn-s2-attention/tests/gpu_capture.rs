//! A step that is captured, in a program of its own: what another thread gives the device meanwhile ends the capture.

#![cfg(any(
    feature = "wgpu",
    feature = "vulkan",
    feature = "metal",
    feature = "cuda",
    feature = "rocm"
))]

#[path = "common"]
mod common {
    pub mod gpu;
    pub mod host;
    pub mod models;
    pub mod parameters;
    pub mod tensors;
}

use std::cell::RefCell;

use burn::tensor::{Int, Tensor, TensorData, capture};
use burn_s2_attention::cache::{Append, KvCacheConfig};
use burn_s2_attention::model::HybridTransformerConfig;

use common::gpu::device;
use common::host::values;
use common::models::{VOCAB, model, variants};
use common::tensors::{assert_close, tokens};

/// A step of one token is captured once. Replayed after `begin` has rewritten tables and positions, and the token was written in
/// place, it is the step that would have been run.
#[test]
fn a_captured_step_is_every_step() {
    variants().into_iter().for_each(hold);
}

fn hold(config: HybridTransformerConfig) {
    const PROMPT: usize = 40;
    const SEQ: usize = 120;
    let device = device();
    let model = model(config, &device);
    let text = tokens(1, SEQ, VOCAB, &device);
    let ids: Vec<i32> = text
        .clone()
        .into_data()
        .convert::<i32>()
        .try_to_vec()
        .unwrap();
    let reserved = KvCacheConfig::new(SEQ).with_reserve(Some(1));
    let read_prompt = || {
        let mut cache = model.kv_cache(&reserved);
        let sequence = cache.add();
        cache.begin(&[Append {
            sequence,
            tokens: PROMPT,
        }]);
        model.forward_cached(text.clone().narrow(1, 0, PROMPT), &mut cache);
        cache.commit();
        (cache, sequence)
    };
    let (mut cache, sequence) = read_prompt();
    let expected = (PROMPT..SEQ).map(|at| {
        cache.begin(&[Append {
            sequence,
            tokens: 1,
        }]);
        let logits = model.forward_cached(text.clone().narrow(1, at, 1), &mut cache);
        cache.commit();
        values(logits)
    });
    let expected: Vec<f64> = expected.flatten().collect();

    let (cache, sequence) = read_prompt();
    let cache = RefCell::new(cache);
    let begin = |tokens| {
        cache.borrow_mut().begin(&[Append { sequence, tokens }]);
    };

    let token = RefCell::new(text.clone().narrow(1, PROMPT, 1) + 0);
    let next = || {
        let token = token.borrow().clone();
        model.forward_cached(token, &mut cache.borrow_mut())
    };
    begin(1);
    // Recording is not running: the first step is a replay too.
    let mut graph = capture(&device, next);
    assert!(graph.is_hardware(), "the step could not be recorded");
    let mut steps = Vec::new();
    for (step, id) in ids[PROMPT..].iter().enumerate() {
        if step > 0 {
            begin(1);
        }
        let id = TensorData::new(vec![*id], [1, 1]);
        let id = Tensor::<2, Int>::from_data(id, (&device, token.borrow().dtype()));
        token
            .borrow_mut()
            .inplace(|token| token.slice_assign([0..1, 0..1], id));
        // SAFETY: what the step reads and writes is alive: the model, the cache, which is reserved, and the token. Nothing else
        // runs on the device, and the output is read before the next step.
        steps.push(values(unsafe { graph.replay() }.clone()));
        cache.borrow_mut().commit_replayed();
    }
    let tensor = |values: Vec<f64>| {
        let data = TensorData::new(values, [1, SEQ - PROMPT, VOCAB]);
        Tensor::<3>::from_data(data, &device)
    };
    assert_close(tensor(steps.concat()), tensor(expected), 2e-5);
}
