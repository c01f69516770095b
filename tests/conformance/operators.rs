//! The socket of operators: what a person or a program on the server's machine sees there.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;
use usbferry::config::OperatorSocket;
use usbferry::config::socket::SocketPlace;
use usbferry::limits::{OPERATOR_REQUEST_LEN_MAX, OPERATORS_MAX};
use usbferry_program::operator::Desk;

use crate::support::client::MiniClient;
use crate::support::endpoints::{SILENT, SOURCE};
use crate::support::submit::Submit;
use crate::support::{Server, wait_until};

const STATUS: &str = r#"{"version":1,"request":"status"}"#;

/// A server with a desk.
pub(crate) struct Office {
    pub(crate) server: Server,
    pub(crate) desk: Option<Desk>,
    folder: TempDir,
}

impl Office {
    pub(crate) fn open(devices: &str) -> Self {
        Self::of(Server::start(devices))
    }

    /// Opens with a server.
    pub(crate) fn of(server: Server) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut office = Self { server, desk: None, folder };
        office.open_desk();
        office
    }

    /// Opens with another server, behind a desk that is closed.
    pub(crate) fn reopen(&mut self, devices: &str) {
        self.server = Server::start(devices);
        self.open_desk();
    }

    fn open_desk(&mut self) {
        let socket = OperatorSocket { place: SocketPlace::At(self.path()), mode: 0o600 };
        self.desk = Desk::open(&socket, self.server.handles.clone()).expect("it opens");
        wait_until("the first scan", || self.status()["exports"] != Value::Array(Vec::new()));
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("o.sock")
    }

    /// An operator that has said nothing.
    pub(crate) fn connect(&self) -> Talk {
        let stream = UnixStream::connect(self.path()).expect("somebody listens");
        Talk(BufReader::new(stream))
    }

    pub(crate) fn ask(&self, request: &str) -> Value {
        self.connect().ask(request)
    }

    pub(crate) fn status(&self) -> Value {
        self.ask(STATUS)["status"].take()
    }

    /// Runs a command of the program against the socket: the exit code, stdout and stderr.
    pub(crate) fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_usbferry"));
        let output = command.args(arguments).arg("--socket").arg(self.path()).output();
        let output = output.expect("it starts");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

/// An operator's connection.
pub(crate) struct Talk(BufReader<UnixStream>);

impl Talk {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("it is taken");
    }

    /// The next line.
    pub(crate) fn read(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    pub(crate) fn ask(&mut self, request: &str) -> Value {
        self.send(format!("{request}\n").as_bytes());
        self.read()
    }

    fn expect_end(&mut self) {
        assert_eq!(self.0.read(&mut [0; 1]).expect("an end"), 0);
    }
}

/// Reads from the loopback device's source, and leaves a URB in flight.
fn work(client: &mut MiniClient) {
    client.submit(&Submit::read(SILENT, 512));
    for _ in 0..3 {
        client.call_ok(&Submit::read(SOURCE, 512));
    }
}

#[test]
fn a_status_tells_who_has_which_device_and_what_was_moved() {
    let office = Office::open("loopback:count=2");
    let mut client = office.server.attach();
    work(&mut client);
    let status = office.status();
    assert_eq!(status["server"]["process"], std::process::id());
    assert_eq!(status["server"]["listen"][0], office.server.address.to_string());
    assert_eq!((&status["clients"], &status["exports"][1]["client"]), (&1.into(), &Value::Null));
    let export = &status["exports"][0];
    assert_eq!((&export["busid"], &export["vid"]), (&"1-1".into(), &"1209".into()));
    let session = &status["sessions"][0];
    assert_eq!(session["client"], client.address().to_string());
    assert_eq!((&session["state"], &session["connected"]), (&"lent".into(), &true.into()));
    let endpoints = session["work"]["endpoints"].as_array().expect("a list");
    let of = |number: u64| endpoints.iter().find(|at| at["number"] == number).expect("it is there");
    assert_eq!(of(1)["bytes_in"], 3 * 512);
    assert_eq!((&of(1)["urbs"], &of(1)["direction"]), (&3.into(), &"in".into()));
    assert_eq!(of(1)["type"], "bulk");
    let turnaround = &of(1)["turnaround"];
    let timed = turnaround["timed"].as_u64().expect("a number");
    assert!((1..=3).contains(&timed), "the first URB at least: {turnaround}");
    let buckets = turnaround["buckets"].as_array().expect("a list");
    let counts = buckets.iter().filter_map(|bucket| bucket["count"].as_u64());
    assert_eq!(counts.sum::<u64>(), timed);
    assert!(turnaround["p99_us"].as_u64() >= turnaround["p50_us"].as_u64());
    assert_eq!(of(u64::from(SILENT & 0x7f))["in_flight"], 1);
    assert_eq!(session["work"]["total"]["urbs"], 3);
    assert_eq!(session["work"]["slots"]["now"], 1);
    drop(client);
    wait_until("the session is over", || office.status()["sessions"] == Value::Array(Vec::new()));
}

#[test]
fn the_fields_of_a_status_are_documented() {
    let office = Office::open("loopback:count=2");
    let mut client = office.server.attach_to(1);
    work(&mut client);
    let page = include_str!("../../docs/status.md");
    office.ask(r#"{"version":1,"request":"disconnect","target":"1-1","hold":true}"#);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.pcapng").display().to_string();
    assert_eq!(office.run(&["capture", "start", &file]).0, Some(0));
    let mut fields = Vec::new();
    names_in(&office.status(), &mut fields);
    assert!(fields.len() > 30, "{fields:?}");
    for field in fields {
        assert!(page.contains(&format!("| `{field}` |")), "docs/status.md lacks {field}");
    }
}

/// The names of all fields in a value.
pub(crate) fn names_in(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(name, value)| {
            names.push(name.clone());
            names_in(value, names);
        }),
        Value::Array(values) => values.iter().for_each(|value| names_in(value, names)),
        _ => {}
    }
}

#[test]
fn a_connection_answers_one_request_after_another() {
    let office = Office::open("loopback");
    let mut talk = office.connect();
    for _ in 0..3 {
        assert_eq!(talk.ask(STATUS)["status"]["clients"], 0);
    }
    talk.send(format!("{STATUS}\n{STATUS}\n").as_bytes());
    assert_eq!((&talk.read()["version"], &talk.read()["version"]), (&1.into(), &1.into()));
}

#[test]
fn wrong_requests_are_refused_with_the_reason() {
    let office = Office::open("loopback");
    let mut talk = office.connect();
    for (line, reason) in [
        ("", "request"),
        ("hello", "request"),
        ("\u{0}\u{7f}{", "request"),
        (r#"{"version":1,"request":"fly"}"#, "request"),
        (r#"{"version":2,"request":"status"}"#, "version"),
    ] {
        let answer = talk.ask(line);
        assert_eq!(answer["error"]["reason"], reason, "{line:?}");
        assert!(answer["error"]["message"].as_str().expect("words").len() > 10);
    }
    assert!(talk.ask(STATUS)["status"].is_object(), "the connection is good for more");
    let mut long = office.connect();
    long.send(&vec![b'x'; OPERATOR_REQUEST_LEN_MAX + 1]);
    assert_eq!(long.read()["error"]["reason"], "request");
    long.expect_end();
    assert!(office.status().is_object());
}

#[test]
fn too_many_operators_are_told_and_harm_nobody() {
    let office = Office::open("loopback");
    let mut client = office.server.attach();
    let silent: Vec<Talk> = (0..OPERATORS_MAX).map(|_| office.connect()).collect();
    let mut refused = office.connect();
    assert_eq!(refused.read()["error"]["reason"], "busy");
    refused.expect_end();
    client.assert_in_sync();
    drop(silent);
    wait_until("there is room again", || {
        let mut talk = office.connect();
        // Whoever is refused may be gone before the request is sent.
        let sent = talk.0.get_mut().write_all(format!("{STATUS}\n").as_bytes());
        sent.is_ok() && talk.read()["status"].is_object()
    });
}

#[test]
fn a_status_for_a_person_fits_a_terminal() {
    let office = Office::open("loopback:count=2");
    let mut client = office.server.attach();
    work(&mut client);
    let (code, out, _) = office.run(&["status"]);
    assert_eq!(code, Some(0));
    let client = client.address();
    for part in ["1 client connected, 2 devices known", &format!("lent to {client}"), "1-2", "free"]
    {
        assert!(out.contains(part), "{part}: {out}");
    }
    let row = "  1 bulk in               3   1.5K      0         0    1 ";
    let row = out.lines().find_map(|line| line.strip_prefix(row)).expect(&out);
    let times: Vec<&str> = row.split_whitespace().collect();
    assert!(times.len() == 3 && times[..2].iter().all(|time| time.ends_with('s')), "{out}");
    // The output is no terminal, and so the names of devices are whole.
    let (names, rest): (Vec<&str>, Vec<&str>) =
        out.lines().partition(|line| line.ends_with("Generic pid.codes Test PID"));
    assert_eq!(names.len(), 2, "{out}");
    assert!(rest.iter().all(|line| line.chars().count() <= 80), "{out}");
    let stick = Office::open("disk");
    let (_, out, _) = stick.run(&["status"]);
    assert!(out.contains("0 clients connected, 1 device known, 0 with"), "{out}");
    let (_, json, _) = office.run(&["status", "--json"]);
    let json: Value = serde_json::from_str(&json).expect("a line of JSON");
    assert_eq!((&json["schema"], &json["sessions"][0]["busid"]), (&1.into(), &"1-1".into()));
}

#[test]
fn a_desk_that_is_closed_leaves_no_socket() {
    let mut office = Office::open("loopback");
    assert!(office.path().exists());
    office.desk = None;
    assert!(!office.path().exists());
    let (code, _, error) = office.run(&["status"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("no usbferry serves here") && error.contains("o.sock"), "{error}");
}

/// Far more connections than a desk needs turns to end.
const CONNECTIONS_MAX: usize = 50_000;

#[test]
fn operators_that_connect_without_a_pause_keep_no_desk_open() {
    let mut office = Office::open("loopback");
    let (path, made) = (&office.path(), &AtomicUsize::new(0));
    let outlived = thread::scope(|scope| {
        let connects = || {
            (0..CONNECTIONS_MAX).all(|_| {
                made.fetch_add(1, Ordering::Relaxed);
                UnixStream::connect(path).is_ok()
            })
        };
        let operators = [(); 4].map(|()| scope.spawn(connects));
        wait_until("a flood", || made.load(Ordering::Relaxed) > CONNECTIONS_MAX / 50);
        office.desk = None;
        operators.map(|operator| operator.join().expect("no panic"))
    });
    assert_eq!(outlived, [false; 4]);
}
