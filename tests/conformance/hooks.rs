//! The programs that events of a device start: when, with which facts, and an import that waits for
//! the answer of a program.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use crate::support::client::{MiniClient, import_bytes, word};
use crate::support::submit::Submit;
use crate::support::{Server, wait_until};
use usbferry::config::hooks::{Hook, Hooks, Program};
use usbferry::config::rules::matching::Match;
use usbferry::config::rules::{Origin, Rule, Rules};
use usbferry::config::{Settings, TakeOver};

/// ST_NA and ST_DEV_BUSY.
const NOT_AVAILABLE: u32 = 1;
const BUSY: u32 = 2;

/// A folder for the files of a test's programs.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("usbferry-programs-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// The lines that programs have written so far.
    fn said(&self) -> Vec<String> {
        let said = fs::read_to_string(self.0.join("said")).unwrap_or_default();
        said.lines().map(str::to_owned).collect()
    }

    fn wait_for(&self, count: usize) -> Vec<String> {
        wait_until("the programs have run", || self.said().len() >= count);
        self.said()
    }

    /// Has programs that wait for a file go on.
    fn open(&self, gate: &str) {
        fs::write(self.0.join(gate), "").expect("a file");
    }

    /// A program of the shell, in whose text `$1` is this folder.
    fn script(&self, text: &str) -> Program {
        let folder = self.0.to_str().expect("UTF-8");
        let arguments = ["-c", text, "script", folder].map(str::to_owned).to_vec();
        Program { path: "/bin/sh".to_owned(), arguments }
    }

    /// A program that notes the event.
    fn noting(&self) -> Program {
        self.script(
            "echo $USBFERRY_EVENT $USBFERRY_NAME ${USBFERRY_CLIENT:-nobody} $USBFERRY_REASON \
             >> $1/said",
        )
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Programs for all devices of a server.
fn hooks_of(settings: &mut Settings, programs: &[(Hook, Program)], authorize: bool) {
    let mut hooks = Hooks::default();
    hooks.authorize = authorize;
    for (hook, program) in programs {
        hooks.set(*hook, program.clone());
    }
    let rule = Rule::exporting(Match::default(), Origin::Flag("--all".to_owned()));
    settings.rules = Rules::new([Rule { hooks: Arc::new(hooks), ..rule }]);
}

fn start(devices: &str, programs: &[(Hook, Program)], authorize: bool) -> Server {
    Server::start_with(devices, |settings| hooks_of(settings, programs, authorize))
}

/// A client that has asked for the device at `index`.
fn ask(server: &Server, index: usize) -> MiniClient {
    let mut client = server.connect();
    client.send(&import_bytes(server.busid(index).as_wire()));
    client
}

/// The status of the answer to an import.
fn status(client: &mut MiniClient) -> u32 {
    word(&client.read(8), 4)
}

#[test]
fn each_event_runs_its_program_with_the_facts() {
    let folder = Folder::new("events");
    let programs = Hook::ALL.map(|hook| (hook, folder.noting()));
    let server = start("loopback", &programs, false);
    assert_eq!(folder.wait_for(1), ["arrive 1-1 nobody start"]);
    let mut client = server.attach();
    client.call_ok(&Submit::port_reset());
    drop(client);
    let said = folder.wait_for(4);
    let of_client = ["attach", "reset", "detach"];
    let reasons = ["import", "client", "closed"];
    for ((line, event), reason) in said[1..].iter().zip(of_client).zip(reasons) {
        assert_eq!(*line, format!("{event} 1-1 127.0.0.1 {reason}"));
    }
    let client = server.attach();
    folder.wait_for(5);
    let busid = server.busid(0);
    server.bus.unplug(busid);
    client.expect_fin();
    let mut said = folder.wait_for(7);
    said[5..].sort();
    assert_eq!(said[5..], ["detach 1-1 127.0.0.1 gone", "leave 1-1 nobody unplugged"]);
    server.bus.replug(busid);
    assert_eq!(folder.wait_for(8)[7], "arrive 1-1 nobody plugged");
    server.stop();
    assert_eq!(folder.said()[8..], ["leave 1-1 nobody stop"]);
}

#[test]
fn a_program_permits_or_refuses_an_import() {
    let folder = Folder::new("authorize");
    let asked = folder
        .script("echo $USBFERRY_EVENT $USBFERRY_CLIENT >> $1/said; test -e $1/permit || exit 3");
    let detach = folder.noting();
    let server = start("loopback", &[(Hook::Attach, asked), (Hook::Detach, detach)], true);
    assert_eq!(server.connect().import(server.busid(0)), NOT_AVAILABLE);
    assert_eq!(server.bus.open_count(server.busid(0)), 0, "the device was left alone");
    folder.open("permit");
    let mut client = server.connect();
    assert_eq!(client.import(server.busid(0)), 0);
    client.assert_in_sync();
    let state = server.handles.status.snapshot().expect("the server runs");
    assert!(state.exports[0].asks_program, "an operator sees so");
    drop(client);
    let said = folder.wait_for(3);
    assert_eq!(said, ["attach 127.0.0.1", "attach 127.0.0.1", "detach 1-1 127.0.0.1 closed"]);
}

#[test]
fn a_client_that_waits_for_a_program_holds_up_nobody() {
    let folder = Folder::new("waits");
    let asked = folder.script(
        "echo $USBFERRY_NAME >> $1/said; test $USBFERRY_NAME = 1-2 && exit 0; \
         until test -e $1/gate; do sleep 0.01; done",
    );
    let server = start("loopback:count=2", &[(Hook::Attach, asked)], true);
    let mut waiting = ask(&server, 0);
    assert_eq!(folder.wait_for(1), ["1-1"]);
    let mut other = server.attach_to(1);
    other.assert_in_sync();
    assert!(!waiting.has_input(), "the program has not answered");
    folder.open("gate");
    assert_eq!(status(&mut waiting), 0);
    other.assert_in_sync();
}

#[test]
fn no_program_is_asked_about_a_device_that_stays_with_its_client() {
    let folder = Folder::new("taken");
    let server = start("loopback", &[(Hook::Attach, folder.noting())], true);
    let _holder = server.attach();
    assert_eq!(server.connect().import(server.busid(0)), BUSY);
    server.stop();
    assert_eq!(folder.said().len(), 1);
}

/// The program that has permitted the loser's import is followed by the program of a detach.
#[test]
fn of_two_permitted_clients_one_has_the_device() {
    let folder = Folder::new("two");
    let asked = folder.script(
        "gate=gate; mkdir $1/first 2>/dev/null || gate=next; echo attach >> $1/said; \
         until test -e $1/$gate; do sleep 0.01; done",
    );
    let programs = [(Hook::Attach, asked), (Hook::Detach, folder.noting())];
    let server = start("loopback", &programs, true);
    let mut first = ask(&server, 0);
    folder.wait_for(1);
    let mut second = ask(&server, 0);
    // The second client is asked about while the program of the first runs.
    folder.wait_for(2);
    folder.open("gate");
    assert_eq!(status(&mut first), 0);
    folder.open("next");
    assert_eq!(status(&mut second), BUSY);
    drop(second);
    assert_eq!(folder.wait_for(3), ["attach", "attach", "detach 1-1 127.0.0.1 not-attached"]);
    // The rest of the answer: to close with unread bytes would be a reset.
    first.read(312);
    drop(first);
    assert_eq!(folder.wait_for(4)[3], "detach 1-1 127.0.0.1 closed");
}

#[test]
fn a_client_that_a_program_refuses_takes_no_device_over() {
    let folder = Folder::new("takeover");
    let asked = folder.script("echo asked >> $1/said; test -e $1/refuse && exit 1; exit 0");
    let server = Server::start_with("loopback", |settings| {
        settings.policy.takeover = TakeOver::Any;
        hooks_of(settings, &[(Hook::Attach, asked)], true);
    });
    let mut holder = server.attach();
    folder.open("refuse");
    assert_eq!(server.connect().import(server.busid(0)), NOT_AVAILABLE);
    holder.assert_in_sync();
    fs::remove_file(folder.0.join("refuse")).expect("a file");
    let mut next = server.connect();
    assert_eq!(next.import(server.busid(0)), 0);
    holder.expect_drop();
    next.assert_in_sync();
}

#[test]
fn a_program_that_can_not_be_started_permits_nothing() {
    let missing = Program { path: "/nonexistent/program".to_owned(), arguments: Vec::new() };
    let server = start("loopback", &[(Hook::Attach, missing.clone())], true);
    assert_eq!(server.connect().import(server.busid(0)), NOT_AVAILABLE);
    // Where nobody is asked, the client has its device all the same.
    let server = start("loopback", &[(Hook::Attach, missing)], false);
    server.attach().assert_in_sync();
}

#[test]
fn a_program_whose_client_has_left_is_killed() {
    let folder = Folder::new("left");
    let asked =
        folder.script("mkdir $1/first 2>/dev/null || exit 0; echo $$ >> $1/said; exec sleep 1000");
    let server = start("loopback", &[(Hook::Attach, asked)], true);
    let first = ask(&server, 0);
    let id = folder.wait_for(1).remove(0);
    first.shutdown();
    first.expect_drop();
    let runs = || {
        let kill = Command::new("kill").args(["-0", &id]).output();
        kill.expect("a program").status.success()
    };
    wait_until("the program is gone", || !runs());
    server.attach().assert_in_sync();
}

#[test]
fn a_stop_waits_for_the_last_programs() {
    let folder = Folder::new("stop");
    let slow = folder.script("sleep 0.3; echo $USBFERRY_EVENT $USBFERRY_REASON >> $1/said");
    let server = start("loopback", &[(Hook::Detach, slow)], false);
    let mut client = server.attach();
    client.assert_in_sync();
    server.stop();
    assert_eq!(folder.said(), ["detach stop"]);
}
