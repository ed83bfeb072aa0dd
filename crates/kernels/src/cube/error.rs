//! What a device cannot run, found before anything is launched.

use thiserror::Error;

use super::select::Engine;

/// A call that a device cannot run. Every message names the values seen and what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CubeError {
    /// The scale is beyond f32.
    #[error(
        "scale is {seen}; the GPU kernels take a scale whose product with log2(e) is finite in f32"
    )]
    Scale {
        /// The scale.
        seen: String,
    },
    /// The device has no arithmetic in this type.
    #[error("{device} does not compute in {dtype}; accepted: {accepted}")]
    DType {
        /// The runtime's name.
        device: String,
        /// The type of the tensors.
        dtype: String,
        /// The types that it computes in.
        accepted: String,
    },
    /// A head has a size that no kernel is made for.
    #[error("{axis} is {seen}; the GPU kernels take multiples of 8 from 8 to 256")]
    HeadDim {
        /// `head_dim` or `value_dim`.
        axis: &'static str,
        /// Its size.
        seen: usize,
    },
    /// A row of a tensor does not begin where a vector may.
    #[error(
        "the strides of {tensor} are {seen:?} elements; the last must be 1 and the others multiples of {accepted} \
         (make it contiguous)"
    )]
    Strides {
        /// The tensor's name.
        tensor: &'static str,
        /// Its strides: batch, head, token, element.
        seen: [usize; 4],
        /// Elements of a vector.
        accepted: usize,
    },
    /// Rows or columns of a matrix that overlap, or that lie further apart than kernels count.
    #[error(
        "the rows or columns of weights begin {seen} elements apart; accepted are {accepted} to 2^31 - 1"
    )]
    Pitch {
        /// Elements from one to the next.
        seen: usize,
        /// Elements of each.
        accepted: usize,
    },
    /// A head without a partner for each of its elements.
    #[error("head_dim is {seen}; rotary positions turn pairs of elements: even sizes are accepted")]
    OddWidth {
        /// Its elements.
        seen: usize,
    },
    /// A table of rotary positions without any.
    #[error("a table of 0 positions has none for {rows} rows")]
    EmptyTable {
        /// Rows that need a position.
        rows: usize,
    },
    /// A tensor does not begin where a vector may.
    #[error(
        "{tensor} begins {seen} bytes into its buffer; accepted are multiples of {accepted} (make it contiguous)"
    )]
    Offset {
        /// The tensor's name.
        tensor: &'static str,
        /// Bytes before its first element.
        seen: u64,
        /// Bytes of a vector.
        accepted: u64,
    },
    /// A tensor that is written shares elements.
    #[error(
        "{tensor} with the strides {seen:?} overlaps with {with}; what is written needs a place for each element"
    )]
    Overlap {
        /// The tensor's name.
        tensor: &'static str,
        /// Its strides: batch, head, token, element.
        seen: [usize; 4],
        /// What it shares elements with.
        with: String,
    },
    /// A buffer ends before its tensor.
    #[error("{tensor} ends at element {needed} of its buffer, which holds {seen}")]
    Buffer {
        /// The tensor's name.
        tensor: &'static str,
        /// Elements of the buffer.
        seen: usize,
        /// Elements that shape and strides reach.
        needed: usize,
    },
    /// Positions reach further than kernels count.
    #[error("positions reach {seen} tokens; the GPU kernels count up to {accepted}")]
    Position {
        /// The largest position.
        seen: usize,
        /// The largest that is accepted.
        accepted: usize,
    },
    /// More query rows than kernels count.
    #[error(
        "batch * num_heads * seq_q is {seen} rows; the GPU kernels count up to {accepted} (split the batch)"
    )]
    Rows {
        /// Rows of the call.
        seen: usize,
        /// The most that are accepted.
        accepted: usize,
    },
    /// More of something than kernels count.
    #[error("{what} are {seen}; the GPU kernels count up to {accepted}")]
    Count {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        seen: usize,
        /// The most that are accepted.
        accepted: usize,
    },
    /// A step has no such item.
    #[error("item {seen} of a step of {accepted} items")]
    Item {
        /// The item.
        seen: usize,
        /// Items of the step.
        accepted: usize,
    },
    /// What kernels need to know of pattern and positions does not fit a buffer.
    #[error(
        "the pattern takes more than {accepted} bytes on {device}, {seen} at least: masks of many blocks are stored \
         whole (use larger blocks, or a named pattern)"
    )]
    Index {
        /// The runtime's name.
        device: String,
        /// Bytes that are needed, as far as they were counted.
        seen: usize,
        /// The most bytes that the device binds, and that kernels can count.
        accepted: usize,
    },
    /// The grid does not fit.
    #[error("the call takes {seen} cubes; {device} launches up to {accepted} at once")]
    Grid {
        /// The runtime's name.
        device: String,
        /// Cubes of the call.
        seen: usize,
        /// Cubes that the device takes.
        accepted: usize,
    },
    /// An engine was asked for that does not run the call.
    #[error("{device} cannot run the engine `{engine}`: {why}")]
    Engine {
        /// The engine.
        engine: Engine,
        /// The runtime's name.
        device: String,
        /// What is missing.
        why: String,
    },
    /// A variable of the environment that says nothing.
    #[error("{name} is {seen:?}; accepted: {accepted}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// Its value.
        seen: String,
        /// Values that say something.
        accepted: &'static str,
    },
    /// Tiles of another device, or of another call.
    #[error("tiles of {seen} do not run this call; accepted: {}", accepted.join(", "))]
    Tiles {
        /// The sizes of the tiles.
        seen: String,
        /// Those that do.
        accepted: Vec<String>,
    },
    /// A kernel needs more of the device than there is.
    #[error("kernel `{kernel}` needs {needed} {what}; {device} has {seen}")]
    Resource {
        /// The kernel.
        kernel: &'static str,
        /// What there is too little of.
        what: &'static str,
        /// How much the kernel needs.
        needed: usize,
        /// How much the device has.
        seen: usize,
        /// The runtime's name.
        device: String,
    },
    /// A kernel could not be compiled or launched, or an input of it was never written.
    #[error("kernel `{kernel}` of the engine `{engine}` did not run on {device}: {message}")]
    Launch {
        /// The kernel.
        kernel: &'static str,
        /// Its engine.
        engine: Engine,
        /// The runtime's name.
        device: String,
        /// What CubeCL says.
        message: String,
    },
}
