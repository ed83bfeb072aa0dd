//! How much of the context several heads attend together.

use crate::bands::{Anchor, Band};
use crate::compose::cuts;
use crate::schedule::HeadSchedule;

/// Block pairs of a sequence of `blocks` blocks.
pub(crate) fn dense_pairs(causal: bool, blocks: usize) -> u128 {
    let blocks = blocks as u128;
    if causal {
        blocks * (blocks + 1) / 2
    } else {
        blocks * blocks
    }
}

/// The fraction of the block pairs of a sequence of `blocks` blocks that some schedule attends; of
/// those at or before the query, where all schedules are causal.
pub(crate) fn coverage(schedules: &[&HeadSchedule], blocks: usize) -> f64 {
    let causal = schedules.iter().all(|schedule| schedule.is_causal());
    union_pairs(schedules, blocks) as f64 / dense_pairs(causal, blocks) as f64
}

/// Block pairs that some schedule attends in a sequence of `blocks` blocks.
fn union_pairs(schedules: &[&HeadSchedule], blocks: usize) -> u128 {
    match schedules
        .iter()
        .map(|schedule| schedule.bands())
        .collect::<Option<Vec<_>>>()
    {
        Some(bands) => union_of_bands(&bands.concat(), blocks),
        None => union_of_rows(schedules, blocks),
    }
}

/// By marking every row, for tables, which bound the length.
fn union_of_rows(schedules: &[&HeadSchedule], blocks: usize) -> u128 {
    let mut last_marked = vec![usize::MAX; blocks];
    let mut pairs = 0;
    for i in 0..blocks {
        for schedule in schedules {
            for j in &schedule.row(i, 0..blocks) {
                pairs += u128::from(last_marked[j] != i);
                last_marked[j] = i;
            }
        }
    }
    pairs
}

/// By cells of columns and distances in which each band holds everywhere or nowhere: O(`blocks`)
/// for each cell.
fn union_of_bands(bands: &[Band], blocks: usize) -> u128 {
    let end = blocks as i64;
    // Distances of a sequence are above -end and below end.
    let distance_bounds = |band: &Band| {
        [
            band.min_distance.max(-end),
            band.max_distance.min(end - 1) + 1,
        ]
    };
    let column_cuts = cuts(
        bands
            .iter()
            .flat_map(|band| [band.column_start.min(end), band.column_end.min(end)]),
    );
    let distance_cuts = cuts(bands.iter().flat_map(distance_bounds));
    let mut pairs = 0;
    for columns in column_cuts.windows(2) {
        for distances in distance_cuts.windows(2) {
            let here = bands.iter().filter(|band| {
                let [start, end] = distance_bounds(band);
                start <= distances[0]
                    && distances[1] <= end
                    && band.column_start <= columns[0]
                    && columns[1] <= band.column_end
            });
            let here: Vec<&Band> = here.collect();
            if !here.is_empty() {
                pairs += union_of_cell(
                    &here,
                    [columns[0], columns[1]],
                    [distances[0], distances[1]],
                    end,
                );
            }
        }
    }
    pairs
}

/// Block pairs with `j` in `columns` and `i - j` in `distances` (exclusive ends) that some band
/// holds, all of which reach over the whole cell: all rows of a column on a band's stride, else the
/// distances on a band's stride.
fn union_of_cell(bands: &[&Band], columns: [i64; 2], distances: [i64; 2], end: i64) -> u128 {
    let marked = |[start, end]: [i64; 2], anchor: Anchor| {
        let mut marks = vec![false; (end - start) as usize];
        for band in bands.iter().filter(|band| band.anchor == anchor) {
            let first = (band.residue - start).rem_euclid(band.stride) as usize;
            marks
                .iter_mut()
                .skip(first)
                .step_by(band.stride as usize)
                .for_each(|mark| *mark = true);
        }
        marks
    };
    // How many distances below each are on a stride.
    let mut below = vec![0u64];
    for mark in marked(distances, Anchor::Diagonal) {
        below.push(below[below.len() - 1] + u64::from(mark));
    }
    let on_stride = marked(columns, Anchor::Column);
    let of_column = |(j, on_stride): (i64, bool)| {
        let first = distances[0].max(-j);
        let last = distances[1].min(end - j).max(first);
        let at = |distance: i64| below[(distance - distances[0]) as usize];
        if on_stride {
            (last - first) as u128
        } else if last > first {
            u128::from(at(last) - at(first))
        } else {
            0
        }
    };
    (columns[0]..).zip(on_stride).map(of_column).sum()
}
