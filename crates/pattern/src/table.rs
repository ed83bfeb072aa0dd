//! Rows and columns of one head as index lists, for what has no closed form.

use std::ops::Range;

/// The kept blocks of one head in compressed sparse rows (CSR) and columns (CSC), in absolute
/// blocks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlockTable {
    kv_blocks: usize,
    crow_indices: Vec<u32>,
    col_indices: Vec<u32>,
    ccol_indices: Vec<u32>,
    row_indices: Vec<u32>,
}

impl BlockTable {
    /// From the ascending key blocks of each row.
    pub(crate) fn from_rows(kv_blocks: usize, rows: impl Iterator<Item = Vec<u32>>) -> Self {
        let (mut crow_indices, mut col_indices) = (vec![0], Vec::new());
        for row in rows {
            col_indices.extend_from_slice(&row);
            crow_indices.push(col_indices.len() as u32);
        }
        let mut ccol_indices = vec![0u32; kv_blocks + 1];
        for &j in &col_indices {
            ccol_indices[j as usize + 1] += 1;
        }
        for j in 0..kv_blocks {
            ccol_indices[j + 1] += ccol_indices[j];
        }
        let mut next = ccol_indices.clone();
        let mut row_indices = vec![0u32; col_indices.len()];
        for (i, ends) in crow_indices.windows(2).enumerate() {
            for &j in &col_indices[ends[0] as usize..ends[1] as usize] {
                row_indices[next[j as usize] as usize] = i as u32;
                next[j as usize] += 1;
            }
        }
        Self {
            kv_blocks,
            crow_indices,
            col_indices,
            ccol_indices,
            row_indices,
        }
    }

    /// Query blocks (rows).
    pub fn q_blocks(&self) -> usize {
        self.crow_indices.len() - 1
    }

    /// Key blocks (columns).
    pub fn kv_blocks(&self) -> usize {
        self.kv_blocks
    }

    /// Where each row starts in [`col_indices`](Self::col_indices); `q_blocks + 1` entries.
    pub fn crow_indices(&self) -> &[u32] {
        &self.crow_indices
    }

    /// The kept key blocks, row after row, ascending in each.
    pub fn col_indices(&self) -> &[u32] {
        &self.col_indices
    }

    /// Where each column starts in [`row_indices`](Self::row_indices); `kv_blocks + 1` entries.
    pub fn ccol_indices(&self) -> &[u32] {
        &self.ccol_indices
    }

    /// The query blocks that keep each key block, column after column, ascending in each.
    pub fn row_indices(&self) -> &[u32] {
        &self.row_indices
    }

    /// Bytes of the four lists.
    pub fn bytes(&self) -> usize {
        let entries =
            self.crow_indices.len() + self.ccol_indices.len() + 2 * self.col_indices.len();
        entries * size_of::<u32>()
    }

    pub(crate) fn row(&self, i: usize, kv_blocks: &Range<usize>) -> &[u32] {
        clip(list(&self.crow_indices, &self.col_indices, i), kv_blocks)
    }

    pub(crate) fn column(&self, j: usize, q_blocks: &Range<usize>) -> &[u32] {
        clip(list(&self.ccol_indices, &self.row_indices, j), q_blocks)
    }
}

/// The `at`-th list; lists outside the table are empty.
fn list<'a>(starts: &[u32], entries: &'a [u32], at: usize) -> &'a [u32] {
    match (starts.get(at), starts.get(at + 1)) {
        (Some(&start), Some(&end)) => &entries[start as usize..end as usize],
        _ => &[],
    }
}

/// The entries of an ascending list that lie in `range`.
fn clip<'a>(list: &'a [u32], range: &Range<usize>) -> &'a [u32] {
    let start = list.partition_point(|&block| (block as usize) < range.start);
    let end = list.partition_point(|&block| (block as usize) < range.end);
    &list[start..end.max(start)]
}
