//! A client and a device: one of the two, or both.
//!
//! A connection begins with a client alone. The client gets a device on [loan](Loan); the client
//! may go first, and the connection stays until the device is free; or the device goes first, and
//! the connection stays until the client has closed.
//!
//! Contract: runs on the reactor, never blocks; whatever a client does ends in an [`End`], never in
//! a panic.

use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;

use super::client::{Client, Step};
use super::end::{End, Parting};
use super::exchange::{Exchange, Left, Turn};
use super::loan::Loan;
use super::spin::Kind;
use super::token::Key;
use crate::session::Session;
use crate::usb::Candidate;
use crate::whose::Whose;

/// A client, a device on loan, or both.
pub(super) struct Connection<C: Candidate> {
    pub(super) key: Key,
    /// The client's address, also once the client has left.
    pub(super) peer: SocketAddr,
    /// `None` when the connection is closed and only the device is left to come home.
    pub(super) client: Option<Client>,
    /// `None` when no device is the client's, and none is about to be.
    pub(super) loan: Option<Loan<C>>,
    /// The connection stands in the list of those to serve.
    pub(super) queued: bool,
}

impl<C: Candidate> Connection<C> {
    pub(super) fn new(key: Key, stream: TcpStream, peer: SocketAddr, now: Instant) -> Self {
        let client = Some(Client::new(stream, now));
        Self { key, peer, client, loan: None, queued: false }
    }

    /// Whether a device is the client's, is about to be, or has not come home yet.
    pub(super) const fn has_device(&self) -> bool {
        self.loan.is_some()
    }

    /// Whether the client has a device, and is to keep it.
    pub(super) fn is_served(&self) -> bool {
        self.client.as_ref().is_some_and(|client| matches!(client.step, Step::Served))
    }

    /// Whether nothing is left of the connection.
    pub(super) const fn is_over(&self) -> bool {
        self.client.is_none() && self.loan.is_none()
    }

    /// The client and its device, for the log.
    pub(super) fn whose(&self) -> Option<Whose> {
        let device = self.loan.as_ref()?.busid;
        Some(Whose { client: self.peer, device })
    }

    /// The client and the device it has.
    fn exchange(&mut self) -> Option<Exchange<'_, C::Port>> {
        let client = self.client.as_mut()?;
        let lent = self.loan.as_mut()?.lent()?;
        Some(Exchange { client, lent })
    }

    /// The session, as long as the device has one.
    pub(super) fn session(&mut self) -> Option<&mut Session<C::Port>> {
        Some(&mut self.loan.as_mut()?.in_use()?.session)
    }

    /// The kind of wait when the session has nothing to do.
    pub(super) fn kind_of_wait(&mut self) -> Option<Kind> {
        let session = self.session()?;
        Some(Kind { in_flight: session.in_flight(), len: session.last_len() })
    }

    /// Changes the state of the loan, if there is one.
    pub(super) fn change_loan(&mut self, change: impl FnOnce(Loan<C>) -> Loan<C>) {
        self.loan = self.loan.take().map(change);
    }

    /// When the connection ends unless the client gets further.
    pub(super) fn client_deadline(&self) -> Option<Instant> {
        self.client.as_ref().and_then(|client| client.deadline)
    }

    /// Whether the client has left while it waited for a device.
    pub(super) fn has_left(&self) -> bool {
        self.client.as_ref().is_some_and(Client::has_left)
    }

    /// Whether the client rests.
    pub(super) fn client_rests(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.rests)
    }

    /// Does what there is to do, as far as one turn goes.
    ///
    /// # Errors
    /// Why the connection ends.
    pub(super) fn serve(&mut self, turn: &mut Turn<'_>) -> Result<Left, End> {
        if let Some(mut exchange) = self.exchange() {
            return exchange.serve(turn);
        }
        let more = self.loan.as_mut().is_some_and(|loan| loan.collect(turn.now));
        let Some(client) = &mut self.client else { return Ok(Left::with(more)) };
        Ok(Left::with(client.serve_closing(turn.discard)? || more))
    }

    /// Whether there is something to do for a client and its device at once.
    #[cfg(test)]
    pub(super) fn has_work(&mut self) -> bool {
        self.exchange().is_some_and(|exchange| exchange.has_work())
    }

    /// Whether the device is gone and the client was told all there is to tell.
    pub(super) fn is_all_answered(&mut self) -> bool {
        self.exchange().is_some_and(|exchange| exchange.is_all_answered())
    }

    /// Whether the client's device is gone.
    fn is_device_gone(&mut self) -> bool {
        self.session().is_some_and(|session| session.is_device_gone())
    }

    /// Takes the client away: nothing is read from it or written to it any more. Contenders may
    /// hope for a device that is still being opened until the client would have given up.
    pub(super) fn take_client(&mut self, now: Instant) -> Option<Client> {
        let client = self.client.take()?;
        let until = client.deadline.unwrap_or(now);
        self.change_loan(|loan| loan.abandon(until));
        Some(client)
    }

    /// Why a connection is ended whose deadline has come.
    pub(super) fn expiry(&mut self) -> End {
        let device_gone = self.is_device_gone();
        match self.client.as_ref().map(|client| &client.step) {
            Some(Step::Closing { device_gone: true }) => End::Answered,
            Some(Step::Watching(watch)) if watch.is_up_to_date() => End::Answered,
            Some(Step::Served | Step::Parting(_)) if device_gone => End::Answered,
            Some(Step::Parting(why)) => End::Parted(*why),
            Some(Step::Served) => End::Stalled,
            _ => End::TimedOut,
        }
    }

    /// The client has to part from its device: nothing more is taken from the client, and what is
    /// on its way to the client must be there by `deadline`. False when there is nothing on its
    /// way.
    pub(super) fn part(&mut self, why: Parting, deadline: Instant) -> bool {
        let Some(Exchange { client, lent }) = self.exchange() else { return false };
        client.step = Step::Parting(why);
        client.deadline = Some(deadline);
        lent.session.close_input();
        true
    }
}
