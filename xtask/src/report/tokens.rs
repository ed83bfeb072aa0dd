//! What a token takes after a long prompt.

use anyhow::{Context, Result};
use s2_bench::summary::one_run;
use s2_bench::token_record::TokenRow;

use super::tables::or_dash;

/// A line for each model and size of chunks: the prompt and a token, how much less a token takes than with dense layers alone,
/// and the cache.
///
/// # Errors
/// No rows, or rows of several runs.
pub fn table(rows: &[TokenRow]) -> Result<String> {
    one_run(rows)?;
    let first = rows.first().context("no rows")?;
    let mut text = String::from(
        "| dense layers | in chunks of | prompt | a token | over dense | cache | full cache |\n\
         |---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let is_dense = |other: &&TokenRow| {
            other.dense_layers == other.layers
                && (other.prompt, other.chunk) == (row.prompt, row.chunk)
        };
        let dense = rows.iter().find(is_dense);
        let faster = dense.map(|dense| format!("{:.2}x", dense.token_ms / row.token_ms));
        let gib = |bytes: usize| format!("{:.2} GiB", bytes as f64 / (1_u64 << 30) as f64);
        text += &format!(
            "| {} of {} | {} | {:.2} s | {:.2} ms | {} | {} | {} |\n",
            row.dense_layers,
            row.layers,
            row.chunk,
            row.prompt_seconds,
            row.token_ms,
            or_dash(faster),
            gib(row.memory_bytes),
            gib(row.full_bytes),
        );
    }
    let graph = match rows.iter().all(|row| row.captured) {
        true => "replayed as a graph",
        false => "not all replayed as a graph",
    };
    let order = first.weights.map(|order| format!(" {order}"));
    let order = order.unwrap_or_default();
    let TokenRow {
        prompt,
        tokens,
        d_model,
        d_ff,
        heads,
        kv_heads,
        block,
        local_blocks,
        vert_stride,
        dtype,
        device,
        commit,
        ..
    } = first;
    let day = first.date.split('T').next().unwrap_or_default();
    text += &format!(
        "\nAfter a prompt of {prompt} tokens, one sequence, medians of {tokens} tokens, {graph}. {heads} query and {kv_heads} \
         key/value heads, width {d_model}, feed-forward {d_ff}, random weights{order}; sparse layers of blocks of {block}, local \
         {local_blocks}, stride {vert_stride}; {dtype}, on {device} ({day}, commit {commit}).\n"
    );
    Ok(text)
}

#[cfg(test)]
mod tests {
    use s2_bench::token_record::TokenRow;
    use serde_json::json;

    use super::table;

    fn row(run: &str, dense: usize, chunk: usize, ms: f64) -> TokenRow {
        let row = json!({
            "run": run, "backend": "cuda-cpp", "dtype": "bf16", "layers": 32, "dense_layers": dense, "d_model": 4096, "d_ff": 11008,
            "heads": 32, "kv_heads": 32, "block": 64, "local_blocks": 16, "vert_stride": 8, "prompt": 131072, "chunk": chunk,
            "prompt_seconds": ms / 2.0, "token_ms": ms, "least_ms": ms, "tokens": 50, "captured": true,
            "memory_bytes": dense << 30, "full_bytes": 64_u64 << 30, "device": "Test GPU", "driver": null,
            "date": "2026-01-02T03:04:05Z", "commit": "0123456789ab", "versions": {},
        });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn sparse_layers_stand_beside_dense_ones_of_the_same_chunks() {
        let rows = [
            row("a", 2, 8192, 8.0),
            row("a", 32, 8192, 24.0),
            row("a", 2, 4096, 9.0),
        ];
        let text = table(&rows).unwrap();
        let lines: Vec<&str> = text.lines().skip(2).take(3).collect();
        assert_eq!(
            lines,
            [
                "| 2 of 32 | 8192 | 4.00 s | 8.00 ms | 3.00x | 2.00 GiB | 64.00 GiB |",
                "| 32 of 32 | 8192 | 12.00 s | 24.00 ms | 1.00x | 32.00 GiB | 64.00 GiB |",
                "| 2 of 32 | 4096 | 4.50 s | 9.00 ms | - | 2.00 GiB | 64.00 GiB |",
            ]
        );
        assert!(
            text.contains(
                "prompt of 131072 tokens, one sequence, medians of 50 tokens, replayed as a graph."
            ),
            "{text}"
        );
        let mixed = [row("a", 2, 8192, 8.0), row("b", 32, 8192, 24.0)];
        assert!(table(&mixed).is_err() && table(&[]).is_err());
    }
}
