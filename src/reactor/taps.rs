//! The taps of new sessions, where a capture is under way.
//!
//! Contract: part of the reactor, so nothing here sleeps.

use std::net::SocketAddr;

use super::Reactor;
use super::answers::PortOf;
use crate::capture::{Description, Tap};
use crate::usb::{Backend, Opened};
use crate::wire::op::UsbDevice;
use crate::wire::types::DevId;

impl<B: Backend> Reactor<B> {
    /// The tap of a session to come, if there is a capture.
    pub(super) fn tap(
        &self,
        device: &UsbDevice,
        peer: SocketAddr,
        opened: &Opened<PortOf<B>>,
    ) -> Option<Tap> {
        let capture = self.audience.capture.as_ref()?;
        let (busid, devid) = (device.busid, DevId::new(device.busnum, device.devnum));
        let mut judged = self.registry.judged().map(|(info, _)| info);
        let info = judged.find(|info| info.device.busid == busid);
        let text = info.map_or_else(String::new, |info| {
            let (vendor, product) = (info.device.id_vendor, info.device.id_product);
            let name = info.product.as_deref().unwrap_or("no name");
            format!("{vendor:04x}:{product:04x} {name}, client {peer}")
        });
        Some(capture.tap(Description {
            devid,
            name: busid.to_string(),
            text,
            speed: device.speed,
            device: opened.device,
            configurations: opened.configurations.clone(),
        }))
    }

    /// Has records of the capture written that have waited for long enough.
    pub(super) fn tick_capture(&self) {
        if let Some(capture) = &self.audience.capture {
            capture.tick(self.now);
        }
    }
}
