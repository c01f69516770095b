//! The server's report of its state during service.

use super::scripted::{Act, Call};
use super::*;
use crate::stats::EndpointStats;
use crate::status::{ExportStatus, LoanState, Phase, Snapshot, Texts};
use crate::wire::types::{Direction, EndpointAddress};

impl<B: Backend> Held<B> {
    /// Asks from another thread, as a reader of the status would.
    #[track_caller]
    fn snapshot(&mut self) -> Snapshot {
        let handle = self.reactor.status_handle();
        let asking = thread::spawn(move || handle.snapshot());
        self.turn_until("the question is answered", |_| asking.is_finished());
        asking.join().unwrap().expect("the server is there")
    }

    /// Reads `seqnums` from the first device's source, and waits for the replies.
    fn read_from_source(&mut self, client: &mut TcpStream, seqnums: std::ops::Range<u32>) {
        let mut reply = vec![0; seqnums.len() * (48 + 512)];
        let submits: Vec<u8> = seqnums.flat_map(|seqnum| submit(seqnum, SOURCE, 512)).collect();
        client.write_all(&submits).unwrap();
        let all = reply.len();
        self.turn_until("all is read", |_| client.peek(&mut reply).is_ok_and(|len| len == all));
        client.read_exact(&mut reply).unwrap();
    }
}

/// The counters of an endpoint of the only session.
fn endpoint(snapshot: &Snapshot, number: u8) -> EndpointStats {
    let endpoints = &snapshot.loans[0].session.as_ref().unwrap().stats.endpoints;
    let address = EndpointAddress::new(number, Direction::In);
    endpoints.iter().find(|other| other.address == address).expect("it has had a URB").counters
}

#[test]
fn a_snapshot_has_the_numbers_of_a_session_that_moves_data() {
    let (mut held, script, _finally) = Held::scripted("loopback:count=2");
    let busid = held.busid(0);
    let close = Call::Close(busid);
    assert_eq!(held.snapshot(), Snapshot::default());
    let mut client = held.attach();
    client.set_nonblocking(true).unwrap();
    held.turn_until("the import is answered", |_| client.read_exact(&mut [0; 320]).is_ok());
    client.write_all(&submit(1, SILENT, 512)).unwrap();
    held.read_from_source(&mut client, 2..5);
    let first = held.snapshot();
    let ids = Some((0x1209, 0x0001));
    let (is_present, is_offered, is_held) = (true, true, false);
    let texts = |serial: &str| Texts {
        manufacturer: Some("usbferry".to_owned()),
        product: Some("Simulated loopback".to_owned()),
        serial: Some(serial.to_owned()),
    };
    let export = ExportStatus {
        busid,
        ids,
        texts: texts("05EED0000001"),
        is_present,
        is_offered,
        is_for_all: true,
        is_held,
        asks_program: false,
        name: None,
        client: None,
    };
    let client_address = Some(client.local_addr().unwrap());
    let taken = ExportStatus { client: client_address, ..export.clone() };
    let (other, serial) = (held.busid(1), texts("05EED0000002"));
    let other = ExportStatus { busid: other, texts: serial, ..export.clone() };
    assert_eq!(first.exports, [taken, other.clone()]);
    assert_eq!((first.phase, first.connections.accepted), (Phase::Serving, 1));
    let loan = &first.loans[0];
    assert_eq!((first.clients, first.loans.len()), (1, 1));
    assert_eq!((loan.busid, loan.state, loan.is_connected), (busid, LoanState::Lent, true));
    assert_eq!(loan.client, client.local_addr().unwrap());
    let session = loan.session.as_ref().unwrap();
    assert_eq!(session.devid.0, DEVID);
    assert!(session.since <= std::time::SystemTime::now());
    assert_eq!((session.stats.slots.now, session.stats.unlinks), (1, 0));
    let [source, silent] =
        [SOURCE, SILENT].map(|number| endpoint(&first, number.try_into().unwrap()));
    assert_eq!((source.urbs, source.bytes_in, source.in_flight), (3, 3 * 512, 0));
    assert_eq!((silent.urbs, silent.in_flight, silent.most_in_flight), (0, 1, 1));
    held.read_from_source(&mut client, 5..15);
    let second = held.snapshot();
    let source = endpoint(&second, 1);
    assert_eq!((source.urbs, source.bytes_in), (13, 13 * 512));
    // The client leaves, and the device is slow to close.
    script.set(close, Act::Wait);
    drop(client);
    held.turn_until("it is given back", |_| script.begun(close) == 1);
    let third = held.snapshot();
    let loan = &third.loans[0];
    assert_eq!((third.clients, loan.state, loan.is_connected), (0, LoanState::Returning, false));
    assert_eq!(loan.session, None);
    script.clear(close);
    held.turn_until("it is free", |reactor| reactor.connections.is_empty());
    let last = held.snapshot();
    assert_eq!(last.exports, [export, other]);
    assert!(last.loans.is_empty());
}

#[test]
fn a_reactor_that_makes_no_turn_leaves_a_question_unanswered_and_nobody_waiting() {
    let mut held = Held::new();
    let handle = held.reactor.status_handle();
    let answer = handle.begin().expect("there is room");
    assert_eq!(answer.wait(Duration::ZERO), Err(Unanswered::Late));
    let waiting: Vec<_> = std::iter::from_fn(|| handle.begin().ok()).take(100).collect();
    assert!(waiting.len() < 100, "the questions are bounded");
    assert!(matches!(handle.begin(), Err(Unanswered::Late)));
    held.turn_until("all are answered", |_| answer.wait(Duration::ZERO).is_ok());
    drop(held);
    assert_eq!(waiting.last().unwrap().wait(Duration::ZERO), Err(Unanswered::Ended));
    assert!(matches!(handle.begin(), Err(Unanswered::Ended)));
}

#[test]
fn more_questions_than_wait_at_once_are_all_answered() {
    let mut held = Held::new();
    let _client = held.attach();
    let asking: Vec<_> = std::iter::repeat_with(|| held.reactor.status_handle())
        .take(20)
        .map(|handle| thread::spawn(move || handle.snapshot()))
        .collect();
    held.turn_until("all are answered", |_| asking.iter().all(JoinHandle::is_finished));
    for asking in asking {
        assert_eq!(asking.join().unwrap().expect("an answer").loans.len(), 1);
    }
}

#[test]
fn a_server_that_is_gone_answers_nothing() {
    let held = Held::new();
    let handle = held.reactor.status_handle();
    let (asked, waiting) = (handle.clone(), handle.clone());
    // Nobody makes turns.
    let asking = thread::spawn(move || asked.snapshot());
    drop(held);
    assert_eq!(asking.join().unwrap(), None);
    assert_eq!(waiting.snapshot(), None);
}
