//! Runs the CPU engine on contiguous tensors, through views of any layout.

use s2_attention_kernels::AttentionProblem;
use s2_attention_kernels::cpu::{self, Gradients, Real, Rows, RowsMut, Saved};

use crate::support::{Results, Tensors, rows};

/// How the engine sees a `[b, h, s, width]` tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[b, h, s, width]`.
    Bhsd,
    /// `[b, s, h, width]`.
    Bshd,
    /// `[b, s, h, width + 5]`, as a slice of something wider.
    Sliced,
}

impl Layout {
    pub const ALL: [Layout; 3] = [Layout::Bhsd, Layout::Bshd, Layout::Sliced];

    /// The strides of batch, head and token, and the elements of the whole.
    fn strides(self, [batch, heads, seq, width]: [usize; 4]) -> ([usize; 3], usize) {
        let row = if self == Layout::Sliced {
            width + 5
        } else {
            width
        };
        let head_and_token = match self {
            Layout::Bhsd => [seq * row, row],
            Layout::Bshd | Layout::Sliced => [row, heads * row],
        };
        let item = heads * seq * row;
        ([item, head_and_token[0], head_and_token[1]], batch * item)
    }
}

/// A tensor in the engine's element type and some layout. What lies between its rows is NaN.
struct Tensor<F> {
    data: Vec<F>,
    strides: [usize; 3],
    axes: [usize; 4],
}

impl<F: Real> Tensor<F> {
    /// A tensor yet to be written.
    fn unwritten(axes: [usize; 4], layout: Layout) -> Self {
        let (strides, len) = layout.strides(axes);
        Self {
            data: vec![F::from_f64(f64::NAN); len],
            strides,
            axes,
        }
    }

    fn new<T: Into<f64> + Copy>(values: &[T], axes: [usize; 4], layout: Layout) -> Self {
        let mut tensor = Self::unwritten(axes, layout);
        assert_eq!(values.len(), axes.iter().product::<usize>());
        for (row, values) in values.chunks_exact(axes[3]).enumerate() {
            let start = tensor.start(row);
            for (target, &value) in tensor.data[start..].iter_mut().zip(values) {
                *target = F::from_f64(value.into());
            }
        }
        tensor
    }

    /// Where the `row`-th row of the contiguous tensor starts.
    fn start(&self, row: usize) -> usize {
        let [_, heads, seq, _] = self.axes;
        let (item, head, token) = (row / (heads * seq), row / seq % heads, row % seq);
        item * self.strides[0] + head * self.strides[1] + token * self.strides[2]
    }

    /// The contiguous values. Nothing may have been written between the rows.
    fn values(&self) -> Vec<f64> {
        let [batch, heads, seq, width] = self.axes;
        let row = |row: usize| {
            self.data[self.start(row)..][..width]
                .iter()
                .map(|x| x.to_f64())
        };
        let values: Vec<f64> = (0..batch * heads * seq).flat_map(row).collect();
        let gaps = self.data.len() - values.len();
        let unwritten = |values: &[f64]| values.iter().filter(|x| x.is_nan()).count();
        let all: Vec<f64> = self.data.iter().map(|x| x.to_f64()).collect();
        assert_eq!(
            unwritten(&all) - unwritten(&values),
            gaps,
            "written between the rows"
        );
        values
    }

    fn view(&self) -> Rows<'_, F> {
        Rows::new(&self.data, self.strides)
    }

    fn view_mut(&mut self) -> RowsMut<'_, F> {
        RowsMut::new(&mut self.data, self.strides)
    }
}

/// The axes of `q`, `k`, `v` and `out`.
fn axes(problem: &AttentionProblem) -> [[usize; 4]; 4] {
    let shape = problem.shape();
    [
        shape.q_sizes(),
        shape.k_sizes(),
        shape.v_sizes(),
        shape.out_sizes(),
    ]
}

/// The forward pass: `out` and `lse`.
pub fn forward<F: Real>(
    problem: &AttentionProblem,
    tensors: &Tensors,
    layout: Layout,
) -> (Vec<f64>, Vec<f64>) {
    let [q_axes, k_axes, v_axes, out_axes] = axes(problem);
    let q = Tensor::<F>::new(&tensors.q, q_axes, layout);
    let k = Tensor::<F>::new(&tensors.k, k_axes, layout);
    let v = Tensor::<F>::new(&tensors.v, v_axes, layout);
    let mut out = Tensor::<F>::unwritten(out_axes, layout);
    let mut lse = vec![F::from_f64(f64::NAN); rows(problem.shape())];
    cpu::forward(
        problem,
        q.view(),
        k.view(),
        v.view(),
        out.view_mut(),
        &mut lse,
    );
    (out.values(), lse.into_iter().map(F::to_f64).collect())
}

/// The backward pass: `dq`, `dk` and `dv`, those that are `wanted`.
pub fn backward<F: Real>(
    problem: &AttentionProblem,
    tensors: &Tensors,
    (out, lse): &(Vec<f64>, Vec<f64>),
    layout: Layout,
    wanted: [bool; 3],
) -> [Option<Vec<f64>>; 3] {
    let [q_axes, k_axes, v_axes, out_axes] = axes(problem);
    let q = Tensor::<F>::new(&tensors.q, q_axes, layout);
    let k = Tensor::<F>::new(&tensors.k, k_axes, layout);
    let v = Tensor::<F>::new(&tensors.v, v_axes, layout);
    let out = Tensor::<F>::new(out, out_axes, layout);
    let d_out = Tensor::<F>::new(&tensors.d_out, out_axes, layout);
    let mut gradients = [q_axes, k_axes, v_axes].map(|axes| Tensor::<F>::unwritten(axes, layout));
    let [dq, dk, dv] = &mut gradients;
    let lse: Vec<F> = lse.iter().copied().map(F::from_f64).collect();
    let d_lse: Option<Vec<F>> = tensors
        .d_lse
        .as_ref()
        .map(|d_lse| d_lse.iter().map(|&x| F::from_f64(x.into())).collect());
    let saved = Saved {
        q: q.view(),
        k: k.view(),
        v: v.view(),
        out: out.view(),
        lse: &lse,
        d_out: d_out.view(),
        d_lse: d_lse.as_deref(),
    };
    let targets = Gradients {
        dq: wanted[0].then(|| dq.view_mut()),
        dk: wanted[1].then(|| dk.view_mut()),
        dv: wanted[2].then(|| dv.view_mut()),
    };
    cpu::backward(problem, saved, targets);
    let mut wanted = wanted.into_iter();
    gradients.map(|gradient| wanted.next().unwrap().then(|| gradient.values()))
}

/// Both passes and all gradients.
pub fn run<F: Real>(problem: &AttentionProblem, tensors: &Tensors, layout: Layout) -> Results {
    let forward = forward::<F>(problem, tensors, layout);
    let gradients = backward::<F>(problem, tensors, &forward, layout, [true; 3]);
    let [dq, dk, dv] = gradients.map(Option::unwrap);
    let (out, lse) = forward;
    Results {
        out,
        lse,
        dq,
        dk,
        dv,
    }
}
