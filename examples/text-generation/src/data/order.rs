//! Which windows of the text are read, and when.

use rand::{SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};

/// The order in which training windows are read, a function of the seed and the pass alone.
///
/// A pass reads every window of the text once, in its own random order and from its own offset, so
/// that the windows of two passes begin in different places. Nothing is carried from step to step:
/// the windows of step `n` are the same whether or not training was interrupted before it.
#[derive(Clone, Copy, Debug)]
pub struct DataOrder {
    seed: u64,
    context: usize,
    windows: usize,
}

impl DataOrder {
    /// The order over a text of `bytes`, cut in windows of `context` (and one) bytes.
    ///
    /// # Panics
    ///
    /// If the text is shorter than two windows.
    pub fn new(seed: u64, bytes: usize, context: usize) -> Self {
        assert!(
            bytes >= 2 * context,
            "{bytes} bytes are less than two windows of {context}"
        );
        // One window less than fit: the offset of a pass takes up to `context - 1` bytes, and the
        // last target is one byte further.
        Self {
            seed,
            context,
            windows: (bytes - context) / context,
        }
    }

    /// Bytes of a window that are predicted from.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Windows in one pass.
    pub fn windows(&self) -> usize {
        self.windows
    }

    /// First bytes of all windows of a pass, in order.
    pub fn pass(&self, pass: u64) -> Vec<usize> {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..16].copy_from_slice(&pass.to_le_bytes());
        // ChaCha8 gives the same numbers on every platform and in every version of `rand`.
        let mut rng = ChaCha8Rng::from_seed(key);
        let offset = rand::RngExt::random_range(&mut rng, 0..self.context);
        let mut starts: Vec<usize> = (0..self.windows)
            .map(|w| offset + w * self.context)
            .collect();
        starts.shuffle(&mut rng);
        starts
    }

    /// First bytes of `count` windows, from the `first` one ever read.
    pub fn take(&self, first: usize, count: usize) -> Vec<usize> {
        let mut starts = Vec::with_capacity(count);
        while starts.len() < count {
            let next = first + starts.len();
            let pass = self.pass((next / self.windows) as u64);
            let rest = &pass[next % self.windows..];
            starts.extend(&rest[..rest.len().min(count - starts.len())]);
        }
        starts
    }
}

/// First bytes of up to `count` windows spread evenly over a text, none overlapping: always a
/// whole number of batches, so that every batch weighs the same in a mean.
pub fn even_windows(bytes: usize, context: usize, count: usize, batch: usize) -> Vec<usize> {
    let fit = bytes.saturating_sub(1) / context;
    let count = count.min(fit) / batch * batch;
    (0..count)
        .map(|window| window * fit / count * context)
        .collect()
}
