//! The states of a loan, one after the other, and contenders in each.

use std::sync::Weak;

use super::scripted::{Act, Call};
use super::*;
use crate::reactor::client::Awaited;
use crate::status::LoanState;

/// ST_DEV_BUSY.
const BUSY: [u8; 8] = [1, 0x11, 0, 3, 0, 0, 0, 2];

/// The state of the only loan there is.
fn state<B: Backend>(reactor: &Reactor<B>) -> Option<LoanState> {
    let mut loans = reactor.connections.iter().filter_map(|(_, c)| c.loan.as_ref());
    let state = loans.next().map(Loan::state);
    assert!(loans.next().is_none(), "a device has one loan");
    state
}

/// Whether a client waits for the return of a device.
fn is_awaited<B: Backend>(reactor: &Reactor<B>) -> bool {
    let clients = reactor.connections.iter().filter_map(|(_, c)| c.client.as_ref());
    let mut asked = clients.filter_map(|client| client.asked());
    asked.any(|asked| asked.awaits == Awaited::Return)
}

impl Held<ScriptedBackend> {
    /// Another client asks for the first device, and is told that it is busy.
    #[track_caller]
    fn assert_busy(&mut self) {
        let client = self.import(0);
        let reply = thread::spawn(|| read_to_end(client));
        self.turn_until("it is told", |_| reply.is_finished());
        assert_eq!(reply.join().unwrap(), BUSY);
    }

    /// Another client asks for the first device, and is not told anything yet.
    #[track_caller]
    fn contender(&mut self) -> TcpStream {
        let client = self.import(0);
        self.turn_until("it waits for the return", |reactor| is_awaited(reactor));
        client
    }
}

#[test]
fn a_loan_goes_through_its_states_and_is_contended_only_at_its_end() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let [open, cancel, close] =
        [Call::Open, Call::Cancel, Call::Close].map(|call| call(held.busid(0)));
    for call in [open, cancel, close] {
        script.set(call, Act::Wait);
    }
    assert_eq!(state(&held.reactor), None);
    let mut client = held.import(0);
    held.turn_until("it is being opened", |_| script.begun(open) == 1);
    assert_eq!(state(&held.reactor), Some(LoanState::Opening));
    held.assert_busy();
    script.clear(open);
    held.turn_until("it is lent", |reactor| state(reactor) == Some(LoanState::Lent));
    held.assert_busy();
    // Something to cancel, and the end.
    client.write_all(&[submit(1, SILENT, 512), vec![0xff; 48]].concat()).unwrap();
    held.turn_until("it is drained", |_| script.begun(cancel) == 1);
    assert_eq!(state(&held.reactor), Some(LoanState::Returning));
    let contender = held.contender();
    script.clear(cancel);
    held.turn_until("it is given back", |_| script.begun(close) == 1);
    assert_eq!(state(&held.reactor), Some(LoanState::Returning));
    script.clear(close);
    held.turn_until("it rests", |reactor| state(reactor) == Some(LoanState::Resting));
    assert!(is_awaited(&held.reactor), "time stands still");
    held.reactor.now += VIOLATION_REST;
    held.turn_until("the next one has it", |reactor| state(reactor) == Some(LoanState::Lent));
    drop(contender);
    held.turn_until("it is free", |reactor| reactor.connections.is_empty());
}

/// As that of a client which has left is.
#[test]
fn a_device_that_went_and_came_back_is_waited_for() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let (busid, close) = (held.busid(0), Call::Close(held.busid(0)));
    script.set(close, Act::Wait);
    let _client = held.attach();
    held.bus.unplug(busid);
    held.turn_until("it is given back, its client there", |reactor| {
        reactor.now += Duration::from_millis(1);
        script.begun(close) == 1
    });
    held.bus.replug(busid);
    let contender = held.contender();
    assert!(held.reactor.door.clients() == 2 && state(&held.reactor).is_some());
    script.clear(close);
    held.turn_until("the next one has it", |reactor| state(reactor) == Some(LoanState::Lent));
    drop(contender);
}

/// A stop in each state of a loan, with a contender where there can be one: the server ends as soon
/// as the device is given back, and nothing is left.
#[test]
fn a_server_stops_in_each_state_of_a_loan() {
    let busid = Held::scripted("loopback").0.busid(0);
    let [open, perform, cancel, close] =
        [Call::Open, Call::Perform, Call::Cancel, Call::Close].map(|call| call(busid));
    for (call, is_abandoned) in
        [(open, false), (open, true), (perform, false), (cancel, false), (close, false)]
    {
        let (mut held, script, _finally) = Held::hinted("loopback");
        script.set(call, Act::Wait);
        let mut client = held.import(0);
        if call == open {
            held.turn_until("it is being opened", |_| script.begun(open) == 1);
            if is_abandoned {
                held.reactor.now += OPEN_TIMEOUT;
            }
        } else {
            held.turn_until("it is lent", |reactor| state(reactor) == Some(LoanState::Lent));
            let rest: &[u8] = if call == perform { &[] } else { &[0xff; 48] };
            let first = if call == perform { set_interface(1) } else { submit(1, SILENT, 512) };
            client.write_all(&[&first, rest].concat()).unwrap();
        }
        held.turn_until("the call is begun", |_| script.begun(call) == 1);
        let contender = (call == close).then(|| held.contender());
        held.begin_stop();
        held.bus.hint();
        held.turn(Duration::from_millis(1));
        script.clear(call);
        held.turn_until("nothing is left", |reactor| {
            reactor.now += Duration::from_millis(1);
            reactor.is_done()
        });
        let reactor = &held.reactor;
        assert!(reactor.connections.is_empty(), "{call:?}");
        assert_eq!((reactor.registry.taken(), reactor.registry.contenders()), (0, 0), "{call:?}");
        assert_eq!(reactor.door.clients(), 0, "{call:?}");
        assert!(reactor.schedule.attached().is_empty() && !held.bus.is_open(busid), "{call:?}");
        drop(contender);
    }
}

/// The death of a worker frees the device for contenders in each state that can have some.
#[test]
fn contenders_get_a_device_whose_worker_has_died() {
    let busid = Held::scripted("loopback").0.busid(0);
    let [open, cancel, close] = [Call::Open, Call::Cancel, Call::Close].map(|call| call(busid));
    for call in [open, cancel, close] {
        let (mut held, script, _finally) = Held::hinted("loopback");
        script.set(call, Act::Wait);
        let mut client = held.import(0);
        if call != open {
            held.turn_until("it is lent", |reactor| state(reactor) == Some(LoanState::Lent));
            client.write_all(&submit(1, SILENT, 512)).unwrap();
            held.turn_until("it is in flight", |reactor| {
                let mut connections = reactor.connections.iter_mut();
                connections.any(|(_, c)| c.session().is_some_and(|s| s.stats().slots.now == 1))
            });
        } else {
            held.turn_until("it is being opened", |_| script.begun(open) == 1);
        }
        drop(client);
        held.turn_until("the call is begun", |_| script.begun(call) == 1);
        held.turn_until("the client has left", |reactor| reactor.door.clients() == 0);
        let contender = held.contender();
        let loans = held.reactor.connections.iter().find_map(|(_, c)| c.loan.as_ref());
        loans.unwrap().worker.dies.store(true, std::sync::atomic::Ordering::Relaxed);
        script.clear(call);
        held.turn_until("the contender has it", |reactor| state(reactor) == Some(LoanState::Lent));
        assert_eq!(script.begun(Call::Scan), 1, "{call:?}");
        drop(contender);
        held.turn_until("it is free", |reactor| reactor.connections.is_empty());
        assert_eq!(held.reactor.registry.taken(), 0, "{call:?}");
    }
}

/// The worker of a device that was given back, or could not be opened, opens the next device.
#[test]
fn a_worker_without_a_device_is_kept_for_the_next() {
    let worker_of = |held: &mut Held<ScriptedBackend>| {
        let client = held.import(0);
        held.turn_until("it is lent", |reactor| state(reactor) == Some(LoanState::Lent));
        let loan = held.reactor.connections.iter().find_map(|(_, c)| c.loan.as_ref());
        (client, Arc::downgrade(&loan.unwrap().worker.dies))
    };
    let (mut held, script, _finally) = Held::hinted("loopback");
    let (client, first) = worker_of(&mut held);
    drop(client);
    held.turn_until("it is free", |reactor| reactor.connections.is_empty());
    let (client, second) = worker_of(&mut held);
    assert!(Weak::ptr_eq(&first, &second), "another thread");
    drop(client);
    held.turn_until("it is free", |reactor| reactor.connections.is_empty());
    let open = Call::Open(held.busid(0));
    script.set(open, Act::Panic);
    let (client, before) = (held.import(0), script.begun(open));
    held.turn_until("it is begun", |_| script.begun(open) > before);
    drop(client);
    held.turn_until("it is refused", |reactor| reactor.connections.is_empty());
    script.clear(open);
    let (client, third) = worker_of(&mut held);
    assert!(Weak::ptr_eq(&first, &third), "another thread");
    drop(client);
}

/// An open while the preparation for the open before still rests.
#[test]
fn every_open_has_the_next_prepared_however_soon_the_next_comes() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    for _ in 0..3 {
        let before = script.begun(Call::Prepare);
        held.turn_until("the next is prepared", |reactor| {
            reactor.scans.note_opened();
            script.begun(Call::Prepare) > before
        });
    }
}

/// More requests than can wait, for an endpoint that never answers, and then the end.
#[test]
fn a_client_that_leaves_behind_more_than_is_taken_in_frees_its_device() {
    for is_reset in [false, true] {
        let (mut held, _script, _finally) = Held::hinted("loopback");
        let mut client = held.attach();
        client.set_nonblocking(true).unwrap();
        let mut bytes: Vec<u8> =
            (1..=30000).flat_map(|seqnum| submit(seqnum, SILENT, 64)).collect();
        held.turn_until("all is sent", |_| {
            if let Ok(len) = client.write(&bytes) {
                bytes.drain(..len);
            }
            bytes.is_empty()
        });
        if is_reset {
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(client);
        held.turn_until("its device is free", |reactor| reactor.connections.is_empty());
    }
}
