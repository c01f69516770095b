//! Results of workers and events of devices: what wakes the reactor, and what does not.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use mio::Interest;
use mio::unix::SourceFd;

use super::scripted::{Act, Call};
use super::*;

/// The lengths of OP_REP_IMPORT and RET_UNLINK.
const IMPORTED_LEN: usize = 320;
const RET_UNLINK_LEN: usize = 48;

impl Held<ScriptedBackend> {
    /// Has a silent URB of the client unlinked, until its device is with the worker.
    fn lend_to_worker(&mut self, script: &Script, client: &mut TcpStream, seqnum: u32) {
        let cancel = Call::Cancel(self.busid(0));
        script.set(cancel, Act::Wait);
        let begun = script.begun(cancel);
        let commands = [submit(seqnum, SILENT, 512), unlink(seqnum + 1, seqnum)].concat();
        client.write_all(&commands).unwrap();
        self.turn_until("it is being cancelled", |_| script.begun(cancel) > begun);
    }

    /// Has the worker end its job, and waits for the result, which nobody takes.
    fn await_result(&self, script: &Script) {
        script.clear(Call::Cancel(self.busid(0)));
        let deadline = Instant::now() + PATIENCE;
        while !self.reactor.inbox.has_results() {
            assert!(Instant::now() < deadline, "there is no result");
            thread::yield_now();
        }
    }
}

impl<B: Backend> Held<B> {
    /// The subjects of events up to now.
    fn subjects(&mut self, timeout: Duration) -> Vec<Subject> {
        self.reactor.poll.poll(&mut self.events, Some(timeout)).unwrap();
        self.events.iter().filter_map(|event| Subject::from_token(event.token())).collect()
    }
}

#[test]
fn a_result_wakes_the_reactor_only_from_sleep() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let mut client = held.attach();
    client.read_exact(&mut [0; IMPORTED_LEN]).unwrap();
    let cancel = Call::Cancel(held.busid(0));

    held.lend_to_worker(&script, &mut client, 1);
    held.subjects(Duration::ZERO);
    held.reactor.inbox.end_sleep();
    held.await_result(&script);
    assert!(!held.reactor.inbox.begin_sleep(), "a result is there: it must not sleep");
    held.reactor.inbox.end_sleep();
    assert!(!held.subjects(Duration::ZERO).contains(&Subject::Waker), "nor is it woken");
    held.reactor.turn_now();
    client.read_exact(&mut [0; RET_UNLINK_LEN]).unwrap();

    held.lend_to_worker(&script, &mut client, 3);
    assert!(held.reactor.inbox.begin_sleep(), "the result was taken");
    script.clear(cancel);
    let deadline = Instant::now() + PATIENCE;
    while !held.subjects(Duration::from_secs(1)).contains(&Subject::Waker) {
        assert!(Instant::now() < deadline, "it sleeps, and is not woken");
    }
    held.mark_and_turn();
    client.read_exact(&mut [0; RET_UNLINK_LEN]).unwrap();
}

#[test]
fn the_result_of_a_quick_worker_is_taken_in_the_turn_of_its_order() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let mut client = held.attach();
    client.read_exact(&mut [0; IMPORTED_LEN]).unwrap();
    held.lend_to_worker(&script, &mut client, 1);
    held.await_result(&script);
    // As the part of a turn behind the order.
    held.reactor.serve_ready();
    assert!(!held.reactor.inbox.has_results());
    client.read_exact(&mut [0; RET_UNLINK_LEN]).unwrap();
}

#[test]
fn a_result_is_no_mark_of_another_thread() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let mut client = held.attach();
    client.read_exact(&mut [0; IMPORTED_LEN]).unwrap();
    held.lend_to_worker(&script, &mut client, 1);
    held.await_result(&script);
    held.reactor.inbox.mark();
    held.reactor.serve_ready();
    assert!(held.reactor.inbox.is_ready(), "a question may still be there");
    held.reactor.turn_now();
    assert!(!held.reactor.inbox.is_ready());
}

#[test]
fn a_result_keeps_the_reactor_from_sleeping_and_not_from_looking() {
    let mut held = Held::new();
    let _client = held.connect();
    // As if there were always another.
    assert!(held.reactor.inbox.has_results(), "nobody has looked yet");
    for has_events in [true, false] {
        held.reactor.wait_for_events(&mut held.events, None).unwrap();
        assert_eq!(!held.events.is_empty(), has_events);
    }
}

/// As usbfs does, whose descriptor becomes writable: the events come once for each end of a
/// transfer, also for transfers collected without an event.
#[test]
fn an_event_is_no_reason_for_a_turn_when_no_transfer_can_have_ended() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let mut client = held.attach();
    let (own, other) = UnixStream::pair().unwrap();
    let key = held.reactor.schedule.attached()[0];
    let token = Subject::Device(key.label()).to_token();
    let registry = held.reactor.poll.registry().try_clone().unwrap();
    registry.register(&mut SourceFd(&own.as_raw_fd()), token, Interest::WRITABLE).unwrap();
    // Whether the event marks the device; each registration makes an event.
    let marks = |held: &mut Held<ScriptedBackend>| {
        held.reactor.turn_now();
        held.subjects(Duration::ZERO);
        registry.reregister(&mut SourceFd(&own.as_raw_fd()), token, Interest::WRITABLE).unwrap();
        assert_eq!(held.subjects(Duration::ZERO), [Subject::Device(key.label())]);
        for event in &held.events {
            held.reactor.mark(event);
        }
        let connection = find(&mut held.reactor.connections, key).unwrap();
        let lent = connection.loan.as_mut().and_then(Loan::in_use).unwrap();
        assert_eq!(lent.is_ready(), connection.queued);
        connection.queued
    };
    assert!(!marks(&mut held), "the device has no transfer");
    client.write_all(&submit(1, SILENT, 512)).unwrap();
    let in_flight = |reactor: &mut Reactor<ScriptedBackend>| {
        let (_, connection) = reactor.connections.iter_mut().next().unwrap();
        connection.session().map(|session| session.in_flight())
    };
    held.turn_until("it has one", |reactor| in_flight(reactor) == Some(1));
    assert!(marks(&mut held));
    let cancel = Call::Cancel(held.busid(0));
    script.set(cancel, Act::Wait);
    client.write_all(&unlink(2, 1)).unwrap();
    held.turn_until("the device is away", |_| script.begun(cancel) == 1);
    assert!(!marks(&mut held), "the device is looked at when it comes back");
    script.clear(cancel);
    held.turn_until("it is back", |reactor| in_flight(reactor) == Some(0));
    assert!(!marks(&mut held), "all were collected");
    drop(other);
    assert!(marks(&mut held), "the descriptor is hung up");
}
