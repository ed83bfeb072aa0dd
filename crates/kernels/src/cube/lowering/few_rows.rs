//! Products, norms and rotary positions of a few rows.

use super::devices::{Device, cuda, hip, metal};
use super::kernels::{norm, products, rotation};
use super::{BF16, F16, F32, lowered};
use crate::cube::few_rows::product::SHARED_BYTES;

fn lower(devices: &[Device]) {
    for (turn, dtype) in [F32, F16, BF16].into_iter().enumerate() {
        for (at, (most, lanes)) in [(1, 8), (2, 8), (16, 8), (8, 8), (4, 8), (4, 1)]
            .into_iter()
            .enumerate()
        {
            let device = &devices[(at + turn) % devices.len()];
            let lanes = lanes.min(16 / dtype.size());
            for (kernel, order) in products(device, most, lanes, dtype)
                .into_iter()
                .zip(["columns", "rows"])
            {
                let name = format!("product-by-{order}-{dtype:?}-{most}-{lanes}");
                let kernel = lowered(device, &name, &*kernel, &[2]);
                assert!(kernel.shared_memory_size <= SHARED_BYTES, "{name}");
            }
            let name = format!("norm-{dtype:?}-{lanes}");
            let kernel = norm(device, lanes, dtype);
            lowered(device, &name, &*kernel, &[2]);
            let name = format!("rotation-{dtype:?}-{lanes}");
            let kernel = rotation(device, lanes, dtype);
            lowered(device, &name, &*kernel, &[4]);
        }
    }
}

#[test]
fn few_rows_lower_for_cuda() {
    lower(&[cuda()]);
}

#[test]
fn few_rows_lower_for_hip() {
    lower(&hip());
}

#[test]
fn few_rows_lower_for_metal() {
    lower(&[metal()]);
}
