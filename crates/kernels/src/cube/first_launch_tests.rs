//! A kernel that does not compile, and what is computed from its outputs.

use std::sync::Arc;

use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use s2_attention_pattern::Pattern;

use crate::cube::{CubeAttention, CubeError, DeviceTensor, ForwardOutputs, device_for_tests};
use crate::{AttentionProblem, AttentionShape};

/// More shared memory than any device has.
#[cube(launch)]
fn too_large(output: &mut [f32]) {
    let mut shared = Shared::<[f32]>::new_slice(comptime!(1usize << 26));
    shared[UNIT_POS as usize] = f32::cast_from(UNIT_POS);
    sync_cube();
    output[UNIT_POS as usize] = shared[1usize];
}

const SHAPE: AttentionShape = AttentionShape {
    batch: 1,
    num_heads: 1,
    num_kv_heads: 1,
    seq_q: 8,
    seq_kv: 8,
    head_dim: 248,
    value_dim: 8,
};

#[test]
fn a_kernel_that_does_not_run_is_an_error_that_names_it() {
    let Some(client) = device_for_tests() else {
        return;
    };
    let pattern = Pattern::dense(16, 1).unwrap();
    let problem = AttentionProblem::new(SHAPE, &pattern, None, None).unwrap();
    let f32 = ElemType::Float(FloatKind::F32);
    let call = CubeAttention::new(&client, Arc::new(problem), f32).unwrap();
    let tensor = |[_, _, tokens, width]: [usize; 4]| DeviceTensor {
        handle: client.create_from_slice(&vec![0; tokens * width * size_of::<f32>()]),
        strides: [0, 0, width, 1],
    };
    let [k, v] = [SHAPE.k_sizes(), SHAPE.v_sizes()].map(tensor);
    let forward = |q: &DeviceTensor| {
        let outputs = ForwardOutputs {
            out: tensor(SHAPE.out_sizes()),
            rounding: None,
            lse: client.empty(SHAPE.seq_q * size_of::<f32>()),
        };
        call.forward(q, &k, &v, &outputs)
    };

    let broken = tensor(SHAPE.q_sizes());
    let len = SHAPE.seq_q * SHAPE.head_dim;
    // The launch does not say that it fails.
    unsafe {
        too_large::launch(
            &client,
            CubeCount::Static(1, 1, 1),
            CubeDim::new_1d(32),
            BufferArg::from_raw_parts(broken.handle.clone(), len),
        );
    }
    let error = forward(&broken).unwrap_err();
    assert!(matches!(
        error,
        CubeError::Launch {
            kernel: "forward",
            ..
        }
    ));
    let text = error.to_string();
    for part in [
        "`forward`",
        call.choice().engine.to_string().as_str(),
        client.name(),
        "shared memory",
    ] {
        assert!(text.contains(part), "{text:?} does not say {part}");
    }

    // Once it ran, its launches wait for nothing, not even for what their inputs carry.
    forward(&tensor(SHAPE.q_sizes())).unwrap();
    forward(&broken).unwrap();
}
