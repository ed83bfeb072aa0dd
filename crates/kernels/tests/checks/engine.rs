//! Runs the CubeCL engines on contiguous tensors, through views of any layout.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cubecl::client::Client;
use cubecl::prelude::*;
use cubecl::server::Handle;
use s2_attention_kernels::AttentionProblem;
use s2_attention_kernels::cube::{
    self, CubeAttention, DeviceTensor, ForwardOutputs, KeyGradients, SavedOutputs,
};

use super::storage::{Layout, Storage, start};
use super::support::{Results, Tensors, rows};

/// What runs the calls: a device, kernels, a layout and a storage type.
#[derive(Clone)]
pub struct Engine {
    pub client: Client,
    pub layout: Layout,
    pub storage: Storage,
    /// The kernels that must run; the library's choice where there are none.
    forced: Option<cube::Engine>,
    /// How the name of their tiles begins, where they can run the call.
    tiles: Option<String>,
    /// Calls by the kernels that ran them.
    ran: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// A tensor of the device with the sizes of its axes.
pub struct Placed {
    pub tensor: DeviceTensor,
    pub axes: [usize; 4],
}

impl Engine {
    /// f32 in Burn's own layout, on the kernels that the library chooses.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            layout: Layout::Bhsd,
            storage: Storage::F32,
            forced: None,
            tiles: None,
            ran: Arc::default(),
        }
    }

    /// The same device with these kernels.
    pub fn with_kernels(&self, kernels: cube::Engine) -> Self {
        Self {
            forced: Some(kernels),
            ..self.clone()
        }
    }

    /// The same device with tiles whose name begins like this, for calls that they can run.
    pub fn with_tiles(&self, tiles: &str) -> Self {
        Self {
            tiles: Some(tiles.to_owned()),
            ..self.clone()
        }
    }

    /// What can run a call, the one that does first.
    ///
    /// # Errors
    /// What the kernels do not take.
    pub fn candidates(&self, problem: &AttentionProblem) -> Result<Vec<cube::Choice>, String> {
        CubeAttention::candidates(&self.client, problem, self.storage.elem(), self.forced)
            .map_err(|error| error.to_string())
    }

    /// The kernels that must decode: those of tensor cores where four planes multiply together otherwise.
    pub fn decodes_by(&self) -> Option<cube::Engine> {
        match self.forced {
            Some(cube::Engine::Wgmma) => Some(cube::Engine::Mma),
            forced => forced,
        }
    }

    /// Counts a call of these kernels.
    pub fn count(&self, kernels: String) {
        let mut ran = self.ran.lock().unwrap_or_else(PoisonError::into_inner);
        *ran.entry(kernels).or_default() += 1;
    }

    /// Calls so far, by the kernels that ran them.
    pub fn ran(&self) -> BTreeMap<String, usize> {
        self.ran
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The same device with tensors of another layout.
    pub fn with_layout(&self, layout: Layout) -> Self {
        Self {
            layout,
            ..self.clone()
        }
    }

    /// The same device with tensors of another type.
    ///
    /// # Errors
    /// Why it does not compute in it.
    pub fn with_storage(&self, storage: Storage) -> Result<Self, String> {
        if !self.client.properties().supports_type(storage.elem()) {
            return Err("the device does not compute in it".to_owned());
        }
        if matches!(self.forced, Some(cube::Engine::Mma | cube::Engine::Wgmma))
            && storage == Storage::F32
        {
            return Err("it is not for the engine mma".to_owned());
        }
        Ok(Self {
            storage,
            ..self.clone()
        })
    }

    /// Checks a call and puts its tensors on the device.
    ///
    /// # Errors
    /// What the kernels do not take.
    pub fn call(&self, problem: &AttentionProblem, tensors: &Tensors) -> Result<Call, String> {
        let shape = *problem.shape();
        let problem = Arc::new(problem.clone());
        let dtype = self.storage.elem();
        let attention = match self.asked(&problem)? {
            Some(choice) => CubeAttention::with_tiles(&self.client, problem, dtype, &choice),
            None => CubeAttention::with_engine(&self.client, problem, dtype, self.forced),
        };
        let attention = attention.map_err(|error| error.to_string())?;
        let choice = attention.choice();
        let mut name = choice.engine.to_string();
        if self.tiles.is_some() {
            name = format!("{name} {}", choice.tiles());
        }
        self.count(name);
        let d_lse = match &tensors.d_lse {
            Some(d_lse) => self.floats(d_lse),
            None => self.floats(&vec![0.0; rows(&shape)]),
        };
        Ok(Call {
            attention,
            q: self.place(&tensors.q, shape.q_sizes()).tensor,
            k: self.place(&tensors.k, shape.k_sizes()).tensor,
            v: self.place(&tensors.v, shape.v_sizes()).tensor,
            d_out: self.place(&tensors.d_out, shape.out_sizes()).tensor,
            d_lse,
            engine: self.clone(),
        })
    }

    /// The tiles that are asked for, where they can run the call.
    fn asked(&self, problem: &AttentionProblem) -> Result<Option<cube::Choice>, String> {
        let Some(tiles) = &self.tiles else {
            return Ok(None);
        };
        let candidates = self.candidates(problem)?;
        Ok(candidates
            .into_iter()
            .find(|choice| choice.tiles().starts_with(tiles)))
    }

    /// Both passes of a call with all gradients.
    ///
    /// # Errors
    /// What the kernels do not take, and launches that fail.
    pub fn run(&self, problem: &AttentionProblem, tensors: &Tensors) -> Result<Results, String> {
        self.call(problem, tensors)?.run()
    }

    /// What lies between the rows is NaN.
    pub fn place(&self, values: &[f32], axes: [usize; 4]) -> Placed {
        let (strides, len) = self.layout.strides(axes);
        let mut data = vec![f32::NAN; len];
        for (row, values) in values.chunks_exact(axes[3]).enumerate() {
            data[start(row, axes, strides)..][..axes[3]].copy_from_slice(values);
        }
        let handle = self.client.create_from_slice(&self.storage.bytes(&data));
        Placed {
            tensor: DeviceTensor { handle, strides },
            axes,
        }
    }

    /// A tensor for results: NaN until it is written.
    pub fn unwritten(&self, axes: [usize; 4]) -> Placed {
        self.place(&vec![f32::NAN; axes.iter().product()], axes)
    }

    /// The contiguous values of the tensor that begins at element `at`. Nothing may have been written between its rows.
    ///
    /// # Errors
    /// Launches that failed, and what was written there.
    pub fn read(&self, handle: &Handle, at: usize, axes: [usize; 4]) -> Result<Vec<f64>, String> {
        let (strides, len) = self.layout.strides(axes);
        let all = &self.read_all(handle, self.storage)?[at..at + len];
        let rows = axes[0] * axes[1] * axes[2];
        let values: Vec<f64> = (0..rows)
            .flat_map(|row| all[start(row, axes, strides)..][..axes[3]].iter().copied())
            .collect();
        let nans = |values: &[f64]| values.iter().filter(|x| x.is_nan()).count();
        if nans(all) - nans(&values) == len - values.len() {
            Ok(values)
        } else {
            Err(format!("written between the rows of {axes:?}"))
        }
    }

    /// The values of a whole buffer.
    ///
    /// # Errors
    /// Launches that failed.
    pub fn read_all(&self, handle: &Handle, storage: Storage) -> Result<Vec<f64>, String> {
        let bytes = self.client.read_one(handle.clone());
        Ok(storage.values(&bytes.map_err(|error| format!("{error:?}"))?))
    }

    /// The most that rounding to the type of the tensors changes a value.
    pub fn rounding(&self, value: f64) -> f64 {
        let (digits, least) = match self.storage {
            Storage::F32 => (24, -149),
            Storage::F16 => (11, -24),
            Storage::BF16 => (8, -133),
        };
        // Half of the last digit; a value just below a power of two may be rounded as one above it.
        let value = value.abs() * (1.0 + f64::from(f32::EPSILON));
        (value * 2f64.powi(-digits)).max(2f64.powi(least - 1))
    }

    pub fn floats(&self, values: &[f32]) -> Handle {
        self.client.create_from_slice(f32::as_bytes(values))
    }
}

/// A call with its tensors on the device, to be run any number of times.
pub struct Call {
    pub attention: CubeAttention,
    pub q: DeviceTensor,
    pub k: DeviceTensor,
    pub v: DeviceTensor,
    pub d_out: DeviceTensor,
    pub d_lse: Handle,
    engine: Engine,
}

impl Call {
    /// Places for what the forward pass writes.
    pub fn outputs(&self) -> ForwardOutputs {
        let shape = self.attention.problem().shape();
        let out = || self.engine.unwritten(shape.out_sizes()).tensor;
        ForwardOutputs {
            out: out(),
            rounding: (self.engine.storage != Storage::F32).then(out),
            lse: self.engine.floats(&vec![f32::NAN; rows(shape)]),
        }
    }

    /// `out` and `lse`.
    ///
    /// # Errors
    /// What the kernels do not take, and launches that fail.
    pub fn forward(&self) -> Result<[Vec<f64>; 2], String> {
        let outputs = self.launch_forward()?;
        self.read_forward(&outputs)
    }

    /// Both passes with all gradients.
    ///
    /// # Errors
    /// What the kernels do not take, and launches that fail.
    pub fn run(&self) -> Result<Results, String> {
        let outputs = self.launch_forward()?;
        let [dq, dk, dv] = self
            .backward(&outputs, [true; 3])?
            .map(Option::unwrap_or_default);
        let [out, lse] = self.read_forward(&outputs)?;
        Ok(Results {
            out,
            lse,
            dq,
            dk,
            dv,
        })
    }

    /// The forward pass, left on the device.
    ///
    /// # Errors
    /// What the kernels do not take.
    pub fn launch_forward(&self) -> Result<ForwardOutputs, String> {
        let outputs = self.outputs();
        self.attention
            .forward(&self.q, &self.k, &self.v, &outputs)
            .map_err(|error| error.to_string())?;
        Ok(outputs)
    }

    /// Of dQ, dK and dV, those that are `wanted`.
    ///
    /// # Errors
    /// What the kernels do not take, and launches that fail.
    pub fn backward(
        &self,
        outputs: &ForwardOutputs,
        wanted: [bool; 3],
    ) -> Result<[Option<Vec<f64>>; 3], String> {
        let engine = &self.engine;
        let shape = self.attention.problem().shape();
        let saved = SavedOutputs {
            forward: outputs.clone(),
            d_out: self.d_out.clone(),
            d_lse: self.d_lse.clone(),
        };
        let dq = wanted[0].then(|| engine.unwritten(shape.q_sizes()));
        let (dk_strides, dk_len) = engine.layout.strides(shape.k_sizes());
        let (dv_strides, dv_len) = engine.layout.strides(shape.v_sizes());
        let dv_at = if wanted[1] {
            dk_len.next_multiple_of(8)
        } else {
            0
        };
        let keys = (wanted[1] || wanted[2]).then(|| {
            let nothing = engine.storage.bytes(&vec![f32::NAN; dv_at + dv_len]);
            KeyGradients {
                handle: engine.client.create_from_slice(&nothing),
                dk: wanted[1].then_some(dk_strides),
                dv: wanted[2].then_some((dv_at, dv_strides)),
            }
        });
        self.attention
            .backward(
                &self.q,
                &self.k,
                &self.v,
                &saved,
                dq.as_ref().map(|dq| &dq.tensor),
                keys.as_ref(),
            )
            .map_err(|error| error.to_string())?;
        let of_keys = |wanted: bool, at: usize, axes: [usize; 4]| {
            let keys = keys.as_ref().filter(|_| wanted);
            keys.map(|keys| engine.read(&keys.handle, at, axes))
                .transpose()
        };
        Ok([
            dq.map(|dq| engine.read(&dq.tensor.handle, 0, dq.axes))
                .transpose()?,
            of_keys(wanted[1], 0, shape.k_sizes())?,
            of_keys(wanted[2], dv_at, shape.v_sizes())?,
        ])
    }

    fn read_forward(&self, outputs: &ForwardOutputs) -> Result<[Vec<f64>; 2], String> {
        let sizes = self.attention.problem().shape().out_sizes();
        Ok([
            self.engine.read(&outputs.out.handle, 0, sizes)?,
            self.engine.read_all(&outputs.lse, Storage::F32)?,
        ])
    }
}
