//! The statistics of repeated measurements.

/// Arithmetic mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Sample standard deviation, with `n - 1`; 0 below two values.
pub fn sample_sd(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

/// Percentile `p` (0 to 100) by linear interpolation between the closest ranks, as `numpy.percentile` computes it and
/// vLLM reports it; `None` of nothing.
pub fn percentile(values: &[f64], p: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    percentile_of_sorted(&sorted, p)
}

/// The same, of values in ascending order.
pub fn percentile_of_sorted(sorted: &[f64], p: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let rank = p.clamp(0.0, 100.0) / 100.0 * last as f64;
    let (low, part) = (rank.floor() as usize, rank.fract());
    let high = (low + 1).min(last);
    Some(sorted[low] + (sorted[high] - sorted[low]) * part)
}

/// The mean of the middle half: a quarter of the values on each side may be anything. Of fewer than four values, of all.
pub fn trimmed_mean(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n_cut = sorted.len() / 4;
    mean(&sorted[n_cut..sorted.len() - n_cut])
}

/// The middle value; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 50.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} and {b}");
    }

    #[test]
    fn agrees_with_values_computed_by_hand() {
        let values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        close(mean(&values), 5.0);
        close(sample_sd(&values), (32.0_f64 / 7.0).sqrt());
        close(median(&values).unwrap(), 4.5);
        // numpy.percentile([15, 20, 35, 40, 50], 40) is 29.
        close(percentile(&[50.0, 15.0, 40.0, 20.0, 35.0], 40.0).unwrap(), 29.0);
        close(percentile(&[1.0, 2.0], 99.0).unwrap(), 1.99);
        close(percentile(&[3.0], 99.0).unwrap(), 3.0);
        close(trimmed_mean(&[1e9, 4.0, 3.0, -1e9, 5.0, 6.0, 1.0, 8.0]), 4.5);
        close(trimmed_mean(&[1.0, 2.0, 6.0]), 3.0);
    }

    #[test]
    fn few_values_have_no_spread() {
        close(mean(&[]), 0.0);
        close(sample_sd(&[3.0]), 0.0);
        assert_eq!(percentile(&[], 50.0), None);
    }
}
