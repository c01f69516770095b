//! Names of vendors and products, from the USB ID Repository (the crate `usb-ids` has a copy, which
//! its maintainers renew every few weeks).
//!
//! Contract: pure; nothing allocates but [`describe`].

use usb_ids::{Device, FromId, Vendor};

/// The name of a vendor, if the repository has the vendor.
pub(crate) fn vendor(id: u16) -> Option<&'static str> {
    Vendor::from_id(id).map(Vendor::name)
}

/// The name of a vendor's product, if the repository has the product.
pub(crate) fn product((vendor, product): (u16, u16)) -> Option<&'static str> {
    Device::from_vid_pid(vendor, product).map(Device::name)
}

/// The names of vendor and product in the form of the stock tool (`usbip_names_get_product` of
/// `tools/usb/usbip/libsrc/usbip_common.c`), without the numbers.
pub(crate) fn describe(ids: (u16, u16)) -> String {
    let vendor = vendor(ids.0).unwrap_or("unknown vendor");
    let product = product(ids).unwrap_or("unknown product");
    format!("{vendor} : {product}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_unknown_devices_are_described() {
        assert_eq!(describe((0x1d6b, 0x0002)), "Linux Foundation : 2.0 root hub");
        assert_eq!(describe((0x1d6b, 0xffff)), "Linux Foundation : unknown product");
        assert_eq!(describe((0xffff, 0x0001)), "unknown vendor : unknown product");
    }
}
