//! Sizes of the index and of the grids that it is packed for.

use s2_attention_pattern::{BlockMask, Pattern, PatternConfig, Rule};

use super::{HEADER_WORDS, Index, SEQUENCE_WORDS, Tiles, TooManyWords};
use crate::cube::tile::Tile;
use crate::{AttentionProblem, AttentionShape, PackedSequences};

fn problem(pattern: &Pattern, seq: usize) -> AttentionProblem {
    let shape = AttentionShape {
        batch: 1,
        num_heads: pattern.num_heads(),
        num_kv_heads: pattern.num_kv_heads(),
        seq_q: seq,
        seq_kv: seq,
        head_dim: 16,
        value_dim: 16,
    };
    AttentionProblem::new(shape, pattern, None, None).unwrap()
}

fn tile(pattern: &Pattern) -> Tile {
    Tile {
        rows: 64,
        block: pattern.block_size(),
        table: pattern.max_blocks().is_some(),
    }
}

#[test]
fn large_blocks_take_the_cubes_of_their_tokens() {
    for (block, seq, expected) in [
        (1 << 20, 128, 2),
        (300, 300, 5),
        (300, 310, 6),
        (300, 700, 12),
    ] {
        let pattern = Pattern::dense(block, 1).unwrap();
        let index = Index::new(&problem(&pattern, seq), tile(&pattern), usize::MAX).unwrap();
        let tiles = Tiles {
            rows: expected,
            columns: expected,
        };
        assert_eq!(index.tiles, tiles, "blocks of {block}, {seq} tokens");
    }
    // Whole blocks of a class inside, parts at the ends.
    let pattern = PatternConfig::local_stride(1, 2, 300, 1).build().unwrap();
    let index = Index::new(&problem(&pattern, 700), tile(&pattern), usize::MAX).unwrap();
    assert_eq!(index.tiles.columns, 12);
}

/// Documents take a few words each and as many for each tile, and no more cubes than they have tiles.
#[test]
fn packed_documents_take_words_and_cubes_by_their_tiles() {
    let pattern = PatternConfig::local_stride(2, 3, 16, 4).build().unwrap();
    let alone = Index::new(&problem(&pattern, 6000), tile(&pattern), usize::MAX).unwrap();
    // Tiles of 64 tokens: 6000 take 94, and 500 single tokens and 500 of 70 take 1 and 2 each.
    let mut lengths = vec![6000];
    lengths.extend([1, 0, 70].repeat(500));
    let documents = PackedSequences::from_lengths(&lengths).unwrap();
    let shape = AttentionShape {
        seq_q: documents.total_q(),
        seq_kv: documents.total_kv(),
        ..*problem(&pattern, 1).shape()
    };
    let packed = AttentionProblem::packed(shape, &pattern, None, &documents).unwrap();
    let packed = Index::new(&packed, tile(&pattern), usize::MAX).unwrap();
    assert_eq!(packed.tiles.rows, 94 + 500 + 2 * 500);
    // Of each class of columns a tile more at most.
    assert!(
        packed.tiles.columns < 2 * packed.tiles.rows,
        "{:?}",
        packed.tiles
    );
    let patterns = alone.words.len() - HEADER_WORDS - SEQUENCE_WORDS;
    let listed = 2 * (packed.tiles.rows + packed.tiles.columns);
    let documents = HEADER_WORDS + SEQUENCE_WORDS * lengths.len();
    assert_eq!(packed.words.len(), documents + patterns + listed);
}

#[test]
fn too_many_words_are_refused_where_they_are_counted() {
    let mask = BlockMask::from_fn([2, 40, 40], false, |head, i, j| (i + j) % 3 == head).unwrap();
    let table = PatternConfig::new(Rule::Custom(mask), 16, 2)
        .build()
        .unwrap();
    let named = PatternConfig::local_stride(2, 3, 16, 4).build().unwrap();
    for pattern in [table, named] {
        let problem = problem(&pattern, 640);
        let pack = |most: usize| Index::new(&problem, tile(&pattern), most);
        let words = pack(usize::MAX).unwrap().words.len();
        assert!(pack(words).is_ok());
        for most in [0, 80, words / 2, words - 1] {
            let TooManyWords(seen) = pack(most).unwrap_err();
            assert!(
                seen > most && seen <= words,
                "{seen} words of {words}, at most {most}"
            );
        }
    }
}
