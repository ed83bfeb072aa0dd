//! When tiles are split, and what the environment says of it.

use std::sync::Arc;

use super::*;

#[test]
fn what_the_environment_says_is_taken_or_refused() {
    assert_eq!(Splitting::parse("1"), Ok(Splitting::All(1)));
    assert_eq!(Splitting::parse("16"), Ok(Splitting::All(16)));
    for value in [
        "",
        "0",
        "17",
        "-1",
        "+2",
        "02",
        "two",
        "2.0",
        "99999999999999999999",
    ] {
        let why = Splitting::parse(value).unwrap_err().to_string();
        let expected = format!("S2_SPLIT is \"{value}\"; accepted: the cubes that share a tile");
        assert!(why.starts_with(&expected), "{why}");
    }
}

/// Heads whose tiles visit so many, in order.
fn heads(of_heads: &[&[u64]]) -> TileVisits {
    TileVisits(of_heads.iter().map(|of| Arc::new(of.to_vec())).collect())
}

#[test]
fn tiles_are_split_where_processors_would_wait() {
    // One for each of ten processors.
    let even = heads(&[&[100; 10]]);
    assert_eq!(even.split(&(0..1), 10), None);
    // One alone, and one beside what others take as long for.
    let one = heads(&[&[1000]]);
    let split = Split { tiles: 1, cubes: 8 };
    assert_eq!(one.split(&(0..1), 8), Some(split));
    let beside = heads(&[&[1000, 100, 100], &[100; 3]]);
    let split = beside.split(&(0..2), 10).unwrap();
    assert_eq!(split.tiles, 1);
    assert!(split.cubes > 4, "{split:?}");
    // Those of the other head alone, all of them.
    let split = Split { tiles: 3, cubes: 3 };
    assert_eq!(beside.split(&(1..2), 10), Some(split));
    let enough = heads(&[&[1000], &[100; 90]]);
    assert_eq!(enough.split(&(0..2), 10), None);
    // Too little for more launches, no processors that are known, and no tile.
    assert_eq!(heads(&[&[8]]).split(&(0..1), 10), None);
    assert_eq!(one.split(&(0..1), 0), None);
    assert_eq!(heads(&[&[]]).split(&(0..1), 10), None);
    assert_eq!(one.all(1), None);
    assert_eq!(beside.all(3), Some(Split { tiles: 3, cubes: 3 }));
}
