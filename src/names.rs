//! Names of vendors and products, from the USB ID Repository (the crate `usb-ids` has a copy, which
//! its maintainers renew every few weeks; `build.rs` packs the names).
//!
//! The names are compressed, in blocks: a look-up unpacks the block of the vendor and keeps nothing
//! of the block.
//!
//! Contract: any thread but the reactor's: a look-up takes some 100 µs, and 30 to 50 KiB meanwhile.

use std::fmt;

use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// Bytes of a block at most, unpacked. The largest has the 600 products of a single vendor.
const BLOCK_LEN_MAX: usize = 64 << 10;

/// The first vendor of each block, in order, and the block's end in [`BLOCKS`].
const TABLE: &[(u16, usize)] = include!(concat!(env!("OUT_DIR"), "/names.table"));

/// All blocks, each compressed by itself. Unpacked, a block has a line for each vendor in order, with
/// the number and the name, and then a line for each product behind a tab.
const BLOCKS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/names.blocks"));

/// The names of a vendor and a product, if the repository has them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Names {
    pub(crate) vendor: Option<String>,
    pub(crate) product: Option<String>,
}

impl Names {
    /// The names for a device's two numbers.
    pub(crate) fn of((vendor, product): (u16, u16)) -> Self {
        let after = TABLE.partition_point(|&(first, _)| first <= vendor);
        let text = after.checked_sub(1).map(unpack).unwrap_or_default();
        let mut lines = text.lines();
        let number = format!("{vendor:04x} ");
        let vendor = lines.find_map(|line| line.strip_prefix(&number)).map(str::to_owned);
        let number = format!("\t{product:04x} ");
        let mut products = lines.take_while(|line| line.starts_with('\t'));
        let product = products.find_map(|line| line.strip_prefix(&number)).map(str::to_owned);
        Self { vendor, product }
    }
}

/// The names in the form of the stock tool (`usbip_names_get_product` of
/// `tools/usb/usbip/libsrc/usbip_common.c`), without the numbers.
impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vendor = self.vendor.as_deref().unwrap_or("unknown vendor");
        let product = self.product.as_deref().unwrap_or("unknown product");
        write!(f, "{vendor} : {product}")
    }
}

/// The text of a block.
fn unpack(block: usize) -> String {
    let begin = block.checked_sub(1).map_or(0, |before| TABLE[before].1);
    let packed = &BLOCKS[begin..TABLE[block].1];
    let bytes = decompress_to_vec_with_limit(packed, BLOCK_LEN_MAX).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.expect("the build has packed a text, and a test unpacks all")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_unknown_devices_are_described() {
        let describe = |ids| Names::of(ids).to_string();
        assert_eq!(describe((0x1d6b, 0x0002)), "Linux Foundation : 2.0 root hub");
        assert_eq!(describe((0x1d6b, 0xffff)), "Linux Foundation : unknown product");
        assert_eq!(describe((0x0000, 0x0001)), "unknown vendor : unknown product");
        assert_eq!(describe((0xffff, 0x0001)), "unknown vendor : unknown product");
    }

    #[test]
    fn the_first_and_the_last_name_of_every_block_are_found_and_every_name_is_a_text() {
        let mut names = 0;
        for (block, &(first, _)) in TABLE.iter().enumerate() {
            let text = unpack(block);
            assert!(text.starts_with(&format!("{first:04x} ")), "block {block}");
            let lines = text.lines().map(|line| line.split_once(' ').expect("a number and a name"));
            let lines: Vec<(&str, &str)> = lines.collect();
            names += lines.len();
            let vendor_at =
                lines.iter().rposition(|(number, _)| !number.starts_with('\t')).unwrap();
            let ((last, name), product) = (lines[vendor_at], lines.last().unwrap());
            let ids = (number_of(last), number_of(product.0));
            let found = Names::of(ids);
            assert_eq!(found.vendor.as_deref(), Some(name));
            let is_product = vendor_at + 1 < lines.len();
            assert_eq!(found.product.as_deref(), is_product.then_some(product.1));
            assert_eq!(Names::of((first, 0)).vendor.as_deref(), Some(lines[0].1));
        }
        assert!(names > 20_000);
    }

    fn number_of(typed: &str) -> u16 {
        u16::from_str_radix(typed.trim(), 16).expect("four digits")
    }
}
