//! Rates, orders and the screen, of reports made by hand.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::history::History;
use super::view::View;
use super::*;

use crate::report::{
    ConnectionsReport, CountersReport, EndpointReport, ExportReport, GaugeReport, Report,
    ServerReport, SessionReport, TurnaroundReport, WorkReport,
};

fn counters(urbs: u64, bytes_in: u64) -> CountersReport {
    let errors = [("EPIPE".to_owned(), urbs / 10)].into();
    let (in_flight, most_in_flight, packet_errors, bytes_out) = (1, 2, 0, 0);
    CountersReport { urbs, bytes_in, bytes_out, in_flight, most_in_flight, packet_errors, errors }
}

fn export(busid: &str, client: Option<&str>) -> ExportReport {
    ExportReport {
        busid: busid.to_owned(),
        name: None,
        vid: None,
        pid: None,
        vendor: None,
        product: None,
        manufacturer: None,
        product_name: None,
        serial: None,
        present: true,
        offered: true,
        authorize: false,
        held: false,
        client: client.map(str::to_owned),
    }
}

fn session(busid: &str, client: &str, urbs: u64) -> SessionReport {
    let counters = counters(urbs, urbs * 512);
    let gauge = GaugeReport { now: 0, most: 0, room: 0 };
    let (p50_us, p99_us) = (Some(85), Some(3400));
    let endpoint = EndpointReport {
        number: 1,
        direction: "in".to_owned(),
        transfer_type: Some("bulk".to_owned()),
        counters: counters.clone(),
        turnaround: TurnaroundReport { p50_us, p99_us, ..TurnaroundReport::default() },
    };
    let work = WorkReport {
        unlinks: 0,
        refused: 0,
        slots: gauge,
        buffers: gauge,
        total: counters,
        endpoints: vec![endpoint],
    };
    SessionReport {
        busid: busid.to_owned(),
        name: None,
        client: client.to_owned(),
        connected: true,
        state: "lent".to_owned(),
        since: Some("2026-11-29T12:00:00Z".to_owned()),
        work: Some(work),
    }
}

/// Two devices with clients, of which the second moves more, and a free device.
fn report(urbs: u64) -> Report {
    let clients = ["192.0.2.7:40000", "192.0.2.8:40000"];
    Report {
        server: ServerReport {
            version: "0.1.0".to_owned(),
            process: 7,
            since: "2026-11-29T12:00:00Z".to_owned(),
            phase: "serving".to_owned(),
            listen: vec!["127.0.0.1:3240".to_owned()],
        },
        clients: 2,
        connections: ConnectionsReport::default(),
        exports: vec![
            export("1-10", None),
            export("1-2", Some(clients[1])),
            export("1-1", Some(clients[0])),
        ],
        sessions: vec![session("1-1", clients[0], urbs), session("1-2", clients[1], urbs * 2)],
        holds: Vec::new(),
        captures: Vec::new(),
    }
}

fn history() -> History {
    let (mut history, begin) = (History::default(), Instant::now());
    for second in 0..5_u64 {
        history.note(report(1000 * second), begin + Duration::from_secs(second));
    }
    history
}

/// The lines on a screen of 80 columns and 24 lines.
fn lines(history: &History, view: &mut View) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| screen::draw(frame, history, view)).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(80);
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>()).collect()
}

fn press(view: &mut View, code: KeyCode) {
    assert!(view.press(KeyEvent::new(code, KeyModifiers::NONE)).is_continue());
}

/// The places of the devices, from the top.
fn order(lines: &[String]) -> Vec<&str> {
    lines[3..6].iter().filter_map(|line| line.split_whitespace().next()).collect()
}

#[test]
fn the_screen_has_devices_rates_endpoints_and_a_graph() {
    let (history, mut view) = (history(), View::default());
    let lines = lines(&history, &mut view);
    assert!(lines[0].starts_with("usbferry 0.1.0, process 7, since "), "{lines:#?}");
    assert!(lines[2].starts_with("DEVICE\u{25bc}"), "{lines:#?}");
    assert_eq!(order(&lines), ["1-1", "1-2", "1-10"]);
    let first: Vec<&str> = lines[3].split_whitespace().collect();
    assert_eq!(first, ["1-1", "192.0.2.7:40000", "1.0K", "500K", "0", "400", "████"]);
    let endpoint = lines.iter().find(|line| line.starts_with("1 bulk in")).unwrap();
    let endpoint: Vec<&str> = endpoint.split_whitespace().skip(3).collect();
    assert_eq!(endpoint, ["1.0K", "500K", "0", "1", "85us", "3.4ms", "-", "400", "EPIPE"]);
    assert!(lines.iter().any(|line| line.starts_with("1-1: bytes a second")), "{lines:#?}");
    assert!(lines[22].contains('\u{2588}'), "a graph: {lines:#?}");
    assert!(lines[23].contains("q quit"));
}

#[test]
fn keys_sort_and_select() {
    let (history, mut view) = (history(), View::default());
    let mut after = |keys: &[KeyCode]| {
        keys.iter().for_each(|code| press(&mut view, *code));
        lines(&history, &mut view)
    };
    after(&[]);
    assert_eq!(order(&after(&[KeyCode::Char('r')])), ["1-10", "1-2", "1-1"]);
    assert_eq!(order(&after(&[KeyCode::Char('r'), KeyCode::Right])), ["1-1", "1-2", "1-10"]);
    let by_urbs = after(&[KeyCode::Right]);
    assert!(by_urbs[2].contains("URBs/s\u{25bc}"), "{by_urbs:#?}");
    assert_eq!(order(&by_urbs), ["1-2", "1-1", "1-10"]);
    // The selected device keeps the selection in another order.
    assert!(by_urbs.iter().any(|line| line.starts_with("1-1: bytes")), "{by_urbs:#?}");
    let up = after(&[KeyCode::Up]);
    assert!(up.iter().any(|line| line.starts_with("1-2: bytes")), "{up:#?}");
    let down = after(&[KeyCode::Down, KeyCode::Down, KeyCode::Down]);
    assert!(down.iter().any(|line| line.starts_with("1-10: bytes")), "{down:#?}");
    assert!(view.press(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE)).is_break());
}

#[test]
fn a_new_session_has_done_its_work_since_the_report_before() {
    let (mut history, begin) = (History::default(), Instant::now());
    history.note(report(1000), begin);
    let mut later = report(5000);
    later.sessions[0].since = Some("2026-11-29T12:00:01Z".to_owned());
    history.note(later, begin + Duration::from_secs(1));
    let urbs: Vec<u64> = history.devices.iter().map(|device| device.rates.urbs).collect();
    assert_eq!(urbs, [0, 8000, 5000]);
    let endpoints = history.devices.iter().flat_map(|device| &device.endpoints);
    assert_eq!(endpoints.map(|(_, rates)| rates.urbs).collect::<Vec<_>>(), [8000, 5000]);
    assert_eq!(history.graph("1-2", 10), [0, 8000 * 512]);
    assert_eq!(history.graph("1-2", 1), [8000 * 512]);
    history.note(Report { exports: Vec::new(), ..report(0) }, begin + Duration::from_secs(2));
    assert_eq!(history.graph("1-2", 10), [0; 0], "the device is gone");
    assert_eq!(lines(&history, &mut View::default()).len(), 24);
}

#[test]
fn a_server_that_is_gone_is_told_above_the_last_report() {
    let mut history = history();
    history.trouble = Some("no \u{1b}server".to_owned());
    let screen = lines(&history, &mut View::default());
    assert!(screen[1].starts_with("asking again each second: no "), "{screen:#?}");
    assert!(!screen[1].contains('\u{1b}') && screen[3].starts_with("1-1"), "{screen:#?}");
    history.note(report(9000), Instant::now());
    let screen = lines(&history, &mut View::default());
    assert!(screen[1].starts_with("2 clients connected, 3 devices exported"), "{screen:#?}");
}

#[test]
fn names_come_first_and_a_terminal_of_any_size_is_drawn_on() {
    let (mut history, mut view) = (history(), View::default());
    let mut named = report(5000);
    named.exports[0].name = Some("stick".to_owned());
    history.note(named, Instant::now());
    assert_eq!(order(&lines(&history, &mut view)), ["stick", "1-1", "1-2"]);
    for (columns, rows) in [(1, 1), (10, 3), (80, 10), (300, 100)] {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| screen::draw(frame, &history, &mut view)).unwrap();
    }
}
