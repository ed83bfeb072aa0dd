//! Layers that share a pattern: one table for all of them.

use burn::tensor::{Device, Int, Tensor};
use s2_attention_kernels::cache::{Append, BlockTables, CacheError, Step, StepKind, TableLayout};

use super::words::DeviceWords;

/// The tables of the layers with one pattern, on the host and on the device.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) tables: BlockTables,
    /// The step that the device's tables are of.
    step: Option<Step>,
    /// All items.
    all: DeviceWords,
    /// The items that are decoded, where others are not.
    decoded: DeviceWords,
}

/// A table of the present step.
pub(super) struct Table {
    pub(super) words: Tensor<1, Int>,
    pub(super) sizes: TableSizes,
}

/// What a call takes from the table of its step.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableSizes {
    /// Where the words lie.
    pub(super) layout: TableLayout,
    /// New tokens of the longest item of the step that is decoded.
    pub(super) decode_tokens: usize,
    /// The longest sequence, in tokens.
    pub(super) max_tokens: usize,
}

impl Group {
    pub(super) fn new(tables: BlockTables) -> Self {
        Self {
            tables,
            step: None,
            all: DeviceWords::default(),
            decoded: DeviceWords::default(),
        }
    }

    /// Allocates the tables of steps of up to `sequences` sequences.
    pub(super) fn reserve(&mut self, sequences: usize, device: &Device) {
        let words = self.layout(sequences).len();
        self.all.write(vec![0; words], device);
        self.decoded.write(vec![0; words], device);
    }

    /// Finds pages for new tokens, and sends the tables.
    pub(super) fn begin(
        &mut self,
        appends: &[Append],
        device: &Device,
    ) -> Result<&Step, CacheError> {
        let step = self.tables.begin(appends)?;
        // Most tokens neither fill a block nor begin one: only lengths change then.
        match &self.step {
            Some(last) if step.same_lists(last) => self.all.write(step.item_words(), device),
            _ => self.all.write(step.words(), device),
        }
        let decoded = step.items_of(StepKind::Decode);
        if !decoded.is_empty() && decoded.len() < step.items().len() {
            self.decoded.write(step.words_of(&decoded), device);
        }
        Ok(self.step.insert(step))
    }

    /// Frees what no later token attends.
    pub(super) fn commit(&mut self) {
        if let Some(step) = &self.step {
            self.tables.commit(step);
        }
    }

    /// The table of all items of the present step.
    pub(super) fn all(&self) -> Option<Table> {
        let step = self.step.as_ref()?;
        Some(Table {
            words: self.all.tensor()?,
            sizes: self.sizes(step.items().len(), step.decode_tokens()),
        })
    }

    /// The table of the items that are decoded.
    pub(super) fn decoded(&self) -> Option<Table> {
        let step = self.step.as_ref()?;
        let decoded = step.items_of(StepKind::Decode).len();
        if decoded == step.items().len() {
            return self.all();
        }
        Some(Table {
            words: self.decoded.tensor()?,
            sizes: self.sizes(decoded, step.decode_tokens()),
        })
    }

    /// The sizes of a table of `items` items, of which the longest one that is decoded has so many new tokens.
    pub(super) fn sizes(&self, items: usize, decode_tokens: usize) -> TableSizes {
        TableSizes {
            layout: self.layout(items),
            decode_tokens,
            max_tokens: self.tables.limits().max_tokens,
        }
    }

    /// What is on the device.
    #[cfg(all(test, feature = "flex"))]
    pub(super) fn words(&self) -> [&DeviceWords; 2] {
        [&self.all, &self.decoded]
    }

    /// Words of the table of one sequence, in bytes.
    pub(super) fn sequence_table_bytes(&self) -> usize {
        self.layout(1).len() * size_of::<i32>()
    }

    fn layout(&self, items: usize) -> TableLayout {
        TableLayout {
            items,
            kv_heads: self.tables.pattern().num_kv_heads(),
            capacity: self.tables.capacity(),
        }
    }

    /// Bytes of the tables on the device.
    pub(super) fn table_bytes(&self) -> usize {
        self.all.bytes() + self.decoded.bytes()
    }

    /// Pages that `sequences` of the longest length hold at most, steps included.
    pub(super) fn most_pages(&self, sequences: usize) -> usize {
        let tables = &self.tables;
        let of_one = if tables.evicts() {
            tables.capacity() * tables.pattern().num_kv_heads()
        } else {
            tables.full_pages(tables.limits().max_tokens)
        };
        sequences.saturating_mul(of_one)
    }
}
