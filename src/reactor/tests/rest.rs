//! With nothing to do the reactor waits, in each state of a connection.

use super::scripted::{Act, Call};
use super::*;
use crate::limits::HANDSHAKE_TIMEOUT;

/// How long each state is watched.
const WATCHED: Duration = Duration::from_millis(150);

/// Turns that may be made in a state meanwhile: a resting client is looked at again every
/// [`DISCARD_REST`]; a reactor that turns in circles makes thousands.
const TURNS_MAX: usize = 60;

impl<B: Backend> Held<B> {
    /// Shows that the reactor waits in a state, as [`Reactor::run`] would, while time goes on.
    #[track_caller]
    fn assert_rests(&mut self, state: &str) {
        let (begun, mut turns) = (Instant::now(), 0);
        while let Some(left) = WATCHED.checked_sub(begun.elapsed()) {
            let timeout = self.reactor.timeout().map_or(left, |timeout| timeout.min(left));
            self.turn(timeout);
            turns += 1;
        }
        assert!(turns <= TURNS_MAX, "{state}: {turns} turns in {WATCHED:?}");
    }

    /// A URB of a client from the SUBMIT to the reply.
    fn round(&mut self, client: &mut TcpStream, seqnum: u32) {
        client.write_all(&submit(seqnum, SOURCE, 512)).unwrap();
        client.set_nonblocking(true).unwrap();
        self.turn_until("the URB is answered", |_| {
            client.peek(&mut [0; 560]).is_ok_and(|len| len == 560)
        });
        client.read_exact(&mut [0; 560]).unwrap();
        client.set_nonblocking(false).unwrap();
    }
}

#[test]
fn without_clients_and_in_a_handshake() {
    let mut held = Held::new();
    held.assert_rests("nobody");
    let mut client = held.connect();
    client.write_all(&DEVLIST[..5]).unwrap();
    held.turn_until("it is there", |reactor| !reactor.connections.is_empty());
    held.assert_rests("half a request");
}

#[test]
fn asked_for_a_scan_that_does_not_end() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    script.set(Call::Scan, Act::Wait);
    let mut list = held.connect();
    list.write_all(&DEVLIST).unwrap();
    held.turn_until("it waits", |_| script.begun(Call::Scan) == 1);
    held.assert_rests("asked for the list");
    list.shutdown(Shutdown::Write).unwrap();
    held.turn_until("that is seen", |reactor| is_read_closed(only(reactor)));
    held.assert_rests("asked for the list, half closed");
    let _import = held.import(0);
    held.turn_until("it waits, too", |reactor| reactor.connections.len() == 2);
    held.assert_rests("asked for a device");
}

#[test]
fn opening_a_device_that_does_not_open() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let open = Call::Open(held.busid(0));
    script.set(open, Act::Wait);
    let mut client = held.import(0);
    held.turn_until("it is being opened", |_| script.begun(open) == 1);
    held.assert_rests("opening");
    client.write_all(&[0; 48]).unwrap();
    held.turn_until("more has come", |reactor| is_readable(only(reactor)));
    held.assert_rests("opening, with more from its client");
    held.reactor.now += OPEN_TIMEOUT;
    held.reactor.turn_now();
    assert!(only(&held.reactor).loan.as_ref().unwrap().is_ending());
    held.assert_rests("abandoned");
    client.shutdown(Shutdown::Write).unwrap();
    held.turn_until("the client has left", |reactor| {
        reactor.now += Duration::from_millis(1);
        only(reactor).client.is_none()
    });
    held.assert_rests("abandoned, and its client left");
}

#[test]
fn attached_idle_and_in_a_request_that_does_not_end() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let [perform, cancel] = [Call::Perform(held.busid(0)), Call::Cancel(held.busid(0))];
    let mut client = held.attach();
    held.assert_rests("attached");
    client.write_all(&submit(1, SILENT, 512)).unwrap();
    held.assert_rests("attached, a URB in flight");
    script.set(cancel, Act::Wait);
    client.write_all(&unlink(2, 1)).unwrap();
    held.turn_until("it is being cancelled", |_| script.begun(cancel) == 1);
    held.assert_rests("cancelling");
    script.clear(cancel);
    script.set(perform, Act::Wait);
    client.write_all(&set_interface(3)).unwrap();
    held.turn_until("it is performed", |_| script.begun(perform) == 1);
    client.write_all(&submit(4, SOURCE, 512)).unwrap();
    held.assert_rests("performing, with a URB behind");
    drop(client);
    held.turn_until("the client has left", |reactor| only(reactor).client.is_none());
    held.assert_rests("performing, and its client left");
}

#[test]
fn attached_and_idle_for_so_long_that_memory_is_given_back() {
    let (mut held, _script, _finally) = Held::scripted("loopback");
    let mut client = held.attach();
    for seqnum in 1..3 {
        held.round(&mut client, seqnum);
        assert!(held.reactor.schedule.has_thrift_rest(), "a look for memory is due");
        held.reactor.now += held.reactor.settings.idle_after;
        held.turn_until("all is given back", |reactor| {
            reactor.now += Duration::from_millis(2);
            !reactor.schedule.has_thrift_rest()
        });
        held.assert_rests("attached, and its memory given back");
    }
}

#[test]
fn idle_for_so_long_that_the_worker_gives_memory_back() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let [idle, change] = [Call::Idle(held.busid(0)), Call::ChangeMemory(held.busid(0))];
    script.set(idle, Act::Fail);
    let mut client = held.attach();
    for seqnum in 1..3 {
        held.round(&mut client, seqnum);
        let times = seqnum as usize;
        assert_eq!((script.begun(idle), script.begun(change)), (times - 1, times - 1));
        held.reactor.now += held.reactor.settings.idle_after;
        held.turn_until("the worker has done it", |reactor| {
            reactor.now += Duration::from_millis(2);
            script.begun(change) == times
        });
        assert_eq!(script.begun(idle), times);
    }
}

/// Its stack; else each cancel would have to tell when the next may come.
#[test]
fn idle_for_so_long_that_a_worker_which_has_cancelled_rests() {
    let (mut held, _script, _finally) = Held::scripted("loopback");
    let mut client = held.attach();
    let has_cancelled = |reactor: &Reactor<ScriptedBackend>| {
        let mut loans = reactor.connections.iter().filter_map(|(_, c)| c.loan.as_ref());
        loans.next().is_some_and(|loan| loan.worker.has_cancelled)
    };
    for seqnum in [1, 3] {
        let commands = [submit(seqnum, SILENT, 512), unlink(seqnum + 1, seqnum)].concat();
        client.write_all(&commands).unwrap();
        held.turn_until("the URB is unlinked", |reactor| {
            has_cancelled(reactor)
                && reactor.connections.iter_mut().all(|(_, connection)| {
                    connection.session().is_some_and(|session| session.in_flight() == 0)
                })
        });
        held.reactor.now += held.reactor.settings.idle_after;
        held.turn_until("its worker rests", |reactor| {
            reactor.now += Duration::from_millis(2);
            !has_cancelled(reactor)
        });
        held.assert_rests("attached, and its worker rests");
    }
}

/// The end of an ordinary detach.
#[test]
fn giving_a_device_back_whose_client_has_left() {
    for is_reset in [false, true] {
        let (mut held, script, _finally) = Held::scripted("loopback");
        let close = Call::Close(held.busid(0));
        script.set(close, Act::Wait);
        let mut client = held.attach();
        client.write_all(&submit(1, SILENT, 512)).unwrap();
        if is_reset {
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(client);
        held.turn_until("it is given back", |_| script.begun(close) == 1);
        held.assert_rests("returning, its client left");
        held.begin_stop();
        held.assert_rests("returning, and stopping");
    }
}

#[test]
fn giving_a_device_back_that_is_gone() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let [close, cancel] = [Call::Close(held.busid(0)), Call::Cancel(held.busid(0))];
    script.set(close, Act::Wait);
    script.set(cancel, Act::Wait);
    let mut client = held.attach();
    client.write_all(&[submit(1, SILENT, 512), submit(2, SILENT, 512)].concat()).unwrap();
    client.write_all(&unlink(3, 1)).unwrap();
    held.turn_until("it is being cancelled", |_| script.begun(cancel) == 1);
    held.bus.unplug(held.bus.busids()[0]);
    held.assert_rests("gone, and its worker busy");
    script.clear(cancel);
    held.turn_until("it is given back", |reactor| {
        reactor.now += Duration::from_millis(1);
        script.begun(close) == 1
    });
    held.assert_rests("returning, its client there");
    client.write_all(&[0; 100]).unwrap();
    held.assert_rests("returning, its client sends");
    client.shutdown(Shutdown::Write).unwrap();
    held.turn_until("the client has left", |reactor| only(reactor).client.is_none());
    held.assert_rests("returning, its client left");
}

#[test]
fn closing_and_resting() {
    let mut held = Held::new();
    let mut client = held.connect();
    client.write_all(&DEVLIST).unwrap();
    held.turn_until("it has its list", |reactor| {
        reactor.connections.iter().any(|(_, c)| is_closing(c))
    });
    held.assert_rests("closing");
    let resting = held.connect();
    let sending = send_and_shut_down(resting, [&DEVLIST[..], &[0; MUCH]].concat());
    held.turn_until("the client rests", |reactor| {
        reactor.connections.iter().any(|(_, c)| c.client_rests())
    });
    held.assert_rests("closing, and the client rests");
    held.reactor.now += HANDSHAKE_TIMEOUT;
    held.turn_until("both are gone", |reactor| reactor.connections.is_empty());
    drop(sending.join());
}

#[test]
fn stopping_with_a_client_that_does_not_read() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let close = Call::Close(held.busid(0));
    script.set(close, Act::Wait);
    let mut client = held.attach();
    for seqnum in 1..=40 {
        client.write_all(&submit(seqnum, SOURCE, 1 << 20)).unwrap();
    }
    held.turn_until("its socket is full", |reactor| {
        only(reactor).client.as_ref().is_some_and(|client| !client.socket.is_writable())
    });
    held.assert_rests("attached, its client does not read");
    held.begin_stop();
    held.assert_rests("stopping, its client does not read");
    drop(client);
    held.turn_until("it is given back", |_| script.begun(close) == 1);
    held.assert_rests("stopping, its client left");
}
