//! How tensors lie in memory: layouts and types.

use cubecl::ir::{ElemType, FloatKind};
use half::{bf16, f16};

/// How an engine sees a `[b, h, s, width]` tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[b, h, s, width]`.
    Bhsd,
    /// `[b, s, h, width]`.
    Bshd,
    /// `[b, s, h, width + 8]`, as a slice of something wider.
    Sliced,
}

impl Layout {
    pub const ALL: [Layout; 3] = [Layout::Bhsd, Layout::Bshd, Layout::Sliced];

    /// The strides and the elements of the whole, of a tensor of those sizes.
    pub fn strides(self, [batch, heads, seq, width]: [usize; 4]) -> ([usize; 4], usize) {
        let row = if self == Layout::Sliced {
            width + 8
        } else {
            width
        };
        let head_and_token = match self {
            Layout::Bhsd => [seq * row, row],
            Layout::Bshd | Layout::Sliced => [row, heads * row],
        };
        let item = heads * seq * row;
        // Of an axis of one element any stride is as good.
        let step = |stride: usize, size: usize| {
            if self == Layout::Sliced && size == 1 {
                usize::MAX & !7
            } else {
                stride
            }
        };
        let [head, token] = head_and_token;
        (
            [step(item, batch), step(head, heads), step(token, seq), 1],
            batch * item,
        )
    }
}

/// Storage types of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    F32,
    F16,
    BF16,
}

impl Storage {
    pub const ALL: [Storage; 3] = [Storage::F32, Storage::F16, Storage::BF16];
    pub const HALVES: [Storage; 2] = [Storage::F16, Storage::BF16];

    pub fn elem(self) -> ElemType {
        ElemType::Float(match self {
            Storage::F32 => FloatKind::F32,
            Storage::F16 => FloatKind::F16,
            Storage::BF16 => FloatKind::BF16,
        })
    }

    /// Rounds to the type and back.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Storage::F32 => value,
            Storage::F16 => f16::from_f32(value).to_f32(),
            Storage::BF16 => bf16::from_f32(value).to_f32(),
        }
    }

    /// The values in the type.
    pub fn bytes(self, values: &[f32]) -> Vec<u8> {
        match self {
            Storage::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Storage::F16 => values
                .iter()
                .flat_map(|x| f16::from_f32(*x).to_le_bytes())
                .collect(),
            Storage::BF16 => values
                .iter()
                .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
                .collect(),
        }
    }

    /// What [`Storage::bytes`] gave.
    pub fn values(self, bytes: &[u8]) -> Vec<f64> {
        let two =
            |of: fn([u8; 2]) -> f64| bytes.chunks_exact(2).map(|x| of([x[0], x[1]])).collect();
        match self {
            Storage::F32 => bytes
                .chunks_exact(4)
                .map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]]).into())
                .collect(),
            Storage::F16 => two(|x| f16::from_le_bytes(x).to_f64()),
            Storage::BF16 => two(|x| bf16::from_le_bytes(x).to_f64()),
        }
    }
}

/// Where the `row`-th row of the contiguous tensor starts.
pub fn start(row: usize, [_, heads, seq, _]: [usize; 4], strides: [usize; 4]) -> usize {
    let (item, head, token) = (row / (heads * seq), row / seq % heads, row % seq);
    item * strides[0] + head * strides[1] + token * strides[2]
}
