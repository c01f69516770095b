//! Names of vendors and products, from the USB ID Repository (the crate `usb-ids` has a copy, which
//! its maintainers renew every few weeks; `build.rs` packs the names).
//!
//! Contract: pure; nothing allocates but [`describe`].

/// Bytes of an entry of an index.
const ENTRY_LEN: usize = 8;

/// Names, each with a number.
struct Table {
    /// For each name, in the order of numbers: the number, and the end of the name, both with 32
    /// bits in little-endian order.
    index: &'static [u8],
    /// All names together.
    texts: &'static str,
}

const VENDORS: Table = Table {
    index: include_bytes!(concat!(env!("OUT_DIR"), "/vendors.index")),
    texts: include_str!(concat!(env!("OUT_DIR"), "/vendors.texts")),
};

const PRODUCTS: Table = Table {
    index: include_bytes!(concat!(env!("OUT_DIR"), "/products.index")),
    texts: include_str!(concat!(env!("OUT_DIR"), "/products.texts")),
};

impl Table {
    /// The name with a number.
    fn find(&self, number: u32) -> Option<&'static str> {
        let (entries, _) = self.index.as_chunks::<ENTRY_LEN>();
        let at = entries.binary_search_by_key(&number, |entry| halves(entry).0).ok()?;
        let end_of = |at: usize| halves(&entries[at]).1 as usize;
        let begin = at.checked_sub(1).map_or(0, end_of);
        self.texts.get(begin..end_of(at))
    }
}

/// The number and the end of an entry.
const fn halves(entry: &[u8; ENTRY_LEN]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = *entry;
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// The name of a vendor, if the repository has the vendor.
pub(crate) fn vendor(id: u16) -> Option<&'static str> {
    VENDORS.find(id.into())
}

/// The name of a vendor's product, if the repository has the product.
pub(crate) fn product((vendor, product): (u16, u16)) -> Option<&'static str> {
    PRODUCTS.find(u32::from(vendor) << 16 | u32::from(product))
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

    #[test]
    fn the_first_and_the_last_name_are_found_and_every_name_is_a_text() {
        for table in [VENDORS, PRODUCTS] {
            let (entries, rest) = table.index.as_chunks::<ENTRY_LEN>();
            assert!(entries.len() > 1000 && rest.is_empty());
            let names = entries.iter().map(|entry| table.find(halves(entry).0));
            let texts: String = names.map(|name| name.expect("it is listed")).collect();
            assert_eq!(texts, table.texts);
        }
    }
}
