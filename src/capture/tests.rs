//! The capture without a server: limits of size, readers that come and go, records that are dropped.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::thread;

use super::sink::older;
use super::*;
use crate::limits::CAPTURE_SIZE_MIN;
use crate::usbmon::block;
use crate::wire::iso::Packets;
use crate::wire::pdu::CmdSubmit;
use crate::wire::status::Status;
use crate::wire::types::{DevId, Direction, EndpointAddress, SeqNum, Speed, TransferType};

const DEVID: DevId = DevId::new(1, 2);

fn start(path: &Path, size: Option<u64>) -> Capture {
    let wanted = Capturing { path: path.to_owned(), size, snap_len: 256 << 10 };
    Capture::start(&wanted).expect("it begins")
}

fn tap(capture: &Capture) -> Tap {
    capture.tap(Description {
        devid: DEVID,
        name: "1-1".to_owned(),
        text: "a device".to_owned(),
        speed: Speed::High,
        device: [0; 18],
        configurations: vec![vec![9, 2, 9, 0]],
    })
}

/// Has a URB with data written, and its end.
fn write(tap: &mut Tap, seqnum: u32, data: &[u8]) {
    let submit = CmdSubmit {
        seqnum: SeqNum(seqnum),
        devid: DEVID,
        endpoint: EndpointAddress::new(1, Direction::Out),
        transfer_flags: 0,
        transfer_buffer_length: u32::try_from(data.len()).unwrap(),
        start_frame: 0,
        number_of_packets: 0,
        interval: 0,
        setup: [0; 8],
    };
    let urb = Urb {
        submit: &submit,
        direction: Direction::Out,
        transfer_type: TransferType::Bulk,
        packets: Packets::new(&[]),
        data,
    };
    tap.submitted(urb);
    let actual_length = submit.transfer_buffer_length;
    tap.ended(urb, End { status: Status::OK, actual_length, error_count: 0, by: By::Device });
}

/// The records of a file, of which the first four are made up in each section.
fn records(path: &Path) -> u64 {
    let bytes = fs::read(path).expect("a file");
    assert!(block::begins_section(&bytes), "{}", path.display());
    block::count_records(&bytes)
}

#[test]
fn every_record_is_in_the_file_or_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole.pcapng");
    let capture = start(&path, None);
    let mut tap = tap(&capture);
    for seqnum in 0..1000 {
        write(&mut tap, seqnum, &[7; 60_000]);
    }
    let counts = tap.counts();
    drop((tap, capture));
    assert_eq!(counts.taken + counts.submissions_dropped + counts.ends_dropped, 2000);
    assert_eq!(records(&path), counts.taken + 4);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "typed passwords are in there");
}

#[test]
fn a_capture_with_a_size_keeps_the_last_half_at_least() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring.pcapng");
    let capture = start(&path, Some(CAPTURE_SIZE_MIN as u64));
    let mut tap = tap(&capture);
    for seqnum in 0..200 {
        write(&mut tap, seqnum, &[7; 50_000]);
    }
    assert_eq!(tap.counts().taken, 400);
    drop((tap, capture));
    let len = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let [old, new] = [len(&older(&path)), len(&path)];
    assert!(old + new <= CAPTURE_SIZE_MIN as u64 && old > 1 << 20, "{old} and {new} bytes");
    assert!(records(&path) > 4 && records(&older(&path)) > 4);
    assert_eq!(older(&path).file_name().unwrap(), "ring.1.pcapng");
}

/// What nobody reads is no reason to wait, and each reader gets a whole section.
#[test]
fn readers_of_a_fifo_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let capture = start(&path, None);
    let mut tap = tap(&capture);
    write(&mut tap, 0, b"nobody is there");
    assert_eq!(tap.counts().submissions_dropped, 1);
    for _ in 0..2 {
        let mut reader = File::open(&path).unwrap();
        let reading = thread::spawn(move || {
            let mut bytes = vec![0; 4096];
            let len = reader.read(&mut bytes).unwrap();
            bytes.truncate(len);
            bytes
        });
        let mut now = Instant::now();
        while !reading.is_finished() {
            write(&mut tap, 1, b"live");
            now += Duration::from_secs(1);
            capture.tick(now);
            thread::yield_now();
        }
        let bytes = reading.join().unwrap();
        assert!(block::begins_section(&bytes), "{bytes:02x?}");
        // Until the writer has seen that the reader is gone.
        while capture.progress.reader.load(Ordering::Acquire) != 0 {
            write(&mut tap, 2, b"gone");
            now += Duration::from_secs(1);
            capture.tick(now);
            thread::yield_now();
        }
    }
}

#[test]
fn a_stream_has_no_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let wanted = Capturing { path, size: Some(1 << 30), snap_len: 0 };
    let error = Capture::start(&wanted).err().expect("no file").to_string();
    assert!(error.contains("leave --capture-size out"), "{error}");
    let wanted = Capturing { path: folder.path().join("no/such"), size: None, snap_len: 0 };
    let error = Capture::start(&wanted).err().expect("no folder").to_string();
    assert!(error.starts_with("--capture ") && error.contains("no/such"), "{error}");
}
