//! One pattern of a picture: its panels, and what is said of it.

use super::cells::{Counts, MAX_CELLS, Raster, Scale};
use super::{MAX_PANELS, MAX_PICTURE_BLOCKS, RenderError, View, labels};
use crate::error::PatternError;
use crate::pattern::Pattern;
use crate::report::PatternReport;

/// One pattern of a picture.
#[derive(Clone, Debug)]
pub(super) struct Section {
    /// The pattern in one line.
    pub heading: String,
    /// Its length and figures in one line.
    note: String,
    /// Heads drawn side by side.
    pub panels: Vec<Panel>,
    /// The label of the panel of all heads, where there is one.
    pub union: Option<String>,
    /// Active query heads.
    pub heads: usize,
    /// Length of the sequence.
    pub blocks: usize,
    pattern: Pattern,
}

/// The heads of one schedule.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub label: String,
    schedule: usize,
}

/// The cells of a section.
pub(super) struct Rasters {
    pub panels: Vec<Raster>,
    pub union: Option<Raster>,
    pub scale: Scale,
}

impl Rasters {
    pub fn all(&self) -> impl Iterator<Item = &Raster> {
        self.panels.iter().chain(&self.union)
    }
}

impl Section {
    pub fn new(
        pattern: &Pattern,
        blocks: usize,
        view: View,
        heading: String,
    ) -> Result<Self, RenderError> {
        if blocks == 0 {
            return Err(PatternError::TooSmall {
                name: "blocks",
                value: 0,
                min: 1,
            }
            .into());
        }
        if blocks > MAX_PICTURE_BLOCKS {
            return Err(RenderError::TooManyBlocks { blocks });
        }
        let num_heads = pattern.num_heads();
        if let View::Head(head) = view
            && head >= num_heads
        {
            return Err(RenderError::NoSuchHead { head, num_heads });
        }
        let report = PatternReport::new(pattern, blocks * pattern.block_size())?;

        let mut heads_of: Vec<Vec<usize>> = vec![Vec::new(); pattern.schedules().len()];
        for head in 0..num_heads {
            heads_of[pattern.schedule_index(head)].push(head);
        }
        let (panels, union) = match view {
            View::Head(head) => (vec![Panel::new(pattern, &[head])], false),
            View::Union => (Vec::new(), true),
            View::Heads => {
                let drawn = heads_of.iter().take(MAX_PANELS);
                let panels: Vec<Panel> = drawn.map(|heads| Panel::new(pattern, heads)).collect();
                (panels, heads_of.len() > 1)
            }
        };
        let left_out = match view {
            View::Heads => heads_of.iter().skip(MAX_PANELS).map(Vec::len).sum(),
            View::Head(_) | View::Union => 0,
        };
        Ok(Self {
            heading,
            note: note(pattern, &report, view, left_out),
            panels,
            union: union.then(|| match num_heads {
                1 => "one head".to_owned(),
                2 => "both heads together".to_owned(),
                heads => format!("all {heads} heads together"),
            }),
            heads: num_heads,
            blocks,
            pattern: pattern.clone(),
        })
    }

    /// Its length and figures in one line.
    pub fn note(&self, scale: Scale) -> String {
        match scale.blocks_per_cell {
            1 => self.note.clone(),
            blocks => format!("{}; a cell is {blocks} x {blocks} blocks", self.note),
        }
    }

    /// The cells of all panels, at most `max_cells` and [`MAX_CELLS`] a side.
    pub fn rasters(&self, max_cells: usize) -> Rasters {
        let scale = Scale::new(self.blocks, max_cells.clamp(1, MAX_CELLS));
        let schedules = self.pattern.schedules();
        let mut heads = vec![0; schedules.len()];
        for head in 0..self.heads {
            heads[self.pattern.schedule_index(head)] += 1;
        }
        let mut panels = Vec::new();
        let mut union = self.union.as_ref().map(|_| Counts::none(scale));
        for (index, schedule) in schedules.iter().enumerate() {
            let drawn = self.panels.iter().any(|panel| panel.schedule == index);
            if drawn || union.is_some() {
                let counts = Counts::of_schedule(schedule, scale);
                if drawn {
                    panels.push(counts.raster());
                }
                if let Some(union) = &mut union {
                    union.add(&counts, heads[index]);
                }
            }
        }
        let union = union.map(|counts| counts.raster());
        Rasters {
            panels,
            union,
            scale,
        }
    }
}

impl Panel {
    /// Of heads with one schedule.
    fn new(pattern: &Pattern, heads: &[usize]) -> Self {
        let map = pattern.heads();
        let first = heads[0];
        let numbers: Vec<usize> = heads.iter().map(|&head| map.global_head(head)).collect();
        let mut label = labels::named("head", &numbers);
        let kv_head = map.kv_head(first);
        if map.group_size() > 1 && heads.iter().all(|&head| map.kv_head(head) == kv_head) {
            let kv_head = map.global_head(first) / map.group_size();
            label += &format!(" (KV {kv_head})");
        }
        // Where every head is dense, the heading says so.
        if pattern.head(first).is_dense() && !pattern.is_dense() {
            label += " dense";
        }
        Self {
            label,
            schedule: pattern.schedule_index(first),
        }
    }
}

fn note(pattern: &Pattern, report: &PatternReport, view: View, left_out: usize) -> String {
    let size = format!(
        "{0} x {0} blocks of {1} tokens",
        report.blocks,
        pattern.block_size()
    );
    let density = match view {
        View::Head(head) => report.heads[head].density,
        View::Heads | View::Union => report.density,
    };
    let mut note = format!("{size}, density {:.1} %", 100.0 * density);
    if pattern.schedules().len() > 1 && !matches!(view, View::Head(_)) {
        note += &format!(
            ", all heads together cover {:.1} %",
            100.0 * report.coverage
        );
    }
    if left_out > 0 {
        note += &format!("; {left_out} more heads are not drawn");
    }
    note
}
