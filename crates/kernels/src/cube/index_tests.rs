//! Sizes of the index and of the grids that it is packed for.

use s2_attention_pattern::{BlockMask, Pattern, PatternConfig, Rule};

use super::{Index, Tiles, TooManyWords};
use crate::cube::tile::Tile;
use crate::{AttentionProblem, AttentionShape};

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
