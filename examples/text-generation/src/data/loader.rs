//! Batches of windows, as Burn's `Learner` asks for them.
//!
//! Burn's own loaders shuffle with a generator that starts anew in a resumed process, and deliver
//! in the order in which worker threads finish. This one is a function of the interval number.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use burn::{
    data::{
        dataloader::{DataLoader, DataLoaderIterator, Progress},
        dataset::DatasetError,
    },
    tensor::{Device, Int, Tensor, TensorData},
};

use super::DataOrder;

/// Windows of bytes and, for every byte, the one that follows.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Bytes, `[batch, context]`.
    pub inputs: Tensor<2, Int>,
    /// Bytes that follow, `[batch, context]`.
    pub targets: Tensor<2, Int>,
}

impl Batch {
    /// The windows of `context + 1` bytes of `text` that begin at `starts`.
    pub fn new(text: &[u8], starts: &[usize], context: usize, device: &Device) -> Self {
        let tensor = |shift: usize| {
            let bytes: Vec<i32> = starts
                .iter()
                .flat_map(|&start| &text[start + shift..start + shift + context])
                .map(|&byte| byte.into())
                .collect();
            Tensor::from_data(TensorData::new(bytes, [starts.len(), context]), device)
        };
        Self {
            inputs: tensor(0),
            targets: tensor(1),
        }
    }
}

/// A data loader over windows of a text.
#[derive(Clone)]
pub struct WindowLoader {
    text: Arc<[u8]>,
    context: usize,
    batch: usize,
    device: Device,
    windows: Windows,
    /// The part of an interval this loader delivers, in windows.
    part: Range<usize>,
}

#[derive(Clone)]
enum Windows {
    /// The same ones every time.
    Fixed(Vec<usize>),
    /// The next interval's.
    Ordered {
        order: DataOrder,
        /// In an interval, and in all intervals together.
        per_interval: usize,
        total: usize,
        interval: Arc<AtomicUsize>,
    },
}

impl WindowLoader {
    /// Delivers, each time it is iterated, the `per_interval` windows of the next interval; first
    /// those of interval `interval` (counted from 0). After `total` windows there are no more: the
    /// last interval may be shorter.
    pub fn training(
        text: Arc<[u8]>,
        order: DataOrder,
        batch: usize,
        per_interval: usize,
        total: usize,
        interval: usize,
        device: &Device,
    ) -> Self {
        let interval = Arc::new(AtomicUsize::new(interval));
        let context = order.context();
        let windows = Windows::Ordered {
            order,
            per_interval,
            total,
            interval,
        };
        let part = 0..per_interval;
        Self {
            text,
            context,
            batch,
            device: device.clone(),
            windows,
            part,
        }
    }

    /// Delivers the windows that begin at `starts`, every time.
    pub fn validation(
        text: Arc<[u8]>,
        starts: Vec<usize>,
        context: usize,
        batch: usize,
        device: &Device,
    ) -> Self {
        let part = 0..starts.len();
        let windows = Windows::Fixed(starts);
        Self {
            text,
            context,
            batch,
            device: device.clone(),
            windows,
            part,
        }
    }
}

impl DataLoader<Batch> for WindowLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let starts = match &self.windows {
            Windows::Fixed(starts) => starts.clone(),
            Windows::Ordered {
                order,
                per_interval,
                total,
                interval,
            } => {
                // The learner iterates once per interval.
                let first = interval.fetch_add(1, Ordering::Relaxed) * per_interval;
                order.take(first, total.saturating_sub(first).min(*per_interval))
            }
        };
        let Range { start, end } = self.part;
        let starts = starts[start.min(starts.len())..end.min(starts.len())].to_vec();
        Box::new(Batches {
            loader: self,
            starts,
            delivered: 0,
        })
    }

    fn num_items(&self) -> usize {
        self.part.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        let mut slice = self.clone();
        slice.part = self.part.start + start..self.part.start + end;
        if let Windows::Ordered { interval, .. } = &mut slice.windows {
            // Each slice is iterated once per interval and counts for itself.
            *interval = Arc::new(AtomicUsize::new(interval.load(Ordering::Relaxed)));
        }
        Arc::new(slice)
    }
}

struct Batches<'a> {
    loader: &'a WindowLoader,
    starts: Vec<usize>,
    delivered: usize,
}

impl Iterator for Batches<'_> {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.starts[self.delivered..];
        if rest.is_empty() {
            return None;
        }
        let starts = &rest[..self.loader.batch.min(rest.len())];
        self.delivered += starts.len();
        let WindowLoader {
            text,
            context,
            device,
            ..
        } = self.loader;
        Some(Ok(Batch::new(text, starts, *context, device)))
    }
}

impl DataLoaderIterator<Batch> for Batches<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.delivered, self.starts.len(), Some("windows".into()))
    }
}
