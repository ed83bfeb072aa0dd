//! Which tile of which sequence a cube owns.
//!
//! Where all sequences have as many tiles, the number of the cube says it. Documents of different lengths take a list of their
//! tiles, so that no cube is launched in vain and the heaviest tiles are the first.

use cubecl::prelude::*;

/// The tiles that the cubes of a grid own, for each head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Places {
    /// Each sequence has as many: the first of all sequences, then the second of all, and so on.
    Even(usize),
    /// Sequence and number of each tile.
    Listed(Vec<[usize; 2]>),
}

impl Places {
    /// The places of `counts` tiles, those of each sequence. The first tile of a sequence is its heaviest, about as heavy as
    /// it has tiles.
    pub(super) fn new(counts: &[usize]) -> Self {
        let most = counts.iter().copied().max().unwrap_or(0);
        if counts.iter().all(|count| *count == most) {
            return Self::Even(most * counts.len());
        }
        let tiles = counts.iter().enumerate();
        let mut tiles: Vec<[usize; 2]> = tiles
            .flat_map(|(sequence, count)| (0..*count).map(move |number| [sequence, number]))
            .collect();
        tiles.sort_by_key(|[sequence, number]| std::cmp::Reverse(counts[*sequence] - number));
        Self::Listed(tiles)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Even(tiles) => *tiles,
            Self::Listed(tiles) => tiles.len(),
        }
    }

    /// Sequence and number of each, of so many sequences.
    pub(super) fn iter(&self, sequences: usize) -> impl Iterator<Item = [usize; 2]> {
        (0..self.len()).map(move |place| match self {
            Self::Even(_) => [place % sequences, place / sequences],
            Self::Listed(tiles) => tiles[place],
        })
    }

    /// Appends the list; returns its place, or 0 where there is none.
    pub(super) fn push(&self, words: &mut Vec<i32>) -> i32 {
        match self {
            Self::Even(_) => 0,
            Self::Listed(tiles) => {
                let at = words.len() as i32;
                words.extend(tiles.iter().flatten().map(|word| *word as i32));
                at
            }
        }
    }
}

/// A tile: a sequence, and a number among its tiles.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Place {
    pub(super) sequence: usize,
    pub(super) number: i32,
}

/// The place of tile `tile` of a grid. Its list is announced in word `header`. A grid may be a little larger than there are
/// tiles: no sequence has one of the number that is left over.
#[cube]
pub(super) fn place(index: &[i32], tile: u32, #[comptime] header: usize) -> Place {
    let sequences = u32::cast_from(index[0]);
    let list = index[header];
    let mut sequence = tile % sequences;
    let mut number = i32::cast_from(tile / sequences);
    if list != 0 {
        sequence = 0u32.runtime();
        number = comptime!(i32::MAX).runtime();
        if tile < u32::cast_from(index[comptime!(header + 1)]) {
            let at = usize::cast_from(list) + 2 * tile as usize;
            sequence = u32::cast_from(index[at]);
            number = index[at + 1];
        }
    }
    Place {
        sequence: sequence as usize,
        number,
    }
}

#[cfg(test)]
mod tests {
    use super::Places;

    #[test]
    fn equal_sequences_need_no_list() {
        assert_eq!(Places::new(&[3, 3]), Places::Even(6));
        assert_eq!(Places::new(&[0, 0]), Places::Even(0));
        let mut words = vec![7];
        assert_eq!(Places::new(&[3, 3]).push(&mut words), 0);
        assert_eq!(words, [7]);
    }

    #[test]
    fn every_tile_is_listed_once_the_heaviest_first() {
        let places = Places::new(&[1, 0, 3, 2]);
        let tiles = [[2, 0], [2, 1], [3, 0], [0, 0], [2, 2], [3, 1]];
        assert_eq!(places, Places::Listed(tiles.to_vec()));
        assert_eq!(places.len(), 6);
        let mut words = vec![7];
        assert_eq!(places.push(&mut words), 1);
        assert_eq!(words, [7, 2, 0, 2, 1, 3, 0, 0, 0, 2, 2, 3, 1]);
    }
}
