//! The weights of a visit, as products take them.
//!
//! Those of one visit are multiplied while those of the next are computed. Where units have registers for the scores and both, these
//! have names, and weights are computed where products find them; else the assembler moves them there when the scores are no more.

use cubecl::prelude::*;

use super::products::{begin_values, begin_values_of, declare_weights, move_weights, put_weights};
use super::tiles::Tiles;
use crate::cube::mma::fragments::Pair;

/// The weights of a visit.
#[derive(CubeType)]
pub(super) struct Weights<E: Float> {
    high: Array<Pair<E>>,
    /// What those lose by rounding, where it is kept.
    low: Array<Pair<E>>,
    /// What the registers of `high` are called, where they have names.
    #[cube(comptime)]
    name: Option<&'static str>,
    #[cube(comptime)]
    count: usize,
    #[cube(comptime)]
    exact: bool,
}

/// Of `tiles` tiles, with what rounding loses where they are `exact`, which have no name then.
#[cube]
pub(super) fn weights<E: Float>(
    #[comptime] tiles: usize,
    #[comptime] exact: bool,
    #[comptime] name: Option<&'static str>,
) -> Weights<E> {
    let count = comptime!(2 * tiles);
    if comptime!(name.is_some()) {
        declare_weights(comptime!(name.unwrap_or_default()));
    }
    Weights::<E> {
        high: Array::new(count),
        low: Array::new(comptime!(if exact { count } else { 0 })),
        name,
        count,
        exact,
    }
}

#[cube]
impl<E: Float> Weights<E> {
    /// Sets the `n`-th two.
    pub(super) fn put(&mut self, #[comptime] n: usize, weights: Pair<f32>) {
        let high = Vector::<E, Const<2>>::cast_from(weights);
        if comptime!(self.name.is_some()) {
            put_weights::<E>(comptime!(self.name.unwrap_or_default()), n, high);
        } else {
            self.high[n] = high;
            if comptime!(self.exact) {
                self.low[n] = Vector::cast_from(weights - Vector::cast_from(high));
            }
        }
    }

    /// Sets those of `tiles` tiles to zero.
    pub(super) fn clear(&mut self, #[comptime] tiles: usize) {
        #[unroll]
        for n in 0..comptime!(2 * tiles) {
            self.put(n, Vector::new(0.0f32));
        }
    }

    /// Takes those of another visit.
    pub(super) fn set(&mut self, other: &Weights<E>) {
        if comptime!(self.name.is_some()) {
            move_weights(
                comptime!(self.name.unwrap_or_default()),
                comptime!(other.name.unwrap_or_default()),
            );
        } else {
            #[unroll]
            for n in 0..self.count {
                self.high[n] = other.high[n];
                if comptime!(self.exact) {
                    self.low[n] = other.low[n];
                }
            }
        }
    }

    /// Begins to add the values of a slot, weighted, to the sums called `name`.
    pub(super) fn begin<N: Size>(
        &self,
        #[comptime] name: &'static str,
        values: &Tiles<E, N>,
        slot: u32,
        #[comptime] brain: bool,
    ) {
        if comptime!(self.name.is_some()) {
            let weights = comptime!(self.name.unwrap_or_default());
            begin_values_of::<E, N>(name, weights, values, slot, brain);
        } else {
            begin_values::<E, N>(name, &self.high, values, slot, brain);
            if comptime!(self.exact) {
                begin_values::<E, N>(name, &self.low, values, slot, brain);
            }
        }
    }
}
