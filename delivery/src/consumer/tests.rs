//! The machine, driven by hand.
