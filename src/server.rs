//! The server of the program: a reactor for either USB stack.
//!
//! Code for a type of stack is compiled where the type is chosen. So this package chooses, which is
//! compiled to be fast; in the program's package, compiled to be small, a URB would take some half
//! more instructions. The reactor is behind a pointer for the same reason: even its end belongs
//! here. Only the calls of a start go through the pointer, and [`Server::run`], once.
//!
//! Contract: the reactor's.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::config::Settings;
use crate::reactor::{OperatorHandle, Reactor, ReloadHandle, StartError, StatusHandle, StopHandle};
use crate::service::notify::Notifier;
use crate::usb::Backend;
use crate::usb::libusb::LibusbBackend;
#[cfg(feature = "simulate")]
use crate::usb::{either::Either, sim::SimBackend};

/// The USB stacks: one type, so that the program has the code around a stack once.
#[cfg(feature = "simulate")]
pub type Stack = Either<LibusbBackend, SimBackend>;

/// The USB stack.
#[cfg(not(feature = "simulate"))]
pub type Stack = LibusbBackend;

/// The server.
pub struct Server(Box<dyn Serve>);

impl Server {
    /// A server that listens, and does nothing else before [`Self::run`]. With listeners, whose
    /// calls do not block, the server takes these instead of the addresses of the settings.
    ///
    /// # Errors
    /// An address can't be listened on, or the system has no room for a thread or a descriptor.
    pub fn new(
        stack: Stack,
        settings: Settings,
        listeners: Vec<TcpListener>,
    ) -> Result<Self, StartError> {
        let reactor = Reactor::with_listeners(stack, settings, listeners)?;
        Ok(Self(Box::new(reactor)))
    }

    /// The addresses of the listeners, with ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.addresses()
    }

    /// A handle that stops the server, from any thread or signal handler.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn stop_handle(&self) -> io::Result<StopHandle> {
        self.0.stop_handle()
    }

    /// A handle by which other threads ask for the state of the server.
    #[must_use]
    pub fn status_handle(&self) -> StatusHandle {
        self.0.status_handle()
    }

    /// A handle by which other threads give the server other settings.
    #[must_use]
    pub fn reload_handle(&self) -> ReloadHandle {
        self.0.reload_handle()
    }

    /// A handle by which operators give their orders.
    #[must_use]
    pub fn operator_handle(&self) -> OperatorHandle {
        self.0.operator_handle()
    }

    /// Tells the service manager how the server does, from now on.
    pub fn report_to(&mut self, notifier: Notifier) {
        self.0.report_to(notifier);
    }

    /// Serves until the server is stopped and every device is given back. Returns how many devices
    /// were not given back in time.
    ///
    /// # Errors
    /// The system's, when waiting itself fails.
    pub fn run(self) -> io::Result<usize> {
        self.0.run()
    }
}

/// A reactor for any stack.
trait Serve {
    fn addresses(&self) -> Vec<SocketAddr>;
    fn stop_handle(&self) -> io::Result<StopHandle>;
    fn status_handle(&self) -> StatusHandle;
    fn reload_handle(&self) -> ReloadHandle;
    fn operator_handle(&self) -> OperatorHandle;
    fn report_to(&mut self, notifier: Notifier);
    fn run(self: Box<Self>) -> io::Result<usize>;
}

impl<B: Backend> Serve for Reactor<B> {
    fn addresses(&self) -> Vec<SocketAddr> {
        Self::addresses(self)
    }

    fn stop_handle(&self) -> io::Result<StopHandle> {
        Self::stop_handle(self)
    }

    fn status_handle(&self) -> StatusHandle {
        Self::status_handle(self)
    }

    fn reload_handle(&self) -> ReloadHandle {
        Self::reload_handle(self)
    }

    fn operator_handle(&self) -> OperatorHandle {
        Self::operator_handle(self)
    }

    fn report_to(&mut self, notifier: Notifier) {
        Self::report_to(self, notifier);
    }

    fn run(self: Box<Self>) -> io::Result<usize> {
        Self::run(*self)
    }
}
