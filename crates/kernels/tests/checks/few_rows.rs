//! Products of a few rows with a matrix, norms and rotary positions of rows, against f64.

use cubecl::prelude::*;
use cubecl::server::Handle;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use s2_attention_kernels::cube::{DeviceTensor, MatrixOrder, RowNorm, RowProduct, RowRotation};

use super::engine::Engine;
use super::storage::Storage;
use super::{Effort, ensure, in_types};

/// Rows, inputs and outputs, and elements between the rows or columns of the matrix: whole vectors and odd sizes, less than a cube's
/// shares, and several turns of them with a rest.
const PRODUCTS: [([usize; 3], usize); 11] = [
    ([1, 512, 96], 0),
    ([1, 4104, 24], 0),
    ([1, 2600, 300], 40),
    ([2, 40, 4100], 4),
    ([2, 5003, 17], 0),
    ([3, 333, 77], 3),
    ([5, 64, 1], 0),
    ([8, 2048, 40], 8),
    ([11, 1, 130], 0),
    ([16, 96, 300], 0),
    ([16, 700, 9], 1),
];
const NORMS: [[usize; 2]; 5] = [[1, 4096], [3, 64], [16, 1000], [5, 77], [2, 1]];
/// Rows, heads, and elements of a head.
const ROTATIONS: [[usize; 3]; 5] = [[1, 32, 128], [3, 2, 48], [40, 5, 20], [2, 3, 6], [7, 1, 2]];
/// Positions of a table.
const LIMIT: usize = 50;
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
    for (at, (sizes, between)) in PRODUCTS.into_iter().enumerate() {
        for order in [MatrixOrder::Columns, MatrixOrder::Rows] {
            let start = [8, 0, 2, 1][at % 4];
            let error = product(engine, sizes, order, between, start, rng)
                .map_err(|miss| format!("{sizes:?} {order:?}: {miss}"))?;
            worst = worst.max(error);
            products += 1;
        }
    }
    let mut norms = 0;
    for sizes in NORMS {
        let error = norm(engine, sizes, rng).map_err(|miss| format!("norm {sizes:?}: {miss}"))?;
        worst = worst.max(error);
        norms += 1;
    }
    for sizes in ROTATIONS {
        // Next to each other, and as the heads of a projection to more of them.
        for others in [0, 2] {
            let error = rotation(engine, sizes, others, rng)
                .map_err(|miss| format!("rotation {sizes:?} of {others} more: {miss}"))?;
            worst = worst.max(error);
        }
    }
    refused(engine)?;
    Ok(format!(
        "{products} products, {norms} norms and {} rotations, the worst at {worst:.2} of what rounding allows",
        2 * ROTATIONS.len()
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
    between: usize,
    start: usize,
    rng: &mut StdRng,
) -> Result<f64, String> {
    let (lines, length) = match order {
        MatrixOrder::Rows => (inputs, outputs),
        MatrixOrder::Columns => (outputs, inputs),
    };
    let pitch = length + between;
    // Sums of products of such numbers are exact in f32, and none of the products is nothing.
    let mut draw = |len: usize| -> Vec<f32> {
        let values = (0..len).map(|_| [-3.0, -1.0, 1.0, 3.0][rng.random_range(0..4)]);
        values.collect()
    };
    let x = draw(rows * inputs);
    let mut weights = draw(lines * pitch);
    for (at, weight) in weights.iter_mut().enumerate() {
        if at % pitch >= length {
            *weight = f32::NAN;
        }
    }
    let [of_x, of_weights] = [&x, &weights].map(|values| place(engine, values, start));
    let product = RowProduct {
        rows,
        inputs,
        outputs,
        order,
        pitch,
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
            MatrixOrder::Rows => weights[input * pitch + output],
            MatrixOrder::Columns => weights[output * pitch + input],
        };
        let terms = (0..inputs).map(|n| f64::from(x[row * inputs + n]) * f64::from(weight(n)));
        let expected: f64 = terms.sum();
        worst = worst.max(held(seen, expected, engine.rounding(expected))?);
    }
    Ok(worst)
}

fn norm(engine: &Engine, [rows, width]: [usize; 2], rng: &mut StdRng) -> Result<f64, String> {
    let x = draw(engine, rows * width, rng);
    let weight = draw(engine, width, rng);
    let [of_x, of_weight] = [&x, &weight].map(|values| place(engine, values, 8));
    let epsilon = 1e-5;
    let norm = RowNorm {
        rows,
        width,
        epsilon,
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
        let square = x.iter().map(|x| x.powi(2)).sum::<f64>() / width as f64;
        let scale = 1.0 / (square + epsilon).sqrt();
        for (n, seen) in seen.iter().enumerate() {
            let expected = x[n] * scale * f64::from(weight[n]);
            let sums = (width as f64 + 8.0) * EPSILON;
            let allowed = engine.rounding(expected) + sums * expected.abs();
            worst = worst.max(held(*seen, expected, allowed)?);
        }
    }
    Ok(worst)
}

fn rotation(
    engine: &Engine,
    [rows, heads, width]: [usize; 3],
    others: usize,
    rng: &mut StdRng,
) -> Result<f64, String> {
    let (row, half) = ((heads + others) * width, width / 2);
    let mut x = draw(engine, rows * row, rng);
    for (at, value) in x.iter_mut().enumerate() {
        if at % row >= heads * width {
            *value = f32::NAN;
        }
    }
    let mut table = || -> Vec<f32> {
        let values = (0..LIMIT * half).map(|_| rng.random_range(-1.0..1.0));
        values.collect()
    };
    let (cos, sin) = (table(), table());
    // Rows of no sequence have any position: they are not read beyond the table.
    let mut positions: Vec<i32> = (0..rows)
        .map(|_| rng.random_range(0..LIMIT as i32))
        .collect();
    if let [.., negative, far] = positions.as_mut_slice() {
        (*negative, *far) = (-1, i32::MAX);
    }
    let (out, whole) = unwritten(engine, rows * heads * width);
    let rotation = RowRotation {
        rows,
        heads,
        width,
        limit: LIMIT,
    };
    let of_x = DeviceTensor {
        handle: place(engine, &x, 8),
        strides: [0, width, row, 1],
    };
    let [of_cos, of_sin] = [&cos, &sin].map(|values| engine.floats(values));
    let of_positions = engine.client.create_from_slice(i32::as_bytes(&positions));
    let dtype = engine.storage.elem();
    let tables = [&of_cos, &of_sin];
    let run = rotation.launch(&engine.client, dtype, &of_x, tables, &of_positions, &out);
    run.map_err(|error| error.to_string())?;

    let mut worst = 0f64;
    for (at, seen) in written(engine, &whole, rows * heads * width)?
        .into_iter()
        .enumerate()
    {
        let (token, head, n) = (at / width / heads, at / width % heads, at % width);
        let pair = n % half;
        let position = positions[token].clamp(0, LIMIT as i32 - 1) as usize;
        let of = |n: usize| f64::from(x[token * row + head * width + n]);
        let [cos, sin] = [&cos, &sin].map(|table| f64::from(table[position * half + pair]));
        let (first, second) = (of(pair), of(pair + half));
        let terms = match n < half {
            true => [first * cos, -second * sin],
            false => [second * cos, first * sin],
        };
        let expected = terms[0] + terms[1];
        let sums = 2.0 * EPSILON * (terms[0].abs() + terms[1].abs());
        worst = worst.max(held(seen, expected, engine.rounding(expected) + sums)?);
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
    let (client, dtype) = (&engine.client, engine.storage.elem());
    let handle = place(engine, &[0.0; 64], 0);
    let product = |[rows, inputs, outputs]: [usize; 3], pitch: usize| {
        let product = RowProduct {
            rows,
            inputs,
            outputs,
            order: MatrixOrder::Rows,
            pitch,
        };
        product.launch(client, dtype, &handle, &handle, &handle)
    };
    let norm = |rows: usize, width: usize| {
        let norm = RowNorm {
            rows,
            width,
            epsilon: 1e-5,
        };
        norm.launch(client, dtype, &handle, &handle, &handle)
    };
    // Tables of 16 numbers in f32 at least.
    let rotation = |[rows, heads, width, limit]: [usize; 4], step: usize| {
        let rotation = RowRotation {
            rows,
            heads,
            width,
            limit,
        };
        let x = DeviceTensor {
            handle: handle.clone(),
            strides: [0, width, heads * width, step],
        };
        rotation.launch(client, dtype, &x, [&handle; 2], &handle, &handle)
    };
    let seen = [
        product([17, 1, 1], 1),
        product([1, 65, 1], 1),
        product([1, 8, 9], 9),
        product([1, 8, 4], 40),
        product([16, 1, 5], 5),
        product([1, 2, 4], 3),
        norm(1, 65),
        norm(3, 32),
        rotation([1, 1, 7, 1], 1),
        rotation([1, 1, 4, 0], 1),
        rotation([1, 1, 4, 1000], 1),
        rotation([4, 2, 16, 1], 1),
        rotation([1, 1, 4, 1], 2),
    ];
    let expected = [
        "rows of a product are 17; the GPU kernels count up to 16",
        "x ends at element 65 of its buffer, which holds 64",
        "weights ends at element 72 of its buffer, which holds 64",
        "weights ends at element 284 of its buffer, which holds 64",
        "out ends at element 80 of its buffer, which holds 64",
        "the rows or columns of weights begin 3 elements apart; accepted are 4 to",
        "x ends at element 65",
        "x ends at element 96",
        "head_dim is 7",
        "a table of 0 positions has none for 1 rows",
        "cosines ends at element 2000",
        "out ends at element 128",
        "the strides of x are [0, 4, 4, 2]",
    ];
    for (seen, expected) in seen.into_iter().zip(expected) {
        match seen {
            Err(error) if error.to_string().starts_with(expected) => {}
            other => return Err(format!("{other:?}, not: {expected}")),
        }
    }
    for nothing in [
        product([0, 64, 1], 1),
        norm(0, 64),
        rotation([0, 1, 4, 0], 1),
    ] {
        nothing.map_err(|error| format!("no rows: {error}"))?;
    }
    Ok(())
}
