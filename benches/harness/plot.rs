//! Lines over steps, as SVG: a panel for each figure.

use std::fmt::Write as _;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 48.0;
const COLOURS: [&str; 6] = ["#1b6ca8", "#d1495b", "#3a7d44", "#8d5a97", "#c77d1e", "#555555"];

/// A panel.
pub(crate) struct Panel {
    pub(crate) title: String,
    /// The label below each step.
    pub(crate) steps: Vec<String>,
    pub(crate) lines: Vec<Line>,
}

/// A line: its name, and the known values of its steps.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) values: Vec<Option<f64>>,
}

/// Draws panels, two beside each other.
pub(crate) fn draw(panels: &[Panel]) -> String {
    let rows = panels.len().div_ceil(2);
    let (width, height) = (2.0 * WIDTH, float(rows) * HEIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        let (x, y) = (float(index % 2) * WIDTH, float(index / 2) * HEIGHT);
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">");
        draw_panel(&mut svg, panel);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_panel(svg: &mut String, panel: &Panel) {
    let values = panel.lines.iter().flat_map(|line| line.values.iter().flatten());
    let most = ceiling(values.copied().fold(0.0, f64::max));
    let (inner_width, inner_height) = (WIDTH - 2.0 * MARGIN, HEIGHT - 2.0 * MARGIN);
    let x = |step: usize| MARGIN + inner_width * float(step) / float(panel.steps.len().max(2) - 1);
    let y = |value: f64| MARGIN + inner_height * (1.0 - value / most);
    let _ = writeln!(svg, "<text x=\"{MARGIN}\" y=\"20\" font-size=\"13\">{}</text>", panel.title);
    for part in 0..=4 {
        let value = most * float(part) / 4.0;
        let (at, end, label) = (y(value), WIDTH - MARGIN, rounded(value));
        let _ = writeln!(
            svg,
            "<line x1=\"{MARGIN}\" x2=\"{end}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            MARGIN - 4.0,
            at + 4.0
        );
    }
    for (step, label) in panel.steps.iter().enumerate() {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            x(step),
            HEIGHT - MARGIN + 16.0
        );
    }
    for (index, line) in panel.lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let mut points = String::new();
        for (step, value) in line.values.iter().enumerate() {
            if let Some(value) = value {
                let _ = write!(points, "{:.1},{:.1} ", x(step), y(*value));
            }
        }
        let legend = MARGIN + 70.0 * float(index);
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{legend}\" y=\"36\" fill=\"{colour}\">{}</text>",
            line.name
        );
    }
}

/// A round number not below `value`.
fn ceiling(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let unit = 10f64.powf(value.log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 4.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * unit).find(|&round| round >= value).unwrap_or(value)
}

/// Without the dust of binary fractions: quarters of a round number have few digits.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "a handful")]
const fn float(number: usize) -> f64 {
    number as f64
}
