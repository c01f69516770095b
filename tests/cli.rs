//! The program itself: its arguments, its output, its end.
//!
//! A binary beside `conformance`, since no test here runs a server in its own process, on any
//! system.

#[path = "support/program.rs"]
mod program;
#[allow(dead_code, reason = "conformance uses the rest")]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::CommandFactory;
use program::{Running, output_of, run, stderr, stdout, usbferry};
use support::client::{DEVLIST, MiniClient, import_bytes};
use support::submit::Submit;
use support::{DEADLINE, wait_until};
use usbferry::limits::{COMPLAINTS_PER_SECOND, LOG_LINES_MAX};
use usbferry::wire::types::BusId;
use usbferry_program::cli::{COMMIT, Cli};
use usbferry_sys::libusb::version::{IS_BUILT_IN, libusb};

#[test]
fn help_and_version_exit_0() {
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(stdout(&help).contains("serve") && stdout(&help).contains("list"));
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        let help = run(&[name, "--help"]);
        assert_eq!(help.status.code(), Some(0), "{name}");
        let global = Cli::command();
        for argument in command.get_arguments().chain(global.get_arguments()) {
            let flag = match argument.get_long() {
                Some(long) => format!("--{long}"),
                // A word without a name in front.
                None => argument.get_value_names().expect("it has a name")[0].to_string(),
            };
            assert!(argument.get_help().is_some(), "{name} {flag} is not explained");
            assert!(stdout(&help).contains(&flag), "{name} {flag} is hidden");
        }
    }
    let version = run(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(stdout(&version).trim(), expected_version());
}

/// The first line of a report: the program's version and commit, and whose libusb. A source from
/// git has a commit.
fn expected_version() -> String {
    let commit = COMMIT.map(|commit| format!("commit {commit}, "));
    let is_from_git = Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists();
    assert!(!is_from_git || commit.is_some(), "the build found no commit");
    let is_built_in = cfg!(feature = "vendored") || IS_BUILT_IN;
    let whose = if is_built_in { "built in" } else { "the system's" };
    let (version, commit) = (env!("CARGO_PKG_VERSION"), commit.unwrap_or_default());
    format!("usbferry {version} ({commit}libusb {}, {whose})", libusb())
}

/// Much depends on the version of libusb, the first question about anybody's log.
#[test]
fn the_first_line_of_the_log_names_the_versions() {
    let running = Running::start(&["--simulate=loopback"]);
    let first = running.lines.lock().unwrap()[0].clone();
    assert!(first.ends_with(&expected_version()), "{first}");
    running.stop();
}

/// Wrong values are refused with a sentence about the right values.
#[test]
fn wrong_usage_exits_2() {
    for (arguments, says) in [
        (&[][..], "Usage"),
        (&["fly"], "unrecognized subcommand"),
        (&["serve", "--fast"], "unexpected argument"),
        (&["serve", "--all", "--urbs", "1"], "give a number from"),
        (&["serve", "--all", "--memory", "3M"], "power of two"),
        (&["serve", "--all", "--urb-size", "64M"], "or more --memory"),
        (&["serve", "--all", "--busy-poll", "5"], "such as 50us"),
        (&["serve", "--all", "--socket-buffer", "much"], "number of bytes"),
        (&["serve", "--all", "--socket-buffer", "0"], "from 4K"),
        (&["serve", "--all", "--device-memory", "1"], "or 0 for none"),
        (&["serve", "--all", "--listen", "3240"], "give an address, a name or a port"),
        (&["serve", "--simulate="], "a device's name is missing"),
        (&["serve", "--simulate=disk,"], "a device's name is missing"),
        (&["serve", "--simulate=disk:"], "an option is missing behind the colon"),
        (&["serve", "--all", "--allow", "everybody"], "give a network"),
        (&["serve", "--device", "stick"], "usbferry list"),
        (&["serve", "--device", "1-"], "usbferry list"),
        (&["serve", "--simulate", "disk:size=64M"], "tip: type --simulate=disk:size=64M"),
        (&["serve", "--simulate=printer"], "disk, microphone and loopback"),
        (&["serve", "--simulate=loopback:count=0"], "from 1 to"),
        (&["serve", "--simulate", "--all"], "cannot be used with"),
        (&["serve", "--all", "--socket-mode", "rw"], "octal digits"),
        (&["list", "--everything"], "unexpected argument"),
        (&["serve", "1-2.3"], "tip: type --device 1-2.3"),
        (&["serve", "stick=0781:5567"], "tip: type --device stick=0781:5567"),
        (&["serve", "all"], "tip: type --all"),
        (&["list", "desk"], "tip: type list --remote desk"),
        (&["doctor", "desk:3241"], "tip: type doctor --peer desk:3241"),
        (&["serve", "--all", "--capture", "-"], "usbferry capture start -"),
        (&["list", "-l", "-r", "127.0.0.1"], "cannot be used with"),
        (&["list", "-r", ":3240"], "is no host"),
        (&["list", "-p", "--json"], "cannot be used with"),
        (&["serve", "--allow", "10.0.0.1/8"], "write 10.0.0.0/8 or 10.0.0.1"),
        (&["serve", "--device", "--x=1-2"], "unexpected argument"),
        (&["serve", "--device=-x=1-2"], "begins with another sign than"),
        (&["serve", "--device", "usb1=1-2"], "is the root hub of a bus"),
        (&["serve", "--device", "serial:A7 "], "write serial:A7"),
        (&["attach"], "usbferry attach HOST NAME"),
        (&["attach", "127.0.0.1"], "usbferry list -r HOST"),
        (&["attach", "-r", "127.0.0.1", "-b", ""], "up to 31 bytes"),
        (&["detach"], "or give its port with -p PORT"),
        (&["detach", "-p", "first"], "that \"usbferry port\" shows"),
        (&["list", "--log", "verbose"], "give error, warn, info, debug or trace"),
        (&["list", "--log", "othercrate=debug"], "give error, warn, info, debug or trace"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(says), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

/// A line that is told to be typed can be typed.
#[test]
fn a_word_that_names_no_server_is_no_tip() {
    for word in ["two words", "two\nlines", "desk:port", "a/path", ""] {
        for command in ["list", "doctor"] {
            let output = run(&[command, word]);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{word}: {said}");
            assert!(said.contains("unexpected argument") && !said.contains("tip:"), "{said}");
        }
    }
}

/// Whatever is typed, a terminal gets no control character of it.
#[test]
fn no_message_repeats_a_control_character() {
    let typed = "x\u{1b}]0;y\u{7}";
    let file = std::env::temp_dir().join(format!("usbferry-control-{}.toml", std::process::id()));
    std::fs::write(&file, "[[rule]]\n\"na\\u001bme\" = 1\n").expect("it can be written");
    let file = file.to_str().expect("UTF-8");
    for arguments in [
        &[typed][..],
        &["list", "-r", typed],
        &["attach", typed, "1-2"],
        &["attach", "localhost:1", typed],
        &["attach", "localhost:1", "1-2", typed],
        &["detach", typed],
        &["check-config", typed],
        &["check-config", file],
        &["serve", "--simulate", "--config", typed],
        &["serve", "--simulate=x\u{1b}"],
        &["serve", "--simulate=disk:x\u{1b}"],
        &["serve", "--listen", typed],
        &["serve", "--device", typed],
        &["doctor", "--peer", typed],
    ] {
        let output = run(arguments);
        let said = format!("{}{}", stdout(&output), stderr(&output));
        assert!(!output.status.success() && !said.is_empty(), "{arguments:?}: {said}");
        let is_control = |c: char| c.is_control() && c != '\n';
        assert!(!said.contains(is_control), "{arguments:?}: {said:?}");
    }
    std::fs::remove_file(file).expect("it is there");
}

/// Nothing is exported by default: the program lists the devices and the options.
#[test]
fn nothing_chosen_exits_2() {
    let output = run(&["serve"]);
    assert_eq!(output.status.code(), Some(2));
    for choice in ["--device", "--all", "--simulate"] {
        assert!(stderr(&output).contains(choice), "{}", stderr(&output));
    }
    // Also where there are no devices to be shown.
    assert!(stderr(&output).starts_with("error: nothing to export"), "{}", stderr(&output));
}

/// The reason of an end is printed at any log level. RUST_LOG is for all programs, and need not
/// name usbferry.
#[test]
fn the_reason_of_an_end_passes_every_filter() {
    for filter in ["off", "othercrate=debug", "info/nothing has this in it"] {
        for (arguments, code, says) in [
            (&["serve"][..], 2, "--simulate"),
            (&["serve", "--all", "--urb-size", "64M"], 2, "or more --memory"),
            (&["serve", "--simulate", "--listen", "192.0.2.1:0", "--allow", "::1"], 1, "listen"),
            (&["list", "--remote", "127.0.0.1:port"], 2, "is no host"),
        ] {
            let mut command = usbferry(arguments);
            command.env("RUST_LOG", filter);
            let output = output_of(command);
            assert_eq!(output.status.code(), Some(code), "{filter} {arguments:?}");
            let last = stderr(&output).lines().last().unwrap_or_default().to_owned();
            assert!(last.starts_with("error: "), "{filter} {arguments:?}: {last}");
            assert!(last.contains(says), "{filter} {arguments:?}: {last}");
        }
    }
}

/// An address of another machine is refused with a sentence about the right addresses, and without
/// the system's error number.
#[test]
fn a_bad_listen_address_is_refused_with_advice() {
    for (address, says) in [("192.0.2.1:0", "0.0.0.0 means"), ("[2001:db8::1]:0", "[::] means")] {
        let output = run(&["serve", "--simulate", "--listen", address, "--allow", "192.0.2.0/24"]);
        assert_eq!(output.status.code(), Some(1), "{address}");
        let said = stderr(&output);
        assert!(said.contains("no such address") && said.contains(says), "{said}");
        assert!(!said.contains("os error"), "{said}");
    }
}

/// A wrong level in RUST_LOG, which all programs share, counts as unset and gets a warning; an
/// empty text gets none.
#[test]
fn a_wrong_log_level_in_the_environment_is_a_warning() {
    for (text, warns) in [("loud", true), ("", false)] {
        let mut command = usbferry(&["serve"]);
        command.env("RUST_LOG", text);
        let running = Running::start_as(command, &["--simulate=loopback"]);
        let warnings = running.lines_with("RUST_LOG is \"loud\", which is ignored: give error");
        assert_eq!(warnings.len(), usize::from(warns), "{text}");
        running.stop();
    }
}

/// An address that other machines can reach needs `--allow`.
#[test]
fn public_address_needs_allow() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let output = run(&["serve", "--simulate", "--listen", address]);
        assert_eq!(output.status.code(), Some(2), "{address}");
        assert!(stderr(&output).contains("--allow"), "{}", stderr(&output));
    }
}

/// The devices of this machine. The machine may have none, and no USB bus at all.
#[test]
fn list_shows_local_devices_or_says_why_not() {
    let output = run(&["list"]);
    match output.status.code() {
        Some(0) => assert_ne!(stdout(&output), ""),
        Some(1) => assert!(stderr(&output).contains("/dev/bus/usb"), "{}", stderr(&output)),
        other => panic!("exit code {other:?}: {}", stderr(&output)),
    }
}

#[test]
fn list_remote_prints_the_simulated_devices() {
    let running = Running::start(&["--simulate"]);
    let address = running.address.to_string();
    let output = run(&["list", "--remote", &address]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert_eq!(text.lines().filter(|line| !line.starts_with(' ')).count(), 3, "{text}");
    for (busid, ids, class) in [
        ("1-1", "1209:0002", "storage"),
        ("1-2", "1209:0003", "audio"),
        ("1-3", "1209:0001", "vendor"),
    ] {
        let line = text.lines().find(|line| line.starts_with(busid)).expect(busid);
        assert!(line.contains(ids) && line.contains(class), "{line}");
    }
    // A client's device is not on offer; an empty list has a sentence of its own.
    let clients = ["1-1", "1-2", "1-3"].map(|busid| running.attach(busid));
    let output = run(&["list", "--remote", &address]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("exports nothing"), "{}", stdout(&output));
    drop(clients);
    running.stop();
}

/// The schema of docs/json.md.
#[test]
fn list_remote_prints_json_on_a_line() {
    let running = Running::start(&["--simulate"]);
    let address = running.address.to_string();
    let output = run(&["list", "-r", &address, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with(&format!("{{\"schema\":1,\"host\":\"{address}\",\"devices\":[{{")));
    assert!(text.contains("\"busid\":\"1-1\",\"vid\":\"1209\",\"pid\":\"0002\""), "{text}");
    running.stop();
}

/// The ports of this machine; without the kernel's module, the way to load it.
#[cfg(target_os = "linux")]
#[test]
fn the_clients_commands_need_the_kernels_module() {
    if Path::new("/sys/devices/platform/vhci_hcd.0").exists() {
        assert_eq!(run(&["port"]).status.code(), Some(0));
        return;
    }
    for arguments in [
        &["port"][..],
        &["port", "--json"],
        &["detach", "-p", "0"],
        &["detach", "stick"],
        &["attach", "127.0.0.1:1", "1-1"],
        &["attach", "127.0.0.1:1", "1-1", "--persist"],
        &["attach", "stick"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = stderr(&output);
        assert!(said.contains("modprobe vhci-hcd"), "{arguments:?}: {said}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

/// A reader that has seen enough, such as `head`, is no failure; a full disk is a failure.
#[cfg(target_os = "linux")]
#[test]
fn a_list_that_can_not_be_printed_exits_1() {
    let running = Running::start(&["--simulate"]);
    let list = |stdout: Stdio| {
        let mut command = usbferry(&["list", "--remote", &running.address.to_string()]);
        command.stdout(stdout);
        output_of(command)
    };
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = list(writer.into());
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
    let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let output = list(full.into());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("can't be printed"), "{}", stderr(&output));
    running.stop();
}

/// An unreachable server, or a peer that is no USB/IP server, is a failure with a sentence.
#[test]
fn list_remote_of_no_server_exits_1() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its own");
    let output = run(&["list", "--remote", &closed.to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("can't reach"), "{}", stderr(&output));
    assert!(!stderr(&output).contains("os error"), "{}", stderr(&output));
    let unresolved = run(&["list", "--remote", "nosuchhost.invalid"]);
    assert_eq!(unresolved.status.code(), Some(1));
    let said = stderr(&unresolved);
    assert!(said.starts_with("error: can't resolve nosuchhost.invalid: "), "{said}");
    for host in ["127.0.0.1:port", "", ":3240"] {
        let output = run(&["list", "--remote", host]);
        assert_eq!(output.status.code(), Some(2), "{host}");
        assert!(stderr(&output).contains("is no host"), "{host}: {}", stderr(&output));
    }
    for (answer, says) in [
        (&b""[..], "closed the connection: is this machine among its --allow?"),
        (&[1], "closed before its answer was complete"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not answer as"),
        (&[1, 0x11, 0, 5, 0, 0, 0, 1], "refused: not available"),
        (&[1, 0x11, 0, 5, 0, 0, 0, 9], "refused: status 9"),
        (&[1, 0x11, 0, 5, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], "claims to export"),
        (&[1, 0x11, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, b'x'], "closed before its answer was complete"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its own").to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("it comes");
            let mut request = [0; 8];
            stream.read_exact(&mut request).expect("a request");
            stream.write_all(answer).expect("it listens");
            request
        });
        let output = run(&["list", "--remote", &address]);
        assert_eq!(server.join().expect("no panic"), DEVLIST);
        assert_eq!(output.status.code(), Some(1), "{answer:?}");
        assert!(stderr(&output).contains(says), "{answer:?}: {}", stderr(&output));
    }
}

/// Signals that ask for the server's end, with clients: the clients see the end, the devices are
/// given back.
#[test]
fn signals_exit_0() {
    for name in ["-TERM", "-INT", "-QUIT"] {
        let mut running = Running::start(&["--simulate"]);
        let idle = MiniClient::connect(running.address);
        let mut client = running.attach("1-3");
        client.submit(&Submit::read(0x86, 512));
        client.assert_in_sync();
        running.signal(name);
        client.expect_fin();
        idle.expect_fin();
        assert_eq!(running.wait().code(), Some(0));
        running.wait_for("1-3: released");
        running.wait_for("stopped");
    }
}

/// A hangup asks for the settings to be read again. Without a file there is nothing to read, and
/// clients notice nothing.
#[test]
fn a_hangup_without_a_file_of_settings_changes_nothing() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" serve \"$@\"", env!("CARGO_BIN_EXE_usbferry")]);
    shell.env_remove("RUST_LOG").stdin(Stdio::null()).stderr(Stdio::piped());
    let simulate = ["--simulate=loopback"];
    // By nohup, and not.
    for mut server in [Running::start_as(shell, &simulate), Running::start(&simulate)] {
        let mut client = server.attach("1-1");
        for hangups in 1..3 {
            server.signal("-HUP");
            wait_until("the hangup is told", || {
                server.lines_with("there is no file of settings to read again").len() == hangups
            });
            client.assert_in_sync();
        }
        server.signal("-TERM");
        client.expect_fin();
        assert_eq!(server.wait().code(), Some(0));
    }
}

/// The file decides anew at each hangup: sessions go on or end, and a wrong file, or none any more,
/// changes nothing.
#[test]
fn a_hangup_has_the_file_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("usbferry.toml");
    let write = |text: &str| std::fs::write(&file, text).expect("it can be written");
    let rule =
        |busid: &str, name: &str| format!("[[rule]]\nbusid = \"{busid}\"\nname = \"{name}\"\n");
    let except = |busid: &str| format!("[[rule]]\nbusid = \"{busid}\"\nexport = false\n");
    write(&rule("1-1", "first"));
    let path = file.to_str().expect("UTF-8");
    let mut server = Running::start(&["--simulate=loopback:count=2", "--config", path]);
    let mut first = server.attach("first");
    let second = server.attach("1-2");
    write(&[rule("1-1", "other"), except("1-2")].concat());
    server.signal("-HUP");
    second.expect_fin();
    server.wait_for("the settings were read again; 1 session goes on, 1 ends");
    first.assert_in_sync();
    drop(first);
    server.attach("other").assert_in_sync();
    let import =
        |name: &str| MiniClient::connect(server.address).import(BusId::new(name).expect("short"));
    assert_eq!((import("1-2"), import("first")), (4, 4), "neither is exported");
    write(&[rule("1-1", "third"), "[[rule]]\nid = \"0781-5567\"\n".to_owned()].concat());
    server.signal("-HUP");
    server.wait_for("usbferry.toml:5:6: ");
    server.wait_for("The settings stay as they were");
    server.attach("other").assert_in_sync();
    std::fs::remove_file(&file).expect("it is there");
    server.signal("-HUP");
    wait_until("it is told", || server.lines_with("The settings stay as they were").len() == 2);
    server.attach("other").assert_in_sync();
    write(&["listen = [\"127.0.0.1:1\"]\n", &rule("1-2", "fourth")].concat());
    server.signal("-HUP");
    server.wait_for("the settings were read again; 0 sessions go on, 0 end");
    server.attach("fourth").assert_in_sync();
    assert_eq!(server.lines_with("need a restart").len(), 0, "the command line names the address");
    server.signal("-TERM");
    assert_eq!(server.wait().code(), Some(0));
}

/// The log names the program by which an import was refused.
#[test]
fn a_program_that_can_not_be_asked_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("usbferry.toml");
    let rule = "[[rule]]\non-attach = [\"/nonexistent/may\"]\nauthorize = true\n";
    std::fs::write(&file, rule).expect("it can be written");
    let path = file.to_str().expect("UTF-8");
    let server = Running::start(&["--simulate=loopback", "--config", path]);
    let busid = BusId::new("1-1").expect("short");
    assert_eq!(MiniClient::connect(server.address).import(busid), 1, "not available");
    server.wait_for("the program of on-attach, /nonexistent/may, can't be started: No such file");
    server.stop();
}

/// Whatever is no file of text is refused without a wait, at the start and at each hangup, and a
/// right file counts at the hangup after.
#[test]
fn a_fifo_in_the_place_of_the_file_holds_up_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("usbferry.toml");
    let path = file.to_str().expect("UTF-8");
    let put_fifo = || {
        let _ = std::fs::remove_file(&file);
        let status = Command::new("mkfifo").arg(&file).status().expect("there is a mkfifo");
        assert!(status.success(), "mkfifo {path}");
    };
    put_fifo();
    for arguments in [&["check-config", path][..], &["serve", "--simulate", "--config", path]] {
        let output = run(arguments);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with(&format!("error: {path}: no ordinary file")), "{said}");
    }
    std::fs::remove_file(&file).expect("it is there");
    std::fs::write(&file, "[[rule]]\nname = \"first\"\n").expect("it can be written");
    let server = Running::start(&["--simulate=loopback", "--config", path]);
    put_fifo();
    server.signal("-HUP");
    server.wait_for("usbferry.toml: no ordinary file");
    std::fs::remove_file(&file).expect("it is there");
    std::fs::write(&file, "[[rule]]\nname = \"second\"\n").expect("it can be written");
    server.signal("-HUP");
    server.wait_for("the settings were read again");
    server.attach("second").assert_in_sync();
    server.stop();
}

/// Whether a process catches a signal (`proc_pid_status(5)`, SigCgt).
#[cfg(target_os = "linux")]
fn catches(id: u32, signal: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask");
    let caught = u64::from_str_radix(caught.trim(), 16).expect("hexadecimal digits");
    caught & (1 << (signal - 1)) != 0
}

/// The server catches signals first of all: whenever a signal comes, the file is read again, or the
/// server ends in good order.
#[cfg(target_os = "linux")]
#[test]
fn signals_during_the_start_are_neither_lost_nor_fatal() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("usbferry.toml");
    let path = file.to_str().expect("UTF-8");
    std::fs::write(&file, "[[rule]]\n".repeat(1000)).expect("it can be written");
    let arguments = ["serve", "--simulate", "--listen", "127.0.0.1:0", "--config", path];
    for _ in 0..5 {
        let child = usbferry(&arguments).spawn().expect("it starts");
        let id = child.id();
        wait_until("it catches hangups", || catches(id, libc::SIGHUP));
        program::signal("-HUP", &id.to_string());
        let mut server = Running::following(child);
        server.wait_for("the settings were read again");
        server.signal("-TERM");
        assert_eq!(server.wait().code(), Some(0));
    }
    for _ in 0..5 {
        let child = usbferry(&arguments).spawn().expect("it starts");
        let id = child.id();
        wait_until("it catches signals", || catches(id, libc::SIGTERM));
        program::signal("-TERM", &id.to_string());
        let mut server = Running::following(child);
        assert_eq!(server.wait().code(), Some(0));
        server.wait_for("stopped");
    }
}

/// A shell that lets the program behind it write files of 64 KiB.
const SMALL_FILES: &str = "ulimit -f 128; exec \"$0\" \"$@\"";

/// The file has whole records up to the bound, the log has the reason and the losses, and the
/// client notices nothing.
#[test]
fn a_capture_that_finds_no_more_room_ends_and_the_session_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, socket) = (folder.path().join("a.pcapng"), folder.path().join("o.sock"));
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", SMALL_FILES, env!("CARGO_BIN_EXE_usbferry"), "serve"])
        .env_remove("RUST_LOG");
    command.args(["--simulate=loopback", "--capture-snaplen=all", "--capture"]).arg(&file);
    command.arg("--socket").arg(&socket).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = Running::start_as(command, &[]);
    let mut client = server.attach("1-1");
    let status = || {
        let socket = socket.to_str().expect("UTF-8");
        let status = stdout(&run(&["status", "--json", "--socket", socket]));
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        status["captures"][0].clone()
    };
    let mut urbs = 0;
    wait_until("there is no more room", || {
        assert_eq!(client.call_ok(&Submit::read(0x81, 20_000)).len(), 20_000);
        urbs += 1;
        status()["failure"] == "File too large"
    });
    assert_eq!(client.call_ok(&Submit::read(0x81, 20_000)).len(), 20_000);
    let told = status();
    let counts = ["captured", "dropped"].map(|name| told[name].as_u64().expect("a number"));
    assert_eq!(counts.iter().sum::<u64>(), urbs + 1, "{told}");
    assert!(counts[1] > 0, "{told}");
    server.wait_for("a.pcapng: the capture ends here: File too large");
    drop(client);
    server.wait_for("a.pcapng is not whole");
    server.signal("-TERM");
    assert_eq!(server.wait().code(), Some(0));
    let records = support::tshark::records(&file);
    let reads = records.iter().filter(|record| record.endpoint == 0x81 && record.event == 'C');
    assert_eq!(reads.count() as u64, counts[0], "what the status said is there");
}

/// A path for a socket, in a folder of its own.
fn socket_path() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.sock").to_str().expect("UTF-8").to_owned();
    (folder, path)
}

/// The server's directory and the operator's may differ, and the capture's path does not.
#[test]
fn a_capture_begun_with_a_relative_path_is_ended_with_this_path() {
    let (folder, socket) = socket_path();
    let mut command = Command::new(env!("CARGO_BIN_EXE_usbferry"));
    command.current_dir(folder.path()).env_remove("RUST_LOG").stdin(Stdio::null());
    command.args(["serve", "--simulate=loopback", "--capture", "a.pcapng", "--socket", &socket]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let server = Running::start_as(command, &[]);
    let stop = |directory: &Path, file: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_usbferry"));
        command.current_dir(directory).args(["capture", "stop", file, "--socket", &socket]);
        command.output().expect("usbferry runs")
    };
    let elsewhere = stop(Path::new("/"), "a.pcapng");
    assert_eq!(elsewhere.status.code(), Some(1), "{elsewhere:?}");
    let stopped = stop(folder.path(), "a.pcapng");
    assert!(stdout(&stopped).contains("the capture has ended"), "{stopped:?}");

    // By an operator, through another folder; and a file that is gone.
    let below = folder.path().join("below");
    std::fs::create_dir(&below).expect("a folder");
    for (from, started, ended) in
        [(&below, "../b.pcapng", "b.pcapng"), (&below, "c.pcapng", "below/c.pcapng")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_usbferry"));
        command.current_dir(from).args(["capture", "start", started, "--socket", &socket]);
        assert!(command.output().expect("usbferry runs").status.success());
        std::fs::remove_file(folder.path().join(ended)).expect("the capture's file");
        let stopped = stop(folder.path(), ended);
        assert!(stdout(&stopped).contains("the capture has ended"), "{stopped:?}");
    }
    server.stop();
}

/// A server that plays a recording does not overwrite the recording with a capture, whatever the
/// name of the file, and neither as the older half of a capture.
#[test]
fn a_recording_that_is_played_is_not_captured_into() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/recording/pcapng-189");
    let [path, link, half] =
        ["a.1.pcapng", "link", "a.pcapng"].map(|name| folder.path().join(name));
    let recording = std::fs::read(corpus).unwrap();
    std::fs::write(&path, &recording).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let played = format!("--simulate=replay:{}", path.display());
    for (file, more) in [(&path, &[][..]), (&link, &[]), (&half, &["--capture-size=8M"])] {
        let file = file.to_str().unwrap();
        let line = ["serve", &played, "--listen=127.0.0.1:0", "--capture", file];
        let refused = run(&[&line[..], more].concat());
        let told = stderr(&refused);
        assert!(
            refused.status.code() == Some(1) && told.contains("plays this recording"),
            "{told}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), recording);
    }
}

#[test]
fn a_server_answers_at_its_socket_and_a_second_server_needs_another() {
    let (folder, path) = socket_path();
    let first = Running::start(&["--simulate=disk", "--socket", &path]);
    first.wait_for(&format!("operators may ask at {path}"));
    let status = run(&["status", "--socket", &path]);
    assert!(stdout(&status).contains("1-1"), "{status:?}");
    let second = run(&["serve", "--simulate=disk", "--listen", "127.0.0.1:0", "--socket", &path]);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("another server has this socket"), "{second:?}");
    let second = Running::start(&["--simulate=disk", "--socket", "none"]);
    second.stop();
    assert!(run(&["status", "--socket", &path]).status.success());
    first.stop();
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    let status = run(&["status", "--socket", &path]);
    assert_eq!(status.status.code(), Some(1));
    assert!(stderr(&status).contains("no usbferry serves here"), "{status:?}");
}

#[test]
fn a_second_server_in_the_usual_place_says_that_it_has_no_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = || {
        let mut command = usbferry(&["serve"]);
        command.env("RUNTIME_DIRECTORY", folder.path());
        Running::start_as(command, &["--simulate=disk"])
    };
    let (first, second) = (start(), start());
    first.wait_for("operators may ask at ");
    second.wait_for("this server has no socket for operators");
    second.stop();
    let mut status = usbferry(&["status"]);
    status.env("RUNTIME_DIRECTORY", folder.path());
    assert!(output_of(status).status.success());
    first.stop();
}

#[test]
fn what_a_killed_server_leaves_of_its_socket_is_replaced() {
    let (_folder, path) = socket_path();
    let mut killed = Running::start(&["--simulate=disk", "--socket", &path]);
    killed.child.kill().expect("it runs");
    killed.wait();
    let status = run(&["status", "--socket", &path]);
    assert!(stderr(&status).contains("is not running any more"), "{status:?}");
    let next = Running::start(&["--simulate=disk", "--socket", &path, "--socket-mode", "666"]);
    let mode = std::fs::metadata(&path).expect("a socket").permissions().mode() & 0o777;
    assert_eq!(mode, 0o666);
    assert!(run(&["status", "--socket", &path]).status.success());
    next.stop();
}

/// Addresses of the file that a reload can't change are told.
#[test]
fn other_addresses_to_listen_on_need_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("usbferry.toml");
    let path = file.to_str().expect("UTF-8");
    std::fs::write(&file, "listen = [\"127.0.0.1:0\"]\n").expect("it can be written");
    let arguments = ["serve", "--simulate=loopback", "--config", path];
    let server = Running::start_listening(usbferry(&arguments));
    std::fs::write(&file, "listen = [\"127.0.0.2:0\"]\n").expect("it can be written");
    server.signal("-HUP");
    server.wait_for("usbferry listens where it did before: 127.0.0.2:0 would need a restart");
    server.attach("1-1").assert_in_sync();
    server.stop();
}

/// Networks that can reach no address are told at the start, and others are not.
#[test]
fn an_allowed_network_that_reaches_no_address_is_told() {
    let idle = |arguments: &[&str]| {
        let all = [&["--simulate=loopback"], arguments].concat();
        let server = Running::start(&all);
        server.attach("1-1").assert_in_sync();
        let lines = server.lines_with("reach no address");
        server.stop();
        lines
    };
    let lines = idle(&["--allow", "192.0.2.0/24", "--allow", "127.0.0.1"]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("192.0.2.0/24") && lines[0].contains("--listen 0.0.0.0:3240"));
    let lines = idle(&["--allow", "192.0.2.7"]);
    assert!(lines[0].contains("clients of 192.0.2.7 may connect"), "{lines:?}");
    let lines = idle(&["--allow", "192.0.2.0/24", "--listen", "0.0.0.0:0"]);
    assert_eq!(lines, Vec::<String>::new());
}

/// `--help` says which addresses need no `--allow`.
#[test]
fn the_help_says_which_addresses_are_this_machine() {
    let help = stdout(&run(&["serve", "--help"]));
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let says = "Clients with a loopback address (127.0.0.0/8 or ::1) may always connect";
    assert!(words.contains(says), "{help}");
    assert!(words.contains("This machine's other addresses need --allow"), "{help}");
}

/// A server in a terminal of its own. The terminal closes when the program that made the terminal
/// is killed; `script` of other systems takes other arguments.
#[cfg(target_os = "linux")]
struct InTerminal {
    script: std::process::Child,
    log: std::path::PathBuf,
}

#[cfg(target_os = "linux")]
impl InTerminal {
    /// Starts a server with a loopback device, behind commands of a shell. `name` tells tests
    /// apart.
    fn start(name: &str, before: &str) -> Self {
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.log"));
        let _ = std::fs::remove_file(&log);
        let (program, file) = (env!("CARGO_BIN_EXE_usbferry"), log.display());
        let serve = "serve --simulate=loopback --listen 127.0.0.1:0";
        let line = format!("exec 2>'{file}'; echo pid $$ >&2; {before} exec '{program}' {serve}");
        // Hangups may be ignored here, as below `nohup`, and no shell can undo that.
        let mut script = Command::new("env");
        script.args(["--default-signal=HUP", "script", "-qfc", &line, "/dev/null"]);
        script.env("SHELL", "/bin/sh").env_remove("RUST_LOG");
        script.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let script = script.spawn().expect("there are env (coreutils) and script (util-linux)");
        Self { script, log }
    }

    /// The end of the first line with `text`, once there is one.
    fn wait_for(&self, text: &str) -> String {
        let mut found = None;
        wait_until(text, || {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let whole = log.lines().filter(|_| log.ends_with('\n'));
            found =
                whole.filter_map(|line| line.split_once(text)).map(|(_, end)| end.into()).next();
            found.is_some()
        });
        found.expect("it is found")
    }

    fn attach(&self) -> MiniClient {
        let address = self.wait_for("listening on ").parse().expect("an address");
        let mut client = MiniClient::connect(address);
        assert_eq!(client.import(BusId::new("1-1").expect("a busid")), 0);
        client
    }

    fn close_terminal(&mut self) {
        self.script.kill().expect("it runs");
        self.script.wait().expect("it ends");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_ends_with_its_terminal() {
    let mut server = InTerminal::start("terminal", "");
    let mut client = server.attach();
    client.assert_in_sync();
    server.close_terminal();
    client.expect_fin();
    server.wait_for("the terminal has closed");
    server.wait_for("1-1: released");
    server.wait_for("stopped");
}

/// `nohup` asks the server to stay when the terminal goes.
#[cfg(target_os = "linux")]
#[test]
fn a_server_that_ignored_hangups_outlives_its_terminal() {
    let mut server = InTerminal::start("nohup", "trap '' HUP;");
    let mut client = server.attach();
    server.close_terminal();
    server.wait_for("there is no file of settings to read again");
    client.assert_in_sync();
    program::signal("-TERM", &server.wait_for("pid "));
    client.expect_fin();
    server.wait_for("stopped");
}

/// A second signal does not wait for a slow device.
#[test]
fn a_second_signal_ends_the_server_at_once() {
    let mut running = Running::start(&["--simulate=loopback:fault=slow=9s"]);
    let _client = running.begin_attach("1-1");
    running.signal("-TERM");
    running.wait_for("stopping");
    running.signal("-TERM");
    assert_eq!(running.wait().code(), Some(130));
    assert_eq!(running.lines_with("stopped").len(), 0, "it did not wait");
}

/// A device that does not come back in time is left to the kernel, and counts as a failure. The
/// test takes as long as the server waits for the device.
#[test]
fn a_device_that_is_not_given_back_exits_1() {
    let mut running = Running::start(&["--simulate=loopback:fault=slow=1000s"]);
    let _client = running.begin_attach("1-1");
    running.signal("-TERM");
    assert_eq!(running.wait().code(), Some(1));
    running.wait_for("error: 1 device(s) could not be given back in time");
}

#[test]
fn a_port_in_use_exits_1() {
    let running = Running::start(&["--simulate=loopback"]);
    let address = running.address.to_string();
    let output = run(&["serve", "--simulate=loopback", "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is in use"), "{}", stderr(&output));
    assert!(stderr(&output).contains("--listen"), "{}", stderr(&output));
    running.stop();
}

/// What an HTTP server says to a request for a path: the head and the body.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// The address of a server's page.
fn page_of(server: &Running) -> String {
    server.wait_for("the page is at http://");
    let line = server.lines_with("the page is at ").remove(0);
    let (_, address) = line.split_once("http://").expect("an address");
    address.trim_end_matches('/').to_owned()
}

#[test]
fn a_page_is_where_the_log_says_until_the_server_stops() {
    let running = Running::start(&["--simulate=loopback", "--http", "127.0.0.1:0"]);
    let address = page_of(&running);
    assert!(get(&address, "/healthz").starts_with("HTTP/1.0 200"));
    assert!(get(&address, "/metrics").contains("usbferry_build_info{version="));
    let output = run(&["serve", "--simulate=loopback", "--listen=127.0.0.1:0", "--http", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is in use by another program"), "{}", stderr(&output));
    running.stop();
    assert!(TcpStream::connect(&address).is_err(), "nobody listens");
}

#[test]
fn a_public_page_needs_allow() {
    let output = run(&["serve", "--simulate", "--listen=127.0.0.1:0", "--http", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--http 0.0.0.0:0 can be reached"), "{}", stderr(&output));
    assert!(stderr(&output).contains("with --allow"), "{}", stderr(&output));
}

/// A name is looked up at the start; one without an address is a failure.
#[test]
fn names_are_listened_on() {
    let running = Running::start(&["--simulate=loopback", "--listen", "localhost:0"]);
    assert!(running.address.ip().is_loopback(), "{}", running.address);
    running.attach("1-1").assert_in_sync();
    running.stop();
    let output = run(&["serve", "--simulate", "--listen", "nosuchhost.invalid"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("can't resolve nosuchhost.invalid, to listen there: "),
        "{output:?}"
    );
}

/// An IPv6 address with a scope is found by the name of its interface.
#[cfg(target_os = "linux")]
#[test]
fn an_address_with_a_scope_is_looked_up() {
    let output = run(&["serve", "--simulate", "--listen", "[fe80::1%lo]:0", "--allow", "::1"]);
    assert_eq!(output.status.code(), Some(1), "lo has no such address");
    assert!(stderr(&output).contains("can't listen on [fe80::1%1]:0: "), "{output:?}");
    let output = run(&["serve", "--simulate", "--listen", "[fe80::1%nope]:0", "--allow", "::1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("does this machine have nope?"), "{output:?}");
}

/// The doctor's JSON has the form of docs/json.md, and the exit status is by the worst finding.
#[test]
fn the_doctors_json_has_its_schema() {
    // No device is asked for, so the machine's USB does not matter.
    let output = run(&["doctor", "--simulate", "--listen", "127.0.0.1:0", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(stdout(&output).lines().count(), 1, "on a line");
    assert_eq!(report["schema"], 1);
    assert!(["ok", "note"].contains(&report["worst"].as_str().expect("a text")), "{report}");
    let findings = report["findings"].as_array().expect("a list");
    assert!(!findings.is_empty());
    for finding in findings {
        let mut keys: Vec<_> = finding.as_object().expect("an object").keys().collect();
        keys.sort_unstable();
        assert_eq!(keys, ["advice", "check", "level", "message", "subject"]);
        assert!(finding["check"].is_string() && finding["message"].is_string(), "{finding}");
        let subject = &finding["subject"];
        assert!(subject.is_null() || subject.is_string(), "{finding}");
        let advice = finding["advice"].as_array().expect("a list");
        assert!(advice.iter().all(serde_json::Value::is_string), "{finding}");
    }
}

/// A port in use is a problem, with the program's name where the system tells.
#[test]
fn the_doctor_finds_a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its own").to_string();
    let output = run(&["doctor", "--simulate", "--listen", &address]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let said = stdout(&output);
    assert!(said.contains("PROBLEM port") && said.contains(&address), "{said}");
    let names_us = said.contains(&format!("(pid {})", std::process::id()));
    assert!(names_us || cfg!(not(target_os = "linux")), "{said}");
    assert!(said.ends_with("1 problem\n"), "{said}");
}

/// The way to a running server is sound over loopback; a server that is not there is a problem.
#[test]
fn the_doctor_looks_at_the_way_to_a_server() {
    let running = Running::start(&["--simulate=loopback"]);
    let findings = |address: &str| {
        let output = run(&["doctor", "--peer", address, "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let all = report["findings"].as_array().expect("a list").clone();
        let about = |finding: &serde_json::Value| finding["subject"] == address;
        (output.status.code(), all.into_iter().filter(about).collect::<Vec<_>>())
    };
    let (_, found) = findings(&running.address.to_string());
    let checks: Vec<_> = found.iter().map(|finding| finding["check"].clone()).collect();
    assert_eq!(checks, ["peer", "loss"], "{found:?}");
    let message = found[0]["message"].as_str().expect("a text");
    assert!(message.contains("a round trip takes") && message.contains("of 10)"), "{message}");
    let address = running.address.to_string();
    running.stop();
    let (code, found) = findings(&address);
    assert_eq!((code, found[0]["level"].as_str()), (Some(4), Some("problem")), "{found:?}");
    assert!(found[0]["message"].as_str().expect("a text").contains("can't reach"), "{found:?}");
    let output = run(&["doctor", "--peer", "no host"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

/// Several addresses are listened on, each by itself.
#[test]
fn listens_on_several_addresses() {
    let running = Running::start(&[
        "--simulate=loopback",
        "--listen",
        "127.0.0.1:0",
        "--listen",
        "127.0.0.2:0",
    ]);
    wait_until("both", || running.lines_with("listening on ").len() == 2);
    for line in running.lines_with("listening on ") {
        let (_, address) = line.split_once("listening on ").expect("it has it");
        let output = run(&["list", "--remote", address]);
        assert_eq!(output.status.code(), Some(0), "{address}");
        assert!(stdout(&output).starts_with("1-1 "), "{address}");
    }
    running.stop();
}

/// An address of this machine other than loopback, if any: the source address for another network.
/// Nothing is sent.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// A client outside the blocks of `--allow` is closed before a byte is sent; a client inside is
/// served. Loopback addresses may always connect, so with only these nobody can be refused.
#[test]
fn a_client_outside_allow_is_closed() {
    let own = own_address().expect("this test needs an address besides loopback");
    let listen = format!("{own}:0");
    let outside = ["--simulate=loopback", "--listen", &listen, "--allow", "203.0.113.0/24"];
    let running = Running::start(&outside);
    // The connection may be closed before anything can be sent.
    let mut stream = TcpStream::connect(running.address).expect("the system accepts");
    stream.set_read_timeout(Some(DEADLINE)).expect("a TCP socket");
    let _ = stream.write_all(&DEVLIST);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).inspect_err(|error| {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it is closed");
    });
    assert_eq!(bytes, [0; 0]);
    running.wait_for(&format!("not among those given by --allow; allow it with --allow {}", own));
    let output = run(&["list", "--remote", &running.address.to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("closed the connection: is this machine among its --allow?"), "{said}");
    running.stop();
    let inside = ["--simulate=loopback", "--listen", &listen, "--allow", &own.to_string()];
    let running = Running::start(&inside);
    running.attach("1-1").assert_in_sync();
    running.stop();
}

/// Attach and detach are told, URBs are not, even at debug.
#[test]
fn the_log_has_no_line_for_a_urb() {
    const URBS: u32 = 500;
    let running = Running::start(&["--simulate=loopback", "--log", "debug"]);
    let mut client = running.attach("1-1");
    running.wait_for("1-1: attached (1209:0001)");
    let before = running.lines.lock().unwrap().len();
    for _ in 0..URBS {
        client.call_ok(&Submit::read(0x81, 512));
        let target = client.submit(&Submit::read(0x86, 512));
        let unlink = client.unlink(target);
        client.ret_unlink(unlink);
    }
    drop(client);
    running.wait_for("1-1: released");
    let lines = running.lines.lock().unwrap()[before..].to_vec();
    assert!(lines.len() < 10, "{lines:#?}");
    running.stop();
}

/// At trace, the session's part of the log has a line for each URB: its end.
#[test]
fn the_log_has_a_line_for_each_urb_at_trace() {
    const URBS: usize = 20;
    let running = Running::start(&["--simulate=loopback", "--log", "info,usbferry::session=trace"]);
    let mut client = running.attach("1-1");
    for _ in 0..URBS {
        client.call_ok(&Submit::read(0x81, 512));
    }
    let target = client.submit(&Submit::read(0x86, 64));
    let unlink = client.unlink(target);
    client.ret_unlink(unlink);
    running.wait_for("64 bytes: ECONNRESET, 0 bytes moved");
    let read = "Bulk In, endpoint 1, 512 bytes: ok, 512 bytes moved";
    assert_eq!(running.lines_with(read).len(), URBS, "{:#?}", running.lines_with(""));
    drop(client);
    running.wait_for("1-1: released");
    running.stop();
}

/// An unread log, as on a terminal stopped with Ctrl-S, holds up neither clients nor the end. The
/// server's stderr is a socket, like the journal's, because a socket can be small.
#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    let (log, stderr) = UnixStream::pair().expect("sockets");
    socket2::SockRef::from(&stderr).set_send_buffer_size(1).expect("the least there is");
    let mut command = usbferry(&["serve", "--simulate=loopback", "--listen", "127.0.0.1:0"]);
    command.args(["--log", "debug"]).stderr(OwnedFd::from(stderr));
    let child = command.spawn().expect("it starts");
    // Only the server has the other end now.
    drop(command);
    let mut lines = BufReader::new(log).lines().map_while(Result::ok);
    let address = lines.find_map(|line| line.split_once("listening on ")?.1.parse().ok());
    let address = address.expect("it says where it listens");
    let mut running = Running { child, lines: Arc::default(), address };
    // Each is a line.
    for client in 0..LOG_LINES_MAX + 100 {
        let mut list = MiniClient::connect(address);
        list.send(&DEVLIST);
        assert_ne!(list.read_to_end().0, [0; 0], "client {client}");
    }
    running.signal("-TERM");
    assert_eq!(running.wait().code(), Some(0));
    drop(lines);
}

/// The log has colours if stderr is to have colours.
#[test]
fn the_log_has_the_colours_of_stderr() {
    for (variable, coloured) in [("CLICOLOR_FORCE", true), ("NO_COLOR", false)] {
        let mut command = usbferry(&["serve"]);
        command.env_remove("NO_COLOR").env(variable, "1");
        let running = Running::start_as(command, &["--simulate=loopback"]);
        let line = running.lines_with("listening on ").remove(0);
        assert_eq!(line.contains('\x1b'), coloured, "{variable}: {line}");
        running.stop();
    }
}

/// Former clients leave no descriptor and no thread behind.
#[cfg(target_os = "linux")]
#[test]
fn two_hundred_clients_leave_nothing_behind() {
    let running = Running::start(&["--simulate=loopback,disk"]);
    let count = |what: &str| {
        let folder = format!("/proc/{}/{what}", running.child.id());
        std::fs::read_dir(folder).expect("it runs").count()
    };
    // The first clients cause the lasting allocations.
    running.attach("1-1").assert_in_sync();
    running.attach("1-2").assert_in_sync();
    // A single worker is kept without a device. Another has that name, too, until its thread ends.
    let workers = |prefix: &str| {
        let folder = format!("/proc/{}/task", running.child.id());
        let threads = std::fs::read_dir(folder).expect("it runs").flatten();
        let name = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm"));
        threads
            .filter_map(|thread| name(thread).ok())
            .filter(|name| name.starts_with(prefix))
            .count()
    };
    let settled = || (workers("usb "), workers("spare ")) == (0, 1);
    wait_until("the first ones are given back", settled);
    let (fds, threads) = (count("fd"), count("task"));
    for round in 0..100 {
        let mut client = running.attach("1-1");
        client.submit(&Submit::read(0x86, 512));
        if round % 2 == 0 {
            client.assert_in_sync();
        }
        running.attach("1-2");
    }
    wait_until("all are given back", || (count("fd"), count("task")) == (fds, threads));
    running.stop();
}

/// A connected client that does nothing, at any stage, lets the server sleep.
#[cfg(target_os = "linux")]
#[test]
fn a_client_that_does_nothing_costs_nothing() {
    let server = Running::start(&["--simulate=loopback:count=3"]);
    let connect = || MiniClient::connect(server.address);
    let list = |len: usize| {
        let mut client = connect();
        client.send(&DEVLIST[..len]);
        client
    };
    let mut refused = connect();
    assert_eq!(refused.import(BusId::new("9-9").expect("a busid")), 4, "it does not exist");
    let mut gone = server.attach("1-2");
    gone.command(usbferry::usb::sim::loopback::request::VANISH, 0, 0);
    let stages = [
        ("nothing said", connect()),
        ("half a request", list(4)),
        ("answered", list(DEVLIST.len())),
        ("refused", refused),
        ("attached", server.attach("1-1")),
        ("its device gone", gone),
    ];
    // All are there before anybody looks.
    server.attach("1-3").assert_in_sync();
    server.wait_for("1-3: released");
    wait_until("the server sleeps, twenty looks in a row", || {
        (0..20).all(|_| {
            thread::sleep(Duration::from_millis(1));
            server.is_asleep()
        })
    });
    // If the server had closed the connections, the check would have seen nothing.
    for (stage, client) in &stages[..2] {
        assert!(!client.has_input(), "{stage}: it is still connected");
    }
}

/// Starts a server under a limit of the shell's `ulimit`.
#[cfg(target_os = "linux")]
fn start_limited(limit: &str, arguments: &[&str]) -> Running {
    let mut shell = Command::new("sh");
    let script = format!("ulimit {limit}; exec \"$0\" serve \"$@\"");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_usbferry")]);
    shell.env_remove("RUST_LOG").stdin(Stdio::null()).stderr(Stdio::piped());
    Running::start_as(shell, arguments)
}

/// A system with few descriptors for the program: silent clients do not use up the descriptors
/// needed by a device or the next client.
#[cfg(target_os = "linux")]
#[test]
fn few_descriptors_are_not_used_up_by_silent_clients() {
    let server = start_limited("-n 64", &["--simulate=loopback"]);
    let silent: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(server.address).expect("it listens")).collect();
    server.attach("1-1").assert_in_sync();
    assert!(server.lines_with("can't accept").is_empty());
    drop(silent);
    server.stop();
}

/// The same for silent clients of the page, which keep neither a device nor the page from others.
#[cfg(target_os = "linux")]
#[test]
fn few_descriptors_are_not_used_up_by_clients_of_the_page() {
    let server = start_limited("-n 64", &["--simulate=loopback", "--http", "127.0.0.1:0"]);
    let page = &*page_of(&server);
    let silent: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(page).expect("it listens")).collect();
    assert!(get(page, "/healthz").starts_with("HTTP/1.0 200"));
    server.attach("1-1").assert_in_sync();
    assert!(server.lines_with("can't accept").is_empty());
    drop(silent);
    server.stop();
}

/// The same for the descriptors left beside many devices.
#[cfg(target_os = "linux")]
#[test]
fn the_last_descriptors_are_not_kept_by_silent_clients() {
    const DEVICES: usize = 14;
    let server = start_limited("-n 64", &["--simulate=loopback:count=14", "--socket", "none"]);
    let mut attached: Vec<MiniClient> =
        (1..=DEVICES).map(|number| server.attach(&format!("1-{number}"))).collect();
    let silent: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(server.address).expect("it listens")).collect();
    let mut client = MiniClient::connect(server.address);
    client.send(&DEVLIST);
    assert_eq!(client.read(8)[..4], [0x01, 0x11, 0x00, 0x05], "an answer, if not a list");
    assert!(server.lines_with("can't accept").is_empty());
    attached.iter_mut().for_each(MiniClient::assert_in_sync);
    drop((attached, silent));
    server.stop();
}

/// A system with little address space for the program: imports are refused when the space is used
/// up, at any first failing allocation, and existing sessions go on.
#[cfg(target_os = "linux")]
#[test]
fn imports_without_memory_are_refused_and_sessions_go_on() {
    const DEVICES: usize = 40;
    /// ST_NA.
    const NOT_AVAILABLE: u32 = 1;
    let busid = |number: usize| BusId::new(&format!("1-{}", number + 1)).expect("a busid");
    for kilobytes in [700_000, 726_000, 752_000, 778_000, 804_000] {
        let devices = format!("--simulate=loopback:count={DEVICES}");
        // Without the thread of the socket, which has address space of its own.
        let server = start_limited(&format!("-v {kilobytes}"), &[&devices, "--socket", "none"]);
        let mut attached = Vec::new();
        let mut refused = 0;
        for number in 0..DEVICES {
            let mut client = MiniClient::connect(server.address);
            match client.import(busid(number)) {
                0 => attached.push(client),
                NOT_AVAILABLE => refused += 1,
                status => panic!("{kilobytes}: status {status}"),
            }
        }
        assert!(!attached.is_empty() && refused > 0, "{kilobytes}: {} attached", attached.len());
        server.wait_for("no memory or address space");
        for client in &mut attached {
            client.assert_in_sync();
            client.call_ok(&Submit::read(0x81, 1 << 20));
        }
        // The memory of former clients goes to others.
        drop(attached);
        server.attach(&format!("1-{DEVICES}")).assert_in_sync();
        server.stop();
    }
}

/// An action of a client.
type Act<'a> = Box<dyn FnMut() + 'a>;

/// The log has a limited number of lines a second about clients, whatever clients do and however
/// often.
#[test]
fn no_client_makes_the_log_long() {
    const TIMES: usize = 300;
    let server = Running::start(&["--simulate=loopback:count=3", "--take-over=any"]);
    let busid = |number| BusId::new(&format!("1-{number}")).expect("a busid");
    let connect = || MiniClient::connect(server.address);
    let attach = |number| {
        let mut client = connect();
        client.import(busid(number));
        client
    };
    let reset = |client: MiniClient| {
        let socket = socket2::SockRef::from(client.stream());
        socket.set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    };
    let mut held = None;
    let mut kinds: Vec<(&str, Act<'_>)> = vec![
        ("imports and closes", Box::new(|| drop(attach(1)))),
        ("imports and resets", Box::new(|| reset(attach(1)))),
        ("takes a device over", Box::new(|| held = Some(attach(2)))),
        ("asks for what there is not", Box::new(|| drop(attach(9)))),
        ("asks and leaves", Box::new(|| connect().send(&import_bytes(busid(1).as_wire())))),
        ("sends no request", Box::new(|| connect().send_anyway(&[0xff; 64]))),
        ("sends no PDU", Box::new(|| attach(3).send_anyway(&[0xff; 64]))),
        ("is gone at once", Box::new(|| reset(connect()))),
    ];
    for (kind, act) in &mut kinds {
        let begun = Instant::now();
        let before = server.lines_with("").len();
        (0..TIMES).for_each(|_| act());
        let seconds = usize::try_from(begun.elapsed().as_secs()).expect("few");
        let lines = server.lines_with("").len() - before;
        // A second that had begun, and a second that has not ended.
        let most = COMPLAINTS_PER_SECOND as usize * (seconds + 2);
        assert!(lines <= most, "{kind}: {lines} lines in {seconds} s and a bit");
    }
    drop(kinds);
    drop(held);
    server.wait_for("more lines about clients and their devices were left out");
    server.stop();
}

/// The descriptors above the three of every program, by a shell that somebody starts.
#[cfg(target_os = "linux")]
const LIST_DESCRIPTORS: &str = "ls /proc/$$/fd > \"$1.part\"; mv \"$1.part\" \"$1\"";

/// Descriptors that the program itself was started with are none of its own.
#[cfg(target_os = "linux")]
#[test]
fn a_hook_gets_no_descriptor_of_the_server() {
    let folder = std::env::temp_dir().join(format!("usbferry-hook-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = |name: &str| folder.join(name).to_str().expect("UTF-8").to_owned();
    let [here, there, config] = ["here", "there", "usbferry.toml"].map(path);
    let mut sh = Command::new("/bin/sh");
    sh.args(["-c", LIST_DESCRIPTORS, "sh", &here]).stdin(Stdio::null());
    assert!(sh.status().expect("there is a shell").success());
    let words = ["/bin/sh", "-c", LIST_DESCRIPTORS, "sh", &there];
    let hook = format!("[[rule]]\non-attach = {words:?}\n");
    std::fs::write(&config, hook).expect("a file");
    let server = Running::start(&["--simulate=loopback", "--config", &config]);
    let _client = server.attach("1-1");
    wait_until("the hook has run", || std::fs::exists(&there).is_ok_and(|is_there| is_there));
    let [here, there] = [here, there].map(|file| std::fs::read_to_string(file).expect("a list"));
    assert_eq!(there, here);
    drop(server);
    std::fs::remove_dir_all(folder).expect("it is there");
}
