//! The capture of all URBs, as tshark reads it beside the counters of the session.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use usbferry::config::Capturing;
use usbferry::limits::{CAPTURES_MAX, SNAP_LEN_DEFAULT};
use usbferry::stats::SessionStats;
#[cfg(target_os = "linux")]
use usbferry::status::CaptureState;
use usbferry::usb::sim::loopback::request;
use usbferry::usb::sim::replay::script::Script;
use usbferry::wire::types::Direction;

use crate::operators::Office;
use crate::support::client::{ECONNRESET, EPIPE, EPROTO, MiniClient};
use crate::support::endpoints::{
    INTERRUPT, INTERRUPT_SILENT, ISO_SINK, ISO_SOURCE, LOOP_IN, LOOP_OUT, SILENT, SINK, SOURCE,
};
use crate::support::submit::{Submit, setup};
use crate::support::tshark::{self, Record};
use crate::support::{Server, pattern, wait_until};

/// A server that captures into a folder.
fn start(devices: &str, folder: &Path, change: impl FnOnce(&mut Capturing)) -> (Server, PathBuf) {
    let path = folder.join("test.pcapng");
    let mut capture = Capturing { path: path.clone(), size: None, snap_len: 256 << 10 };
    change(&mut capture);
    let server = Server::start_with(devices, |settings| settings.capture = Some(capture));
    (server, path)
}

/// A client's questions to a stick or a loopback device, and the answers.
fn converse(client: &mut MiniClient) -> Vec<(i32, Vec<u8>)> {
    let mut told = Vec::new();
    let mut ask = |submit: &Submit| {
        let ret = client.call(submit);
        told.push((ret.status, ret.data));
    };
    ask(&Submit::get_device_descriptor());
    ask(&Submit::control(setup(0x80, 6, 0x0302, 0x0409, 255), &[]));
    ask(&Submit::set_interface(1, 1));
    for number in 0..5u8 {
        ask(&Submit::write(LOOP_OUT, &[number; 700]));
        ask(&Submit::read(LOOP_IN, 512));
        ask(&Submit::read(LOOP_IN, 512));
    }
    ask(&Submit::read(SOURCE, 60_000));
    ask(&Submit::control(setup(0x40, request::STALL_AFTER, 100, SOURCE.into(), 0), &[]));
    ask(&Submit::read(SOURCE, 512));
    ask(&Submit::clear_halt(SOURCE));
    ask(&Submit::read(SOURCE, 512));
    ask(&Submit::control(setup(0x40, request::PACKETS_SHORT, 100, ISO_SOURCE.into(), 0), &[]));
    ask(&Submit::iso_read(ISO_SOURCE, &[192; 8]));
    ask(&Submit::read(INTERRUPT, 8));
    ask(&Submit::control(setup(0xc0, 0xee, 0, 0, 4), &[]));
    told
}

/// A recorded device answers as the device of the recording, twice, and invents nothing.
#[test]
fn a_capture_replayed_as_a_device_gives_the_same_answers() {
    let folder = tempfile::tempdir().unwrap();
    let (server, path) = start("loopback", folder.path(), |_| {});
    let told = converse(&mut server.attach());
    server.stop();
    let server = Server::start(&format!("replay:{}", path.display()));
    for _ in 0..2 {
        let mut client = server.attach();
        let again = converse(&mut client);
        for (number, (was, is)) in told.iter().zip(&again).enumerate() {
            assert_eq!(was, is, "question {number}");
        }
        let unknown = setup(0xc0, 0x77, 1, 2, 4);
        assert_eq!(client.call(&Submit::control(unknown, &[])).status, EPIPE);
        assert_eq!(client.call(&Submit::write(LOOP_OUT, b"never sent before")).status, EPIPE);
        drop(client);
        server.wait_released(0);
    }
}

/// Short and long headers, in both orders of bytes, in both kinds of file.
#[test]
fn recordings_of_every_form_are_replayed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/recording");
    for form in ["pcapng-220", "pcapng-220-big", "pcapng-189", "pcap-189", "pcap-220-big"] {
        let server = Server::start(&format!("replay:{}", corpus.join(form).display()));
        let mut client = server.attach();
        assert_eq!(client.call_ok(&Submit::get_device_descriptor())[8..10], [9, 0x12], "{form}");
        let early = client.submit(&Submit::read(0x81, 64));
        client.assert_in_sync();
        assert!(client.awaits(early), "{form}: no answer before the question");
        client.call_ok(&Submit::write(0x01, b"question"));
        assert_eq!(client.ret_of(early).data, b"answer", "{form}");
        assert_eq!(client.call(&Submit::read(0x81, 64)).status, EPIPE, "{form}: as recorded");
        client.call_ok(&Submit::clear_halt(0x81));
        let silent = client.submit(&Submit::read(0x81, 64));
        client.assert_in_sync();
        assert!(client.awaits(silent), "{form}: it was silent at the end");
    }
}

/// A damaged recording is an error that names the packet, or is read up to the damage.
#[test]
fn damaged_recordings_are_errors_with_the_number_of_the_packet() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/recording");
    let told = |bytes: &[u8]| Script::read(bytes).map(drop).map_err(|error| error.to_string());
    let wrong = fs::read(corpus.join("wrong-link")).unwrap();
    let error = told(&wrong).unwrap_err();
    assert!(error.contains("packet 1 ") && error.contains("link type 1;"), "{error}");
    let whole = fs::read(corpus.join("pcap-189")).unwrap();
    let mut damaged = whole.clone();
    // The event of the second packet: behind two heads, and 48 bytes of the first packet.
    damaged[24 + 16 + 48 + 16 + 8] = b'?';
    let error = told(&damaged).unwrap_err();
    assert!(error.starts_with("packet 2 ") && error.contains("no event 0x3f"), "{error}");
    assert!(told(b"no capture").unwrap_err().contains("neither pcapng nor pcap"));
    assert!(told(&whole[..200]).unwrap_err().contains("no device with its descriptors"));
}

/// Every kind of URB, and every kind of end.
fn exercise(client: &mut MiniClient) {
    client.call_ok(&Submit::get_device_descriptor());
    client.set_interface(1, 1);
    for len in [1, 512, 65536, 300_000] {
        client.call_ok(&Submit::write(SINK, &pattern(0, len)));
        client.call_ok(&Submit::read(SOURCE, u32::try_from(len).unwrap()));
    }
    client.call_ok(&Submit::write(LOOP_OUT, b"there and back"));
    client.call_ok(&Submit::read(LOOP_IN, 512));
    client.call_ok(&Submit::read(INTERRUPT, 8));
    client.command(request::PACKETS_SHORT, 100, ISO_SOURCE.into());
    client.call(&Submit::iso_read(ISO_SOURCE, &[192; 8]));
    client.command(request::PACKET_LOST, 3, ISO_SOURCE.into());
    client.call(&Submit::iso_read(ISO_SOURCE, &[192; 8]));
    let gaps = Submit::write(ISO_SINK, &[7; 612]).with_packets(&[(0, 100), (256, 100), (512, 100)]);
    client.call(&gaps);
    client.command(request::STALL_AFTER, 100, SOURCE.into());
    assert_eq!(client.call(&Submit::read(SOURCE, 512)).status, EPIPE);
    client.call_ok(&Submit::clear_halt(SOURCE));
    client.command(request::BUS_ERROR_AFTER, 0, SOURCE.into());
    assert_eq!(client.call(&Submit::read(SOURCE, 512)).status, EPROTO);
    assert_eq!(client.call(&Submit::control(setup(0xc0, 0xee, 0, 0, 4), &[])).status, EPIPE);
    // No such endpoint.
    assert_ne!(client.call(&Submit::read(0x8e, 64)).status, 0);
    for silent in [SILENT, INTERRUPT_SILENT] {
        let target = client.submit(&Submit::read(silent, 64));
        client.assert_in_sync();
        let unlink = client.unlink(target);
        assert_eq!(client.ret_unlink(unlink), ECONNRESET);
    }
    client.assert_in_sync();
}

fn is_made_up(record: &Record) -> bool {
    record.comment.starts_with("made up")
}

/// Whether the device ended the URB.
fn is_by_device(record: &&Record) -> bool {
    let by_server = ["made up", "performed by", "answered from", "given up"];
    let is_early = record.comment.contains("before the device");
    record.event == 'C' && !is_early && !by_server.iter().any(|by| record.comment.starts_with(by))
}

/// Holds the records against the counters, endpoint by endpoint.
fn compare(records: &[Record], stats: &SessionStats) {
    for endpoint in &stats.endpoints {
        let (address, counted) = (endpoint.address, &endpoint.counters);
        let is_control = address.number() == 0;
        let of = |record: &&Record| {
            record.endpoint & 0x7f == address.number()
                && (is_control || record.endpoint == address.as_byte())
        };
        let ends: Vec<&Record> = records.iter().filter(of).filter(is_by_device).collect();
        assert_eq!(ends.len() as u64, counted.urbs, "URBs of {address:?}");
        let bytes = |direction| {
            let is_in = direction == Direction::In;
            let ends = ends.iter().filter(|end| (end.endpoint & 0x80 != 0) == is_in);
            ends.map(|end| u64::from(end.len)).sum::<u64>()
        };
        assert_eq!(bytes(Direction::In), counted.bytes_in, "bytes from {address:?}");
        assert_eq!(bytes(Direction::Out), counted.bytes_out, "bytes to {address:?}");
        let packet_errors: u64 = ends.iter().map(|end| u64::from(end.error_count)).sum();
        assert_eq!(packet_errors, counted.packet_errors, "failed packets of {address:?}");
        for (status, count) in counted.errors.by_status() {
            let Some(status) = status else { continue };
            let found = ends.iter().filter(|end| end.status == status.0).count() as u64;
            assert_eq!(found, count, "{status} of {address:?}");
        }
    }
    let total = records.iter().filter(is_by_device).count() as u64;
    assert_eq!(total, stats.total().urbs, "URBs of all endpoints");
    let refused = records.iter().filter(|record| record.event == 'E').count() as u64;
    assert_eq!(refused, stats.refused, "refused SUBMITs");
}

#[test]
fn tshark_counts_the_urbs_that_the_session_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (server, path) = start("loopback", folder.path(), |_| {});
    let mut client = server.attach();
    exercise(&mut client);
    let stats = server.session_stats(0);
    drop(client);
    server.stop();
    let records = tshark::records(&path);
    compare(&records, &stats);
    let mut pairs: HashMap<&str, String> = HashMap::new();
    for record in &records {
        pairs.entry(&record.id).or_default().push(record.event);
    }
    for (id, events) in pairs {
        assert!(["SC", "SE"].contains(&&*events), "{id}: {events}");
    }
    for kind in 0..4 {
        assert!(records.iter().any(|record| record.transfer_type == kind), "type {kind}");
    }
    assert!(records.iter().all(|record| record.interface == "1-1"));
    assert_eq!(records.iter().filter(|record| is_made_up(record)).count(), 4, "two descriptors");
    let unlinked = records.iter().filter(|record| record.comment.starts_with("unlinked by seqnum"));
    assert_eq!(unlinked.filter(|record| record.status == ECONNRESET).count(), 2);
}

/// The capture of a stick begins behind the descriptors, so to say, and still shows the commands.
#[test]
fn tshark_shows_the_commands_of_a_stick() {
    let folder = tempfile::tempdir().unwrap();
    let (server, path) = start("disk", folder.path(), |_| {});
    let mut client = server.attach();
    let mut command = [0; 31];
    command[..4].copy_from_slice(b"USBC");
    command[4] = 77;
    command[8] = 36;
    command[12] = 0x80;
    command[14..19].copy_from_slice(&[6, 0x12, 0, 0, 0]);
    command[19] = 36;
    client.call_ok(&Submit::write(0x02, &command));
    client.call_ok(&Submit::read(0x81, 36));
    client.call_ok(&Submit::read(0x81, 13));
    drop(client);
    server.stop();
    let mut tshark = Command::new("tshark");
    let text = tshark::run(tshark.arg("-r").arg(&path).args(["-V", "-Y", "usbms"]));
    assert!(text.contains("SCSI CDB Inquiry"), "{text}");
    assert!(text.contains("SCSI Payload (Inquiry Response Data)"), "{text}");
    assert!(text.contains("SCSI Response (Inquiry)"), "{text}");
}

/// The file of an operator's capture, as an argument.
fn file_in(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

/// Begun in the middle of a session, a capture has every URB of its device from then on, behind the
/// descriptors, and nothing of other devices.
#[test]
fn an_operator_captures_a_device_that_a_client_has() {
    let office = Office::open("loopback:count=2");
    let (mut client, mut other) = (office.server.attach(), office.server.attach_to(1));
    let folder = tempfile::tempdir().unwrap();
    let file = file_in(folder.path(), "a.pcapng");
    let (code, said, errors) = office.run(&["capture", "start", &file, "--device", "1-1"]);
    assert_eq!((code, &*errors), (Some(0), ""));
    assert!(said.contains(&format!("1-1: captured, client {}", client.address())), "{said}");
    exercise(&mut client);
    other.call_ok(&Submit::read(SOURCE, 512));
    let (status, stats) = (office.status(), office.server.session_stats(0));
    let (code, said, _) = office.run(&["capture", "stop"]);
    assert!(code == Some(0) && said.contains(&file) && said.contains("0 dropped"), "{said}");
    client.call_ok(&Submit::read(SOURCE, 512));
    let records = tshark::records(Path::new(&file));
    compare(&records, &stats);
    assert!(records.iter().all(|record| record.interface == "1-1"));
    assert_eq!(records.iter().filter(|record| is_made_up(record)).count(), 4, "two descriptors");
    let capture = &status["captures"][0];
    let ends = records.iter().filter(|record| record.event != 'S' && !is_made_up(record)).count();
    assert_eq!((&capture["captured"], &capture["dropped"]), (&ends.into(), &0.into()));
    assert_eq!((&capture["file"], &capture["device"]), (&(*file).into(), &"1-1".into()));
    assert_eq!(
        (&capture["writing"], &capture["snaplen"]),
        (&true.into(), &SNAP_LEN_DEFAULT.into())
    );
    assert_eq!(office.status()["captures"], Value::Array(Vec::new()));
}

/// A capture of all devices goes on with the next session, and ends whole with the server.
#[test]
fn a_capture_outlives_sessions_and_ends_with_the_server() {
    let office = Office::open("loopback");
    let folder = tempfile::tempdir().unwrap();
    let file = file_in(folder.path(), "all.pcapng");
    let (code, said, _) = office.run(&["capture", "start", &file, "--snaplen", "all", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["sessions"]), (Some(0), &Value::Array(Vec::new())));
    for _ in 0..2 {
        let mut client = office.server.attach();
        client.call_ok(&Submit::read(SOURCE, 5000));
        drop(client);
        office.server.wait_released(0);
    }
    let Office { server, .. } = office;
    server.stop();
    let records = tshark::records(Path::new(&file));
    let read = |record: &&Record| record.endpoint == SOURCE && record.event == 'C';
    assert_eq!(records.iter().filter(read).map(|record| record.len).collect::<Vec<_>>(), [5000; 2]);
}

/// The program passes its standard output, and the reader of a pipe gets the capture.
#[test]
fn a_capture_goes_into_a_pipe() {
    let office = Office::open("loopback");
    let mut client = office.server.attach();
    let mut command = Command::new(env!("CARGO_BIN_EXE_usbferry"));
    command.args(["capture", "start", "-", "--socket"]).arg(office.path());
    let mut begun = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut pipe = begun.stdout.take().unwrap();
    assert!(begun.wait().unwrap().success());
    client.call_ok(&Submit::read(SOURCE, 512));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("piped.pcapng");
    let (code, said, _) = office.run(&["capture", "stop"]);
    assert!(code == Some(0) && said.contains("stdout-"), "{said}");
    std::io::copy(&mut pipe, &mut fs::File::create(&path).unwrap()).unwrap();
    assert!(tshark::records(&path).iter().any(|record| record.endpoint == SOURCE));
    // A reader that leaves ends a capture, and the state says so.
    let mut begun = command.stdout(Stdio::piped()).spawn().unwrap();
    assert!(begun.wait().unwrap().success());
    drop(begun);
    wait_until("the capture notes that its reader has left", || {
        client.call_ok(&Submit::read(SOURCE, 512));
        office.status()["captures"][0]["failure"] == "the reader has left"
    });
    assert_eq!(office.run(&["capture", "stop"]).0, Some(0));
}

#[test]
fn captures_that_can_not_be_are_refused_with_the_reason() {
    let office = Office::open("loopback");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| file_in(folder.path(), name);
    let refused = |arguments: &[&str], says: &str| {
        let (code, _, errors) = office.run(&[&["capture"], arguments].concat());
        assert!(code == Some(1) && errors.contains(says), "{arguments:?}: {code:?}: {errors}");
    };
    refused(&["stop"], "no such capture runs");
    refused(&["start", &file("no/such")], "No such file");
    refused(&["start", "/dev/null"], "a file or a FIFO");
    assert!(Command::new("mkfifo").arg(file("fifo")).status().unwrap().success());
    refused(&["start", &file("fifo"), "--size", "8M"], "leave --size out");
    refused(&["start", &file("long"), "--device", &"x".repeat(40)], "no device");
    for number in 0..CAPTURES_MAX {
        let name = file(&number.to_string());
        let start = office.run(&["capture", "start", &name, "--size", "8M", "--device", "later"]);
        assert!(start.0 == Some(0) && start.1.contains("meant by \"later\" now"), "{start:?}");
    }
    refused(&["start", &file("one-more")], "4 captures run, the limit");
    refused(&["start", &file("0")], "writes there already");
    refused(&["stop"], "several captures run");
    refused(&["stop", &file("fifo")], "no such capture runs");
    let (_, status, _) = office.run(&["status"]);
    assert!(status.contains("later, 0 URBs, 0 dropped, 52 bytes\n"), "{status}");
    for number in 0..CAPTURES_MAX {
        assert_eq!(office.run(&["capture", "stop", &file(&number.to_string())]).0, Some(0));
    }
    let (code, said, _) = office.run(&["capture", "start", &file("one-more"), "--device", "1-1"]);
    assert!(code == Some(0) && said.contains("no client has \"1-1\" now"), "{said}");
    // Without the files beside the request, nothing is captured.
    let bare = office.ask(r#"{"version":1,"request":"capture-start","file":"/tmp/x"}"#);
    assert_eq!(bare["error"]["reason"], "file");
    let small = r#"{"version":1,"request":"capture-start","file":"/tmp/x","size":5}"#;
    assert_eq!(office.ask(small)["error"]["reason"], "request");
}

/// A refused capture leaves every file as it was, and no file behind.
#[test]
fn a_refused_capture_costs_no_recording() {
    let office = Office::open("loopback");
    let mut client = office.server.attach();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| file_in(folder.path(), name);
    // The first bytes of a section, as of a capture of yesterday.
    let old = [&b"\n\r\r\n"[..], &pattern(0, 100_000)].concat();
    fs::write(file("old"), &old).unwrap();
    fs::write(file("new.1"), &old).unwrap();
    fs::write(file("log"), "no capture").unwrap();
    assert_eq!(office.run(&["capture", "start", &file("0")]).0, Some(0));
    client.call_ok(&Submit::read(SOURCE, 512));
    wait_until("records are written", || fs::metadata(file("0")).unwrap().len() > 600);
    let written = fs::read(file("0")).unwrap();
    let refused = |arguments: &[&str]| {
        assert_eq!(office.run(&[&["capture", "start"], arguments].concat()).0, Some(1));
    };
    refused(&[&file("0")]);
    assert_eq!(fs::read(file("0")).unwrap(), written, "the file of a running capture");
    refused(&[&file("old"), "--device", &"x".repeat(40)]);
    refused(&[&file("log")]);
    assert_eq!(fs::read(file("log")).unwrap(), b"no capture");
    for number in 1..CAPTURES_MAX {
        assert_eq!(office.run(&["capture", "start", &file(&number.to_string())]).0, Some(0));
    }
    for name in ["old", "new"] {
        refused(&[&file(name)]);
        refused(&[&file(name), "--size", "8M"]);
    }
    assert!(["old", "new.1"].iter().all(|name| fs::read(file(name)).unwrap() == old));
    assert!(["old.1", "new"].iter().all(|name| !Path::new(&file(name)).exists()));
    client.call_ok(&Submit::read(SOURCE, 512));
    for number in 0..CAPTURES_MAX {
        assert_eq!(office.run(&["capture", "stop", &file(&number.to_string())]).0, Some(0));
    }
    let records = tshark::records(Path::new(&file("0")));
    assert_eq!(records.iter().filter(|record| record.endpoint == SOURCE).count(), 4);
    assert_eq!(office.run(&["capture", "start", &file("old")]).0, Some(0));
    wait_until("the file is made anew", || fs::read(file("old")).unwrap().len() < 100);
}

/// A file, or a FIFO, has one writer, whatever the name that the second writer gives.
#[test]
fn a_file_under_another_name_is_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let (server, path) = start("loopback", folder.path(), |_| {});
    let office = Office::of(server);
    let file = |name: &str| file_in(folder.path(), name);
    assert!(Command::new("mkfifo").arg(file("fifo")).status().unwrap().success());
    // Both ends, so that nobody waits for the other.
    let _reader = fs::File::options().read(true).write(true).open(file("fifo")).unwrap();
    for name in ["a", "fifo"] {
        assert_eq!(office.run(&["capture", "start", &file(name)]).0, Some(0));
    }
    let aside = folder.path().file_name().unwrap().to_str().unwrap();
    for (number, path) in [path, file("a").into(), file("fifo").into()].iter().enumerate() {
        let [soft, hard] = ["soft", "hard"].map(|kind| file(&format!("{kind}{number}")));
        std::os::unix::fs::symlink(path, &soft).unwrap();
        fs::hard_link(path, &hard).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let around = file(&format!("../{aside}/{name}"));
        for name in [&*soft, &hard, &around] {
            let (code, _, errors) = office.run(&["capture", "start", name]);
            let file_name = Path::new(name).file_name().unwrap().display();
            let says = format!("/{file_name}: a capture writes there already; give another file");
            assert!(code == Some(1) && errors.contains(&says), "{name}: {errors}");
        }
    }
    fs::hard_link(file("a"), file("ring.1")).unwrap();
    let (_, _, errors) = office.run(&["capture", "start", &file("ring"), "--size", "8M"]);
    assert!(errors.contains("a capture writes there already"), "{errors}");
    assert!(!Path::new(&file("ring")).exists());
    fs::write(file("both"), "").unwrap();
    fs::hard_link(file("both"), file("both.1")).unwrap();
    let (_, _, errors) = office.run(&["capture", "start", &file("both"), "--size", "8M"]);
    assert!(errors.contains("with a size into two files"), "{errors}");
}

/// The recording of a simulated device is no file for a capture.
#[test]
fn a_recording_that_is_played_is_not_captured_into() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/recording/pcapng-189");
    let path = folder.path().join("a.pcapng");
    let recording = fs::read(corpus).unwrap();
    fs::write(&path, &recording).unwrap();
    let played = format!("replay:{}", path.display());
    let server = Server::start_with(&played, |settings| settings.recordings.push(path.clone()));
    let office = Office::of(server);
    let (code, _, errors) = office.run(&["capture", "start", &file_in(folder.path(), "a.pcapng")]);
    assert!(code == Some(1) && errors.contains("plays this recording"), "{errors}");
    assert_eq!(fs::read(&path).unwrap(), recording);
    assert_eq!(office.run(&["capture", "start", &file_in(folder.path(), "b")]).0, Some(0));
}

/// Nothing can be written at all: every record counts as dropped, and the client notices nothing.
#[cfg(target_os = "linux")]
#[test]
fn a_capture_onto_a_full_disk_ends_with_the_reason_and_the_session_goes_on() {
    let (server, _) = start("loopback", Path::new(""), |capture| capture.path = "/dev/full".into());
    let mut client = server.attach();
    let status = || server.handles.status.snapshot().expect("the server runs").captures.remove(0);
    let mut urbs = 0;
    wait_until("the disk is full", || {
        client.call_ok(&Submit::read(SOURCE, 60_000));
        urbs += 1;
        matches!(status().state, CaptureState::Failed(_))
    });
    for _ in 0..100 {
        client.call_ok(&Submit::write(SINK, &pattern(0, 700)));
        urbs += 1;
    }
    client.assert_in_sync();
    let status = status();
    let reason = "No space left on device".to_owned();
    assert_eq!((&status.state, status.urbs, status.bytes), (&CaptureState::Failed(reason), 0, 0));
    // A URB more by assert_in_sync.
    assert!((urbs..=urbs + 1).contains(&status.dropped), "{urbs} URBs: {status:?}");
    assert_eq!(status.dropped, status.submissions_dropped);
}

/// Whatever the recording lacks is answered with a stall, and whatever it has is there.
#[test]
fn a_cut_capture_is_replayed_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let (server, path) = start("loopback", folder.path(), |capture| capture.snap_len = 64);
    let mut client = server.attach();
    let whole = client.call_ok(&Submit::read(INTERRUPT, 8));
    client.call_ok(&Submit::read(SOURCE, 512));
    client.call_ok(&Submit::write(SINK, &pattern(0, 700)));
    drop(client);
    server.stop();
    let server = Server::start(&format!("replay:{}", path.display()));
    let mut client = server.attach();
    assert_eq!(client.call_ok(&Submit::read(INTERRUPT, 8)), whole);
    assert_eq!(client.call(&Submit::read(SOURCE, 512)).status, EPIPE, "never invented");
    client.call_ok(&Submit::write(SINK, &pattern(0, 700)));
    assert_eq!(client.call(&Submit::write(SINK, &[9; 700])).status, EPIPE, "another write");
}
