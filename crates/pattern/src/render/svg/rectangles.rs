//! Few rectangles in place of many cells.

use crate::render::cells::Raster;

/// Cells `column..column + width` of rows `row..row + height`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rectangle {
    pub column: usize,
    pub row: usize,
    pub width: usize,
    pub height: usize,
}

/// The cells that `select` chooses: runs of each row, joined with the same run of the rows before.
pub(super) fn rectangles(
    raster: &Raster,
    select: impl Fn(crate::render::cells::Cell) -> bool,
) -> Vec<Rectangle> {
    let mut done: Vec<Rectangle> = Vec::new();
    // Rectangles that reach into the row before, by column.
    let mut open: Vec<Rectangle> = Vec::new();
    for row in 0..raster.size {
        let mut reaching = Vec::new();
        for (column, width) in runs(raster, row, &select) {
            let same = |above: &Rectangle| above.column == column && above.width == width;
            let rectangle = match open.iter().position(same) {
                Some(at) => {
                    let above = open.swap_remove(at);
                    Rectangle {
                        height: above.height + 1,
                        ..above
                    }
                }
                None => Rectangle {
                    column,
                    row,
                    width,
                    height: 1,
                },
            };
            reaching.push(rectangle);
        }
        done.append(&mut open);
        open = reaching;
    }
    done.append(&mut open);
    done
}

/// Starts and widths of the runs of chosen cells in a row.
fn runs(
    raster: &Raster,
    row: usize,
    select: &impl Fn(crate::render::cells::Cell) -> bool,
) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for column in (0..raster.size).filter(|&column| select(raster.at(row, column))) {
        match runs.last_mut() {
            Some((start, width)) if *start + *width == column => *width += 1,
            _ => runs.push((column, 1)),
        }
    }
    runs
}
