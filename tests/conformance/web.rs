//! The web server: what browsers, Prometheus, health checks and abusers get.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use usbferry::config::rules::Allowed;
use usbferry::config::{Capturing, Http, Listen, Settings};
use usbferry::limits::{HTTP_CONNECTIONS_MAX, HTTP_HEADER_LEN_MAX};
use usbferry::usb::sim::loopback::request;
use usbferry_program::web::{Web, WebError};

use crate::support::client::EPIPE;
use crate::support::endpoints::{SILENT, SOURCE};
use crate::support::submit::Submit;
use crate::support::{DEADLINE, LEN_MAX, Server, wait_until};

/// A USB/IP server with a web server.
struct Pages {
    server: Server,
    web: Option<Web>,
}

/// The status, the header fields in small letters, and the bytes of an answer.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(field, _)| *field == name).map(|(_, value)| value)
    }
}

fn http(name: Option<&str>) -> Http {
    let listen = Listen { address: ([127, 0, 0, 1], 0).into(), optional: false };
    Http { listen: vec![listen], name: name.map(str::to_owned) }
}

impl Pages {
    fn open(devices: &str) -> Self {
        Self::of(Server::start(devices))
    }

    fn of(server: Server) -> Self {
        let facts = (server.handles.status.clone(), server.handles.server.clone());
        let web = Web::open(&http(Some("usb.lan")), Vec::new(), Allowed::default(), facts);
        let pages = Self { server, web: web.expect("it opens") };
        wait_until("the first scan", || pages.get("/readyz").status == 200);
        pages
    }

    fn address(&self) -> SocketAddr {
        self.web.as_ref().expect("it is open").addresses()[0]
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).expect("somebody listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time");
        stream
    }

    /// The answer to bytes, after which the server closes.
    fn send(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // The server may refuse before all is sent.
        let _ = stream.write_all(bytes);
        read(&mut stream)
    }

    fn request(&self, line: &str, fields: &str) -> Answer {
        self.send(format!("{line}\r\n{fields}Connection: close\r\n\r\n").as_bytes())
    }

    fn get(&self, path: &str) -> Answer {
        self.request(&format!("GET {path} HTTP/1.1"), "Host: localhost\r\n")
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&self.get("/status.json").body).expect("JSON")
    }

    /// The value of a sample, by its name and labels.
    fn sample(&self, name: &str) -> Option<f64> {
        let metrics = self.get("/metrics");
        let mut lines = metrics.text().lines().filter_map(|line| line.rsplit_once(' '));
        lines.find(|(sample, _)| *sample == name).map(|(_, value)| value.parse().expect("a number"))
    }
}

/// Reads an answer up to the end of the connection.
fn read(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let body = bytes.split_off(end + 4);
    let head = String::from_utf8(bytes).expect("UTF-8").to_lowercase();
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    Answer { status, head, body }
}

#[test]
fn the_page_has_no_foreign_part_and_runs_no_foreign_script() {
    let pages = Pages::open("loopback");
    let page = pages.get("/");
    assert_eq!((page.status, page.field("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.field("content-security-policy").expect("a policy");
    let (_, nonce) = policy.split_once("script-src 'nonce-").expect("a nonce");
    let (nonce, _) = nonce.split_once('\'').expect("an end");
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.text().matches("<script").count(), 1);
    assert!(page.text().contains(&format!("<script nonce=\"{nonce}\">")));
    assert!(page.text().contains(&format!("<style nonce=\"{nonce}\">")));
    for foreign in ["innerHTML", "insertAdjacentHTML", "document.write", "eval(", "https://"] {
        assert!(!page.text().contains(foreign), "{foreign}");
    }
    let again = pages.get("/");
    assert!(!again.head.contains(nonce), "each answer has its own");
}

#[test]
fn every_answer_is_kept_by_nobody_and_guessed_by_nobody() {
    let pages = Pages::open("loopback");
    let requests = ["/", "/metrics", "/status.json", "/healthz", "/readyz", "/nothing"];
    let answers = requests.map(|path| pages.get(path));
    let refused = pages.request("POST / HTTP/1.1", "Host: localhost\r\n");
    let foreign = pages.request("GET / HTTP/1.1", "Host: evil.example\r\n");
    for answer in answers.iter().chain([&refused, &foreign]) {
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{}", answer.head);
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
        assert!(answer.field("content-security-policy").is_some());
        assert_eq!(answer.field("access-control-allow-origin"), None);
    }
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 404]);
}

#[test]
fn only_get_and_head_are_answered() {
    let pages = Pages::open("loopback");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "BREW"] {
        let target = if method == "CONNECT" { "localhost:80" } else { "/" };
        let line = format!("{method} {target} HTTP/1.1");
        let answer = pages.request(&line, "Host: localhost\r\nContent-Length: 0\r\n");
        assert_eq!((answer.status, answer.field("allow")), (405, Some("get, head")), "{method}");
    }
    let (head, get) = (pages.request("HEAD / HTTP/1.1", "Host: localhost\r\n"), pages.get("/"));
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.field("content-length"), get.field("content-length"));
}

#[test]
fn a_client_that_sends_no_more_has_its_answer() {
    let pages = Pages::open("loopback");
    for request in
        ["GET /healthz HTTP/1.0\r\n\r\n", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"]
    {
        let mut stream = pages.connect();
        stream.write_all(request.as_bytes()).expect("it is taken");
        stream.shutdown(Shutdown::Write).expect("it is connected");
        assert_eq!(read(&mut stream).status, 200, "{request}");
    }
}

#[test]
fn a_request_for_another_name_is_refused() {
    let pages = Pages::open("loopback");
    let port = pages.address().port();
    for host in ["127.0.0.1", "[::1]", "localhost", "usb.lan", "192.0.2.1"] {
        for host in [host.to_owned(), format!("{host}:{port}")] {
            let answer = pages.request("GET /healthz HTTP/1.1", &format!("Host: {host}\r\n"));
            assert_eq!(answer.status, 200, "{host}");
        }
    }
    for fields in [
        "Host: evil.example\r\n",
        "Host: localhost.evil.example\r\n",
        "Host: \r\n",
        "",
        "Host: localhost\r\nHost: evil.example\r\n",
        "Host: localh\u{f6}st\r\n",
    ] {
        for path in ["/", "/metrics", "/status.json", "/healthz"] {
            let answer = pages.request(&format!("GET {path} HTTP/1.1"), fields);
            assert_eq!(answer.status, 421, "{fields:?}");
        }
    }
    let absolute = pages.request("GET http://evil.example/ HTTP/1.1", "Host: localhost\r\n");
    assert_eq!(absolute.status, 421);
    assert_eq!(pages.send(b"GET /healthz HTTP/1.0\r\n\r\n").status, 200, "no browser speaks so");
}

#[test]
fn the_state_and_the_metrics_have_the_work_of_a_session() {
    let pages = Pages::open("loopback:count=2");
    assert_eq!(pages.sample("usbferry_devices{state=\"free\"}"), Some(2.0));
    let mut client = pages.server.attach();
    client.submit(&Submit::read(SILENT, 512));
    for _ in 0..3 {
        client.call_ok(&Submit::read(SOURCE, 512));
    }
    client.command(request::STALL_AFTER, 512, SOURCE.into());
    assert_eq!(client.call(&Submit::read(SOURCE, 1024)).status, EPIPE);
    let stalls = "/sessions/0/work/total/errors/EPIPE";
    wait_until("a new report", || pages.status().pointer(stalls) == Some(&1.into()));
    let labels = "busid=\"1-1\",endpoint=\"1\",direction=\"in\"";
    let silent = u64::from(SILENT & 0x7f);
    for (sample, value) in [
        (format!("usbferry_endpoint_bytes_total{{{labels}}}"), 2048.0),
        (format!("usbferry_endpoint_urbs_total{{{labels}}}"), 4.0),
        (
            format!(
                "usbferry_endpoint_in_flight_urbs{{busid=\"1-1\",endpoint=\"{silent}\",\
                 direction=\"in\"}}"
            ),
            1.0,
        ),
        (format!("usbferry_endpoint_errors_total{{{labels},errno=\"EPIPE\"}}"), 1.0),
        (
            "usbferry_session_info{busid=\"1-1\",client=\"127.0.0.1\",state=\"lent\"}".to_owned(),
            1.0,
        ),
        ("usbferry_slots_in_use{busid=\"1-1\"}".to_owned(), 1.0),
        ("usbferry_devices{state=\"lent\"}".to_owned(), 1.0),
        ("usbferry_clients".to_owned(), 1.0),
    ] {
        assert_eq!(pages.sample(&sample), Some(value), "{sample}");
    }
    // A sample of the URBs.
    let timed = format!("usbferry_endpoint_turnaround_seconds_bucket{{{labels},le=\"+Inf\"}}");
    assert!(pages.sample(&timed).is_some_and(|count| (1.0..=4.0).contains(&count)));
    drop(client);
    wait_until("the session is over", || {
        pages.sample("usbferry_slots_in_use{busid=\"1-1\"}").is_none()
    });
}

/// A capture is there with its numbers while it runs, and leaves nothing behind.
#[test]
fn the_metrics_have_the_urbs_and_the_drops_of_captures() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("every \"one\".pcapng");
    let capture = Capturing { path, size: None, snap_len: 64 };
    let settings = |settings: &mut Settings| settings.capture = Some(capture);
    let pages = Pages::of(Server::start_with("loopback", settings));
    let mut client = pages.server.attach();
    for _ in 0..3 {
        client.call_ok(&Submit::read(SOURCE, 512));
    }
    let file = format!("{}/every \\\"one\\\".pcapng", folder.path().display());
    let sample = |name: &str| pages.sample(&format!("usbferry_capture_{name}{{file=\"{file}\"}}"));
    wait_until("a new report", || sample("urbs_total") == Some(3.0));
    assert_eq!(sample("urbs_dropped_total"), Some(0.0));
    assert_eq!(sample("submissions_dropped_total"), Some(0.0));
    assert_eq!(sample("writing"), Some(1.0));
    // A section, two descriptors and three URBs, within the tenth of a second.
    wait_until("they are written", || sample("written_bytes_total").is_some_and(|len| len > 500.0));
    assert!(pages.server.handles.operator.stop_capture(None).expect("it runs").is_ok());
    wait_until("no capture", || sample("urbs_total").is_none());
}

#[test]
fn clients_that_come_and_go_leave_no_series_behind() {
    let pages = Pages::open("loopback");
    let series = || pages.get("/metrics").text().lines().count();
    let before = series();
    for _ in 0..20 {
        drop(pages.server.attach());
        drop(pages.server.connect());
    }
    pages.server.wait_released(0);
    wait_until("as many lines as before", || series() == before);
    wait_until("they were counted", || {
        pages.sample("usbferry_connections_accepted_total").is_some_and(|count| count >= 40.0)
    });
}

#[test]
fn clients_of_no_allowed_address_get_nothing() {
    let pages = Pages::open("loopback");
    let access = pages.web.as_ref().expect("it is open").access();
    // Every machine that runs these tests has a network of its own.
    let other = own_address().expect("an address beside loopback");
    let listen = vec![Listen { address: (other, 0).into(), optional: false }];
    let facts = (pages.server.handles.status.clone(), pages.server.handles.server.clone());
    let public = Http { listen, name: None };
    let web = Web::open(&public, Vec::new(), Allowed::default(), facts).expect("it opens");
    let web = web.expect("it listens");
    let ask = || {
        let mut stream = TcpStream::connect(web.addresses()[0]).expect("somebody listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time");
        let _ = stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n");
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    };
    assert!(ask().is_empty());
    web.access().change(Allowed(vec![other.into()]));
    assert!(ask().starts_with(b"HTTP/1.0 200"));
    // A client that is connected is asked about again.
    let mut stream = TcpStream::connect(web.addresses()[0]).expect("somebody listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time");
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).expect("it is taken");
    let mut room = [0; 4096];
    let len = stream.read(&mut room).expect("an answer");
    assert!(room[..len].starts_with(b"HTTP/1.1 200"));
    web.access().change(Allowed::default());
    stream.write_all(request).expect("it is taken");
    let len = stream.read(&mut room).expect("an answer");
    assert!(room[..len].starts_with(b"HTTP/1.1 403"));
    // This machine's own clients always may.
    access.change(Allowed::default());
    assert_eq!(pages.get("/healthz").status, 200);
}

/// An address of this machine beside loopback. No packet is sent.
fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    Some(address).filter(|address| !address.is_unspecified())
}

#[test]
fn a_request_that_is_too_large_or_none_is_refused() {
    let pages = Pages::open("loopback");
    let long = "x".repeat(2 * HTTP_HEADER_LEN_MAX);
    let many = "A: b\r\n".repeat(200);
    let [field, path, fields] = [
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nA: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"),
    ];
    let wrong: [(&[u8], u16); 6] = [
        (field.as_bytes(), 431),
        (path.as_bytes(), 431),
        (fields.as_bytes(), 431),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"\x01\x11\x80\x05\x00\x00\x00\x00\r\n\r\n", 400),
    ];
    for (bytes, status) in wrong {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        assert_eq!(pages.send(bytes).status, status, "{shown}");
    }
    assert_eq!(pages.get("/healthz").status, 200);
}

#[test]
fn requests_in_one_packet_are_answered_in_order() {
    let pages = Pages::open("loopback");
    let request =
        |path: &str, rest: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{rest}\r\n");
    let mut all = String::new();
    for _ in 0..100 {
        all += &request("/healthz", "");
    }
    all += &request("/nothing", "Connection: close\r\n");
    let mut stream = pages.connect();
    stream.write_all(all.as_bytes()).expect("it is taken");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answers");
    assert_eq!(text.matches("HTTP/1.1 200").count(), 100);
    assert_eq!(text.matches("HTTP/1.1 404").count(), 1);
    assert!(text.rfind("HTTP/1.1 200") < text.find("HTTP/1.1 404"));
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let pages = Pages::open("loopback");
    let mut stream = pages.connect();
    stream.set_nodelay(true).expect("an option");
    for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" {
        stream.write_all(&[*byte]).expect("it is taken");
    }
    assert_eq!(read(&mut stream).status, 200);
}

/// Requests for the page whose answers no socket has room for.
const UNREAD: usize = 1000;

#[test]
fn clients_that_ask_nothing_or_read_nothing_keep_nobody_out() {
    let pages = Pages::open("loopback:count=2");
    let silent: Vec<TcpStream> = (0..3 * HTTP_CONNECTIONS_MAX)
        .map(|number| {
            let mut stream = pages.connect();
            let begun = b"GET / HT";
            let unread = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(UNREAD);
            let sent: &[u8] = match number % 16 {
                0 => &unread,
                number if number % 2 == 0 => begun,
                _ => &[],
            };
            stream.write_all(sent).expect("it is taken");
            stream
        })
        .collect();
    assert_eq!(pages.get("/healthz").status, 200);
    let mut gone = 0;
    for mut stream in silent {
        stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a time");
        let mut room = vec![0; 1 << 16];
        let end =
            std::iter::repeat_with(|| stream.read(&mut room)).find(|read| !matches!(read, Ok(1..)));
        let waits = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
        gone += usize::from(!matches!(end, Some(Err(error)) if waits(&error)));
    }
    assert!(gone >= 2 * HTTP_CONNECTIONS_MAX, "{gone}");
    pages.server.assert_serves(0);
}

#[test]
fn a_server_that_stops_is_alive_and_not_ready_and_then_gone() {
    let mut pages = Pages::of(Server::start_with("loopback", |settings| {
        settings.socket_buffer = Some(64 << 10);
    }));
    let mut client = pages.server.attach();
    let seqnum = client.submit(&Submit::read(SOURCE, LEN_MAX));
    wait_until("the reply has begun", || client.has_input());
    assert_eq!(pages.get("/readyz").text(), "ready\n");
    pages.server.begin_stop();
    // The rest of the reply is on its way, and the server waits for the client.
    wait_until("not ready", || pages.get("/readyz").status == 503);
    assert_eq!(pages.get("/readyz").text(), "stopping\n");
    assert_eq!(pages.get("/healthz").status, 200);
    client.ret(seqnum);
    wait_until("the end", || pages.get("/healthz").status == 503);
    let address = pages.address();
    pages.web = None;
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
}

#[test]
fn a_port_in_use_is_told_with_the_option() {
    let pages = Pages::open("loopback");
    let listen = vec![Listen { address: pages.address(), optional: false }];
    let facts = (pages.server.handles.status.clone(), pages.server.handles.server.clone());
    let error = Web::open(&Http { listen, name: None }, Vec::new(), Allowed::default(), facts);
    let error = error.expect_err("the port is taken");
    assert!(matches!(error, WebError::Listen(_)));
    let expected = format!("--http: {} is in use by another program; choose", pages.address());
    assert!(error.to_string().starts_with(&expected), "{error}");
}
