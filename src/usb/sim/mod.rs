//! Simulated devices: a USB stack made of software, for the demonstration, the tests and as the
//! load of the benchmarks. Linux drives the devices with its ordinary drivers.
//!
//! - [`spec`]: the choice of devices on the command line.
//! - [`bus`]: the devices, plugged in or not, in the hands of tests. `hotplug` hints at changes.
//!
//! The host's side, the same for all models:
//! - [`port`]: a device lent to a session.
//! - [`transfer`]: URBs, and the slots for them.
//! - `controller`: the configuration in force, special requests, and the planned faults.
//! - `endpoint`: the endpoints with their queues.
//! - `control`: the standard requests.
//!
//! The devices:
//! - `model`: the behaviour of a device; `descriptors`: its description.
//! - The models: [`disk`], a stick with a file; [`microphone`]; [`loopback`], for measurements,
//!   with endpoints of all kinds; [`serial`], a CDC ACM adapter with a loopback plug.
//!
//! - `replay`: a device from a recording of URBs.
//!
//! `testing` is a host for the tests of the models.
//!
//! Contract: the same as for the traits of [`crate::usb`]. Everything is deterministic for given
//! times.

pub mod bus;
mod control;
mod controller;
mod descriptors;
pub mod disk;
mod endpoint;
mod hotplug;
pub mod loopback;
pub mod microphone;
mod model;
pub mod port;
pub mod replay;
pub mod serial;
pub mod spec;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod transfer;

use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Instant;

use usbferry_sys::arena::Arena;

use self::bus::{PortParts, SimBus};
use self::port::SimPort;
use self::transfer::SimTransfer;
use crate::limits::DeviceLimits;
use crate::usb::{
    Backend, Candidate, DeviceInfo, Hints, Obstacle, OpenError, Opened, Scan, ScanError,
};

/// Finds the devices of a [`SimBus`].
pub struct SimBackend {
    bus: SimBus,
}

impl SimBackend {
    /// A stack with the devices of `bus`.
    #[must_use]
    pub const fn new(bus: SimBus) -> Self {
        Self { bus }
    }
}

impl Backend for SimBackend {
    type Candidate = SimCandidate;

    fn needs_exact_time(&self) -> bool {
        true
    }

    fn hints(&mut self) -> Option<Box<dyn Hints>> {
        let hints = self.bus.hints()?;
        Some(Box::new(hints))
    }

    fn scan(&mut self) -> Result<Scan<SimCandidate>, ScanError> {
        let candidate = |info| SimCandidate { bus: self.bus.clone(), info };
        let devices = self.bus.present().into_iter().map(candidate).collect();
        Ok(Scan { devices, is_whole: true })
    }
}

/// A simulated device, plugged in at the time of a scan.
#[derive(Clone)]
pub struct SimCandidate {
    bus: SimBus,
    info: DeviceInfo,
}

impl Candidate for SimCandidate {
    type Port = SimPort;

    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// A reset does not change a simulated device, so opening never resets.
    fn open(
        &self,
        limits: &DeviceLimits,
        _reset_on_release: bool,
    ) -> Result<Opened<SimPort>, OpenError> {
        let busid = self.info.device.busid;
        thread::sleep(self.bus.open_delay(busid));
        let (wake, waker) = wake_pair()
            .map_err(|error| OpenError { busid, obstacle: Obstacle::NoSockets(error) })?;
        let mut memory = Arena::new();
        memory.add_heap(limits.memory).map_err(|_| OpenError::no_memory(busid))?;
        let parts = self.bus.open(busid, self.info.device.devnum)?;
        parts.plug.set_waker(waker);
        Ok(opened(parts, wake, limits, memory))
    }
}

fn opened(
    parts: PortParts,
    wake: UnixStream,
    limits: &DeviceLimits,
    memory: Arena,
) -> Opened<SimPort> {
    let now = Instant::now();
    let isochronous = parts.isochronous();
    let packets = !isochronous.is_empty();
    let (transfers, mailboxes) = SimTransfer::slots(limits.urbs, packets, now);
    let device = parts.descriptors.device;
    let configurations = vec![parts.descriptors.configuration.clone()];
    let port = SimPort::new(parts, mailboxes, wake, now);
    let configuration = port.configuration().cloned();
    Opened {
        port,
        slots: limits.urbs,
        transfers,
        memory,
        configuration,
        device,
        configurations,
        isochronous,
    }
}

fn wake_pair() -> std::io::Result<(UnixStream, UnixStream)> {
    let (wake, waker) = UnixStream::pair()?;
    wake.set_nonblocking(true)?;
    waker.set_nonblocking(true)?;
    Ok((wake, waker))
}
