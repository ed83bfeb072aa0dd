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

use burn_s2_attention::PackedSequences;

use super::{DataOrder, Text};

/// Windows of bytes and, for every byte, the one that follows.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Bytes, `[batch, context]`.
    pub inputs: Tensor<2, Int>,
    /// Bytes that follow, `[batch, context]`.
    pub targets: Tensor<2, Int>,
    /// Where the windows are documents, not one text each.
    pub documents: Option<Documents>,
}

/// The documents of a batch, its windows one after the other.
#[derive(Clone, Debug)]
pub struct Documents {
    /// Parts of documents that lie in a window.
    pub parts: PackedSequences,
    /// Bytes whose next byte is of the same document, as places among all bytes of the batch: `[predicted]`.
    pub predicted: Tensor<1, Int>,
}

impl Batch {
    /// The windows of `context + 1` bytes of `text` that begin at `starts`, each of them one text.
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
            documents: None,
        }
    }

    /// [`Batch::new`] with the documents that the windows hold parts of. What follows a document is not predicted from it.
    ///
    /// # Panics
    ///
    /// If there are no windows.
    pub fn packed(text: &Text, starts: &[usize], context: usize, device: &Device) -> Self {
        let parts: Vec<usize> = starts
            .iter()
            .flat_map(|start| text.parts(*start, context))
            .collect();
        let bytes = starts.iter().flat_map(|start| start + 1..=start + context);
        let mut predicted: Vec<i64> = (0..)
            .zip(bytes)
            .filter(|(_, follows)| !text.begins_document(*follows))
            .map(|(place, _)| place)
            .collect();
        if predicted.is_empty() {
            // Documents of a byte each hold nothing to learn: then what follows them does.
            predicted = (0..(starts.len() * context) as i64).collect();
        }
        let count = predicted.len();
        Self {
            documents: Some(Documents {
                parts: PackedSequences::from_lengths(&parts).expect("a window"),
                predicted: Tensor::from_data(TensorData::new(predicted, [count]), device),
            }),
            ..Self::new(text, starts, context, device)
        }
    }

    /// Bytes that are predicted.
    pub fn predicted(&self) -> usize {
        match &self.documents {
            Some(documents) => documents.predicted.dims()[0],
            None => self.inputs.dims().iter().product(),
        }
    }
}

/// A data loader over windows of a text.
#[derive(Clone)]
pub struct WindowLoader {
    text: Text,
    context: usize,
    batch: usize,
    device: Device,
    windows: Windows,
    /// Whether batches know their documents.
    packed: bool,
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
        text: Text,
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
            packed: false,
            part,
        }
    }

    /// Delivers the windows that begin at `starts`, every time.
    pub fn validation(
        text: Text,
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
            packed: false,
            part,
        }
    }
}

impl WindowLoader {
    /// Says whether windows are documents ([`Batch::packed`]) or one text each.
    pub fn with_packed(self, packed: bool) -> Self {
        Self { packed, ..self }
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
            packed,
            ..
        } = self.loader;
        let batch = if *packed {
            Batch::packed(text, starts, *context, device)
        } else {
            Batch::new(text, starts, *context, device)
        };
        Some(Ok(batch))
    }
}

impl DataLoaderIterator<Batch> for Batches<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.delivered, self.starts.len(), Some("windows".into()))
    }
}
