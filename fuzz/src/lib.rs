//! What the fuzz targets of `resp` have in common.
mod targets;
pub use targets::*;
