//! Every subset of the gradients has the bits of all of them, where heads are not taken in parts.

use super::engine::Engine;
use super::layouts::same;
use super::storage::Storage;
use super::support::compare;
use super::{Effort, ensure, in_types};

const FEW: [&str; 3] = ["gqa_per_kv_head", "value_dim", "custom_empty_rows"];

/// In every type.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &Storage::ALL, of_type)
}

fn of_type(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let mut files = 0;
    for golden in effort.golden_among(&FEW) {
        let call = engine.call(&golden.problem(), &golden.tensors)?;
        let outputs = call.launch_forward()?;
        let all = call.backward(&outputs, [true; 3])?;
        for subset in 0..7 {
            let wanted = [0, 1, 2].map(|at| subset >> at & 1 == 1);
            let place = || format!("{}, wanted {wanted:?}", golden.name);
            let some = call.backward(&outputs, wanted)?;
            for (at, name) in ["dq", "dk", "dv"].into_iter().enumerate() {
                ensure(some[at].is_some() == wanted[at], place)?;
                if let (Some(some), Some(all)) = (&some[at], &all[at]) {
                    same(compare::difference_in(name, some, all))
                        .map_err(|miss| format!("{}: {miss}", place()))?;
                }
            }
        }
        files += 1;
    }
    ensure(files >= FEW.len(), || format!("{files} files only"))?;
    Ok(format!(
        "the 7 subsets of dq, dk and dv of {files} files have the same bits"
    ))
}
