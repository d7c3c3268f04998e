//! From values to places on paper, and at which values to put ticks.

use super::Axis;

/// Ticks of an axis, about.
const TICKS: f64 = 6.0;

/// An axis with its ends.
pub(super) struct Scale {
    axis: Axis,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    /// Counts: there is nothing between two threads.
    is_whole: bool,
}

impl Scale {
    /// A scale that holds all drawable `values` between the places `from` and `to`; `None` where there is none.
    pub(super) fn over(axis: Axis, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let mut is_whole = true;
        let drawable = values
            .filter(|v| v.is_finite() && (axis == Axis::Linear || *v > 0.0))
            .inspect(|v| is_whole &= v.fract() == 0.0);
        let (low, high) =
            drawable.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            // Nothing can be drawn on a logarithmic axis, but the other axis may have something.
            return (axis == Axis::Log).then_some(Self { axis, low: 1.0, high: 10.0, from, to, is_whole });
        }
        let (low, high) = match axis {
            Axis::Linear if high > 0.0 => (low.min(0.0), high * 1.08),
            Axis::Linear => (low - 1.0, high + 1.0),
            Axis::Log => (low / 1.5, high * 1.5),
        };
        Some(Self { axis, low, high, from, to, is_whole })
    }

    /// Where a value stands; what cannot be drawn stands at the end nearest to it.
    pub(super) fn place(&self, value: f64) -> f64 {
        let value = if value.is_nan() { self.low } else { value.clamp(self.low, self.high) };
        let share = match self.axis {
            Axis::Linear => (value - self.low) / (self.high - self.low),
            Axis::Log => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        self.from + share * (self.to - self.from)
    }

    /// Round values between the ends.
    pub(super) fn ticks(&self) -> Vec<f64> {
        match self.axis {
            Axis::Linear => {
                let step =
                    round_step((self.high - self.low) / TICKS).max(if self.is_whole { 1.0 } else { 0.0 });
                let first = (self.low / step).ceil() as i64;
                let last = (self.high / step).floor() as i64;
                (first..=last).map(|i| i as f64 * step).collect()
            }
            Axis::Log => {
                let decades = (self.high / self.low).log10();
                let every = (decades / TICKS).ceil().max(1.0) as i32;
                let factors: &[f64] = if decades < 1.2 {
                    &[1.0, 2.0, 3.0, 5.0, 7.0]
                } else if decades < 3.2 {
                    &[1.0, 2.0, 5.0]
                } else {
                    &[1.0]
                };
                let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
                let powers = (first..=last).filter(|p| p.rem_euclid(every) == 0);
                let ticks = powers.flat_map(|p| factors.iter().map(move |f| f * 10_f64.powi(p)));
                ticks.filter(|t| (self.low..=self.high).contains(t)).collect()
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|f| f * power).find(|s| *s >= step).unwrap_or(step)
}

/// A tick's value in few characters.
pub(super) fn shown(value: f64) -> String {
    let (value, suffix) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, "G"),
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{value:.3}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    let text = if text == "0" && value != 0.0 { format!("{value:e}") } else { text.to_owned() };
    format!("{text}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let scale = Scale::over(Axis::Linear, [0.0, 87.0].into_iter(), 0.0, 100.0).unwrap();
        assert_eq!(scale.ticks(), [0.0, 20.0, 40.0, 60.0, 80.0]);
        let threads = Scale::over(Axis::Linear, [1.0, 2.0].into_iter(), 0.0, 100.0).unwrap();
        assert_eq!(threads.ticks(), [0.0, 1.0, 2.0]);
        let scale = Scale::over(Axis::Log, [1.0, 500.0].into_iter(), 0.0, 100.0).unwrap();
        assert_eq!(scale.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]);
        assert_eq!([0.0, 0.25, 1500.0, 20_000.0, 3e6].map(shown), ["0", "0.25", "1500", "20k", "3M"]);
    }

    #[test]
    fn places_follow_values() {
        let scale = Scale::over(Axis::Log, [1.0, 100.0].into_iter(), 0.0, 100.0).unwrap();
        assert!((scale.place(10.0) - 50.0).abs() < 1e-9);
        assert!(scale.place(0.0).abs() < 1e-9);
    }
}
