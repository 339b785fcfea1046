//! Formats the figures of several rounds as table cells.

pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() % 2 {
        0 => (figures[middle - 1] + figures[middle]) / 2.0,
        _ => figures[middle],
    }
}

/// Formats the median, minimum and maximum as `1.07, 1.02-1.17`.
pub(crate) fn spread(figures: &[f64]) -> String {
    let (least, most) =
        figures.iter().fold((f64::MAX, 0.0_f64), |(l, m), figure| (l.min(*figure), m.max(*figure)));
    format!("{:.2}, {least:.2}-{most:.2}", median(figures.iter().copied()))
}

/// Returns the median figure of contender `at` and the spread of its ratio to the first contender
/// in the same round.
pub(crate) fn beside_the_first<F>(rounds: &[Vec<F>], at: usize, of: fn(&F) -> f64) -> (f64, String) {
    let ratios: Vec<f64> = rounds.iter().map(|round| of(&round[at]) / of(&round[0])).collect();
    (median(rounds.iter().map(|round| of(&round[at]))), spread(&ratios))
}

pub(crate) fn head(columns: &[&str]) {
    println!("| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()));
}
