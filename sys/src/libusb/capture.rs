//! The ownership of a device on macOS. There libusb does not take single interfaces from their
//! drivers, but captures the whole device, and counts its captures (`darwin_usb.c` of 1.0.27 and
//! 1.0.28).
//!
//! libusb subtracts one from the count with each call of `libusb_attach_kernel_driver`, even below
//! zero, and captures only at a count of zero. So after a count below zero libusb never captures
//! the device again in this process. Giving back interface by interface, as needed on Linux, leads
//! to such a count: a device with three drivers is captured once and given back three times, with a
//! reset each time. So here a device is captured once, by the first interface with a driver, and
//! given back once.
//!
//! Contract: plain state, a value for each handle.

/// A handle's hold on its device.
#[derive(Default)]
pub(crate) struct Capture {
    /// Whether claiming an interface with a driver captures the device.
    pub(crate) automatic: bool,
    /// The device is captured.
    held: bool,
}

impl Capture {
    /// Captures the device by `detach`, if wanted and not yet done.
    pub(crate) fn take(&mut self, detach: impl FnOnce() -> bool) {
        if self.automatic && !self.held {
            self.held = detach();
        }
    }

    /// Whether the device is to be given back, which the caller then does.
    pub(crate) const fn give_back(&mut self) -> bool {
        std::mem::replace(&mut self.held, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// libusb's count after the claims of interfaces with `drivers`, and after giving back.
    fn counts(drivers: [bool; 3]) -> (i32, i32) {
        let (mut capture, mut count) = (Capture { automatic: true, ..Capture::default() }, 0);
        for has_driver in drivers {
            capture.take(|| {
                count += i32::from(has_driver);
                has_driver
            });
        }
        let taken = count;
        for _ in drivers {
            count -= i32::from(capture.give_back());
        }
        (taken, count)
    }

    #[test]
    fn a_device_is_captured_once_and_given_back_once() {
        assert_eq!(counts([true; 3]), (1, 0));
        assert_eq!(counts([false, true, true]), (1, 0));
        assert_eq!(counts([false; 3]), (0, 0), "nothing was captured, and nothing is given back");
    }

    #[test]
    fn only_wanted_captures_happen() {
        let mut capture = Capture::default();
        capture.take(|| unreachable!("not asked for"));
        assert!(!capture.give_back());
    }
}
