//! What needs the device alone: what another thread gives it meanwhile ends a capture, and takes time. The tests take turns.

#![cfg(any(
    feature = "wgpu",
    feature = "vulkan",
    feature = "metal",
    feature = "cuda",
    feature = "rocm"
))]

#[path = "common"]
mod common {
    pub mod found;
    pub mod gpu;
    pub mod host;
    pub mod models;
    pub mod parameters;
    pub mod tensors;
}

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use burn::tensor::{Device, Int, Tensor, TensorData, capture};
use burn_s2_attention::cache::{Append, KvCacheConfig};
use burn_s2_attention::model::HybridTransformerConfig;
use burn_s2_attention::{
    Pattern, PatternConfig, S2AttentionOptions, s2_attention, s2_attention_with_lse,
};

use common::gpu::device;
use common::host::values;
use common::models::{VOCAB, model, variants};
use common::tensors::{assert_close, normal, tokens};

/// Longer than what a host takes for a few calls.
const LONG: Duration = Duration::from_secs(1);

/// Held by the test whose turn it is.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A step of one token is captured once. Replayed after `begin` has rewritten tables and positions, and the token was written in
/// place, it is the step that would have been run.
#[test]
fn a_captured_step_is_every_step() {
    let _turn = turn();
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

/// A call and its gradients are captured. After `q` was rewritten in place a replay gives what the call gives.
#[test]
fn a_captured_call_and_its_gradients() {
    let _turn = turn();
    let device = device();
    let call = Call::new(&device);
    let held = RefCell::new(call.q(1));
    let mut graph = capture(&device, || call.run(held.borrow().clone()));
    assert!(graph.is_hardware(), "the call could not be recorded");
    for seed in [7, 8] {
        let q = call.q(seed);
        let new = q.clone();
        held.borrow_mut().inplace(|held| {
            let all = held.dims().map(|size| 0..size);
            held.slice_assign(all, new)
        });
        // SAFETY: what the call reads and writes is alive, and nothing else runs on the device.
        let replayed = unsafe { graph.replay() }.clone();
        for (replayed, expected) in replayed.into_iter().zip(call.run(q)) {
            assert_close(replayed, expected, 1e-6);
        }
    }
}

/// Behind a call that keeps the device busy for long another with its gradients is given to it at once, and so is a token of a model on
/// a cache.
#[test]
fn nothing_waits_for_the_device() {
    let _turn = turn();
    let device = device();
    let call = Call::new(&device);
    let q = call.q(1);
    let gradients = || drop(call.run(q.clone()));
    let model = model(variants()[0].clone(), &device);
    let mut cache = model.kv_cache(&KvCacheConfig::new(400).with_reserve(Some(1)));
    let sequence = cache.add();
    let text = tokens(1, 30, VOCAB, &device);
    let mut step = |tokens: usize| {
        cache.begin(&[Append { sequence, tokens }]);
        let logits = model.forward_cached(text.clone().narrow(1, 0, tokens), &mut cache);
        cache.commit();
        drop(logits);
    };
    // Kernels are compiled and chosen first.
    step(30);
    for _ in 0..3 {
        gradients();
        step(1);
        device.sync().unwrap();
    }

    let dense = PatternConfig::dense(64, 4).build().unwrap();
    let busy = |seq: usize| {
        let q = Tensor::<4>::ones([1, 4, seq, 32], &device);
        s2_attention(
            q.clone(),
            q.clone(),
            q,
            &dense,
            &S2AttentionOptions::default(),
        )
    };
    let lasts = |seq: &usize| {
        // What is compiled and chosen for this length is not timed.
        values(busy(*seq));
        let start = Instant::now();
        values(busy(*seq));
        start.elapsed() > LONG
    };
    let mut lengths = std::iter::successors(Some(256), |seq| Some(seq * 2));
    let seq = lengths.find(lasts).expect("a call that takes long");
    for (name, work) in [
        ("a call and its gradients", &mut { gradients }
            as &mut dyn FnMut()),
        ("a token", &mut || step(1)),
    ] {
        device.sync().unwrap();
        let start = Instant::now();
        let result = busy(seq);
        work();
        let given = start.elapsed();
        values(result);
        let done = start.elapsed();
        assert!(
            given < done / 3,
            "{name} was given to the device after {given:?}, which was done after {done:?}"
        );
    }
}

/// A call of the operation.
struct Call {
    pattern: Pattern,
    k: Tensor<4>,
    v: Tensor<4>,
}

impl Call {
    fn new(device: &Device) -> Self {
        let pattern = PatternConfig::local_stride(2, 4, 16, 4).with_num_kv_heads(2);
        let [k, v] = [2, 3].map(|seed| normal([1, 2, 150, 32], seed, device));
        let pattern = pattern.build().unwrap();
        Self { pattern, k, v }
    }

    fn q(&self, seed: u64) -> Tensor<4> {
        normal([1, 4, 150, 32], seed, &self.k.device())
    }

    /// `out`, and the gradients of `q`, `k` and `v`.
    fn run(&self, q: Tensor<4>) -> Vec<Tensor<4>> {
        let inputs = [q, self.k.clone(), self.v.clone()];
        let inputs = inputs.map(|x| Tensor::from_inner(x).require_grad());
        let [q, k, v] = inputs.clone();
        let options = S2AttentionOptions::default();
        let (out, lse) = s2_attention_with_lse(q, k, v, &self.pattern, &options);
        let gradients = (out.clone().sin().sum() + lse.sum()).backward();
        let gradients = inputs.map(|x| x.grad(&gradients).unwrap());
        [vec![out.inner()], gradients.to_vec()].concat()
    }
}
