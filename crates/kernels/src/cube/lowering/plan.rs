//! How decode is spread over devices, and steps that they do not count.

use s2_attention_pattern::{Pattern, PatternConfig};

use super::devices::{Device, cuda, metal};
use super::{BF16, F32};
use crate::cache::{CacheProblem, CacheShape, MAX_DECODE_TOKENS};
use crate::cube::decode::DecodeChoice;
use crate::cube::decode::plan::choose;
use crate::cube::decode::prepare::check_problem;
use crate::cube::error::CubeError;

/// Three sequences that get a token each.
const SHAPE: CacheShape = CacheShape {
    items: 3,
    rows: 3,
    num_heads: 32,
    num_kv_heads: 8,
    head_dim: 128,
    value_dim: 128,
    pages: 20_000,
    capacity: 2048,
    decode_tokens: 1,
    max_tokens: 1 << 17,
};

fn problem(shape: CacheShape) -> CacheProblem {
    let pattern = PatternConfig::dense(64, shape.num_heads).with_num_kv_heads(shape.num_kv_heads);
    let pattern: Pattern = pattern.build().unwrap();
    CacheProblem::new(shape, &pattern, None).unwrap()
}

fn plan(device: &Device, shape: CacheShape) -> Result<DecodeChoice, CubeError> {
    // Both engines.
    let dtype = if device.name == "sm_90" { BF16 } else { F32 };
    let device = (device.name, device.properties.as_ref());
    choose(device, &problem(shape), dtype, None)
}

/// Rows of a prompt that is read in the same step, and those that no item owns, are none of the items that are decoded.
#[test]
fn decode_is_spread_by_the_tokens_that_are_decoded() {
    for device in [cuda(), metal()] {
        let alone = plan(&device, SHAPE).unwrap();
        let rows = SHAPE.rows + 8192;
        let beside_a_prompt = plan(&device, CacheShape { rows, ..SHAPE }).unwrap();
        assert_eq!(beside_a_prompt, alone, "{}", device.name);
        assert_eq!(alone.tiles, 1, "{}", device.name);

        // One that gets more tokens than the others has as many rows as if all of them did.
        let of = |rows| CacheShape {
            rows,
            decode_tokens: 12,
            ..SHAPE
        };
        let longest = plan(&device, of(14)).unwrap();
        assert_eq!(longest, plan(&device, of(36)).unwrap(), "{}", device.name);
        let owned = longest.rows * longest.tiles;
        assert!(
            owned >= 12 * 4 && longest.splits < alone.splits,
            "{longest}"
        );

        // No more are decoded.
        let most = |decode_tokens| CacheShape {
            rows: 3 * MAX_DECODE_TOKENS,
            decode_tokens,
            ..SHAPE
        };
        let [most, more] = [MAX_DECODE_TOKENS, 100].map(|tokens| plan(&device, most(tokens)));
        assert_eq!(most, more, "{}", device.name);
    }
}

/// Keys and values are read once for all query heads that share them.
#[test]
fn query_heads_of_a_token_are_one_tile() {
    for device in [cuda(), metal()] {
        for num_kv_heads in [1, 2, 4, 8, 16, 32] {
            let shape = CacheShape {
                num_kv_heads,
                ..SHAPE
            };
            let choice = plan(&device, shape).unwrap();
            assert_eq!(choice.tiles, 1, "{}, {num_kv_heads}: {choice}", device.name);
        }
    }
}

#[test]
fn steps_that_kernels_do_not_count_are_refused() {
    let refused = |shape: CacheShape, parts: &[&str]| {
        let error = check_problem(&problem(shape)).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{error}");
        }
    };
    assert_eq!(check_problem(&problem(SHAPE)), Ok(()));
    let prompt = CacheShape {
        items: 1,
        rows: 1 << 19,
        num_kv_heads: 32,
        ..SHAPE
    };
    refused(
        prompt,
        &["elements of new rows are 2147483648", "up to 2147483647"],
    );
    refused(
        CacheShape {
            rows: 1 << 26,
            num_kv_heads: 1,
            head_dim: 8,
            value_dim: 8,
            ..SHAPE
        },
        &["rows of all query heads are 2147483648"],
    );
    let pages = 1 << 25;
    refused(
        CacheShape { pages, ..SHAPE },
        &["tokens of the pool are 2147483648"],
    );
    // Positions have a bit less than other counts, as those of other calls.
    let of = |max_tokens| CacheShape {
        max_tokens,
        ..SHAPE
    };
    assert_eq!(check_problem(&problem(of(1 << 30))), Ok(()));
    refused(
        of((1 << 30) + 1),
        &["positions reach 1073741825 tokens", "up to 1073741824"],
    );
}

/// What parts leave is one buffer.
#[test]
fn records_that_fit_no_buffer_are_refused() {
    let mut device = cuda();
    let mut properties = device.properties.as_ref().clone();
    let needed = 3 * 32 * (128 + 4) * 4;
    for (bytes, splits) in [(needed - 1, None), (needed, Some(1)), (3 * needed, Some(3))] {
        properties.memory.max_page_size = bytes;
        device.properties = properties.clone().into();
        match (plan(&device, SHAPE), splits) {
            (Ok(choice), Some(splits)) => assert_eq!(choice.splits, splits),
            (Err(error), None) => {
                let text = error.to_string();
                let parts = [needed, bytes].map(|bytes| bytes.to_string());
                assert!(parts.iter().all(|part| text.contains(part)), "{text}");
            }
            (other, _) => panic!("{bytes} bytes: {other:?}"),
        }
    }
}
