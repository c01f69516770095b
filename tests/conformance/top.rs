//! `usbferry top` in a terminal of 80 columns and 24 lines: tmux is the terminal.

use std::fs;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::operators::Office;
use crate::support::client::MiniClient;
use crate::support::endpoints::{SILENT, SOURCE};
use crate::support::submit::Submit;
use crate::support::wait_until;

const PROGRAM: &str = env!("CARGO_BIN_EXE_usbferry");

/// A terminal of its own, gone when dropped.
struct Terminal(String);

impl Terminal {
    /// Runs a command. Behind the end of the command the screen has the exit status, and `icanon`
    /// if the terminal takes in lines again.
    fn start(name: &str, command: &str) -> Self {
        let terminal = Self(format!("usbferry-{}-{name}", std::process::id()));
        let line = format!("{command}; echo ended with $?, $(stty -a | grep -o -- -*icanon); cat");
        terminal.tmux(&["new-session", "-d", "-x", "80", "-y", "24", &line]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.0, "-f", "/dev/null"]).args(arguments);
        let output = command.env("LC_ALL", "C.UTF-8").env("TERM", "xterm").output();
        output.expect("tmux is there: install the package tmux")
    }

    fn press(&self, keys: &[&str]) {
        keys.iter().for_each(|key| drop(self.tmux(&["send-keys", key])));
    }

    fn screen(&self) -> String {
        String::from_utf8(self.tmux(&["capture-pane", "-p"]).stdout).expect("UTF-8")
    }

    /// Waits until the screen is as expected, and returns the screen.
    fn wait_for(&self, what: &str, is_there: impl Fn(&str) -> bool) -> String {
        let mut screen = String::new();
        wait_until(what, || {
            screen = self.screen();
            is_there(&screen)
        });
        screen
    }

    /// Waits until the program has ended with `status`, and the terminal is as before.
    fn expect_end(&self, status: u32) {
        let end = format!("ended with {status}, icanon");
        let screen = self.wait_for("the end", |screen| screen.contains(&end));
        assert!(!screen.contains("URBs/s"), "the screen is as before: {screen}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// A client that reads from its device until told to stop.
struct Busy {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Busy {
    fn start(mut client: MiniClient) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                client.call_ok(&Submit::read(SOURCE, 4096));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || thread::panicking(), "the client was served");
    }
}

fn start(name: &str, office: &Office) -> Terminal {
    Terminal::start(name, &format!("{PROGRAM} top --socket {}", office.path().display()))
}

#[test]
fn devices_clients_rates_and_a_graph_are_on_a_small_screen() {
    let office = Office::open("loopback:count=12");
    let mut client = office.server.attach_to(1);
    client.submit(&Submit::read(SILENT, 512));
    let address = client.address().to_string();
    let terminal = start("screen", &office);
    let _busy = Busy::start(client);
    let screen = terminal.wait_for("the devices", |screen| screen.contains(&address));
    let lines: Vec<&str> = screen.lines().collect();
    assert!(lines[0].starts_with("usbferry ") && lines[1].contains("12 devices"), "{screen}");
    assert!(lines[3].starts_with("1-1 ") && lines[3].contains("free"), "{screen}");
    assert!(lines[23].contains("q quit"), "{screen}");
    terminal.press(&["Down"]);
    terminal.wait_for("the endpoints and the graph of the second", |screen| {
        let endpoints = ["\n1 bulk in ", "\n6 bulk in "];
        endpoints.iter().all(|row| screen.contains(row)) && screen.contains("1-2: bytes a second")
    });
    // The device with a client that reads comes first.
    terminal.press(&["Right", "Right"]);
    let screen = terminal.wait_for("the order by URBs", |screen| {
        let first = screen.lines().nth(3).unwrap_or_default();
        screen.contains("URBs/s\u{25bc}") && first.starts_with("1-2") && screen.contains('\u{2588}')
    });
    assert!(!screen.contains("highest 0"), "{screen}");
    terminal.press(&["q"]);
    terminal.expect_end(0);
}

#[test]
fn a_screen_follows_the_size_of_its_terminal() {
    let office = Office::open("loopback:count=12");
    let terminal = start("size", &office);
    let last = |screen: &str| screen.lines().position(|line| line.contains("q quit"));
    terminal.wait_for("the keys", |screen| last(screen) == Some(23));
    terminal.tmux(&["resize-window", "-x", "100", "-y", "40"]);
    let screen = terminal.wait_for("a larger screen", |screen| last(screen) == Some(39));
    assert!(screen.contains("\n1-12 "), "all devices: {screen}");
    terminal.tmux(&["resize-window", "-x", "40", "-y", "12"]);
    terminal.wait_for("a smaller screen", |screen| last(screen) == Some(11));
    terminal.press(&["C-c"]);
    terminal.expect_end(0);
}

#[test]
fn a_server_that_is_gone_is_asked_until_it_is_back() {
    let mut office = Office::open("loopback");
    let terminal = start("gone", &office);
    terminal.wait_for("the device", |screen| screen.contains("1 device exported"));
    office.server.begin_stop();
    office.desk = None;
    let screen = terminal.wait_for("the news", |screen| screen.contains("asking again"));
    assert!(screen.contains("no usbferry serves here") && screen.contains("\n1-1 "), "{screen}");
    office.reopen("loopback:count=2");
    terminal.wait_for("both devices", |screen| screen.contains("2 devices exported"));
    terminal.press(&["q"]);
    terminal.expect_end(0);
}

/// A terminal with the program and its screen, and the number of the process.
fn start_as_process(name: &str, office: &Office) -> (Terminal, String) {
    let (socket, path) = (office.path(), office.path().with_extension("pid"));
    let (number, socket) = (path.display(), socket.display());
    let command = format!("sh -c 'echo $$ > {number}; exec {PROGRAM} top --socket {socket}'");
    let terminal = Terminal::start(name, &command);
    terminal.wait_for("the screen", |screen| screen.contains("URBs/s"));
    let number = fs::read_to_string(&path).expect("the number of the process");
    (terminal, number.trim().to_owned())
}

/// Sends a signal, by the name that `kill` takes. False without such a process.
fn signal(name: &str, process: &str) -> bool {
    let output = Command::new("kill").args(["-s", name, process]).output();
    output.expect("kill is there").status.success()
}

#[test]
fn a_signal_ends_the_program_and_the_terminal_is_as_before() {
    let office = Office::open("loopback");
    let (terminal, process) = start_as_process("signal", &office);
    assert!(signal("TERM", &process));
    terminal.expect_end(128 + 15);
}

#[test]
fn a_terminal_that_is_gone_ends_the_program() {
    let office = Office::open("loopback");
    let (terminal, process) = start_as_process("hangup", &office);
    drop(terminal);
    wait_until("the end", || !signal("0", &process));
}

#[test]
fn without_a_terminal_or_a_server_the_user_is_told_what_to_do() {
    let mut office = Office::open("loopback");
    let (code, _, error) = office.run(&["top"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("usbferry status"), "{error}");
    office.desk = None;
    let terminal = start("none", &office);
    let screen = terminal.wait_for("the end", |screen| screen.contains("ended with 1, icanon"));
    assert!(screen.contains("no usbferry serves here"), "{screen}");
}
