//! Calls on a cache that the kernels cannot run are refused before anything is launched.

use std::sync::Arc;

use cubecl::server::Handle;
use s2_attention_kernels::cache::{CacheProblem, CacheShape};
use s2_attention_kernels::cube::{self, CacheSide, CubeDecode, DeviceTensor};
use s2_attention_pattern::PatternConfig;

use super::engine::Engine;
use super::errors::hold;

const SHAPE: CacheShape = CacheShape {
    items: 2,
    rows: 3,
    num_heads: 4,
    num_kv_heads: 2,
    head_dim: 16,
    value_dim: 24,
    pages: 5,
    capacity: 4,
    decode_tokens: 2,
    max_tokens: 100,
};
const BLOCK: usize = 16;

/// Sizes and engines, then tensors that do not fit a call. Returns how many.
pub fn refused(engine: &Engine) -> Result<usize, String> {
    let (client, elem) = (&engine.client, engine.storage.elem());
    let problem = |shape: CacheShape| {
        let config = PatternConfig::local_stride(1, 2, BLOCK, 4).with_num_kv_heads(2);
        let pattern = config.build().map_err(|error| error.to_string())?;
        CacheProblem::new(shape, &pattern, None).map_err(|error| error.to_string())
    };
    let call = |shape: CacheShape, engine_asked: Option<cube::Engine>| {
        let problem = Arc::new(problem(shape)?);
        Ok::<_, String>(CubeDecode::with_engine(client, problem, elem, engine_asked))
    };
    let narrow = CacheShape {
        head_dim: 12,
        ..SHAPE
    };
    let many = CacheShape {
        pages: i32::MAX as usize / BLOCK + 1,
        ..SHAPE
    };
    // Counted, and more than one buffer holds, if kernels count as many.
    let most = CubeDecode::most_pages(client, elem, BLOCK, SHAPE.head_dim);
    let large = CacheShape {
        pages: most + 1,
        ..SHAPE
    };
    let far = CacheShape {
        max_tokens: (1 << 30) + 1,
        ..SHAPE
    };
    let prompt = CacheShape {
        rows: 1 << 26,
        ..SHAPE
    };
    let mut count = 0;
    let wgmma = Some(cube::Engine::Wgmma);
    let of_large: &[&str] = match most == i32::MAX as usize / BLOCK {
        true => &["tokens of the pool"],
        false => &["kernel `decode` needs", "bytes in one buffer for the pages"],
    };
    let calls: [(_, &[&str]); 4] = [
        (call(narrow, None)?, &["head_dim is 12", "multiples of 8"]),
        (
            call(many, None)?,
            &["tokens of the pool are 2147483648", "2147483647"],
        ),
        (call(large, None)?, of_large),
        (call(SHAPE, wgmma)?, &["`wgmma`", "accepted: mma, unit"]),
    ];
    for (result, parts) in calls {
        hold(result, parts)?;
        count += 1;
    }
    // The same without a call.
    let check = |shape| Ok::<_, String>(CubeDecode::check(client, &problem(shape)?, elem));
    let read = |tokens| {
        let problem = problem(SHAPE)?;
        Ok::<_, String>(CubeDecode::check_read(client, &problem, elem, tokens))
    };
    check(SHAPE)?.map_err(|error| error.to_string())?;
    read(SHAPE.max_tokens)?.map_err(|error| error.to_string())?;
    let checks: [(_, &[&str]); 5] = [
        (check(narrow)?, &["head_dim is 12"]),
        (check(many)?, &["tokens of the pool are 2147483648"]),
        (check(far)?, &["positions reach 1073741825", "1073741824"]),
        (
            check(prompt)?,
            &["elements of new rows are 3221225472", "2147483647"],
        ),
        (read(1 << 32)?, &["vectors of an item are", "2147483647"]),
    ];
    for (result, parts) in checks {
        hold(result, parts)?;
        count += 1;
    }

    let call = call(SHAPE, engine.decodes_by())?.map_err(|error| error.to_string())?;
    let bytes = |elements: usize| engine.client.empty(elements * engine.storage.elem().size());
    let words = |words: usize| engine.client.empty(words * size_of::<i32>());
    let rows = |heads: usize, width: usize| DeviceTensor {
        handle: bytes(SHAPE.rows * heads * width),
        strides: [0, width, heads * width, 1],
    };
    let pool = |width: usize| bytes(SHAPE.pages * BLOCK * width);
    let table_words = call.problem().layout().len();
    let [q, out] = [rows(4, 16), rows(4, 24)];
    let [k, v, table, lse] = [pool(16), pool(24), words(table_words), words(12)];
    let decode =
        |q: &DeviceTensor, k: &Handle, table: &Handle, out: &DeviceTensor, lse: &Handle| {
            call.decode(q, k, &v, table, out, lse)
        };
    let unaligned = DeviceTensor {
        strides: [0, 17, 68, 1],
        ..q.clone()
    };
    let shared = DeviceTensor {
        strides: [0, 24, 0, 1],
        ..out.clone()
    };
    let short = words(table_words - 1);
    let read = |item: usize, tokens: usize| {
        let (rows, out) = (rows(2, 24), rows(2, 24));
        call.read(CacheSide::Values, &v, &rows, &table, item, &out, tokens)
    };
    let spoiled: [(_, &[&str]); 8] = [
        (
            decode(&unaligned, &k, &table, &out, &lse),
            &["strides of q", "17, 68"],
        ),
        (
            decode(&q, &pool(8), &table, &out, &lse),
            &["k_pages", "1280", "640"],
        ),
        (
            decode(&q, &k, &short, &out, &lse),
            &["table ends at element"],
        ),
        (
            decode(&q, &k, &table, &shared, &lse),
            &["out", "overlaps with itself"],
        ),
        (
            decode(&q, &k, &table, &out, &words(11)),
            &["lse", "12", "11"],
        ),
        (
            call.write(CacheSide::Keys, &rows(1, 16), &k, &table),
            &["rows ends at element 64", "48"],
        ),
        (read(2, 3), &["item 2 of a step of 2"]),
        (read(1, 4), &["out ends at element", "144"]),
    ];
    for (result, parts) in spoiled {
        hold(result, parts)?;
        count += 1;
    }
    Ok(count)
}
