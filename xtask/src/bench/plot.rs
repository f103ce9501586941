//! A section as bars: each subject's ratio, with its spread. Readable on a light and on a dark
//! page.

use std::fmt::Write as _;

use super::results::Section;

const LABELS: f64 = 230.0;
const BARS: f64 = 520.0;
const FIGURES: f64 = 70.0;
const ROW: f64 = 20.0;
const TITLE: f64 = 30.0;

/// The file in `benches/plots/` for a section.
pub(crate) fn file_name(section: &str) -> String {
    let words = section.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    format!("{}.svg", words.collect::<Vec<_>>().join("-").to_lowercase())
}

pub(crate) fn svg(section: &Section) -> String {
    let most = section.cases.iter().flat_map(|case| &case.subjects).map(|subject| subject.ratio.most);
    let most = most.fold(1.0, f64::max);
    let x = |ratio: f64| LABELS + BARS * ratio / most;
    let mut body = String::new();
    let mut y = 10.0;
    for case in &section.cases {
        let _ = writeln!(body, r#"<text class="case" x="0" y="{}">{}</text>"#, y + 14.0, escaped(&case.name));
        y += TITLE - 6.0;
        for (nth, subject) in case.subjects.iter().enumerate() {
            let class = if nth == 0 { "first" } else { "other" };
            let (middle, ratio) = (y + ROW / 2.0, subject.ratio);
            let _ = writeln!(
                body,
                r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                LABELS - 8.0,
                middle + 4.0,
                escaped(&subject.name)
            );
            let _ = writeln!(
                body,
                r#"<rect class="{class}" x="{LABELS}" y="{:.1}" width="{:.1}" height="{:.1}"/>"#,
                y + 3.0,
                BARS * ratio.median / most,
                ROW - 6.0
            );
            let _ =
                writeln!(body, r#"<path class="spread" d="M{:.1} {middle:.1}H{:.1}"/>"#, x(ratio.least), x(ratio.most));
            let _ = writeln!(
                body,
                r#"<text x="{:.1}" y="{:.1}">× {:.2}</text>"#,
                x(ratio.most) + 6.0,
                middle + 4.0,
                ratio.median
            );
            y += ROW;
        }
        y += 8.0;
    }
    let width = LABELS + BARS + FIGURES;
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" height="{y}" role="img">
<title>{}: figures relative to the first subject of each case; shorter is better</title>
<style>
text {{ font: 12px sans-serif; fill: #24292f }}
.case {{ font-weight: bold }}
.first {{ fill: #1f883d }}
.other {{ fill: #8c959f }}
.spread {{ stroke: #24292f; stroke-width: 1.5; fill: none }}
@media (prefers-color-scheme: dark) {{
text {{ fill: #e6edf3 }}
.first {{ fill: #3fb950 }}
.other {{ fill: #6e7681 }}
.spread {{ stroke: #e6edf3 }}
}}
</style>
{body}</svg>
"#,
        escaped(&section.name)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::Results;

    #[test]
    fn every_subject_has_a_bar_as_long_as_its_ratio() {
        let text = r#"{"section":"a & b","case":"c","subject":"ours","unit":"s","samples":[1.0]}
{"section":"a & b","case":"c","subject":"theirs","unit":"s","samples":[2.0]}"#;
        let results = Results::read(text).unwrap();
        let svg = svg(&results.sections[0]);
        assert!(svg.contains(r#"class="first" x="230" y="37.0" width="260.0""#), "{svg}");
        assert!(svg.contains(r#"class="other" x="230" y="57.0" width="520.0""#), "{svg}");
        assert!(svg.contains("a &amp; b"));
        assert_eq!(file_name("XADD, shared client"), "xadd-shared-client.svg");
    }
}
