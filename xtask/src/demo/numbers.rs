//! Formats numbers.

use std::time::Duration;

/// The counts of the compared bytes.
pub(super) struct Counted {
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

/// Groups digits by thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Units per second, rounded.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people: three digits count"
)]
pub(super) fn rate(number: u64, time: Duration) -> u64 {
    (number as f64 / time.as_secs_f64().max(1e-6)) as u64
}

/// The last line of the demo.
pub(super) fn summary(counted: &Counted, took: Duration) -> String {
    format!(
        "{} lines, {} bytes in {:.2} s: {} lines/s, {} MB/s",
        grouped(counted.lines),
        grouped(counted.bytes),
        took.as_secs_f64(),
        grouped(rate(counted.lines, took)),
        grouped(rate(counted.bytes, took) / 1_000_000),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        for (number, shown) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), shown);
        }
    }

    #[test]
    fn a_rate_is_per_second() {
        assert_eq!(rate(100, Duration::from_millis(500)), 200);
        assert_eq!(rate(0, Duration::ZERO), 0);
    }
}
