//! Names of vendors and products, from the USB ID Repository (the crate `usb-ids` has a copy, which
//! its maintainers renew every few weeks; `build.rs` packs the names).
//!
//! The names are compressed, in blocks: a look-up unpacks the block of the vendor and keeps nothing
//! of the block.
//!
//! Contract: any thread but the reactor's: a look-up takes some 200 µs, and 40 to 60 KiB meanwhile.

use std::fmt;

use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// Bytes of a block at most, unpacked: the last vendor of a block may have 600 products.
const BLOCK_LEN_MAX: usize = 64 << 10;

/// The first vendor of each block, in order, and the block's end in [`BLOCKS`].
const TABLE: &[(u16, usize)] = include!(concat!(env!("OUT_DIR"), "/names.table"));

/// All blocks, each compressed by itself. Unpacked, a block has a line for each vendor in order,
/// with the number and the name, and then a line for each product behind a tab, with the step from
/// the number before.
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
        let mut products = numbered(lines.map_while(|line| line.strip_prefix('\t')));
        let product = products.find(|&(number, _)| number == Some(product));
        Self { vendor, product: product.map(|(_, name)| name.to_owned()) }
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

/// The lines of a vendor's products, each as number and name.
fn numbered<'a>(
    lines: impl Iterator<Item = &'a str>,
) -> impl Iterator<Item = (Option<u16>, &'a str)> {
    let mut number = Some(0_u16);
    lines.filter_map(move |line| {
        let (step, name) = line.split_once(' ')?;
        let step = if step.is_empty() { 1 } else { u16::from_str_radix(step, 16).ok()? };
        number = number.and_then(|before| before.checked_add(step));
        Some((number, name))
    })
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
        assert_eq!(describe((0x046d, 0xc52b)), "Logitech, Inc. : Unifying Receiver");
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
            let (last, name) = lines[vendor_at];
            let products = text.lines().skip(vendor_at + 1);
            let product = numbered(products.map(|line| &line[1..])).last();
            let number = product.map_or(Some(0xffff), |(number, _)| number);
            let found = Names::of((number_of(last), number.expect("a number of 16 bits")));
            assert_eq!(found.vendor.as_deref(), Some(name));
            assert_eq!(found.product.as_deref(), product.map(|(_, name)| name));
            assert_eq!(Names::of((first, 0)).vendor.as_deref(), Some(lines[0].1));
        }
        assert!(names > 20_000);
    }

    fn number_of(typed: &str) -> u16 {
        u16::from_str_radix(typed.trim(), 16).expect("four digits")
    }
}
