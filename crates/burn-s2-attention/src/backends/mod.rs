//! The operation on each backend: the only place that names one.

#[cfg(feature = "autodiff")]
mod autodiff;
#[cfg(feature = "cubecl")]
pub(crate) mod cubecl;
#[cfg(feature = "cubecl")]
mod cubecl_cache;
#[cfg(feature = "cubecl")]
pub(crate) mod cubecl_rows;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "flex")]
mod flex_cache;
#[cfg(feature = "cubecl")]
mod prepared;
