//! The states of a loan, one after the other, and contenders in each.

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
