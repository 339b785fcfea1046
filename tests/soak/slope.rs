/// The slope of a line fitted through points.
pub(crate) struct Slope {
    pub(crate) slope: f64,
    /// Half the width of the 95 % confidence interval.
    pub(crate) half: f64,
    /// The number of independent points that the samples are equivalent to.
    pub(crate) worth: f64,
}

/// Fits a line by least squares. Adjacent samples are correlated, which would make the slope look
/// too certain. Therefore the number of points is reduced according to the correlation of adjacent
/// residuals. Returns `None` for fewer than 10 points.
pub(crate) fn slope(points: &[(f64, f64)]) -> Option<Slope> {
    let n = points.len() as f64;
    if n < 10.0 {
        return None;
    }
    let (mean_x, mean_y) =
        (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let spread: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    let slope = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum::<f64>() / spread;
    let residuals: Vec<f64> = points.iter().map(|p| p.1 - mean_y - slope * (p.0 - mean_x)).collect();
    let squares: f64 = residuals.iter().map(|r| r * r).sum();
    let next: f64 = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum();
    let correlation = if squares > 0.0 { (next / squares).clamp(0.0, 0.99) } else { 0.0 };
    let worth = (n * (1.0 - correlation) / (1.0 + correlation)).max(4.0);
    let free = worth - 2.0;
    let error = (squares / n * worth / free / (spread / n * worth)).sqrt();
    // Student's t for 95 %, from the 1.96 of the normal distribution (Cornish-Fisher expansion).
    let t = 1.96 + 2.372 / free + 2.823 / free.powi(2);
    Some(Slope { slope, half: t * error, worth })
}
