//! What panics say.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The message of the panic of `call`.
pub fn panic_text<T>(call: impl FnOnce() -> T) -> String {
    let panic = catch_unwind(AssertUnwindSafe(call)).err().expect("a panic");
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
        .expect("a text")
}
