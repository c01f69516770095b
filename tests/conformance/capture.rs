//! The capture of all URBs, as tshark reads it beside the counters of the session.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use usbferry::config::Capturing;
use usbferry::stats::SessionStats;
use usbferry::usb::sim::loopback::request;
use usbferry::usb::sim::replay::script::Script;
use usbferry::wire::types::Direction;

use crate::support::client::{ECONNRESET, EPIPE, EPROTO, MiniClient};
use crate::support::endpoints::{
    INTERRUPT, INTERRUPT_SILENT, ISO_SINK, ISO_SOURCE, LOOP_IN, LOOP_OUT, SILENT, SINK, SOURCE,
};
use crate::support::submit::{Submit, setup};
use crate::support::tshark::{self, Record};
use crate::support::{Server, pattern};

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
