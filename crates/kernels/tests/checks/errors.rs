//! What the kernels cannot run is refused before anything is launched, with the values and what would be accepted.

use std::sync::Arc;

use cubecl::ir::{ElemType, FloatKind};
use cubecl::server::Handle;
use s2_attention_kernels::cube::{
    CubeAttention, CubeError, DeviceTensor, ForwardOutputs, KeyGradients, SavedOutputs,
};
use s2_attention_kernels::{AttentionShape, SequenceSpan};
use s2_attention_pattern::PatternConfig;

use super::edges::call;
use super::engine::Engine;
use super::storage::Storage;
use super::{Effort, ensure, in_types, refused_steps, sizes};

const SHAPE: AttentionShape = AttentionShape {
    batch: 1,
    num_heads: 2,
    num_kv_heads: 1,
    seq_q: 40,
    seq_kv: 50,
    head_dim: 16,
    value_dim: 16,
};

/// Every kind of error by its text.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &[Storage::F32], of_type)
}

fn of_type(engine: &Engine, _: &Effort) -> Result<String, String> {
    let calls = refused_calls(engine)? + sizes::refused(engine)? + refused_steps::refused(engine)?;
    let tensors = refused_tensors(engine)? + refused_places(engine)?;
    Ok(format!("{calls} calls and {tensors} tensors refused"))
}

fn config() -> PatternConfig {
    PatternConfig::local_stride(1, 2, 16, 2).with_num_kv_heads(1)
}

/// Holds an error to the parts of its text.
pub fn hold<T>(result: Result<T, CubeError>, parts: &[&str]) -> Result<(), String> {
    let text = match result {
        Ok(_) => return Err(format!("not refused: {parts:?}")),
        Err(error) => error.to_string(),
    };
    let missing: Vec<_> = parts.iter().filter(|part| !text.contains(**part)).collect();
    ensure(missing.is_empty(), || {
        format!("{text:?} does not say {missing:?}")
    })
}

fn refused_calls(engine: &Engine) -> Result<usize, String> {
    let new = |shape: AttentionShape, q_start: usize, dtype: ElemType| {
        let span = SequenceSpan {
            q_start,
            q_len: shape.seq_q,
            kv_start: 0,
            kv_len: shape.seq_kv,
        };
        let (problem, _) = call(shape, &config(), None, Some(vec![span]), 1.0)?;
        let call = CubeAttention::new(&engine.client, Arc::new(problem), dtype);
        Ok::<_, String>(call.map(|_| ()))
    };
    let float = |kind| ElemType::Float(kind);
    let f32 = float(FloatKind::F32);
    ensure(new(SHAPE, 10, f32)?.is_ok(), || {
        "refused what is right".to_owned()
    })?;
    let mut count = 0;
    for kind in [FloatKind::F64, FloatKind::TF32] {
        let parts = [&format!("{kind:?}"), "accepted: ", "F32"];
        hold(new(SHAPE, 10, float(kind))?, &parts)?;
        count += 1;
    }
    for storage in Storage::HALVES {
        if engine.with_storage(storage).is_err() {
            let parts = [engine.client.name(), &format!("{storage:?}"), "accepted: "];
            hold(new(SHAPE, 10, storage.elem())?, &parts)?;
            count += 1;
        }
    }
    for width in [1, 4, 12, 252, 260, 264, 512] {
        let of_keys = AttentionShape {
            head_dim: width,
            ..SHAPE
        };
        let of_values = AttentionShape {
            value_dim: width,
            ..SHAPE
        };
        for (shape, name) in [(of_keys, "head_dim"), (of_values, "value_dim")] {
            let parts = [
                &format!("{name} is {width};"),
                "multiples of 8 from 8 to 256",
            ];
            hold(new(shape, 10, f32)?, &parts)?;
            count += 1;
        }
    }
    for scale in [3e38, -1e300] {
        let (problem, _) = call(SHAPE, &config(), Some(scale), None, 1.0)?;
        let call = CubeAttention::new(&engine.client, Arc::new(problem), f32);
        hold(call, &[&format!("scale is {scale:e};"), "finite in f32"])?;
        count += 1;
    }
    let most = 1 << 30;
    ensure(new(SHAPE, most - SHAPE.seq_q, f32)?.is_ok(), || {
        format!("positions up to {most} refused")
    })?;
    let parts = [&format!("reach {}", most + 1), &format!("up to {most}")];
    hold(
        new(SHAPE, most + 1 - SHAPE.seq_q, f32)?,
        &parts.map(|part| part.as_str()),
    )?;
    Ok(count + 1)
}

/// One way to spoil a tensor, and what the error says.
struct Spoiled {
    tensor: fn(&Engine, &DeviceTensor) -> DeviceTensor,
    parts: [&'static str; 2],
}

const SPOILED: [Spoiled; 4] = [
    Spoiled {
        tensor: |_, tensor| with_strides(tensor, |[batch, head, token, _]| [batch, head, token, 2]),
        parts: ["the last must be 1", "make it contiguous"],
    },
    Spoiled {
        tensor: |_, tensor| with_strides(tensor, |[batch, head, _, last]| [batch, head, 18, last]),
        parts: ["18", "multiples of 4"],
    },
    Spoiled {
        tensor: |_, tensor| with_strides(tensor, |[batch, head, _, last]| [batch, head, 64, last]),
        parts: ["ends at element", "which holds"],
    },
    Spoiled {
        tensor: |engine, tensor| DeviceTensor {
            handle: shorter(engine, &tensor.handle),
            ..tensor.clone()
        },
        parts: ["ends at element", "which holds"],
    },
];

fn with_strides(tensor: &DeviceTensor, change: fn([usize; 4]) -> [usize; 4]) -> DeviceTensor {
    DeviceTensor {
        strides: change(tensor.strides),
        ..tensor.clone()
    }
}

/// A buffer that ends one f32 earlier.
fn shorter(engine: &Engine, handle: &Handle) -> Handle {
    let bytes = handle.size_in_used() as usize - size_of::<f32>();
    engine.client.empty(bytes)
}

fn refused_tensors(engine: &Engine) -> Result<usize, String> {
    let (problem, tensors) = call(SHAPE, &config(), None, None, 1.0)?;
    let call = engine.call(&problem, &tensors)?;
    let mut count = 0;
    for Spoiled { tensor, parts } in SPOILED {
        let spoil = |name: &str, wanted: &str, of: &DeviceTensor| {
            if name == wanted {
                tensor(engine, of)
            } else {
                of.clone()
            }
        };
        for wanted in ["q", "k", "v", "out"] {
            let outputs = call.outputs();
            let outputs = ForwardOutputs {
                out: spoil("out", wanted, &outputs.out),
                ..outputs
            };
            let [q, k, v] = [("q", &call.q), ("k", &call.k), ("v", &call.v)]
                .map(|(name, of)| spoil(name, wanted, of));
            let result = call.attention.forward(&q, &k, &v, &outputs);
            hold(result, &[wanted, parts[0], parts[1]])
                .map_err(|miss| format!("forward, {wanted}: {miss}"))?;
            count += 1;
        }
        for wanted in ["q", "k", "v", "out", "d_out", "dq", "dk", "dv"] {
            let outputs = call.launch_forward()?;
            let dq = call.outputs().out;
            let [q, k, v, out, d_out, spoiled_dq] = [
                ("q", &call.q),
                ("k", &call.k),
                ("v", &call.v),
                ("out", &outputs.out),
                ("d_out", &call.d_out),
                ("dq", &dq),
            ]
            .map(|(name, of)| spoil(name, wanted, of));
            let saved = SavedOutputs {
                forward: ForwardOutputs { out, ..outputs },
                d_out,
                d_lse: call.d_lse.clone(),
            };
            let keys = match wanted {
                "dk" | "dv" => tensor(engine, &call.k),
                _ => call.k.clone(),
            };
            let keys = KeyGradients {
                handle: keys.handle,
                dk: (wanted != "dv").then_some(keys.strides),
                dv: (wanted == "dv").then_some((0, keys.strides)),
            };
            let targets = (Some(&spoiled_dq), Some(&keys));
            let attention = &call.attention;
            let result = attention.backward(&q, &k, &v, &saved, targets.0, targets.1);
            hold(result, &[wanted, parts[0], parts[1]])
                .map_err(|miss| format!("backward, {wanted}: {miss}"))?;
            let dq = engine.read_all(&dq.handle, Storage::F32)?;
            ensure(dq.iter().all(|x| x.is_nan()), || {
                format!("backward, {wanted}: dq is written all the same")
            })?;
            count += 1;
        }
    }
    Ok(count)
}

/// Rows of statistics that are too short, and results without a place for each element.
fn refused_places(engine: &Engine) -> Result<usize, String> {
    let (problem, tensors) = call(SHAPE, &config(), None, None, 1.0)?;
    let call = engine.call(&problem, &tensors)?;
    let too_short = ["ends at element", "which holds"];
    let overlaps = ["overlaps with", "a place for each element"];
    let over_itself = |tensor: &DeviceTensor| {
        with_strides(tensor, |[batch, _, token, last]| [batch, 0, token, last])
    };
    let right = || call.outputs();
    let forward = [
        (
            "lse",
            too_short,
            ForwardOutputs {
                lse: shorter(engine, &right().lse),
                ..right()
            },
        ),
        (
            "rounding",
            too_short,
            ForwardOutputs {
                rounding: Some(DeviceTensor {
                    handle: shorter(engine, &right().out.handle),
                    ..right().out
                }),
                ..right()
            },
        ),
        (
            "out",
            overlaps,
            ForwardOutputs {
                out: over_itself(&right().out),
                ..right()
            },
        ),
    ];
    let mut count = 0;
    for (name, parts, outputs) in forward {
        let result = call.attention.forward(&call.q, &call.k, &call.v, &outputs);
        hold(result, &[name, parts[0], parts[1]])
            .map_err(|miss| format!("forward, {name}: {miss}"))?;
        count += 1;
    }

    let outputs = call.launch_forward()?;
    let saved = |lse: &Handle, d_lse: &Handle| SavedOutputs {
        forward: ForwardOutputs {
            lse: lse.clone(),
            ..outputs.clone()
        },
        d_out: call.d_out.clone(),
        d_lse: d_lse.clone(),
    };
    let [lse, d_lse] = [&outputs.lse, &call.d_lse].map(|handle| shorter(engine, handle));
    let all = saved(&outputs.lse, &call.d_lse);
    let strides = call.k.strides;
    let keys = |dv_at: usize, dv: [usize; 4]| KeyGradients {
        handle: engine
            .client
            .empty(2 * call.k.handle.size_in_used() as usize),
        dk: Some(strides),
        dv: Some((dv_at, dv)),
    };
    let elements = SHAPE.num_kv_heads * SHAPE.seq_kv * SHAPE.head_dim;
    let right = keys(elements, strides);
    let backward = [
        ("lse", too_short, saved(&lse, &call.d_lse), right.clone()),
        (
            "d_lse",
            too_short,
            saved(&outputs.lse, &d_lse),
            right.clone(),
        ),
        (
            "dv",
            ["dv", "multiples of 4"],
            all.clone(),
            keys(elements + 2, strides),
        ),
        ("dv", too_short, all.clone(), keys(elements + 4, strides)),
        (
            "dv",
            ["overlaps with", "dk"],
            all.clone(),
            keys(elements - 4, strides),
        ),
        (
            "dv",
            overlaps,
            all.clone(),
            keys(elements, [strides[0], strides[1], 0, 1]),
        ),
    ];
    for (name, parts, saved, keys) in backward {
        let attention = &call.attention;
        let result = attention.backward(&call.q, &call.k, &call.v, &saved, None, Some(&keys));
        hold(result, &[name, parts[0], parts[1]])
            .map_err(|miss| format!("backward, {name}: {miss}"))?;
        count += 1;
    }
    let attention = &call.attention;
    let accepted = attention.backward(&call.q, &call.k, &call.v, &all, None, Some(&right));
    accepted.map_err(|error| format!("refused what is right: {error}"))?;
    Ok(count)
}
