//! Tensors of more elements than 32 bits count: heads that lie far apart have the bits of contiguous ones.

use cubecl::bytes::Bytes;
use cubecl::ir::AddressType;
use cubecl::server::Handle;
use s2_attention_kernels::AttentionShape;
use s2_attention_kernels::cube::{DeviceTensor, ForwardOutputs, KeyGradients, SavedOutputs};
use s2_attention_pattern::PatternConfig;

use super::edges::call;
use super::engine::Engine;
use super::layouts::same;
use super::storage::Storage;
use super::support::{Results, compare};
use super::{Effort, in_types};

const SHAPE: AttentionShape = AttentionShape {
    batch: 1,
    num_heads: 2,
    num_kv_heads: 2,
    seq_q: 200,
    seq_kv: 200,
    head_dim: 64,
    value_dim: 64,
};
/// Elements from a head to the next.
const FAR: usize = 1 << 32;
/// Elements of a head, with room to begin at whole pages.
const HEAD: usize = 1 << 14;
/// Tensors that share a buffer, in the gaps between each other's heads.
const TENSORS: usize = 5;

/// Both passes, in every type, where the device has the memory and the addresses.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &Storage::ALL, of_type)
}

fn of_type(engine: &Engine, _: &Effort) -> Result<String, String> {
    let bytes = (FAR + TENSORS * HEAD) * engine.storage.elem().size();
    let properties = engine.client.properties();
    if !properties.supports_address(AddressType::U64) {
        return Ok("NOT CHECKED, the device has no addresses of 64 bits".to_owned());
    }
    let accepted = properties.memory.max_page_size;
    if accepted < bytes as u64 {
        return Ok(format!(
            "NOT CHECKED, a buffer of {bytes} bytes is needed and the device has up to {accepted}"
        ));
    }
    let config = PatternConfig::local_stride(2, 2, 16, 2).with_num_kv_heads(2);
    let (problem, tensors) = call(SHAPE, &config, None, None, 1.5)?;
    let near = engine.run(&problem, &tensors)?;
    let call = engine.call(&problem, &tensors)?;

    let (read, written) = (far(engine, bytes), far(engine, bytes));
    for (n, values) in [&tensors.q, &tensors.k, &tensors.v, &tensors.d_out]
        .into_iter()
        .enumerate()
    {
        for (head, values) in values.chunks_exact(values.len() / 2).enumerate() {
            let data = engine.storage.bytes(values);
            let place = read.head(n, head, data.len());
            engine.client.write(&place, Bytes::from_bytes_vec(data));
        }
    }
    let outputs = ForwardOutputs {
        out: written.tensor(0),
        rounding: (engine.storage != Storage::F32).then(|| written.tensor(1)),
        lse: call.outputs().lse,
    };
    let [q, k, v, d_out] = [0, 1, 2, 3].map(|n| read.tensor(n));
    let run = call.attention.forward(&q, &k, &v, &outputs);
    run.map_err(|error| error.to_string())?;
    let saved = SavedOutputs {
        forward: outputs.clone(),
        d_out,
        d_lse: call.d_lse.clone(),
    };
    let (dq, dk, dv) = (written.tensor(2), written.tensor(3), written.tensor(4));
    let keys = KeyGradients {
        handle: dk.handle.clone(),
        dk: Some(dk.strides),
        dv: None,
    };
    let values = KeyGradients {
        handle: dv.handle.clone(),
        dk: None,
        dv: Some((0, dv.strides)),
    };
    for (dq, keys) in [(Some(&dq), &keys), (None, &values)] {
        let run = call.attention.backward(&q, &k, &v, &saved, dq, Some(keys));
        run.map_err(|error| error.to_string())?;
    }
    let results = Results {
        out: written.values(0)?,
        lse: engine.read_all(&outputs.lse, Storage::F32)?,
        dq: written.values(2)?,
        dk: written.values(3)?,
        dv: written.values(4)?,
    };
    same(compare::difference(&results, &near))?;
    Ok(format!("heads {FAR} elements apart have the same bits"))
}

/// A buffer of tensors whose heads are far apart.
struct Far<'a> {
    engine: &'a Engine,
    handle: Handle,
    bytes: usize,
}

fn far(engine: &Engine, bytes: usize) -> Far<'_> {
    Far {
        engine,
        handle: engine.client.empty(bytes),
        bytes,
    }
}

impl Far<'_> {
    /// The `n`-th tensor.
    fn tensor(&self, n: usize) -> DeviceTensor {
        let at = n * HEAD * self.engine.storage.elem().size();
        DeviceTensor {
            handle: self.handle.clone().offset_start(at as u64),
            strides: [2 * FAR, FAR, SHAPE.head_dim, 1],
        }
    }

    /// A head of the `n`-th tensor, of `bytes` bytes.
    fn head(&self, n: usize, head: usize, bytes: usize) -> Handle {
        let at = (n * HEAD + head * FAR) * self.engine.storage.elem().size();
        let end = self.bytes - at - bytes;
        let handle = self.handle.clone().offset_start(at as u64);
        handle.offset_end(end as u64)
    }

    /// The values of the `n`-th tensor.
    fn values(&self, n: usize) -> Result<Vec<f64>, String> {
        let storage = self.engine.storage;
        let bytes = SHAPE.seq_q * SHAPE.head_dim * storage.elem().size();
        let heads = [0, 1].map(|head| self.engine.read_all(&self.head(n, head, bytes), storage));
        let [first, second] = heads;
        Ok([first?, second?].concat())
    }
}
