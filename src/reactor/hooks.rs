//! The programs that events start, and imports that wait for the answer of a program.
//!
//! | event | when | reasons |
//! | --- | --- | --- |
//! | arrive | a scan finds a device that is exported; the rules export a device | `start`, `plugged`, `rules` |
//! | leave | a scan does not find the device any more; the rules, or the end of the server | `unplugged`, `rules`, `stop` |
//! | attach | a client gets a device, or asks for a device whose rule says `authorize` | `import` |
//! | reset | the device was reset for its client | `client` |
//! | detach | the device is given back, or a permitted client has not got it | [`End::word`], `not-attached` |
//!
//! Each program of on-attach that has run, and refused nothing, is followed by one of on-detach.
//! An answer holds for the device that the program was asked about: a client that waits on, and
//! then would get another, is asked about again.
//!
//! Contract: part of the reactor: programs run on threads of their own, and nothing here waits for
//! a program.

use std::net::SocketAddr;
use std::sync::Arc;

use mio::Waker;

use super::client::Awaited;
use super::end::End;
use super::refusal::Refusal;
use super::token::Key;
use super::{Reactor, find};
use crate::complaints::Complaints;
use crate::config::hooks::{Hook, Hooks};
use crate::hooks::{Event, Facts, Failure, Order, Runner};
use crate::limits::{AUTHORIZE_TIMEOUT, HOOKS_END_TIMEOUT};
use crate::usb::Backend;
use crate::wire::types::BusId;

/// Why the exports differ from before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// The first scan.
    Start,
    /// A later scan.
    Bus,
    /// Other rules.
    Rules,
}

impl Cause {
    /// The reasons of an arrival and of a departure.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Start => ("start", "unplugged"),
            Self::Bus => ("plugged", "unplugged"),
            Self::Rules => ("rules", "rules"),
        }
    }
}

/// The hooks of a reactor.
pub(super) struct Hooking {
    runner: Runner<Key>,
    /// The exported devices with hooks.
    present: Vec<Present>,
    /// The clients that programs know or are asked about.
    served: Vec<Served>,
}

/// An exported device with hooks.
struct Present {
    facts: Facts,
    hooks: Arc<Hooks>,
}

/// A client, its device at the time, and the hooks that hold for both.
struct Served {
    key: Key,
    peer: SocketAddr,
    facts: Facts,
    hooks: Arc<Hooks>,
    stage: Stage,
    /// Why the client does not have the device any more.
    reason: Option<&'static str>,
}

/// How far a client is with programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// A program is asked whether the client may have the device.
    Asked,
    /// The program permits the import.
    Authorized,
    /// The client has the device.
    Attached,
}

impl Hooking {
    /// Hooks whose threads log within a budget, and wake the reactor with answers.
    pub(super) fn new(waker: Arc<Waker>, complaints: Complaints) -> Self {
        let wake = move || drop(waker.wake());
        Self { runner: Runner::new(complaints, wake), present: Vec::new(), served: Vec::new() }
    }

    /// Compares the exported devices with those of before.
    fn note_devices(&mut self, present: Vec<Present>, cause: Cause) {
        let (arrived, left) = cause.words();
        let before = std::mem::replace(&mut self.present, present);
        let is_in = |list: &[Present], one: &Present| list.iter().any(|p| p.facts == one.facts);
        for gone in before.iter().filter(|one| !is_in(&self.present, one)) {
            self.start(Hook::Leave, gone, left);
        }
        for new in self.present.iter().filter(|one| !is_in(&before, one)) {
            self.start(Hook::Arrive, new, arrived);
        }
    }

    /// Has the program of a device's event run.
    fn start(&self, kind: Hook, present: &Present, reason: &'static str) {
        let Present { facts, hooks } = present;
        let event = Event { kind, facts: facts.clone(), client: None, reason };
        self.runner.put(Order { event, hooks: Arc::clone(hooks), asker: None });
    }

    fn find(&mut self, key: Key) -> Option<&mut Served> {
        self.served.iter_mut().find(|served| served.key == key)
    }

    /// Whether a client may have a device by now. If not, a program is asked from now on.
    fn permits(&mut self, key: Key, peer: SocketAddr, busid: BusId) -> bool {
        let present = self.present.iter().find(|present| present.facts.busid == busid);
        let Some(Present { facts, hooks }) = present.filter(|present| present.hooks.authorize)
        else {
            return true;
        };
        let (facts, hooks) = (facts.clone(), Arc::clone(hooks));
        let is_permit = |served: &&mut Served| {
            served.stage == Stage::Authorized && served.facts == facts && served.hooks == hooks
        };
        if self.find(key).filter(is_permit).is_some() {
            return true;
        }
        self.note_over(key);
        let served = Served { key, peer, facts, hooks, stage: Stage::Asked, reason: None };
        self.runner.put(served.order(Hook::Attach, "import", Some(key)));
        self.served.push(served);
        false
    }

    /// A client has its device.
    pub(super) fn note_attached(&mut self, key: Key, peer: SocketAddr, busid: BusId) {
        if let Some(served) = self.find(key) {
            served.stage = Stage::Attached;
            return;
        }
        let present = self.present.iter().find(|present| present.facts.busid == busid);
        let Some(Present { facts, hooks }) = present else { return };
        let (facts, hooks) = (facts.clone(), Arc::clone(hooks));
        let served = Served { key, peer, facts, hooks, stage: Stage::Attached, reason: None };
        self.runner.put(served.order(Hook::Attach, "import", None));
        self.served.push(served);
    }

    /// A client's device was reset.
    pub(super) fn note_reset(&mut self, key: Key) {
        if let Some(served) = self.served.iter().find(|served| served.key == key) {
            self.runner.put(served.order(Hook::Reset, "client", None));
        }
    }

    /// A client's connection has ended, or its session.
    pub(super) fn note_end(&mut self, key: Key, end: &End) {
        self.note_reason(key, end.word());
    }

    fn note_reason(&mut self, key: Key, reason: &'static str) {
        if let Some(served) = self.find(key).filter(|served| served.stage == Stage::Attached) {
            served.reason.get_or_insert(reason);
        }
    }

    /// A client has no device, and no prospect of the device a program was asked about.
    pub(super) fn note_over(&mut self, key: Key) {
        let Some(at) = self.served.iter().position(|served| served.key == key) else { return };
        let served = self.served.swap_remove(at);
        if served.stage == Stage::Asked {
            return self.runner.forget(key);
        }
        let reason = served.reason.unwrap_or("not-attached");
        self.runner.put(served.order(Hook::Detach, reason, None));
    }

    /// The server has ended: the last programs run. *Blocks*, for a bounded time.
    pub(super) fn end(self) {
        for present in &self.present {
            self.start(Hook::Leave, present, "stop");
        }
        self.runner.end(HOOKS_END_TIMEOUT);
    }
}

impl Served {
    fn order(&self, kind: Hook, reason: &'static str, asker: Option<Key>) -> Order<Key> {
        let event = Event { kind, facts: self.facts.clone(), client: Some(self.peer), reason };
        Order { event, hooks: Arc::clone(&self.hooks), asker }
    }
}

impl<B: Backend> Reactor<B> {
    /// Notes the exports as they are now.
    pub(super) fn note_exports(&mut self, cause: Cause) {
        let hooked = self.registry.hooked();
        let present =
            hooked.map(|(facts, hooks)| Present { facts, hooks: Arc::clone(hooks) }).collect();
        self.audience.hooking.note_devices(present, cause);
    }

    /// Whether a client may have a device as far as programs have a say. If not yet, the client
    /// waits for the answer of a program, and then asks again.
    pub(super) fn is_authorized(&mut self, key: Key, busid: BusId) -> bool {
        let Some(connection) = find(&mut self.connections, key) else { return false };
        let permits = self.audience.hooking.permits(key, connection.peer, busid);
        if !permits {
            self.wait(key, Awaited::Authorization, self.now + AUTHORIZE_TIMEOUT);
        }
        permits
    }

    /// Takes the answers of programs about imports.
    pub(super) fn take_authorizations(&mut self) {
        while let Some((key, answer)) = self.audience.hooking.runner.take_answer() {
            let Some(served) = self.audience.hooking.find(key) else { continue };
            match answer {
                Ok(()) => {
                    served.stage = Stage::Authorized;
                    self.request(key);
                }
                Err(failure) => self.refuse_unauthorized(key, failure),
            }
        }
    }

    /// A program has not answered in time, or was not even started.
    pub(super) fn give_up_question(&mut self, key: Key) {
        let failure = match self.audience.hooking.runner.waits_behind(key) {
            Some(others) => Failure::Unstarted(AUTHORIZE_TIMEOUT, others),
            None => Failure::Late(AUTHORIZE_TIMEOUT),
        };
        self.refuse_unauthorized(key, failure);
    }

    fn refuse_unauthorized(&mut self, key: Key, failure: Failure) {
        let Some(served) = self.audience.hooking.find(key) else { return };
        let path = served.hooks.get(Hook::Attach).map(|program| program.path.clone());
        self.audience.hooking.note_over(key);
        self.refuse(key, &Refusal::Unauthorized(path.unwrap_or_default(), failure));
    }
}
