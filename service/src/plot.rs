//! A plot of the last minutes as SVG, rendered by the server.

use std::fmt::Write as _;

use indicatif::HumanDuration;

use crate::history::INTERVAL;
use crate::html::escape;

/// The size of the plot, in SVG units.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 140.0;
/// Number of hover areas that show a value.
const BUCKETS: usize = 60;
/// Space at the top for the width of the line.
const MARGIN: f64 = 4.0;

/// Adds a plot of samples taken at [`INTERVAL`], scaled from 0 to the maximum. `unit` formats a
/// value. NaN means unknown, and leaves a gap in the line.
#[expect(
    clippy::arithmetic_side_effects,
    clippy::cast_precision_loss,
    reason = "positions in some hundred samples, one each second"
)]
pub(crate) fn plot(body: &mut String, title: &str, values: &[f64], unit: impl Fn(f64) -> String) {
    let most = values.iter().copied().fold(0.0, f64::max);
    let top = most.max(1.0);
    let step = WIDTH / (values.len().saturating_sub(1).max(1)) as f64;
    let mut drawn = String::new();
    let mut nth = 0;
    for run in values.chunk_by(|one, next| one.is_nan() == next.is_nan()) {
        let begin = nth;
        nth += run.len();
        if run.iter().any(|value| value.is_nan()) {
            continue;
        }
        let mut points = String::new();
        for (nth, value) in (begin..).zip(run) {
            let _ = write!(points, "{:.1},{:.1} ", nth as f64 * step, HEIGHT - value / top * (HEIGHT - MARGIN));
        }
        let (from, to) = (begin as f64 * step, (nth - 1) as f64 * step);
        let _ = write!(
            drawn,
            "<polygon points=\"{from:.1},{HEIGHT} {points}{to:.1},{HEIGHT}\"/><polyline points=\"{points}\"/>"
        );
    }
    // Hover areas show values without JavaScript.
    let bucket = values.len().div_ceil(BUCKETS).max(1);
    for (nth, bucket_values) in values.chunks(bucket).enumerate() {
        let known = bucket_values.iter().copied().filter(|value| !value.is_nan());
        let most = known.clone().fold(f64::NAN, f64::max);
        let figure = if most.is_nan() { "unknown".to_owned() } else { unit(most) };
        let back = values.len() - nth * bucket;
        let ago = HumanDuration(INTERVAL * u32::try_from(back).unwrap_or(0));
        let width = WIDTH / values.len().div_ceil(bucket) as f64;
        let x = nth as f64 * width;
        let _ = write!(
            drawn,
            "<rect x={x:.1} y=0 width={width:.1} height={HEIGHT}><title>{}, {ago} ago</title></rect>",
            escape(&figure)
        );
    }
    let half = escape(&unit(top / 2.0));
    let span = HumanDuration(INTERVAL * u32::try_from(values.len()).unwrap_or(0));
    let (name, peak, highest) = (escape(title), escape(&unit(most)), escape(&unit(top)));
    let _ = writeln!(
        body,
        "<figure><figcaption><h2>{name}</h2><span>peak {peak}</span></figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=none role=img \
         aria-label=\"{name}, the last {span}, peak {peak}\">\
         {drawn}</svg>\
         <p class=axis><span>{span} ago</span><span>height {highest}, half {half}</span><span>now</span></p></figure>",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_samples_leave_a_gap() {
        let mut body = String::new();
        plot(&mut body, "Waiting", &[1.0, 2.0, f64::NAN, f64::NAN, 4.0], |value| format!("{value}"));
        assert_eq!(body.matches("<polyline").count(), 2, "{body}");
        assert!(body.contains("<polyline points=\"600.0,4.0 \"/>") && !body.contains("NaN"), "{body}");
    }
}
