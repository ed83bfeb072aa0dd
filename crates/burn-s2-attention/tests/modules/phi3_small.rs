//! The model as Phi-3-small, against logits of an independent float64 computation with the published formulas.
//!
//! `fixtures/phi3_small_tiny` holds a tiny random checkpoint in the published layout (hidden 64, 4 layers, 4 query heads on 1 KV
//! head, block 16, 2 local blocks, stride 9, every 3rd layer dense) and what it gives for 301 tokens.

use std::path::Path;

use burn::module::Param;
use burn::nn::{Linear, norm::Normalization};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_s2_attention::model::{HybridTransformer, HybridTransformerConfig};
use burn_s2_attention::module::{MlpKind, NormKind, QkvProjection, RopeConfig};
use burn_s2_attention::{DenseLayers, LayerSchedule, PatternConfig};
use safetensors::{Dtype, SafeTensors};

use crate::common::cast::cast;
use crate::common::host::values;
use crate::common::tensors::{distance, largest};

const HEADS: usize = 4;
const KV_HEADS: usize = 1;
const HEAD_DIM: usize = 16;
const D_MODEL: usize = 64;
const D_FF: usize = 96;

struct File(Vec<u8>);

impl File {
    fn open(name: &str) -> Self {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/modules/fixtures/phi3_small_tiny");
        Self(std::fs::read(folder.join(name)).unwrap())
    }

    fn data(&self, name: &str) -> TensorData {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::BF16 => DType::BF16,
            Dtype::I64 => DType::I64,
            other => panic!("{name} is {other:?}"),
        };
        TensorData::from_bytes_vec(view.data().to_vec(), view.shape().to_vec(), dtype)
    }

    fn float<const D: usize>(&self, name: &str) -> Tensor<D> {
        Tensor::from_data(self.data(name), (&Device::flex(), DType::F32))
    }

    fn tokens(&self) -> Tensor<2, Int> {
        Tensor::from_data(self.data("input_ids"), (&Device::flex(), DType::I32))
    }
}

fn config() -> HybridTransformerConfig {
    let sparse = PatternConfig::local_stride(2, 9, 16, HEADS)
        .with_num_kv_heads(KV_HEADS)
        .with_head_offset(1);
    let schedule = LayerSchedule::new(sparse).with_dense_layers(DenseLayers::Every(3));
    HybridTransformerConfig::new(160, D_MODEL, 4, HEADS, schedule)
        .with_d_ff(Some(D_FF))
        .with_attention_scale(Some(1.5 / HEAD_DIM as f64))
        .with_rope(Some(RopeConfig::new().with_theta(1e6)))
        .with_norm(NormKind::LayerNorm)
        .with_mlp(MlpKind::Gegelu { limit: 2.5 })
        .with_bias(true)
        .with_embedding_multiplier(12.0)
        .with_logit_multiplier(1.0 / 4.0)
}

/// The checkpoint keeps `[out, in]`, Burn `[in, out]`.
fn set(linear: &mut Linear, weight: Tensor<2>, bias: Tensor<1>) {
    assert_eq!(linear.weight.dims(), weight.clone().transpose().dims());
    linear.weight = Param::from_tensor(weight.transpose());
    linear.bias = Some(Param::from_tensor(bias));
}

/// Rows stored as (its queries, key, value) for each KV head, to all queries, all keys, all values.
fn ungroup<const D: usize>(rows: Tensor<D>) -> Tensor<D> {
    let ratio = HEADS / KV_HEADS;
    let shape = rows.dims();
    let width = if D == 1 { 1 } else { shape[1] };
    let groups = rows.reshape([KV_HEADS, ratio + 2, HEAD_DIM, width]);
    let part = |start, heads: usize| {
        groups
            .clone()
            .narrow(1, start, heads)
            .reshape([KV_HEADS * heads * HEAD_DIM, width])
    };
    Tensor::cat(vec![part(0, ratio), part(ratio, 1), part(ratio + 1, 1)], 0).reshape(shape)
}

/// Every second row, from row `first`.
fn every_second<const D: usize>(rows: Tensor<D>, first: usize) -> Tensor<D> {
    let mut shape = rows.dims();
    shape[0] /= 2;
    let width = if D == 1 { 1 } else { shape[1] };
    rows.reshape([shape[0], 2, width])
        .narrow(1, first, 1)
        .reshape(shape)
}

fn load(file: &File) -> HybridTransformer {
    let mut model = config().init(&Device::flex());
    let norm = |norm: &mut Normalization, name: &str| {
        let Normalization::Layer(norm) = norm else {
            panic!("layer norms were asked for")
        };
        norm.gamma = Param::from_tensor(file.float(&format!("model.{name}.weight")));
        norm.beta = Some(Param::from_tensor(
            file.float(&format!("model.{name}.bias")),
        ));
    };
    model.embedding.weight = Param::from_tensor(file.float("model.embed_tokens.weight"));
    norm(&mut model.norm, "final_layernorm");
    for (index, layer) in model.layers.iter_mut().enumerate() {
        norm(
            &mut layer.attention_norm,
            &format!("layers.{index}.input_layernorm"),
        );
        norm(
            &mut layer.mlp_norm,
            &format!("layers.{index}.post_attention_layernorm"),
        );
        let weight = |name: &str| file.float::<2>(&format!("model.layers.{index}.{name}.weight"));
        let bias = |name: &str| file.float::<1>(&format!("model.layers.{index}.{name}.bias"));

        let QkvProjection::Fused(qkv) = &mut layer.attention.qkv else {
            panic!("fused by default")
        };
        set(
            qkv,
            ungroup(weight("self_attn.query_key_value")),
            ungroup(bias("self_attn.query_key_value")),
        );
        set(
            &mut layer.attention.output,
            weight("self_attn.dense"),
            bias("self_attn.dense"),
        );
        let up = |first| {
            (
                every_second(weight("mlp.up_proj"), first),
                every_second(bias("mlp.up_proj"), first),
            )
        };
        let ((gate_weight, gate_bias), (up_weight, up_bias)) = (up(0), up(1));
        set(layer.mlp.gate.as_mut().unwrap(), gate_weight, gate_bias);
        set(&mut layer.mlp.up, up_weight, up_bias);
        set(
            &mut layer.mlp.down,
            weight("mlp.down_proj"),
            bias("mlp.down_proj"),
        );
    }
    model
}

fn largest_difference<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let pairs = values(a).into_iter().zip(values(b));
    largest(pairs.map(|(a, b)| (a - b).abs()))
}

#[test]
fn layers_and_logits_are_those_of_the_published_architecture() {
    let reference = File::open("reference.safetensors");
    let model = load(&File::open("model.safetensors"));
    let tokens = reference.tokens();

    let mut x = model.embed(tokens.clone());
    for (index, layer) in model.layers.iter().enumerate() {
        assert!(
            largest_difference(
                x.clone(),
                reference.float(&format!("hidden_states.{index}"))
            ) < 5e-4
        );
        x = layer.forward(x);
    }
    assert!(
        largest_difference(
            model.hidden_states(tokens.clone()),
            reference.float("final_hidden")
        ) < 5e-5
    );
    let error = largest_difference(model.forward(tokens), reference.float("logits"));
    assert!(error < 5e-5, "{error:e}");
}

#[test]
fn in_bf16_too() {
    let reference = File::open("reference.safetensors");
    let model = cast(load(&File::open("model.safetensors")), DType::BF16);
    let logits = model.forward(reference.tokens());
    assert_eq!(logits.dtype(), DType::BF16);
    let logits = logits.cast(DType::F32);
    let expected = reference.float::<3>("logits");
    let mean = values((logits.clone() - expected.clone()).abs().mean())[0];
    assert!(
        largest_difference(logits.clone(), expected.clone()) < 6e-2 && mean < 6e-3,
        "{mean:e}"
    );
    assert!(
        distance(logits, expected) > 1e-4,
        "this was not computed in bf16"
    );
}
