//! Products of a few rows with a matrix, and norms of rows, against sums in f64.

use cubecl::server::Handle;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use s2_attention_kernels::cube::{CubeError, MatrixOrder, RowNorm, RowProduct};

use super::engine::Engine;
use super::storage::Storage;
use super::{Effort, ensure, in_types};

/// Rows, inputs and outputs: whole vectors and odd sizes, less than a cube's shares and several turns of them.
const PRODUCTS: [[usize; 3]; 9] = [
    [1, 512, 96],
    [1, 4104, 24],
    [2, 40, 4100],
    [3, 333, 77],
    [5, 64, 1],
    [8, 2048, 40],
    [11, 1, 130],
    [16, 96, 300],
    [16, 700, 9],
];
const NORMS: [[usize; 2]; 5] = [[1, 4096], [3, 64], [16, 1000], [5, 77], [2, 1]];
/// Elements around a tensor that nobody may touch.
const AROUND: usize = 64;
/// The largest difference between numbers of f32 next to each other, relative.
const EPSILON: f64 = f32::EPSILON as f64;

/// In every type.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &Storage::ALL, of_type)
}

fn of_type(engine: &Engine, _: &Effort) -> Result<String, String> {
    let rng = &mut StdRng::seed_from_u64(17);
    let mut worst = 0f64;
    let mut products = 0;
    for (at, sizes) in PRODUCTS.into_iter().enumerate() {
        for order in [MatrixOrder::Columns, MatrixOrder::Rows] {
            let start = [8, 0, 2, 1][at % 4];
            let error = product(engine, sizes, order, start, rng)
                .map_err(|miss| format!("{sizes:?} {order:?}: {miss}"))?;
            worst = worst.max(error);
            products += 1;
        }
    }
    let mut norms = 0;
    for sizes in NORMS {
        for centred in [false, true] {
            let error = norm(engine, sizes, centred, rng)
                .map_err(|miss| format!("norm {sizes:?} {centred}: {miss}"))?;
            worst = worst.max(error);
            norms += 1;
        }
    }
    refused(engine)?;
    Ok(format!(
        "{products} products and {norms} norms, the worst at {worst:.2} of what rounding allows"
    ))
}

/// Draws values in the type of the engine.
fn draw(engine: &Engine, len: usize, rng: &mut StdRng) -> Vec<f32> {
    let values = (0..len).map(|_| engine.storage.round(rng.random_range(-1.0..1.0)));
    values.collect()
}

/// A tensor in a buffer of which it is a part, with NaN around it. It begins at an element that is no multiple of another `start`
/// where buffers may be bound from anywhere on.
fn place(engine: &Engine, values: &[f32], start: usize) -> Handle {
    let anywhere = !engine.client.name().starts_with("wgpu");
    let start = if anywhere { start } else { start * AROUND };
    let mut all = vec![f32::NAN; start];
    all.extend(values);
    all.resize(all.len() + AROUND, f32::NAN);
    let bytes = engine.storage.elem().size();
    let handle = engine.client.create_from_slice(&engine.storage.bytes(&all));
    handle
        .offset_start((start * bytes) as u64)
        .offset_end((AROUND * bytes) as u64)
}

/// A place for results, and the whole buffer around it.
fn unwritten(engine: &Engine, len: usize) -> (Handle, Handle) {
    let all = vec![f32::NAN; AROUND + len + AROUND];
    let bytes = (AROUND * engine.storage.elem().size()) as u64;
    let whole = engine.client.create_from_slice(&engine.storage.bytes(&all));
    let part = whole.clone().offset_start(bytes).offset_end(bytes);
    (part, whole)
}

/// What was written, and nothing else was.
fn written(engine: &Engine, whole: &Handle, len: usize) -> Result<Vec<f64>, String> {
    let all = engine.read_all(whole, engine.storage)?;
    let (values, around) = (
        &all[AROUND..AROUND + len],
        all[..AROUND].iter().chain(&all[AROUND + len..]),
    );
    ensure(around.clone().all(|x| x.is_nan()), || {
        "written around the result".to_owned()
    })?;
    Ok(values.to_vec())
}

fn product(
    engine: &Engine,
    [rows, inputs, outputs]: [usize; 3],
    order: MatrixOrder,
    start: usize,
    rng: &mut StdRng,
) -> Result<f64, String> {
    let x = draw(engine, rows * inputs, rng);
    let weights = draw(engine, inputs * outputs, rng);
    let [of_x, of_weights] = [&x, &weights].map(|values| place(engine, values, start));
    let product = RowProduct {
        rows,
        inputs,
        outputs,
        order,
    };
    let run = || {
        let (out, whole) = unwritten(engine, rows * outputs);
        let dtype = engine.storage.elem();
        let run = product.launch(&engine.client, dtype, &of_x, &of_weights, &out);
        run.map_err(|error| error.to_string())?;
        written(engine, &whole, rows * outputs)
    };
    let seen = run()?;
    ensure(seen == run()?, || {
        "another result at the second run".to_owned()
    })?;

    let mut worst = 0f64;
    for (at, seen) in seen.into_iter().enumerate() {
        let (row, output) = (at / outputs, at % outputs);
        let weight = |input: usize| match order {
            MatrixOrder::Rows => weights[input * outputs + output],
            MatrixOrder::Columns => weights[output * inputs + input],
        };
        let terms = (0..inputs).map(|n| f64::from(x[row * inputs + n]) * f64::from(weight(n)));
        let terms: Vec<f64> = terms.collect();
        let expected: f64 = terms.iter().sum();
        let size: f64 = terms.iter().map(|term| term.abs()).sum();
        let allowed = engine.rounding(expected) + terms.len() as f64 * EPSILON * size;
        worst = worst.max(held(seen, expected, allowed)?);
    }
    Ok(worst)
}

fn norm(
    engine: &Engine,
    [rows, width]: [usize; 2],
    centred: bool,
    rng: &mut StdRng,
) -> Result<f64, String> {
    let x = draw(engine, rows * width, rng);
    let weight = draw(engine, width, rng);
    let [of_x, of_weight] = [&x, &weight].map(|values| place(engine, values, 8));
    let epsilon = 1e-5;
    let norm = RowNorm {
        rows,
        width,
        epsilon,
        centred,
    };
    let (out, whole) = unwritten(engine, rows * width);
    let run = norm.launch(
        &engine.client,
        engine.storage.elem(),
        &of_x,
        &of_weight,
        &out,
    );
    run.map_err(|error| error.to_string())?;
    let seen = written(engine, &whole, rows * width)?;

    let mut worst = 0f64;
    for (row, seen) in seen.chunks_exact(width).enumerate() {
        let x: Vec<f64> = x[row * width..][..width]
            .iter()
            .map(|x| (*x).into())
            .collect();
        let mean = if centred {
            x.iter().sum::<f64>() / width as f64
        } else {
            0.0
        };
        let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        let scale = 1.0 / (square + epsilon).sqrt();
        for (n, seen) in seen.iter().enumerate() {
            let expected = (x[n] - mean) * scale * f64::from(weight[n]);
            // Sums of f32, and a mean that they miss by as much: many times where rows are nearly equal.
            let sums = (width as f64 + 8.0) * EPSILON;
            let allowed = engine.rounding(expected)
                + sums * expected.abs()
                + sums * scale * (1.0 + expected.abs());
            worst = worst.max(held(*seen, expected, allowed)?);
        }
    }
    Ok(worst)
}

/// The part of what is allowed that a difference takes.
fn held(seen: f64, expected: f64, allowed: f64) -> Result<f64, String> {
    let part = (seen - expected).abs() / allowed;
    ensure(part <= 1.0, || {
        format!("{seen:e}, not {expected:e} to {allowed:e}")
    })?;
    Ok(part)
}

/// What does not fit is refused.
fn refused(engine: &Engine) -> Result<(), String> {
    let handle = place(engine, &[0.0; 64], 0);
    let dtype = engine.storage.elem();
    let run = |rows: usize, inputs: usize, outputs: usize| {
        let product = RowProduct {
            rows,
            inputs,
            outputs,
            order: MatrixOrder::Rows,
        };
        product.launch(&engine.client, dtype, &handle, &handle, &handle)
    };
    let many = matches!(
        run(17, 1, 1),
        Err(CubeError::Count {
            seen: 17,
            accepted: 16,
            ..
        })
    );
    ensure(many, || "17 rows were not refused".to_owned())?;
    for (sizes, buffer) in [
        ([1, 65, 1], "x"),
        ([1, 8, 9], "weights"),
        ([16, 1, 5], "out"),
    ] {
        let [rows, inputs, outputs] = sizes;
        match run(rows, inputs, outputs) {
            Err(CubeError::Buffer { tensor, .. }) if tensor == buffer => {}
            other => {
                return Err(format!(
                    "{sizes:?}: {other:?}, not a buffer {buffer} too short"
                ));
            }
        }
    }
    run(0, 64, 1).map_err(|error| format!("no rows: {error}"))
}
