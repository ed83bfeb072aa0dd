//! What a pass reads of pattern and sequences, packed for the tiles that its cubes own.

use cubecl::client::Client;
use cubecl::prelude::*;
use cubecl::server::Handle;

use super::checks::max_index_words;
use super::columns::FAR;
use super::error::CubeError;
use super::index::{Index, Tiles, TooManyWords};
use super::place::Places;
use super::table::takes_tables;
use super::tile::Tile;
use crate::AttentionProblem;

/// The index buffer of a pass on its device.
#[derive(Clone)]
pub(super) struct Indexed {
    /// The tile that a cube owns.
    pub(super) owned: Tile,
    /// The grids.
    pub(super) tiles: Tiles,
    /// As [`Index::key_places`].
    pub(super) key_places: Places,
    words: Handle,
    len: usize,
}

impl Indexed {
    /// Packs `problem` for cubes that own `rows` rows, and sends it.
    ///
    /// # Errors
    /// [`CubeError::Index`] for more words than the device takes.
    pub(super) fn new(
        client: &Client,
        problem: &AttentionProblem,
        rows: usize,
    ) -> Result<Self, CubeError> {
        let pattern = problem.pattern();
        let owned = Tile {
            rows,
            // No position is beyond: the tokens of a block that is larger are those of one of this size.
            block: pattern.block_size().min(FAR as usize),
            table: takes_tables(pattern),
        };
        let most = max_index_words(client);
        let index = Index::new(problem, owned, most).map_err(|TooManyWords(words)| {
            let [seen, accepted] = [words, most].map(|words| words * size_of::<i32>());
            let device = client.name().to_owned();
            CubeError::Index {
                device,
                seen,
                accepted,
            }
        })?;
        Ok(Self {
            owned,
            tiles: index.tiles,
            key_places: index.key_places,
            words: client.create_from_slice(i32::as_bytes(&index.words)),
            len: index.words.len(),
        })
    }

    /// Bytes that it holds on the device.
    pub(super) fn bytes(&self) -> usize {
        self.len * size_of::<i32>()
    }

    pub(super) fn arg(&self) -> BufferArg {
        unsafe { BufferArg::from_raw_parts(self.words.clone(), self.len) }
    }
}
