//! `usbferry replay`: the client's side of a recording, played against servers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;
use usbferry::config::Capturing;
use usbferry::usb::sim::loopback::request;

use crate::support::client::{EPIPE, MiniClient};
use crate::support::endpoints::{
    INTERRUPT, ISO_SINK, ISO_SOURCE, LOOP_IN, LOOP_OUT, SILENT, SINK, SOURCE,
};
use crate::support::submit::{Submit, setup};
use crate::support::{Server, wait_until};

/// Every kind of transfer, some of them at the same time, with errors and an UNLINK.
fn converse(client: &mut MiniClient) {
    client.call_ok(&Submit::get_device_descriptor());
    client.set_interface(1, 1);
    let reads: Vec<_> = (0..8).map(|_| client.submit(&Submit::read(SOURCE, 5000))).collect();
    let write = client.submit(&Submit::write(SINK, &[7; 3000]));
    for urb in reads.into_iter().chain([write]) {
        assert_eq!(client.ret_of(urb).status, 0);
    }
    client.call_ok(&Submit::write(LOOP_OUT, b"there and back"));
    client.call_ok(&Submit::read(LOOP_IN, 512));
    client.call_ok(&Submit::read(INTERRUPT, 8));
    client.command(request::PACKETS_SHORT, 100, ISO_SOURCE.into());
    client.call(&Submit::iso_read(ISO_SOURCE, &[192; 8]));
    client.call(&Submit::write(ISO_SINK, &[7; 200]).with_packets(&[(0, 100), (100, 100)]));
    client.command(request::STALL_AFTER, 100, SOURCE.into());
    assert_eq!(client.call(&Submit::read(SOURCE, 512)).status, EPIPE);
    client.call_ok(&Submit::clear_halt(SOURCE));
    assert_eq!(client.call(&Submit::control(setup(0xc0, 0xee, 0, 0, 4), &[])).status, EPIPE);
    let target = client.submit(&Submit::read(SILENT, 64));
    client.assert_in_sync();
    let unlink = client.unlink(target);
    client.ret_unlink(unlink);
}

/// The capture of a client's work with a loopback device.
fn capture(folder: &Path, snap_len: usize) -> PathBuf {
    capture_of(&folder.join("recorded.pcapng"), snap_len, converse)
}

/// The capture of some work with a loopback device.
fn capture_of(path: &Path, snap_len: usize, work: fn(&mut MiniClient)) -> PathBuf {
    let capture = Capturing { path: path.to_owned(), size: None, snap_len };
    let server = Server::start_with("loopback", |settings| settings.capture = Some(capture));
    let mut client = server.attach();
    work(&mut client);
    drop(client);
    server.stop();
    path.to_owned()
}

/// Replays a recording on the first device of a server: the exit code, stdout and stderr.
fn replay(server: &Server, recording: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    replay_at(server.address, recording, more)
}

/// The same by the server's address. A program that does not end fails its test.
fn replay_at(
    address: SocketAddr,
    recording: &Path,
    more: &[&str],
) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_usbferry"));
    command.arg("replay").arg(recording).args(["--remote", &address.to_string(), "1-1"]);
    command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    wait_until("the replay ends", || child.try_wait().expect("it is our child").is_some());
    let output = child.wait_with_output().expect("it has ended");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The replay of a recording in JSON.
fn replay_json(server: &Server, recording: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let (code, said, errors) = replay(server, recording, &[&["--json"], more].concat());
    (code, serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said} {errors}")))
}

#[test]
fn the_same_device_gives_the_same_answers() {
    let folder = tempfile::tempdir().unwrap();
    let recording = capture(folder.path(), 256 << 10);
    let server = Server::start("loopback");
    for _ in 0..2 {
        let (code, said, errors) = replay(&server, &recording, &[]);
        assert_eq!((code, &*errors), (Some(0), ""), "{said}");
        assert!(said.ends_with(" URBs played, 0 with another answer\n"), "{said}");
        server.wait_released(0);
    }
}

#[test]
fn a_recording_that_breaks_off_is_played_up_to_there_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let recording = capture(folder.path(), 256 << 10);
    let whole = std::fs::read(&recording).unwrap();
    std::fs::write(&recording, &whole[..whole.len() - 3]).unwrap();
    let server = Server::start("loopback");
    let (code, said, errors) = replay(&server, &recording, &[]);
    assert!(code == Some(0) && said.ends_with(" 0 with another answer\n"), "{said}");
    assert!(errors.contains(": the recording is broken behind packet "), "{errors}");
}

/// A recording plays with itself as the device.
#[test]
fn a_recorded_device_gives_the_recorded_answers() {
    let folder = tempfile::tempdir().unwrap();
    let recording = capture(folder.path(), 256 << 10);
    let server = Server::start(&format!("replay:{}", recording.display()));
    let (code, said) = replay_json(&server, &recording, &[]);
    assert_eq!((code, &said["different"]), (Some(0), &0.into()), "{said}");
    assert_eq!(said["differences"], Value::Array(Vec::new()));
    assert!(said["played"].as_u64().unwrap() >= 25, "{said}");
}

#[test]
fn another_device_differs_where_it_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let recording = capture(folder.path(), 256 << 10);
    let server = Server::start("loopback:data=counter");
    let (code, said) = replay_json(&server, &recording, &[]);
    assert_eq!(code, Some(1));
    let differences = said["differences"].as_array().unwrap();
    assert_eq!(differences.len() as u64, said["different"].as_u64().unwrap());
    let of_source = differences.iter().filter(|difference| difference["endpoint"] == SOURCE);
    let data: Vec<&Value> = of_source.collect();
    assert!(data.len() >= 8 && data.iter().all(|one| one["what"] == "data"), "{said}");
    server.wait_released(0);
    let (code, said) = replay_json(&server, &recording, &["--ignore-data"]);
    assert_eq!((code, &said["different"]), (Some(0), &0.into()), "{said}");
    let microphone = Server::start("microphone");
    let (code, said, errors) = replay(&microphone, &recording, &[]);
    assert_eq!((code, &*said), (Some(1), ""));
    let says = "the recording is of a device 1209:0001, and 1-1 is 1209:0003, to which ";
    assert!(errors.contains(says), "{errors}");
    microphone.wait_released(0);
    let (code, said, _) = replay(&microphone, &recording, &["--other-device"]);
    assert_eq!(code, Some(1));
    let says = "endpoint 0x81, 5000 bytes asked for: status ok in the recording, ";
    assert!(said.contains(says), "{said}");
}

/// What the recording lacks is not sent as something else, and not compared.
#[test]
fn a_cut_recording_is_refused_or_played_in_part() {
    let folder = tempfile::tempdir().unwrap();
    let recording = capture(folder.path(), 64);
    let server = Server::start("loopback");
    let (code, _, errors) = replay(&server, &recording, &[]);
    assert_eq!(code, Some(1));
    for part in ["2 writes can't", "--capture-snaplen all", "start --snaplen all", "--skip-cut"] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    let (code, said) = replay_json(&server, &recording, &["--skip-cut"]);
    assert_eq!((code, &said["skipped"]["cut"]), (Some(0), &2.into()), "{said}");
    assert!(said["in_part"].as_u64().unwrap() >= 8, "{said}");
}

/// A device that stays silent where the recorded device answered: the wait has an end, and the rest
/// is played.
#[test]
fn a_urb_that_is_never_answered_is_a_difference_and_the_rest_is_played() {
    let folder = tempfile::tempdir().unwrap();
    let told = |name: &str, work| capture_of(&folder.path().join(name), 256 << 10, work);
    let answered = told("answered", |client| {
        let read = client.submit(&Submit::read(LOOP_IN, 512));
        client.call_ok(&Submit::write(LOOP_OUT, b"there and back"));
        assert_eq!(client.ret_of(read).status, 0);
        client.call_ok(&Submit::read(INTERRUPT, 8));
    });
    let silent = told("silent", |client| {
        client.submit(&Submit::read(LOOP_IN, 512));
        client.call_ok(&Submit::read(INTERRUPT, 8));
    });
    let server = Server::start(&format!("replay:{}", silent.display()));
    let (code, said) = replay_json(&server, &answered, &[]);
    let differences = said["differences"].as_array().unwrap();
    let of = |endpoint: u8| differences.iter().find(|one| one["endpoint"] == endpoint);
    // With two descriptors, which stand in front of a capture.
    assert_eq!((code, &said["played"]), (Some(1), &5.into()), "{said}");
    assert_eq!(of(LOOP_IN).expect("it differs")["what"], "unanswered");
    assert_eq!(of(LOOP_OUT).expect("nobody has recorded the write")["what"], "status");
    assert!(of(INTERRUPT).is_none(), "played behind the wait: {said}");
    server.wait_released(0);
    let (_, said, _) = replay(&server, &answered, &[]);
    assert!(
        said.contains("512 bytes asked for: status ok in the recording, no answer now"),
        "{said}"
    );
}

/// A way to a server on which nothing comes back any more behind the answer to the import.
fn way_that_falls_silent(server: SocketAddr) -> SocketAddr {
    const IMPORT_LEN: usize = 40;
    const IMPORTED_LEN: usize = 320;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        let mut server = TcpStream::connect(server).expect("somebody listens");
        let (mut request, mut answer) = ([0; IMPORT_LEN], [0; IMPORTED_LEN]);
        client.read_exact(&mut request).expect("a request");
        server.write_all(&request).expect("it is taken");
        server.read_exact(&mut answer).expect("an answer");
        client.write_all(&answer).expect("it is taken");
        let _ = std::io::copy(&mut client, &mut std::io::sink());
    });
    address
}

#[test]
fn a_server_that_falls_silent_ends_a_replay_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let recording = capture(folder.path(), 256 << 10);
    let server = Server::start("loopback");
    let way = way_that_falls_silent(server.address);
    let (code, _, errors) = replay_at(way, &recording, &[]);
    assert_eq!(code, Some(1));
    let says = format!("the answer of {way} took more than 5 s");
    assert!(errors.contains(&says), "{errors}");
}

/// usbmon's own recordings: short and long headers, in both orders of bytes.
#[test]
fn recordings_of_every_form_are_played() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/recording");
    for form in ["pcapng-220", "pcapng-220-big", "pcapng-189", "pcap-189", "pcap-220-big"] {
        let recording = corpus.join(form);
        let server = Server::start(&format!("replay:{}", recording.display()));
        let (code, said) = replay_json(&server, &recording, &[]);
        let different = said["differences"].as_array().unwrap();
        // The packets of the only isochronous URB end behind its buffer, which no server takes.
        let is_known = |one: &&Value| one["packet"] == 11 && one["endpoint"] == 0x82;
        assert!(different.iter().all(|one| is_known(&one)), "{form}: {said}");
        assert_eq!(code, Some(i32::from(form.contains("220"))), "{form}: {said}");
    }
    let server = Server::start("loopback");
    let (code, _, errors) = replay(&server, &corpus.join("wrong-link"), &[]);
    assert!(code == Some(1) && errors.contains("link type 1;"), "{errors}");
    let (code, _, errors) = replay(&server, Path::new("no/such"), &[]);
    assert!(code == Some(1) && errors.contains("No such file"), "{errors}");
}
