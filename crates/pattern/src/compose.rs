//! Union and intersection of bands, kept in closed form where there is one.

use crate::bands::{Anchor, Band};
use crate::config::MAX_BLOCKS;

/// Why bands have no closed form.
pub(crate) type Interleaved = String;

/// Residues are listed one by one up to this modulus when several strides may add up to one.
const MAX_EXPANDED: i64 = 1 << 12;

/// The same blocks as disjoint bands in the order that [`Band`] promises.
///
/// Columns are cut into slabs and each slab into intervals of distance, so that in every cell of
/// that grid each band holds everywhere or nowhere. What holds in a cell must be one congruence.
/// Within a slab bands go from far to near, and slabs ascend: in a row, key blocks ascend with
/// both.
///
/// # Errors
/// Two congruences of one cell that interleave.
pub(crate) fn union(bands: &[Band]) -> Result<Vec<Band>, Interleaved> {
    let column_cuts = cuts(
        bands
            .iter()
            .flat_map(|band| [band.column_start, band.column_end]),
    );
    let mut slabs: Vec<Vec<Band>> = Vec::new();
    for columns in column_cuts.windows(2) {
        let (column_start, column_end) = (columns[0], columns[1]);
        let here: Vec<Band> = bands
            .iter()
            .filter(|band| band.column_start <= column_start && column_end <= band.column_end)
            .map(|band| Band {
                column_start,
                column_end,
                ..*band
            })
            .collect();
        let slab = union_of_slab(&here)?;
        match slabs.last_mut() {
            Some(previous) if continues(previous, &slab) => {
                previous
                    .iter_mut()
                    .for_each(|band| band.column_end = column_end);
            }
            _ => slabs.push(slab),
        }
    }
    Ok(slabs.concat())
}

/// The blocks that both lists hold.
///
/// # Errors
/// Two strides that don't combine to one stride, counted along columns and along the diagonal.
pub(crate) fn intersection(a: &[Band], b: &[Band]) -> Result<Vec<Band>, Interleaved> {
    let mut both = Vec::new();
    for a in a {
        for b in b {
            let cell = Band {
                min_distance: a.min_distance.max(b.min_distance),
                max_distance: a.max_distance.min(b.max_distance),
                column_start: a.column_start.max(b.column_start),
                column_end: a.column_end.min(b.column_end),
                ..Band::all(0, 0)
            };
            if cell.min_distance > cell.max_distance || cell.column_start >= cell.column_end {
                continue;
            }
            let with = |band: &Band| {
                resolve(Band {
                    stride: band.stride,
                    residue: band.residue,
                    anchor: band.anchor,
                    ..cell
                })
            };
            if let (Some(a), Some(b)) = (with(a), with(b)) {
                both.extend(common(&a, &b)?);
            }
        }
    }
    union(&both)
}

/// Sorted, without repeats.
pub(crate) fn cuts(bounds: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut cuts: Vec<i64> = bounds.collect();
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// The first distance beyond the band, or the open end.
fn distance_end(band: &Band) -> i64 {
    band.max_distance.saturating_add(1)
}

/// Bands that all fill the same columns, from far to near.
fn union_of_slab(bands: &[Band]) -> Result<Vec<Band>, Interleaved> {
    let distance_cuts = cuts(
        bands
            .iter()
            .flat_map(|band| [band.min_distance, distance_end(band)]),
    );
    let mut slab: Vec<Band> = Vec::new();
    for distances in distance_cuts.windows(2).rev() {
        let (start, end) = (distances[0], distances[1]);
        let here = bands
            .iter()
            .filter(|band| band.min_distance <= start && end <= distance_end(band))
            .map(|band| {
                let max_distance = if end == Band::OPEN_END { end } else { end - 1 };
                Band {
                    min_distance: start,
                    max_distance,
                    ..*band
                }
            })
            .filter_map(resolve);
        let Some(cell) = union_of_cell(here.collect())? else {
            continue;
        };
        match slab.last_mut() {
            Some(farther) if farther.min_distance == end && same_stride(farther, &cell) => {
                farther.min_distance = start
            }
            _ => slab.push(cell),
        }
    }
    Ok(slab)
}

/// Bands that fill the same cell, as one.
fn union_of_cell(bands: Vec<Band>) -> Result<Option<Band>, Interleaved> {
    let mut kept: Vec<Band> = Vec::new();
    for band in bands {
        if !kept.iter().any(|other| includes(other, &band)) {
            kept.retain(|other| !includes(&band, other));
            kept.push(band);
        }
    }
    if let [] | [_] = kept[..] {
        return Ok(kept.pop());
    }
    joined(&kept).map(Some).ok_or_else(|| {
        let pieces: Vec<String> = kept.iter().map(describe).collect();
        format!("{} interleave", pieces.join(" and "))
    })
}

/// Several congruences along the same axis that add up to one, such as 0 and 1 modulo 2.
fn joined(bands: &[Band]) -> Option<Band> {
    let first = bands[0];
    let mut modulus = 1;
    for band in bands {
        modulus = lcm(modulus, band.stride);
        if band.anchor != first.anchor || modulus > MAX_EXPANDED {
            return None;
        }
    }
    let kept: Vec<i64> = (0..modulus)
        .filter(|x| bands.iter().any(|band| x % band.stride == band.residue))
        .collect();
    let stride = kept[1] - kept[0];
    let even = kept.len() as i64 * stride == modulus
        && kept.windows(2).all(|pair| pair[1] - pair[0] == stride);
    let anchor = if stride == 1 {
        Anchor::Column
    } else {
        first.anchor
    };
    even.then(|| first.every(stride, anchor, kept[0]))
}

/// What two bands of the same cell have in common.
fn common(a: &Band, b: &Band) -> Result<Option<Band>, Interleaved> {
    if a.stride == 1 || b.stride == 1 {
        return Ok(Some(if a.stride == 1 { *b } else { *a }));
    }
    let modulus = lcm(a.stride, b.stride);
    if a.anchor != b.anchor || modulus > MAX_BLOCKS as i64 {
        return Err(format!(
            "{} and {} meet irregularly",
            describe(a),
            describe(b)
        ));
    }
    // At most 2^16 steps, since the product of the two strides over their gcd is below 2^31.
    let (long, short) = if a.stride > b.stride { (a, b) } else { (b, a) };
    let mut residues = (long.residue..modulus).step_by(long.stride as usize);
    let shared = residues.find(|x| x % short.stride == short.residue);
    Ok(shared.map(|residue| a.every(modulus, a.anchor, residue)))
}

/// Whether `outer` holds all of `inner`; both fill the same cell.
fn includes(outer: &Band, inner: &Band) -> bool {
    outer.stride == 1
        || outer.anchor == inner.anchor
            && inner.stride % outer.stride == 0
            && inner.residue % outer.stride == outer.residue
}

/// The band with a stride along an axis on which it is one block wide replaced by all or nothing.
fn resolve(band: Band) -> Option<Band> {
    let at = match band.anchor {
        _ if band.stride == 1 => return Some(band.every(1, Anchor::Column, 0)),
        Anchor::Column if band.column_end - band.column_start == 1 => band.column_start,
        Anchor::Diagonal if band.min_distance == band.max_distance => band.min_distance,
        _ => return Some(band),
    };
    (at.rem_euclid(band.stride) == band.residue).then(|| band.every(1, Anchor::Column, 0))
}

fn same_stride(a: &Band, b: &Band) -> bool {
    (a.stride, a.residue, a.anchor) == (b.stride, b.residue, b.anchor)
}

/// Whether `next` holds the same as `previous` in the columns that follow.
fn continues(previous: &[Band], next: &[Band]) -> bool {
    previous.len() == next.len()
        && previous.iter().zip(next).all(|(a, b)| {
            a.column_end == b.column_start
                && Band {
                    column_start: a.column_start,
                    column_end: a.column_end,
                    ..*b
                } == *a
        })
}

fn describe(band: &Band) -> String {
    match band.anchor {
        Anchor::Column => format!("columns {} mod {}", band.residue, band.stride),
        Anchor::Diagonal => format!("distances {} mod {}", band.residue, band.stride),
    }
}

fn lcm(a: i64, b: i64) -> i64 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}
