//! Pages of a pool, counted by the sequences that hold them.
