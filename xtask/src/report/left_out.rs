//! What a run was asked for and left out: the marks in the cells of a table, and the reasons below it.

use s2_bench::left_out::LeftOut;
use s2_bench::problems::Problem;
use s2_bench::record::{Pass, Row};

/// Characters of a reason that are shown.
const SHOWN: usize = 120;

/// What a run left out, where it kept a list.
#[derive(Clone, Copy)]
pub struct List<'a>(pub Option<&'a [LeftOut]>);

/// Points that were left out for one reason.
struct Group<'a> {
    first: &'a LeftOut,
    passes: Vec<Pass>,
    points: usize,
}

impl List<'_> {
    /// What stands in the cell of a provider that has no time beside ours: `-` where the point was left out, nothing where it was not
    /// asked for or that is not known. A provider without patterns is asked for the dense problem of the shape.
    pub fn mark(self, provider: &str, dense_only: bool, ours: &Row) -> &'static str {
        let dense = || Some(ours.problem.parse::<Problem>().ok()?.shape.dense().name);
        let problem = if dense_only { dense() } else { None };
        let problem = problem.as_deref().unwrap_or(&ours.problem);
        let is_it =
            |of: &LeftOut| of.provider == provider && of.problem == problem && of.pass == ours.pass;
        match self.0 {
            Some(list) if list.iter().any(is_it) => "-",
            _ => "",
        }
    }

    /// The reasons of points that have no row, each once: those that differ in numbers alone are one.
    pub fn reasons(self, rows: &[Row]) -> String {
        let Some(list) = self.0 else {
            return "This run kept no list of what was left out: points of empty cells were not asked for, or left out.\n"
                .to_owned();
        };
        let has_row = |of: &LeftOut| {
            let is_it = |row: &Row| {
                row.provider == of.provider && row.problem == of.problem && row.pass == of.pass
            };
            rows.iter().any(is_it)
        };
        let mut groups: Vec<Group> = Vec::new();
        for of in list.iter().filter(|of| !has_row(of)) {
            let same = |group: &&mut Group| {
                group.first.provider == of.provider
                    && without_digits(&group.first.reason) == without_digits(&of.reason)
            };
            match groups.iter_mut().find(same) {
                Some(group) => {
                    group.points += 1;
                    if !group.passes.contains(&of.pass) {
                        group.passes.push(of.pass);
                    }
                }
                None => groups.push(Group {
                    first: of,
                    passes: vec![of.pass],
                    points: 1,
                }),
            }
        }
        if groups.is_empty() {
            return String::new();
        }
        let lines: String = groups.iter().map(Group::line).collect();
        format!("Left out (`-`), each reason as its first point says it:\n\n{lines}")
    }
}

impl Group<'_> {
    fn line(&self) -> String {
        let passes: Vec<String> = self.passes.iter().map(ToString::to_string).collect();
        let problem = &self.first.problem;
        let points = match self.points {
            1 => format!("`{problem}`"),
            points => format!("{points} points"),
        };
        format!(
            "- {}, {} ({points}): {}\n",
            self.first.provider,
            passes.join(", "),
            shortened(&self.first.reason)
        )
    }
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|of| !of.is_ascii_digit()).collect()
}

/// As Markdown shows it.
fn shortened(reason: &str) -> String {
    let mut text: String = reason.chars().take(SHOWN).collect();
    if text.len() < reason.len() {
        text += "...";
    }
    text.replace('<', "&lt;")
}
