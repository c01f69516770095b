//! The capture without a server: limits of size, readers that come and go, records that are
//! dropped.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread;

use super::*;
use crate::limits::CAPTURE_SIZE_MIN;
use crate::usbmon::block;
use crate::wire::iso::Packets;
use crate::wire::pdu::CmdSubmit;
use crate::wire::status::Status;
use crate::wire::types::{DevId, Direction, EndpointAddress, SeqNum, Speed, TransferType};

const DEVID: DevId = DevId::new(1, 2);

pub(crate) fn start(path: &Path, size: Option<u64>) -> Capture {
    let wanted = Capturing { path: path.to_owned(), size, snap_len: 256 << 10 };
    begun(&wanted)
}

fn begun(wanted: &Capturing) -> Capture {
    let mut capture = Capture::of(wanted, Arc::default()).expect("it begins");
    capture.begin();
    capture
}

pub(crate) fn tap(capture: &Capture) -> Tap {
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
    draft(tap, seqnum, data);
    tap.hand_in();
}

/// Has a URB with data drafted, and its end.
fn draft(tap: &mut Tap, seqnum: u32, data: &[u8]) {
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
    let moment = Moment::now();
    tap.submitted(urb, &moment);
    let actual_length = submit.transfer_buffer_length;
    let end = End { status: Status::OK, actual_length, error_count: 0, by: By::Device };
    tap.ended(urb, end, &moment);
}

/// The seconds and microseconds of the records in a file, without made-up records.
pub(crate) fn times(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).expect("a file");
    let is_own = |record: &&[u8]| {
        crate::usbmon::id_and_event(record).is_some_and(|(id, _)| id & recorder::MADE_UP == 0)
    };
    block::records(&bytes).filter(is_own).map(|record| record[16..28].to_vec()).collect()
}

/// The records of a file, of which the first four are made up in each section.
fn records(path: &Path) -> u64 {
    let bytes = fs::read(path).expect("a file");
    assert!(block::begins_section(&bytes), "{}", path.display());
    block::records(&bytes).count() as u64
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
    let (taken, dropped) = (counts.taken, counts.dropped);
    assert_eq!([taken.submissions + dropped.submissions, taken.ends + dropped.ends], [1000; 2]);
    assert_eq!(records(&path), taken.records() + 4);
    assert_eq!(Tally::of(&fs::read(&path).unwrap()), taken, "without made-up records");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "typed passwords are in there");
}

/// A draft that has no room for another record goes to the recorder, before a long record, too.
#[test]
fn records_of_a_long_batch_come_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("batch.pcapng");
    let capture = start(&path, None);
    let mut tap = tap(&capture);
    let lens = [0, 100, 3000, 100, 5000, 1, 60_000, 0];
    let urbs: Vec<usize> = lens.into_iter().cycle().take(80).collect();
    for (seqnum, len) in (0..).zip(&urbs) {
        draft(&mut tap, seqnum, &vec![7; *len]);
    }
    drop((tap, capture));
    let bytes = fs::read(&path).unwrap();
    let found: Vec<usize> = block::records(&bytes).map(data_len).collect();
    let drafted: Vec<usize> = urbs.into_iter().flat_map(|len| [len, 0]).collect();
    assert_eq!(found[4..], drafted);
}

/// Programs that show captures calculate times from the first record on.
#[test]
fn made_up_records_have_the_time_of_the_record_behind() {
    let folder = tempfile::tempdir().unwrap();
    for len in [3, 60_000] {
        let path = folder.path().join("times.pcapng");
        let capture = start(&path, None);
        let mut tap = tap(&capture);
        draft(&mut tap, 1, &vec![7; len]);
        // The made-up records are written now.
        drop((tap, capture));
        let bytes = fs::read(&path).unwrap();
        let times = stamps(&bytes);
        assert_eq!(times.len(), 6);
        assert!(times.iter().all(|time| *time == times[5]), "{times:?}");
        let in_header: Vec<&[u8]> = block::records(&bytes).map(|record| &record[16..28]).collect();
        assert!(in_header.iter().all(|time| *time == in_header[5]), "{in_header:?}");
    }
}

/// The time of each record in whole blocks.
fn stamps(mut blocks: &[u8]) -> Vec<u64> {
    let mut found = Vec::new();
    while !blocks.is_empty() {
        let len = u32::from_ne_bytes(blocks[4..8].try_into().unwrap()) as usize;
        let (block, behind) = blocks.split_at(len);
        if block::records(block).next().is_some() {
            found.extend(block::first_time(block));
        }
        blocks = behind;
    }
    found
}

/// A section begins while a draft waits: the records are those of the device in the new section,
/// too, whose interface can have another number there.
#[test]
fn records_keep_to_their_device_in_another_section() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring.pcapng");
    let capture = start(&path, Some(CAPTURE_SIZE_MIN as u64));
    let mut taps = [tap(&capture), tap(&capture), tap(&capture)];
    for seqnum in 0..700 {
        for tap in &mut taps {
            draft(tap, seqnum, &[7; 3000]);
        }
        // Each is the first in a section some time.
        taps.rotate_left(1);
        taps.iter_mut().for_each(Tap::hand_in);
    }
    drop((taps, capture));
    for path in [other_half(&path), path] {
        let bytes = fs::read(path).unwrap();
        let mut sessions = interfaces(&bytes);
        sessions.sort_unstable();
        sessions.dedup();
        let mut own: Vec<u64> = sessions.iter().map(|(_, session)| *session).collect();
        own.sort_unstable();
        assert_eq!((sessions.len(), own), (3, vec![1, 2, 3]), "{sessions:?}");
    }
}

/// The interface of each record in whole blocks, and the number of the session.
fn interfaces(mut blocks: &[u8]) -> Vec<(u32, u64)> {
    let word =
        |at: usize, blocks: &[u8]| u32::from_ne_bytes(blocks[at..at + 4].try_into().unwrap());
    let mut found = Vec::new();
    while !blocks.is_empty() {
        let (block, behind) = blocks.split_at(word(4, blocks) as usize);
        if let Some(record) = block::records(block).next() {
            let (id, _) = crate::usbmon::id_and_event(record).unwrap();
            found.push((word(8, block), (id & !recorder::MADE_UP) >> 32));
        }
        blocks = behind;
    }
    found
}

#[test]
fn a_capture_without_a_session_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nothing.pcapng");
    let mut capture = start(&path, None);
    let count = capture.end();
    assert_eq!((records(&path), count.taken), (0, Tally::default()));
    assert_eq!(fs::metadata(&path).unwrap().len(), count.bytes);
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
    assert_eq!(tap.counts().taken.records(), 400);
    drop((tap, capture));
    let len = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let [old, new] = [len(&other_half(&path)), len(&path)];
    assert!(old + new <= CAPTURE_SIZE_MIN as u64 && old > 1 << 20, "{old} and {new} bytes");
    assert!(records(&path) > 4 && records(&other_half(&path)) > 4);
    assert_eq!(other_half(&path).file_name().unwrap(), "ring.1.pcapng");
}

/// Whoever wants to write into either file of a ring finds the ring there, after each turn, too.
#[test]
fn a_ring_has_both_of_its_files_at_any_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring.pcapng");
    fs::write(other_half(&path), "of an older ring").unwrap();
    let capture = start(&path, Some(CAPTURE_SIZE_MIN as u64));
    let id = |path: &Path| FileId::of(&fs::metadata(path).unwrap());
    let ids = || vec![id(&path), id(&other_half(&path))];
    let older = ids();
    assert_eq!(capture.files(), older);
    // Open files keep their numbers from the files of later turns.
    let _open = [&path, &other_half(&path)].map(|path| File::open(path).unwrap());
    let mut tap = tap(&capture);
    for seqnum in 0..200 {
        write(&mut tap, seqnum, &[7; 50_000]);
    }
    drop(tap);
    let progress = Arc::clone(&capture.progress);
    drop(capture);
    assert_eq!(progress.files(), ids());
    assert!(ids().iter().all(|id| !older.contains(id)), "the ring has turned twice");
}

/// A reader that is there and takes nothing: at the end the records that wait are dropped.
#[test]
fn records_that_a_reader_never_takes_are_counted_as_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let mut capture = start(&path, None);
    let mut reader = File::open(&path).unwrap();
    while capture.progress.reader() == 0 {
        thread::yield_now();
    }
    let mut tap = tap(&capture);
    for seqnum in 0..100 {
        write(&mut tap, seqnum, &[7; 60_000]);
    }
    let count = capture.end();
    assert_eq!(count.taken, Tally::default(), "a pipe has no room for the first piece");
    assert_eq!(count.dropped, Tally { submissions: 100, ends: 100 });
    drop((tap, capture));
    // The writer's thread goes on with the piece in hand, and then ends.
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert!(block::begins_section(&bytes));
    assert!(Tally::of(&bytes).ends < 100, "what was counted as dropped is not written later");
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
    assert_eq!(tap.counts().dropped, Tally { submissions: 1, ends: 1 });
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
        while capture.progress.reader() != 0 {
            write(&mut tap, 2, b"gone");
            now += Duration::from_secs(1);
            capture.tick(now);
            thread::yield_now();
        }
    }
}

/// A keyboard's report is there as a whole, a stick's data is cut, and descriptors never are.
#[test]
fn data_is_cut_but_for_control_urbs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.pcapng");
    let wanted = Capturing { path: path.clone(), size: None, snap_len: 5 };
    let capture = begun(&wanted);
    let mut tap = tap(&capture);
    write(&mut tap, 1, b"12345");
    write(&mut tap, 2, b"1234567");
    drop((tap, capture));
    let bytes = fs::read(&path).unwrap();
    let found: Vec<usize> = block::records(&bytes).map(data_len).collect();
    let descriptors = [0, 18, 0, 4];
    assert_eq!(found[..4], descriptors);
    assert_eq!(found[4..], [5, 0, 5, 0]);
}

/// The bytes of data that a record says it has.
fn data_len(record: &[u8]) -> usize {
    u32::from_ne_bytes(record[36..40].try_into().unwrap()) as usize
}

fn passed(files: Vec<File>) -> PassedFiles {
    PassedFiles { files, are_emptied: true }
}

/// A log, named by mistake, is no capture of yesterday.
#[test]
fn a_file_with_something_else_is_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcapng");
    let wanted = Capturing { path: path.clone(), size: None, snap_len: 64 };
    for text in ["a log\n", "a", "\n\r\r"] {
        fs::write(&path, text).unwrap();
        let refused = Capture::of(&wanted, Arc::default());
        assert!(matches!(refused, Err(CaptureError::Foreign(_))), "{text:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    fs::write(&path, "").unwrap();
    for _ in 0..2 {
        let capture = start(&path, None);
        drop(capture);
        assert!(fs::metadata(&path).unwrap().len() > 0);
    }
}

/// As the captures of two servers, which know nothing of each other.
#[test]
fn a_file_has_one_capture_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcapng");
    let other = folder.path().join("b.pcapng");
    let wanted =
        Capturing { path: path.clone(), size: Some(CAPTURE_SIZE_MIN as u64), snap_len: 64 };
    let is_taken = || {
        let files = passed(reopened(&[&other, &path]));
        let of_files = Capture::passed(&wanted, files, Arc::default());
        let of_path = Capture::of(&wanted, Arc::default());
        [of_path, of_files].map(|capture| matches!(capture, Err(CaptureError::Taken(_))))
    };
    fs::write(&other, b"").unwrap();
    let mut capture = start(&path, wanted.size);
    let first = capture.files();
    assert_eq!(is_taken(), [true; 2]);
    // The next file of the same capture is no other's, either.
    let mut tap = tap(&capture);
    for seqnum in 1..200 {
        write(&mut tap, seqnum, &[7; 16 << 10]);
    }
    drop(tap);
    while capture.files() == first {
        thread::yield_now();
    }
    assert_eq!(is_taken(), [true; 2]);
    capture.end();
    drop(capture);
    assert!(Capture::of(&wanted, Arc::default()).is_ok());
}

/// Neither is a stream that is opened later, when nobody looks any more.
#[test]
fn a_capture_into_a_folder_or_a_socket_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    for path in [folder.path(), &socket] {
        let wanted = Capturing { path: path.to_owned(), size: None, snap_len: 64 };
        let refused = Capture::of(&wanted, Arc::default()).err();
        let says = refused.map(|error| error.to_string()).unwrap_or_default();
        assert!(
            says.ends_with(
                ": a capture goes into a file or a FIFO, and with a size into two files"
            ),
            "{says}"
        );
    }
}

/// Files that are opened with their content, as an operator passes files.
fn reopened(paths: &[&Path]) -> Vec<File> {
    paths.iter().map(|path| File::options().write(true).open(path).unwrap()).collect()
}

/// A capture that the server does not accept leaves a file alone; an accepted capture makes both
/// files anew at once, however long they were.
#[test]
fn passed_files_are_emptied_when_the_capture_begins() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|name| folder.path().join(name));
    let [a, b] = paths.each_ref().map(|path| &**path);
    let old = vec![7; 100_000];
    paths.iter().for_each(|path| fs::write(path, &old).unwrap());
    let seat = Arc::new(());
    for (size, files) in [(None, &[a][..]), (Some(CAPTURE_SIZE_MIN as u64), &[a, b])] {
        let wanted = Capturing { path: "passed".into(), size, snap_len: 64 };
        let refused = Capture::passed(&wanted, passed(reopened(files)), Arc::clone(&seat));
        drop(refused.unwrap());
        while Arc::strong_count(&seat) > 1 {
            thread::yield_now();
        }
        assert!(paths.iter().all(|path| fs::read(path).unwrap() == old), "{size:?}");
    }
    let wanted = Capturing { path: "passed".into(), size: None, snap_len: 64 };
    let behind = PassedFiles { files: reopened(&[a]), are_emptied: false };
    let mut capture = Capture::passed(&wanted, behind, Arc::clone(&seat)).unwrap();
    capture.begin();
    drop(capture);
    assert_eq!(fs::read(a).unwrap().len(), old.len(), "emptied only where that was asked for");
    let wanted = Capturing { size: Some(CAPTURE_SIZE_MIN as u64), ..wanted };
    let files = passed(reopened(&[a, b]));
    let mut capture = Capture::passed(&wanted, files, seat).unwrap();
    capture.begin();
    while capture.progress.bytes() == 0 {
        thread::yield_now();
    }
    let (head, other) = (fs::read(a).unwrap(), fs::read(b).unwrap());
    assert!(block::begins_section(&head) && head.len() < 100 && other.is_empty());
}

/// Two passed files take turns, and the server makes no other file.
#[test]
fn passed_files_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|name| folder.path().join(name));
    let files = paths.iter().map(|path| File::create(path).unwrap()).collect();
    let size = Some(CAPTURE_SIZE_MIN as u64);
    let wanted = Capturing { path: "passed".into(), size, snap_len: 256 << 10 };
    let seat = Arc::new(());
    let mut capture = Capture::passed(&wanted, passed(files), Arc::clone(&seat)).unwrap();
    capture.begin();
    let mut tap = tap(&capture);
    for seqnum in 0..400 {
        write(&mut tap, seqnum, &[7; 50_000]);
    }
    drop((tap, capture));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    let len = |path: &Path| fs::metadata(path).unwrap().len();
    assert!(paths.iter().all(|path| len(path) > 1 << 16 && records(path) > 4));
    assert!(len(&paths[0]) + len(&paths[1]) <= CAPTURE_SIZE_MIN as u64);
    assert_eq!(Arc::strong_count(&seat), 1, "the files are closed");
}

/// The reader of a passed pipe comes once, and the capture ends with the reader.
#[test]
fn a_passed_pipe_ends_with_its_reader() {
    let (mut reader, pipe) = io::pipe().unwrap();
    let wanted = Capturing { path: "passed".into(), size: None, snap_len: 64 };
    let files = vec![File::from(std::os::fd::OwnedFd::from(pipe))];
    let mut capture = Capture::passed(&wanted, passed(files), Arc::default()).unwrap();
    capture.begin();
    let mut tap = tap(&capture);
    write(&mut tap, 1, b"live");
    let mut now = Instant::now();
    capture.tick(now);
    now += Duration::from_secs(1);
    capture.tick(now);
    let mut bytes = [0; 4096];
    let len = reader.read(&mut bytes).unwrap();
    assert!(block::begins_section(&bytes[..len]));
    drop(reader);
    while capture.count().failure.is_none() {
        write(&mut tap, 2, b"gone");
        now += Duration::from_secs(1);
        capture.tick(now);
        thread::yield_now();
    }
    let count = capture.count();
    assert!(!count.has_reader && count.dropped.ends > 0, "{count:?}");
    assert_eq!(count.failure.as_deref(), Some("the reader has left"));
}

#[test]
fn nothing_but_files_and_streams_is_taken() {
    let null = || File::options().write(true).open("/dev/null").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = || File::create(folder.path().join("a")).unwrap();
    let size = Some(CAPTURE_SIZE_MIN as u64);
    for (files, size) in [
        (vec![], None),
        (vec![null()], None),
        (vec![File::open(folder.path()).unwrap()], None),
        (vec![file(), file()], None),
        (vec![file()], size),
        (vec![file(), null()], size),
    ] {
        let wanted = Capturing { path: "passed".into(), size, snap_len: 64 };
        let error = Capture::passed(&wanted, passed(files), Arc::default()).err().expect("refused");
        assert!(error.to_string().contains("a file or a FIFO"), "{error}");
    }
}

#[test]
fn a_stream_has_no_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let wanted = Capturing { path, size: Some(1 << 30), snap_len: 0 };
    let error = Capture::of(&wanted, Arc::default()).err().expect("no file").to_string();
    assert!(error.contains("leave --capture-size out"), "{error}");
    let wanted = Capturing { path: folder.path().join("no/such"), size: None, snap_len: 0 };
    let error = Capture::of(&wanted, Arc::default()).err().expect("no folder").to_string();
    assert!(error.starts_with("--capture ") && error.contains("no/such"), "{error}");
}
