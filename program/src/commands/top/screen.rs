//! The screen of `usbferry top`: made for 80 columns and 24 lines, and drawn on any terminal.
//!
//! ```text
//! the server
//! DEVICE  CLIENT  rates, errors, a small graph for each device
//! ENDPOINT  rates, times, errors of the selected device
//! the graph of the selected device
//! keys
//! ```
//!
//! Contract: draws into a frame; text of the server is made printable.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Row, Sparkline, Table, TableState};

use super::history::{Device, History, Rates};
use super::view::{Column, View};
use crate::commands::status::{errors_text, name_of, times, title};
use crate::report::{EndpointReport, Report, parse_time};
use crate::units::{Amount, clock};
use crate::words::{plural, printable};

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const INVERTED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Lines of the graph.
const GRAPH_HEIGHT: u16 = 4;
/// Lines of the endpoints, with their title.
const ENDPOINTS_HEIGHT: u16 = 7;
/// Rates in the small graph of a device.
const SMALL_GRAPH_LEN: usize = 11;

const KEYS: &str = " q quit   \u{2190} \u{2192} sort by   r reverse   \u{2191} \u{2193} device";

/// Draws a history as the user wants to see it.
pub(super) fn draw(frame: &mut Frame<'_>, history: &History, view: &mut View) {
    let (devices, selected) = view.devices(history);
    let [head, table, endpoints, graph, keys] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(3),
        Constraint::Length(ENDPOINTS_HEIGHT),
        Constraint::Length(GRAPH_HEIGHT + 1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, head, history);
    draw_devices(frame, table, history, view, (&devices, selected));
    if let Some(device) = selected.map(|at| devices[at]) {
        draw_endpoints(frame, endpoints, device);
        draw_graph(frame, graph, device, history);
    }
    frame.render_widget(Line::styled(KEYS, INVERTED), keys);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, history: &History) {
    let Some(report) = history.report() else { return };
    let server = &report.server;
    let since = parse_time(&server.since).map(clock).unwrap_or_default();
    let first = format!(
        "usbferry {}, process {}, since {since}, on {}",
        printable(&server.version),
        server.process,
        server.listen.iter().map(|address| printable(address)).collect::<Vec<_>>().join(", "),
    );
    let second = match &history.trouble {
        Some(trouble) => {
            Line::styled(format!("asking again each second: {}", printable(trouble)), INVERTED)
        }
        None => Line::raw(counts(report, history.devices.len())),
    };
    let [upper, lower] = Layout::vertical([Constraint::Length(1); 2]).areas(area);
    frame.render_widget(Line::styled(first, BOLD), upper);
    frame.render_widget(second, lower);
}

fn counts(report: &Report, devices: usize) -> String {
    format!(
        "{} client{} connected, {devices} device{} exported, {} with a client, {} held back",
        report.clients,
        plural(report.clients),
        plural(devices),
        report.sessions.len(),
        report.holds.len(),
    )
}

fn draw_devices(
    frame: &mut Frame<'_>,
    area: Rect,
    history: &History,
    view: &View,
    (devices, selected): (&[&Device], Option<usize>),
) {
    let arrow = if view.is_reversed { "\u{25b2}" } else { "\u{25bc}" };
    let header = Column::ALL.map(|column| match column == view.column {
        true => format!("{}{arrow}", column.title()),
        false => column.title().to_owned(),
    });
    let widths = [19, 22, 7, 7, 7, 7, 11].map(Constraint::Length);
    let table = Table::new(devices.iter().map(|device| row_of(device, history)), widths)
        .header(Row::new(header).style(BOLD))
        .column_spacing(0)
        .row_highlight_style(INVERTED);
    let mut state = TableState::default().with_selected(selected);
    frame.render_stateful_widget(table, area, &mut state);
}

fn row_of(device: &Device, history: &History) -> Row<'static> {
    let Device { export, session, rates, .. } = device;
    let client = match session {
        Some(session) if session.state == "lent" => printable(&session.client),
        Some(session) => format!("{} ({})", printable(&session.client), printable(&session.state)),
        None if export.held => "held back".to_owned(),
        None if !export.present => "unplugged".to_owned(),
        None => "free".to_owned(),
    };
    let errors = Amount::of(device.errors()).to_string();
    let [urbs, read, written] = amounts(rates);
    let title = title(&export.busid, export.name.as_deref());
    let graph = bars(&history.graph(&export.busid, SMALL_GRAPH_LEN));
    Row::new([title, client, urbs, read, written, errors, graph])
}

/// A graph of a line: a bar for each rate, the highest as high as the line.
fn bars(rates: &[u64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = u128::from(rates.iter().max().copied().unwrap_or(0).max(1));
    let bar = |rate: &u64| match (u128::from(*rate) * 8).div_ceil(most) {
        0 => ' ',
        height => BARS[usize::try_from(height - 1).unwrap_or(0).min(7)],
    };
    rates.iter().map(bar).collect()
}

fn amounts(rates: &Rates) -> [String; 3] {
    let Rates { urbs, bytes_in, bytes_out } = *rates;
    [Amount::of(urbs), Amount::bytes(bytes_in), Amount::bytes(bytes_out)]
        .map(|amount| amount.to_string())
}

fn draw_endpoints(frame: &mut Frame<'_>, area: Rect, device: &Device) {
    let header = ["ENDPOINT", "URBs/s", "IN/s", "OUT/s", "FLIGHT", "p50", "p99", "max", "ERRORS"];
    let widths = [19, 7, 7, 7, 7, 7, 7, 7, 12].map(Constraint::Length);
    let rows = device.endpoints.iter().map(|(endpoint, rates)| endpoint_row(endpoint, rates));
    let table = Table::new(rows, widths).header(Row::new(header).style(BOLD)).column_spacing(0);
    frame.render_widget(table, area);
}

fn endpoint_row(endpoint: &EndpointReport, rates: &Rates) -> Row<'static> {
    let [urbs, read, written] = amounts(rates);
    let [median, p99, longest] = times(&endpoint.turnaround);
    let in_flight = endpoint.counters.in_flight.to_string();
    let errors = errors_text(&endpoint.counters);
    Row::new([name_of(endpoint), urbs, read, written, in_flight, median, p99, longest, errors])
}

fn draw_graph(frame: &mut Frame<'_>, area: Rect, device: &Device, history: &History) {
    let [head, graph] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(GRAPH_HEIGHT)]).areas(area);
    let export = &device.export;
    let rates = history.graph(&export.busid, usize::from(graph.width));
    let most = rates.iter().max().copied().unwrap_or(0);
    let words = format!(
        "{}: bytes a second, both ways; highest {}",
        title(&export.busid, export.name.as_deref()),
        Amount::bytes(most),
    );
    frame.render_widget(Line::styled(words, BOLD), head);
    frame.render_widget(Sparkline::default().data(rates).max(most.max(1)), graph);
}
