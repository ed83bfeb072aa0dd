//! Paths that many panels have in common, written once.

use ::svg::node::element::{Definitions, Path, Use};

/// The shared paths of a document.
#[derive(Default)]
pub(super) struct Shared {
    paths: Vec<Path>,
}

impl Shared {
    /// A reference to `path`, which is written once however often it is asked for.
    pub fn refer(&mut self, path: Path) -> Use {
        let known = |other: &Path| other.get_attributes() == path.get_attributes();
        let at = self.paths.iter().position(known).unwrap_or_else(|| {
            self.paths.push(path);
            self.paths.len() - 1
        });
        Use::new().set("href", format!("#{}", id(at)))
    }

    pub fn definitions(self) -> Definitions {
        let paths = self.paths.into_iter().enumerate();
        paths.fold(Definitions::new(), |definitions, (at, path)| {
            definitions.add(path.set("id", id(at)))
        })
    }
}

fn id(at: usize) -> String {
    format!("shared-{at}")
}
