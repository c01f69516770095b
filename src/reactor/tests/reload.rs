//! Other settings during service: sessions that go on, sessions that end, and clients in between.

use super::arrivals::{name, named};
use super::scripted::{Act, Call};
use super::waiting::status;
use super::*;
use crate::config::rules::{Clients, Rule};
use crate::config::{Policy, TakeOver};
use crate::limits::DeviceLimits;
use crate::status::LoanState;

const DEVICE_BUSY: u32 = 2;
const NO_DEVICE: u32 = 4;

impl<B: Backend> Held<B> {
    /// The present settings with other rules.
    fn with_rules(&self, rules: impl IntoIterator<Item = Rule>) -> Settings {
        Settings { rules: Rules::new(rules), ..self.reactor.settings.clone() }
    }

    /// A client with the device at `index`, which has read the reply.
    #[track_caller]
    fn served(&mut self, index: usize) -> TcpStream {
        let client = self.import(index);
        client.set_nonblocking(true).unwrap();
        let mut reply = [0; 320];
        self.turn_until("it is served", |_| (&client).read_exact(&mut reply).is_ok());
        client.set_nonblocking(false).unwrap();
        client
    }
}

/// A rule that leaves every client here out.
fn hidden(matches: &str) -> Rule {
    Rule { clients: Some(Clients(vec!["192.0.2.0/24".parse().unwrap()])), ..named(matches, "x") }
}

#[test]
fn a_session_that_is_still_allowed_goes_on_and_keeps_its_terms() {
    let (mut held, _script, _finally) = Held::scripted("loopback");
    let mut client = held.served(0);
    client.write_all(&submit(1, SILENT, 512)).unwrap();
    let settings = held.with_rules([named("1-1", "scope")]);
    let limits = DeviceLimits { urbs: 77, ..settings.policy.limits };
    let policy = Policy { limits, ..settings.policy };
    let reloaded = held.reactor.reload(Settings { policy, ..settings });
    assert_eq!(reloaded, Reloaded { kept: 1, ended: 0, needs_restart: false });
    client.write_all(&unlink(2, 1)).unwrap();
    let mut reply = [0; 48];
    client.set_nonblocking(true).unwrap();
    held.turn_until("it is answered", |_| client.read_exact(&mut reply).is_ok());
    let loan = only(&held.reactor).loan.as_ref().unwrap();
    let before = DeviceLimits::default().urbs;
    assert_eq!((loan.limits.urbs, loan.state()), (before, LoanState::Lent));
    // The next loan has the new terms, and the name.
    drop(client);
    held.turn_until("it is free", |reactor| reactor.connections.is_empty());
    let client = held.import_named(name("scope"));
    assert_eq!(status(&held.answer(&client)), 0);
    let loan = only(&held.reactor).loan.as_ref().unwrap();
    assert_eq!((loan.limits.urbs, &*loan.title), (77, "scope (1-1)"));
}

/// Whether another client may take the device over is asked of the rule at the time of its request.
#[test]
fn a_take_over_goes_by_the_new_rules() {
    for (before, after, expected) in
        [(TakeOver::Never, TakeOver::Any, 0), (TakeOver::Any, TakeOver::Never, DEVICE_BUSY)]
    {
        let (mut held, _script, _finally) = Held::scripted("loopback");
        let with = |held: &Held<_>, takeover| {
            let settings = held.reactor.settings.clone();
            Settings { policy: Policy { takeover, ..settings.policy }, ..settings }
        };
        held.reactor.reload(with(&held, before));
        let first = held.served(0);
        let reloaded = held.reactor.reload(with(&held, after));
        assert_eq!(reloaded, Reloaded { kept: 1, ended: 0, needs_restart: false });
        let second = held.import(0);
        assert_eq!(status(&held.answer(&second)), expected, "{before:?} to {after:?}");
        drop(first);
    }
}

/// As when the server stops: replies on their way arrive, and the end of the connection behind.
#[test]
fn a_session_that_is_not_allowed_any_more_ends_in_order() {
    for rules in [vec![named("1-2", "other")], vec![hidden("1-1"), named("1-2", "other")]] {
        let (mut held, script, _finally) = Held::scripted("loopback:count=2");
        let mut ended = held.served(0);
        let kept = held.served(1);
        let bytes = [submit(1, SOURCE, 512), submit(2, SILENT, 512)].concat();
        ended.write_all(&bytes).unwrap();
        let reaped = |reactor: &mut Reactor<_>| {
            let mut connections = reactor.connections.iter_mut();
            let is_answered = |connection: &mut Connection<_>| {
                let stats = connection.session().map(|session| session.stats());
                stats.is_some_and(|stats| stats.total().urbs == 1 && stats.slots.now == 1)
            };
            connections.any(|(_, connection)| is_answered(connection))
        };
        held.turn_until("one is answered, one is with the device", reaped);
        let reloaded = held.reactor.reload(held.with_rules(rules));
        assert_eq!(reloaded, Reloaded { kept: 1, ended: 1, needs_restart: false });
        let close = Call::Close(held.busid(0));
        held.turn_until("it is given back", |_| script.begun(close) == 1);
        assert_eq!(read_to_end(ended).len(), 48 + 512, "the reply and no other");
        assert_eq!(script.begun(Call::Close(held.busid(1))), 0);
        let again = held.import(0);
        assert_eq!(status(&held.answer(&again)), NO_DEVICE);
        drop(kept);
    }
}

#[test]
fn a_client_whose_device_is_being_opened_is_refused() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let [open, close] = [Call::Open, Call::Close].map(|call| call(held.busid(0)));
    script.set(open, Act::Wait);
    let client = held.import(0);
    held.turn_until("it is being opened", |_| script.begun(open) == 1);
    let reloaded = held.reactor.reload(held.with_rules([hidden("1-1")]));
    assert_eq!(reloaded, Reloaded { kept: 0, ended: 1, needs_restart: false });
    assert_eq!(status(&held.answer(&client)), NO_DEVICE);
    script.clear(open);
    held.turn_until("it is given back", |_| script.begun(close) == 1);
    held.turn_until("it is free", |reactor| reactor.registry.taken() == 0);
}

/// A contender asks again when the device is back, and the rules decide anew.
#[test]
fn a_contender_goes_by_the_new_rules() {
    for is_allowed in [true, false] {
        let (mut held, script, _finally) = Held::hinted("loopback");
        let close = Call::Close(held.busid(0));
        script.set(close, Act::Wait);
        drop(held.served(0));
        held.turn_until("it is given back", |_| script.begun(close) == 1);
        let contender = held.import(0);
        held.turn_until("it waits", |reactor| reactor.registry.contenders() == 1);
        let rule = if is_allowed { named("1-1", "scope") } else { hidden("1-1") };
        held.reactor.reload(held.with_rules([rule]));
        script.clear(close);
        let expected = if is_allowed { 0 } else { NO_DEVICE };
        assert_eq!(status(&held.answer(&contender)), expected);
    }
}

/// An address that may not connect any more is closed, with a device or without.
#[test]
fn a_client_that_may_not_connect_any_more_is_closed() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let client = held.served(0);
    let idle = held.connect();
    held.turn_until("it is accepted", |reactor| reactor.connections.len() == 2);
    for (_, connection) in &mut held.reactor.connections {
        connection.peer = "198.51.100.7:40000".parse().unwrap();
    }
    let reloaded = held.reactor.reload(held.reactor.settings.clone());
    assert_eq!(reloaded, Reloaded { kept: 0, ended: 1, needs_restart: false });
    held.turn_until("all is over", |reactor| reactor.connections.is_empty());
    assert_eq!(script.begun(Call::Close(held.busid(0))), 1);
    assert_eq!((read_to_end(client), read_to_end(idle)), (vec![], vec![]));
}

#[test]
fn listeners_and_places_stay_as_they_are() {
    let mut held = Held::new();
    let before = held.reactor.addresses();
    let listen = Listen { address: (Ipv4Addr::LOCALHOST, 1).into(), optional: false };
    held.reactor.settings.connections = 7;
    let other = Settings { listen: vec![listen], ..held.reactor.settings.clone() };
    for _ in 0..2 {
        let settings = Settings { connections: 9, ..other.clone() };
        let reloaded = held.reactor.reload(settings);
        assert!(reloaded.needs_restart, "as long as the server has not been restarted");
        assert_eq!(held.reactor.addresses(), before);
        assert_eq!(held.reactor.settings.connections, 7);
    }
    let list = held.list();
    assert_eq!(status(&held.answer(&list)), 0);
}

/// Other threads order and wait for the answer.
#[test]
fn settings_come_from_another_thread() {
    let mut held = Held::new();
    held.turn_until("the first scan has ended", |reactor| reactor.registry.is_filled());
    let settings = held.with_rules([named("1-1", "scope")]);
    let handle = held.reactor.reload_handle();
    let reloading = thread::spawn(move || handle.reload(settings));
    held.turn_until("it is done", |_| reloading.is_finished());
    let expected = Reloaded { kept: 0, ended: 0, needs_restart: false };
    assert_eq!(reloading.join().unwrap(), Some(expected));
    let client = held.import_named(name("scope"));
    assert_eq!(status(&held.answer(&client)), 0);
    let handle = held.reactor.reload_handle();
    let settings = held.reactor.settings.clone();
    drop(held);
    assert_eq!(handle.reload(settings), None, "the server has ended");
}
