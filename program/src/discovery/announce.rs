//! The thread that announces a server.
//!
//! The machine's networks and the server's exports are looked at now and then. Both change seldom,
//! and a look costs some microseconds.
//!
//! Contract: a thread of its own, which asks the reactor for its state through `StatusHandle` and
//! sleeps otherwise. A network without announcements is no reason to end: networks come and go. A
//! panic ends the announcements alone.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::{debug, info, warn};
use mio::{Events, Interest, Poll, Token, Waker};

use super::links::{Link, Role, Way, links};
use super::message::Message;
use super::name::start_of;
use super::responder::{Outgoing, Responder};
use super::zone::Zone;
use crate::caught::caught;
use crate::limits::{HTTP_PATIENCE, MDNS_MESSAGE_LEN_MAX};
use crate::reactor::StatusHandle;
use crate::sorted;
use crate::status::{Phase, Snapshot};
use crate::threads;
use crate::words::{printable, reason};

/// The interval of looks at the networks and the exports.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// The interval of looks at a server that does not yet know its devices.
const START_INTERVAL: Duration = Duration::from_millis(200);

/// Messages that are read of a socket at once, and the rest of this thread where more have come: a
/// flood leaves the processor to the sessions, and the system drops what finds no room.
const MESSAGES_AT_ONCE: usize = 64;
const FLOOD_REST: Duration = Duration::from_millis(20);

/// The most bytes of the machine's name in the server's.
const TITLE_LEN_MAX: usize = 40;

const WAKER: Token = Token(usize::MAX);

/// What is announced.
#[derive(Debug)]
pub struct Announcement {
    /// Where the server listens.
    pub listen: Vec<SocketAddr>,
    /// Where the web server listens.
    pub http: Vec<SocketAddr>,
    /// Asks for the exports.
    pub status: StatusHandle,
}

/// Announces a server. Dropped, the announcement is taken back.
#[derive(Debug)]
pub struct Announcer {
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Announcer {
    /// Announces a server from now on.
    ///
    /// # Errors
    /// The system has no thread or descriptor left.
    pub fn start(announcement: Announcement) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (mut next, now) = (RandomState::new().hash_one(0), Instant::now());
        let random = move || {
            next = RandomState::new().hash_one(next);
            u32::try_from(next >> 32).expect("half of the bits")
        };
        let responder = Responder::new(&title(), random, now);
        let facts = Facts { exports: 0, is_known: false };
        let mut office =
            Office { announcement, poll, responder, facts, links: Vec::new(), ways: Vec::new() };
        let serve = move || {
            caught("announcements", || office.serve());
        };
        let thread = threads::start("announcements", serve)?;
        Ok(Self { waker, thread: Some(thread) })
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        if self.waker.wake().is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// The name of this machine, without its domain.
fn title() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    let name = name.split('.').next().unwrap_or_default();
    let name = start_of(name, TITLE_LEN_MAX);
    if name.is_empty() { "usbferry".to_owned() } else { name.to_owned() }
}

/// What the server knows of its exports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Facts {
    exports: usize,
    /// The first look for devices is over.
    is_known: bool,
}

impl Facts {
    /// A device with clients of its own is nobody else's business, and does not count.
    fn of(snapshot: &Snapshot) -> Self {
        let exports = snapshot.exports.iter();
        let exports = exports.filter(|export| export.is_present && export.is_for_all).count();
        Self { exports, is_known: snapshot.phase != Phase::Starting }
    }
}

struct Office {
    announcement: Announcement,
    poll: Poll,
    responder: Responder,
    facts: Facts,
    links: Vec<Link>,
    /// A socket for each outlet of the responder, in the same order.
    ways: Vec<Way>,
}

impl Office {
    fn serve(&mut self) {
        let mut events = Events::with_capacity(16);
        let mut look = Instant::now();
        let mut buffer = vec![0; MDNS_MESSAGE_LEN_MAX];
        // Sockets with more messages than are read at once.
        let mut waiting = BTreeSet::new();
        loop {
            let now = Instant::now();
            if look <= now {
                self.look(now);
                let interval = if self.facts.is_known { LOOK_INTERVAL } else { START_INTERVAL };
                look = now + interval;
            }
            let due = self.responder.due(now);
            self.send(due);
            let wake = self.responder.deadline().map_or(look, |deadline| deadline.min(look));
            let wake = if waiting.is_empty() { wake } else { wake.min(now + FLOOD_REST) };
            match self.poll.poll(&mut events, Some(wake.saturating_duration_since(now))) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return warn!("announcements end: {}", reason(&error));
                }
                _ => {}
            }
            if events.iter().any(|event| event.token() == WAKER) {
                return self.send(self.responder.goodbye());
            }
            waiting.extend(events.iter().map(|event| event.token().0));
            waiting.retain(|&number| self.has_more(number, &mut buffer));
        }
    }

    /// Looks at the machine's networks and at the exports, and announces what has changed.
    fn look(&mut self, now: Instant) {
        let answer = self.announcement.status.begin();
        if let Ok(snapshot) = answer.and_then(|answer| answer.wait(HTTP_PATIENCE)) {
            let facts = Facts::of(&snapshot);
            if facts != self.facts {
                self.facts = facts;
                self.responder.set_text(self.zones(), now);
            }
        }
        if !self.facts.is_known {
            return;
        }
        match links() {
            Ok(links) if links == self.links && !self.ways.is_empty() => {}
            Ok(links) => self.open(links, now),
            Err(error) => debug!("the networks are unknown: {}", reason(&error)),
        }
    }

    /// Opens sockets on other networks.
    fn open(&mut self, links: Vec<Link>, now: Instant) {
        let is_changed = links != self.links;
        self.send(self.responder.goodbye());
        self.links = links;
        self.ways.clear();
        for number in 0..self.links.len() {
            if self.zone(number).is_some() {
                self.ways.extend(self.links[number].ways(number, Role::Announce));
            }
        }
        for (number, way) in self.ways.iter_mut().enumerate() {
            let registry = self.poll.registry();
            if let Err(error) =
                registry.register(&mut way.socket, Token(number), Interest::READABLE)
            {
                debug!("no questions on {}: {}", way.group, reason(&error));
            }
        }
        let zones = self.zones();
        if is_changed {
            self.tell(&zones);
        }
        self.responder.set_outlets(zones, now);
    }

    fn tell(&self, zones: &[Zone]) {
        let at = |zone: &Zone| {
            let address = |&address| SocketAddr::new(address, zone.port).to_string();
            zone.addresses.iter().map(address).collect::<Vec<_>>()
        };
        let mut all: Vec<String> = zones.iter().flat_map(at).collect();
        sorted::sort_by(&mut all, Ord::cmp);
        all.dedup();
        let name = printable(&self.responder.name());
        if all.is_empty() {
            info!("\"{name}\" is announced nowhere: no network leads to an address of --listen");
        } else {
            info!("announced as \"{name}\" at {}", all.join(", "));
        }
    }

    /// The zone of each way.
    fn zones(&self) -> Vec<Zone> {
        self.ways.iter().filter_map(|way| self.zone(way.link)).collect()
    }

    /// What the server says of itself on a network; `None` where it does not listen.
    fn zone(&self, link: usize) -> Option<Zone> {
        let Announcement { listen, http, .. } = &self.announcement;
        let zone = Zone::of(&self.links[link].addresses(), listen)?;
        let mut text = vec![
            "txtvers=1".to_owned(),
            format!("version={}", env!("CARGO_PKG_VERSION")),
            format!("exports={}", self.facts.exports),
        ];
        text.extend(zone.port_of(http).map(|port| format!("http={port}")));
        Some(Zone { text, ..zone })
    }

    /// Reads the messages of a socket, and returns whether more have come than are read at once.
    fn has_more(&mut self, number: usize, buffer: &mut [u8]) -> bool {
        for _ in 0..MESSAGES_AT_ONCE {
            let Some(way) = self.ways.get(number) else { return false };
            let (len, from) = match way.socket.recv_from(buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // An error of something sent before.
                Err(_) => continue,
            };
            // Whoever is not on the network has no business here (RFC 6762, 11).
            if !self.links[way.link].has(from.ip()) {
                continue;
            }
            let Some(message) = Message::parse(&buffer[..len]) else { continue };
            let outgoing = self.responder.take(number, from, message, Instant::now());
            self.send(outgoing);
        }
        true
    }

    fn send(&self, all: Vec<Outgoing>) {
        for Outgoing { outlet, to, message } in all {
            let Some(way) = self.ways.get(outlet) else { continue };
            let to = to.unwrap_or(way.group);
            if let Err(error) = way.socket.send_to(&message.to_bytes(), to) {
                debug!("multicast DNS: {to}: {}", reason(&error));
            }
        }
    }
}
