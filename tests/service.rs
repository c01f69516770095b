//! The program under a service manager: passed sockets, messages, lines of the journal, and a
//! server under the name of `usbipd`. The service manager is the test.

#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "other test binaries use the rest")]
mod support;

#[allow(dead_code, reason = "other test binaries use the rest")]
#[path = "support/program.rs"]
mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use program::Running;
use support::client::DEVLIST;
use support::{DEADLINE, wait_until};

/// A shell that makes its input the first passed descriptor of the program behind it: only the
/// program itself knows its process id.
const PASS: &str = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";

fn usbferry(arguments: &[&str]) -> Command {
    with_defaults(program::usbferry(arguments))
}

/// The program with a listener of this test's as the passed socket.
fn activated(listener: OwnedFd, arguments: &[&str]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", PASS, env!("CARGO_BIN_EXE_usbferry")]).args(arguments);
    command.env("LISTEN_FDNAMES", "usbferry.socket");
    let mut command = with_defaults(command);
    command.stdin(Stdio::from(listener));
    command
}

/// A server with a simulated device on a port of its own.
const SERVE: [&str; 4] = ["serve", "--simulate=loopback", "--listen", "127.0.0.1:0"];

/// A program that may end before it listens.
fn start(mut command: Command) -> Running {
    Running::following(command.spawn().expect("it starts"))
}

/// Where a server listens, by a line of JSON.
fn address_of(line: &str) -> SocketAddr {
    let (_, rest) = line.split_once("listening on ").expect("it has it");
    rest.split('"').next().and_then(|text| text.parse().ok()).expect("an address")
}

fn with_defaults(mut command: Command) -> Command {
    let inherited = ["RUST_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM"];
    for variable in inherited {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The socket of a service manager for messages.
struct Messages {
    folder: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Messages {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        Self { folder, socket }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    fn next(&self) -> String {
        let mut room = [0; 1024];
        let len = self.socket.recv(&mut room).expect("a message in time");
        String::from_utf8(room[..len].to_vec()).expect("text")
    }

    /// Waits for a message with `text`, whatever comes before.
    fn wait_for(&self, text: &str) {
        while !self.next().contains(text) {}
    }
}

#[test]
fn a_service_manager_hears_of_start_clients_reload_and_stop() {
    let messages = Messages::new();
    let mut command = usbferry(&SERVE);
    command.env("NOTIFY_SOCKET", messages.path());
    let mut running = Running::start_listening(command);
    messages.wait_for("READY=1");
    messages.wait_for("STATUS=devices exported: 1, with a client: 0");
    let client = running.attach("1-1");
    messages.wait_for("STATUS=devices exported: 1, with a client: 1");
    running.signal("-HUP");
    messages.wait_for("RELOADING=1\nMONOTONIC_USEC=");
    messages.wait_for("READY=1");
    drop(client);
    messages.wait_for("STATUS=devices exported: 1, with a client: 0");
    running.signal("-TERM");
    messages.wait_for("STOPPING=1");
    messages.wait_for("STATUS=stopping: ");
    // A second signal would end the server at once.
    assert_eq!(running.wait().code(), Some(0));
}

/// Each sign comes from a turn of the reactor.
#[test]
fn signs_of_life_come_as_often_as_the_service_manager_asks() {
    let messages = Messages::new();
    let mut command = usbferry(&SERVE);
    command.env("NOTIFY_SOCKET", messages.path()).env("WATCHDOG_USEC", "200000");
    let running = Running::start_listening(command);
    (0..5).for_each(|_| messages.wait_for("WATCHDOG=1"));
    // A program that hangs gives no more signs.
    running.signal("-STOP");
    messages.socket.set_nonblocking(true).expect("a socket");
    let is_quiet = || messages.socket.recv(&mut [0; 64]).is_err();
    wait_until("the signs end", is_quiet);
    running.signal("-CONT");
    messages.socket.set_nonblocking(false).expect("a socket");
    messages.wait_for("WATCHDOG=1");
    running.stop();
}

/// Holds a server's reactor, the first thread of the process, while all other threads run: the stop
/// of a debugger, since a signal would stop all threads.
struct HeldReactor(libc::pid_t);

impl HeldReactor {
    fn of(running: &Running) -> Self {
        let id = running.child.id();
        let held = Self(libc::pid_t::try_from(id).expect("a process"));
        held.trace(libc::PTRACE_SEIZE);
        held.trace(libc::PTRACE_INTERRUPT);
        wait_until("the reactor is held", || {
            let stat = std::fs::read_to_string(format!("/proc/{id}/task/{id}/stat"));
            stat.expect("it runs").rsplit_once(") ").expect("a state").1.starts_with('t')
        });
        held
    }

    fn trace(&self, request: libc::c_uint) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: the requests made here read and write no memory of this process.
        let result = unsafe { libc::ptrace(request, self.0, none, none) };
        assert_eq!(result, 0, "ptrace: {}", std::io::Error::last_os_error());
    }

    fn let_go(self) {
        self.trace(libc::PTRACE_DETACH);
    }
}

/// The status of the answer of a web server.
fn web_status(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer within the time");
    answer.split(' ').nth(1).expect("a status").to_owned() + answer.lines().last().unwrap_or("")
}

/// The web server lives on, and says so each time within the bound of a wait.
#[test]
fn health_checks_notice_a_reactor_that_hangs() {
    let running = Running::start(&["--simulate=loopback", "--http", "127.0.0.1:0"]);
    running.wait_for("the page is at http://");
    let line = running.lines_with("the page is at http://").remove(0);
    let (_, address) = line.split_once("http://").expect("an address");
    let address = address.trim_end_matches('/');
    wait_until("it serves", || web_status(address, "/readyz") == "200ready");
    let held = HeldReactor::of(&running);
    // A last report may be some milliseconds old.
    wait_until("the hang is noticed", || web_status(address, "/healthz").starts_with("503"));
    for path in ["/healthz", "/readyz", "/metrics", "/status.json"] {
        assert_eq!(web_status(address, path), "503the reactor does not answer");
    }
    assert!(web_status(address, "/").starts_with("200"), "the page says so itself");
    held.let_go();
    wait_until("it answers again", || web_status(address, "/healthz") == "200ok");
    running.stop();
}

#[test]
fn a_service_manager_that_can_not_be_told_is_a_warning() {
    for (socket, says) in [
        ("/nonexistent/notify", "does not hear of the start: No such file"),
        ("vsock:2:1", "neither a path nor an abstract name"),
    ] {
        let mut command = usbferry(&SERVE);
        command.env("NOTIFY_SOCKET", socket);
        let running = Running::start_listening(command);
        running.wait_for(says);
        drop(running.attach("1-1"));
        running.stop();
    }
}

#[test]
fn passed_sockets_stand_in_for_addresses_to_listen_on() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let mut running = start(activated(listener.into(), &SERVE));
    running.wait_for("listening on ");
    let line = running.lines_with("listening on ").remove(0);
    let expected =
        format!("listening on {address}, a socket of the service manager's (usbferry.socket)");
    assert!(line.ends_with(&expected), "{line}");
    running.address = address;
    drop(running.attach("1-1"));
    running.signal("-HUP");
    running.wait_for("there is no file of settings to read again");
    running.stop();
}

#[test]
fn a_passed_socket_of_the_name_http_is_the_web_servers() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let mut command = activated(listener.into(), &SERVE);
    command.env("LISTEN_FDNAMES", "http");
    let running = start(command);
    running.wait_for(&format!("the page is at http://{address}/"));
    let line = running.lines_with("listening on ").remove(0);
    assert_ne!(address_of(&line), address, "clients of USB/IP have another");
    running.stop();
}

#[test]
fn a_passed_descriptor_that_is_no_listener_is_refused_with_advice() {
    let folder = tempfile::tempdir().expect("a folder");
    let unix = UnixListener::bind(folder.path().join("socket")).expect("a socket");
    let mut running = start(activated(unix.into(), &["serve", "--simulate"]));
    assert_eq!(running.wait().code(), Some(1));
    running.wait_for("error: the service manager passes a descriptor, usbferry.socket, that is no");
    running.wait_for("ListenStream=ADDRESS:PORT");
}

/// Clients that connect while no server runs wait for the next server, and a server that stops
/// answers the clients that it has accepted.
#[test]
fn no_client_is_refused_while_an_activated_server_restarts() {
    const RESTARTS: usize = 50;
    const CONNECTS: usize = 10_000;
    const THREADS: usize = 4;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (made, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(list(address), 1, "devices");
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for restart in 1..=RESTARTS {
            let descriptor = listener.try_clone().expect("a descriptor");
            let running = start(activated(descriptor.into(), &["serve", "--simulate=loopback"]));
            // From then on a signal is a stop in order.
            running.wait_for("listening on ");
            wait_until("its share of clients", || {
                made.load(Ordering::Relaxed) >= CONNECTS * restart / RESTARTS
            });
            running.stop();
        }
        let running = start(activated(listener.into(), &["serve", "--simulate=loopback"]));
        is_over.store(true, Ordering::Relaxed);
        wait_until("the last clients", || !running.lines_with("listening on ").is_empty());
        // The threads end with the answers of this server.
        scope.spawn(move || {
            wait_until("nobody asks", || list(address) == 1);
            running.stop();
        });
    });
    assert!(made.load(Ordering::Relaxed) >= CONNECTS);
}

/// The number of devices in a server's answer to a new client.
fn list(address: SocketAddr) -> u32 {
    let mut stream = TcpStream::connect(address).expect("no client is refused");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    stream.write_all(&DEVLIST).expect("no connection is cut");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer in time");
    let count = answer.get(8..12).unwrap_or_else(|| panic!("no answer: {answer:02x?}"));
    u32::from_be_bytes(count.try_into().expect("four bytes"))
}

#[test]
fn json_lines_of_a_session_name_the_client_and_the_device() {
    let arguments = [&["--log-format=json", "--log=trace"], &SERVE[..]].concat();
    let mut running = start(usbferry(&arguments));
    running.wait_for("listening on ");
    running.address = address_of(&running.lines_with("listening on ")[0]);
    let client = running.attach("1-1");
    let peer = client.address().to_string();
    drop(client);
    running.wait_for("1-1: released");
    running.signal("-TERM");
    running.wait_for("\"stopped\"");
    let lines = running.lines.lock().unwrap().clone();
    let lines: Vec<serde_json::Value> =
        lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    let about = |text: &str| {
        let has = |line: &&serde_json::Value| line["message"].as_str().unwrap().contains(text);
        lines.iter().find(has).unwrap_or_else(|| panic!("{text}")).clone()
    };
    for text in ["attached", "closed by the client, after", "released"] {
        let line = about(text);
        assert_eq!((&line["client"], &line["device"]), (&peer.as_str().into(), &"1-1".into()));
        assert_eq!(line["level"], "info");
    }
    assert!(about("listening on ")["client"].is_null());
}

#[test]
fn the_last_line_is_json_too() {
    let arguments = ["--log-format", "json", "serve", "--simulate", "--listen", "192.0.2.1:0"];
    let arguments = [&arguments[..], &["--allow", "192.0.2.0/24"]].concat();
    let mut running = start(usbferry(&arguments));
    assert_eq!(running.wait().code(), Some(1));
    running.wait_for("can't listen on 192.0.2.1:0");
    let line = running.lines_with("can't listen on").remove(0);
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(line["level"], "error");
}

/// A socket that systemd names is the journal, which gets priorities and no time.
#[test]
fn the_journal_gets_priorities_and_no_time() {
    let (ours, journal) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let file = std::fs::File::from(OwnedFd::from(journal.try_clone().expect("a descriptor")));
    let found = file.metadata().expect("a socket");
    use std::os::unix::fs::MetadataExt;
    let arguments = [&SERVE[..], &["--allow", "203.0.113.0/24", "--socket", "none"]].concat();
    let mut command = usbferry(&arguments);
    command.env("JOURNAL_STREAM", format!("{}:{}", found.dev(), found.ino()));
    command.stderr(Stdio::from(OwnedFd::from(journal)));
    let mut child = command.spawn().expect("it starts");
    drop((command, file));
    ours.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let mut lines = BufReader::new(ours).lines().map_while(Result::ok);
    let first = lines.next().expect("a line");
    assert!(first.starts_with("<6>usbferry "), "{first}");
    let warning = lines.next().expect("a line");
    assert!(warning.starts_with("<4>clients of 203.0.113.0/24 may connect"), "{warning}");
    let listening = lines.next().expect("a line");
    assert!(listening.starts_with("<6>listening on 127.0.0.1:"), "{listening}");
    child.kill().expect("it runs");
    child.wait().expect("it is our child");
}

/// The program under the name of usbipd.
fn usbipd(arguments: &[&str]) -> Command {
    let mut command = usbferry(arguments);
    command.arg0("/usr/sbin/usbipd");
    command
}

/// A free port, as far as nobody else takes the port meanwhile.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port().to_string()
}

#[test]
fn under_the_name_of_usbipd_its_flags_are_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let pid_file = folder.path().join("usbipd.pid");
    let (port, flag) = (free_port(), format!("-4P{}", pid_file.display()));
    let command = usbipd(&[&flag, "-t", &port, "--simulate=loopback"]);
    let mut running = Running::start_listening(command);
    running.wait_for("only programs of this machine may connect: name other clients with --allow");
    let address = running.address;
    assert_eq!(address.to_string(), format!("0.0.0.0:{port}"));
    running.address = ([127, 0, 0, 1], address.port()).into();
    wait_until("the file", || pid_of(&pid_file) == Some(running.child.id()));
    drop(running.attach("1-1"));
    running.stop();
    assert!(!pid_file.exists());
}

fn pid_of(file: &Path) -> Option<u32> {
    std::fs::read_to_string(file).ok()?.strip_suffix('\n')?.parse().ok()
}

#[test]
fn under_the_name_of_usbipd_the_program_goes_into_the_background() {
    let folder = tempfile::tempdir().expect("a folder");
    let pid_file = folder.path().join("usbipd.pid");
    let (port, flag) = (free_port(), format!("--pid={}", pid_file.display()));
    let mut command = usbipd(&["-D", "-4", "--tcp-port", &port, &flag, "--simulate=loopback"]);
    let status = command.stderr(Stdio::null()).status().expect("it starts");
    assert_eq!(status.code(), Some(0));
    wait_until("the file", || pid_of(&pid_file).is_some());
    let id = pid_of(&pid_file).expect("it is there").to_string();
    let address = SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")));
    assert_eq!(list(address), 1);
    let root = std::fs::read_link(format!("/proc/{id}/cwd")).expect("it runs");
    assert_eq!(root, Path::new("/"));
    assert!(Command::new("kill").args(["-TERM", &id]).status().expect("a kill").success());
    wait_until("it ends", || !pid_file.exists());
}
