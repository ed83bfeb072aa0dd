//! Where the rows of a command go, and what they say of where they come from.

use std::path::PathBuf;

use crate::machine::Machine;

/// Options of every command that writes rows.
#[derive(Debug, clap::Args)]
pub struct Output {
    /// Folder of results; rows go to a file in `<date>-<device>` below it.
    #[arg(long, default_value = "benches/results")]
    pub results: PathBuf,
    /// The file to add rows to, in place of one below `--results`.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// The id of an earlier run on this machine that these rows belong to; a new one where it is left out.
    #[arg(long)]
    pub run: Option<String>,
    /// The commit that rows name, where this program does not run in its repository.
    #[arg(long)]
    pub commit: Option<String>,
}

impl Output {
    /// The machine, with the commit that rows name.
    pub fn of(&self, machine: Machine) -> Machine {
        Machine {
            commit: self.commit.clone().unwrap_or(machine.commit),
            ..machine
        }
    }

    /// The file, which is called `name` unless another was asked for.
    pub fn path(&self, machine: &Machine, name: &str) -> PathBuf {
        let below = self.results.join(machine.folder()).join(name);
        self.out.clone().unwrap_or(below)
    }

    /// The id of the run.
    pub fn run_id(&self, machine: &Machine) -> String {
        self.run.clone().unwrap_or_else(|| machine.run_id())
    }
}
