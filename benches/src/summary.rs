//! What follows from the rows of one run: speed-up over dense, share of the ideal, share of the matmul rate.

use crate::record::{Origin, Pass, Row};

/// This library.
pub const S2_ATTENTION: &str = "burn-s2-attention";
/// Burn's own dense attention; with gradients, its fallback that keeps the scores.
pub const BURN_ATTENTION: &str = "burn-attention";
/// Burn's own matrix product, the yardstick of what the device computes.
pub const BURN_MATMUL: &str = "burn-matmul";
/// A copy by the device, the yardstick of what its memory moves: [`Row::copied_bytes`] in each run.
pub const COPY: &str = "copy";
/// FlashAttention-2 as PyTorch has it: what the field compares with.
pub const SDPA_FLASH: &str = "sdpa-flash";

/// The provider whose dense attention speed-ups of these rows are relative to: the first of FlashAttention-2, Burn's own
/// attention and this library that has dense rows.
pub fn dense_baseline(rows: &[Row]) -> &'static str {
    let has_dense = |provider: &&str| {
        rows.iter()
            .any(|row| row.provider == *provider && row.is_dense())
    };
    [SDPA_FLASH, BURN_ATTENTION]
        .into_iter()
        .find(has_dense)
        .unwrap_or(S2_ATTENTION)
}

/// What tables and plots call a provider's dense attention.
pub fn dense_name(provider: &str) -> String {
    match provider {
        S2_ATTENTION => "our own dense".to_owned(),
        BURN_ATTENTION => "Burn's dense".to_owned(),
        SDPA_FLASH => "FlashAttention-2".to_owned(),
        other => format!("{other}, dense"),
    }
}

/// Whether it says what the device can do, rather than time attention.
pub fn is_yardstick(row: &Row) -> bool {
    [BURN_MATMUL, COPY].contains(&row.provider.as_str())
}

/// Rows that were not timed together: their times cannot be compared.
#[derive(Debug, thiserror::Error)]
#[error("rows of {} different {what} cannot share a table: {}", seen.len(), seen.join(", "))]
pub struct MixedRows {
    /// What they differ in: runs, or devices or commits under the name of one run.
    pub what: &'static str,
    /// Those that were seen, in the order of the rows.
    pub seen: Vec<String>,
}

/// A row beside those of its run that it is compared with.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// The row.
    pub row: &'a Row,
    /// The same shape and pass, dense, by the baseline.
    pub baseline: Option<&'a Row>,
    /// Time of the baseline over time of the row.
    pub speedup: Option<f64>,
    /// The time that the provider's own dense attention would take on as many pairs, over time of the row: 1 if time
    /// follows density.
    pub ideal_share: Option<f64>,
    /// Useful FLOP/s over those of Burn's matrix product in the same type.
    pub matmul_share: Option<f64>,
}

/// The attention rows of one run, compared.
///
/// `baseline` is the provider whose dense attention speed-ups are relative to.
///
/// # Errors
/// Those of [`points`].
pub fn summarize<'a>(rows: &'a [Row], baseline: &str) -> Result<Vec<Line<'a>>, MixedRows> {
    let rows = points(rows)?;
    let matmul = |of: &Row| {
        let matmul = |row: &&&Row| {
            row.provider == BURN_MATMUL && row.pass == Pass::Forward && row.dtype == of.dtype
        };
        rows.iter().find(matmul).map(|row| row.useful_tflops)
    };
    let attention = rows.iter().copied().filter(|row| !is_yardstick(row));
    let lines = attention.map(|row| {
        // By the same engine where a run has several.
        let dense_of = |provider: &str| {
            let dense = rows.iter().copied().filter(|other| {
                other.provider == provider && other.is_dense() && same_shape(other, row)
            });
            let other_engine =
                |other: &Row| other.provider == row.provider && other.engine != row.engine;
            dense.min_by(|a, b| {
                let by_engine = other_engine(a).cmp(&other_engine(b));
                by_engine.then(a.median_us.total_cmp(&b.median_us))
            })
        };
        if row.pass.is_of_host() {
            return Line {
                row,
                baseline: None,
                speedup: None,
                ideal_share: None,
                matmul_share: None,
            };
        }
        let baseline = dense_of(baseline);
        let own_dense = dense_of(&row.provider);
        Line {
            row,
            baseline,
            speedup: baseline.map(|dense| dense.median_us / row.median_us),
            ideal_share: own_dense.map(|dense| dense.median_us * row.density / row.median_us),
            matmul_share: matmul(row).map(|matmul| row.useful_tflops / matmul),
        }
    });
    Ok(lines.collect())
}

/// The points of one run, in the order of its rows. Of equal rows, those of one provider, engine and backend that timed the same
/// pass of the same problem, it is the fastest: whatever is shown of a run is made of these.
///
/// # Errors
/// Rows of more than one run, device or commit.
pub fn points(rows: &[Row]) -> Result<Vec<&Row>, MixedRows> {
    one_run(rows)?;
    let key = |row: &Row| {
        let names = (row.provider.clone(), row.problem.clone());
        (names, row.engine, row.backend, row.pass)
    };
    let mut points: Vec<&Row> = Vec::new();
    for row in rows {
        match points.iter_mut().find(|point| key(point) == key(row)) {
            Some(point) if row.median_us < point.median_us => *point = row,
            Some(_) => {}
            None => points.push(row),
        }
    }
    Ok(points)
}

/// Whether the rows may share a table: one run, which is one device and one commit.
///
/// # Errors
/// Rows of more.
pub fn one_run<R: Origin>(rows: &[R]) -> Result<(), MixedRows> {
    let names = [
        ("runs", R::run as fn(&R) -> &str),
        ("devices", R::device),
        ("commits", R::commit),
    ];
    for (what, name) in names {
        let mut seen: Vec<String> = Vec::new();
        for row in rows {
            if !seen.iter().any(|of| of == name(row)) {
                seen.push(name(row).to_owned());
            }
        }
        if seen.len() > 1 {
            return Err(MixedRows { what, seen });
        }
    }
    Ok(())
}

/// Whether the rows are of the same pass over tensors of the same sizes and type.
pub fn same_shape(a: &Row, b: &Row) -> bool {
    let key = |row: &Row| {
        (
            row.pass,
            row.dtype,
            row.batch,
            row.heads,
            row.kv_heads,
            row.seq_q,
            row.seq_kv,
            row.head_dim,
            row.causal,
        )
    };
    key(a) == key(b)
}
