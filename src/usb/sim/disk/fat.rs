//! The file system on a new disk: FAT12 or FAT16 by the disk's size, with a readable file.
//!
//! There is no partition table: the file system starts in the first block, as on most small media
//! and as with `mkfs.fat`. Every system mounts such a disk, on Linux by `mount /dev/sdX`, and no
//! block is lost to alignment.
//!
//! The count of clusters alone decides between FAT12 and FAT16 (Microsoft's FAT specification 1.03,
//! section 3.5). FAT32 starts at 65525 clusters and is never made: 64 blocks a cluster reach two
//! gigabytes without FAT32.
//!
//! Contract: only formats; ignores later writes of hosts.

use super::scsi::BLOCK_LEN;

/// Blocks before the first table: the boot sector.
const RESERVED: usize = 1;
/// Tables.
const TABLES: usize = 2;
/// Entries of the root directory.
const ROOT_ENTRIES: usize = 512;
/// Bytes of a directory entry.
const ENTRY_LEN: usize = 32;
/// Blocks of the root directory.
const ROOT_BLOCKS: usize = ROOT_ENTRIES * ENTRY_LEN / BLOCK_LEN;

/// Fewest clusters of FAT16.
const FAT16_CLUSTERS_MIN: usize = 4085;
/// Most clusters of FAT16.
const FAT16_CLUSTERS_MAX: usize = 65_524;
/// Above this number of clusters a larger cluster is chosen.
const CLUSTERS_COMFORTABLE: usize = 16_384;
/// Blocks of the largest cluster.
const CLUSTER_BLOCKS_MAX: usize = 64;

/// The number of the first cluster.
const CLUSTER_FIRST: usize = 2;

/// A fixed medium, in the boot sector and the tables.
const MEDIA: u8 = 0xf8;

const LABEL: &[u8; 11] = b"USBFERRY   ";
const FILE_NAME: &[u8; 11] = b"README  TXT";
const ATTRIBUTE_ARCHIVE: u8 = 0x20;
const ATTRIBUTE_VOLUME: u8 = 0x08;

/// 2026-01-01, in the form of a directory entry.
const DATE: u16 = (2026 - 1980) << 9 | 1 << 5 | 1;

/// The text of the file.
pub(super) const README: &str = "\
This disk is made of software.\r\n\
\r\n\
It is a simulated device of usbferry, a USB/IP server. Your computer talks to\r\n\
it over the network, through the same drivers as to a USB stick in one of its\r\n\
own ports: usb-storage, SCSI, and the file system that you are reading.\r\n\
\r\n\
Write to it as you like. What you write is kept until the server ends.\r\n";

/// How the blocks of a disk are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Layout {
    /// Blocks of the file system.
    blocks: usize,
    cluster_blocks: usize,
    table_blocks: usize,
    clusters: usize,
}

impl Layout {
    fn new(disk_blocks: usize) -> Self {
        let room = disk_blocks - RESERVED - ROOT_BLOCKS;
        let mut cluster_blocks = 1;
        while room / cluster_blocks > CLUSTERS_COMFORTABLE && cluster_blocks < CLUSTER_BLOCKS_MAX {
            cluster_blocks *= 2;
        }
        // The tables have room for the clusters of a disk without tables, and so are a little too
        // long.
        let most = (room / cluster_blocks).min(FAT16_CLUSTERS_MAX);
        let entries = most + CLUSTER_FIRST;
        let table_len = if is_fat16(most) { entries * 2 } else { (entries * 3).div_ceil(2) };
        let table_blocks = table_len.div_ceil(BLOCK_LEN);
        let data_blocks = room - TABLES * table_blocks;
        let clusters = (data_blocks / cluster_blocks).min(most);
        Self {
            blocks: disk_blocks - data_blocks + clusters * cluster_blocks,
            cluster_blocks,
            table_blocks,
            clusters,
        }
    }

    const fn root_block(&self) -> usize {
        RESERVED + TABLES * self.table_blocks
    }

    const fn data_block(&self) -> usize {
        self.root_block() + ROOT_BLOCKS
    }

    const fn cluster_len(&self) -> usize {
        self.cluster_blocks * BLOCK_LEN
    }
}

const fn is_fat16(clusters: usize) -> bool {
    clusters >= FAT16_CLUSTERS_MIN
}

/// Makes a file system of a disk of zeros.
///
/// # Panics
/// For a disk smaller than its tables; [`super::SIZE_MIN`] is larger.
pub(super) fn format(image: &mut [u8]) {
    let layout = Layout::new(image.len() / BLOCK_LEN);
    write_boot_sector(image, &layout);
    for table in 0..TABLES {
        let start = (RESERVED + table * layout.table_blocks) * BLOCK_LEN;
        write_table(&mut image[start..], &layout);
    }
    write_root(&mut image[layout.root_block() * BLOCK_LEN..]);
    image[layout.data_block() * BLOCK_LEN..][..README.len()].copy_from_slice(README.as_bytes());
}

fn write_boot_sector(image: &mut [u8], layout: &Layout) {
    let small = u16::try_from(layout.blocks);
    let large = if small.is_ok() { 0 } else { layout.blocks };
    let name: &[u8; 8] = if is_fat16(layout.clusters) { b"FAT16   " } else { b"FAT12   " };
    let mut sector = Writer::new(&mut image[..BLOCK_LEN]);
    sector.put(&[0xeb, 0x3c, 0x90]); // a jump over what follows
    sector.put(b"usbferry");
    sector.put_u16(BLOCK_LEN);
    sector.put(&[to_u8(layout.cluster_blocks)]);
    sector.put_u16(RESERVED);
    sector.put(&[to_u8(TABLES)]);
    sector.put_u16(ROOT_ENTRIES);
    sector.put_u16(small.map_or(0, usize::from));
    sector.put(&[MEDIA]);
    sector.put_u16(layout.table_blocks);
    sector.put_u16(32); // blocks of a track
    sector.put_u16(64); // heads
    sector.put_u32(0); // hidden blocks before this one
    sector.put_u32(large);
    sector.put(&[0x80, 0, 0x29]); // a drive number, and three fields follow
    sector.put_u32(0x05ee_d001); // serial number
    sector.put(LABEL);
    sector.put(name);
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
}

/// Writes a table: two reserved entries, and the chain of the file.
fn write_table(table: &mut [u8], layout: &Layout) {
    let fat16 = is_fat16(layout.clusters);
    set_entry(table, 0, 0xff00 | u16::from(MEDIA), fat16);
    set_entry(table, 1, 0xffff, fat16);
    let last = CLUSTER_FIRST + README.len().div_ceil(layout.cluster_len()) - 1;
    for cluster in CLUSTER_FIRST..last {
        set_entry(table, cluster, to_u16(cluster + 1), fat16);
    }
    set_entry(table, last, 0xffff, fat16);
}

/// Sets an entry of a table of zeros. An entry of twelve bits takes the lower bits of `value`.
fn set_entry(table: &mut [u8], index: usize, value: u16, fat16: bool) {
    if fat16 {
        table[2 * index..][..2].copy_from_slice(&value.to_le_bytes());
        return;
    }
    // Two entries share three bytes, and the odd entry has the upper half of the second byte.
    let shifted = (value & 0x0fff) << (4 * (index % 2));
    let [low, high] = shifted.to_le_bytes();
    let at = index * 3 / 2;
    table[at] |= low;
    table[at + 1] |= high;
}

fn write_root(root: &mut [u8]) {
    let (label, file) = root.split_at_mut(ENTRY_LEN);
    write_entry(label, LABEL, ATTRIBUTE_VOLUME, 0, 0);
    write_entry(file, FILE_NAME, ATTRIBUTE_ARCHIVE, CLUSTER_FIRST, README.len());
}

fn write_entry(entry: &mut [u8], name: &[u8; 11], attributes: u8, cluster: usize, len: usize) {
    let mut entry = Writer::new(entry);
    entry.put(name);
    entry.put(&[attributes, 0, 0]);
    entry.put_u16(0); // time it was made
    entry.put_u16(DATE.into());
    entry.put_u16(DATE.into()); // last looked at
    entry.put_u16(0);
    entry.put_u16(0); // time it was written
    entry.put_u16(DATE.into());
    entry.put_u16(cluster);
    entry.put_u32(len);
}

/// Writes fields without gaps.
struct Writer<'a> {
    rest: &'a mut [u8],
}

impl<'a> Writer<'a> {
    const fn new(rest: &'a mut [u8]) -> Self {
        Self { rest }
    }

    fn put(&mut self, bytes: &[u8]) {
        let (field, rest) = std::mem::take(&mut self.rest).split_at_mut(bytes.len());
        field.copy_from_slice(bytes);
        self.rest = rest;
    }

    fn put_u16(&mut self, value: usize) {
        self.put(&to_u16(value).to_le_bytes());
    }

    fn put_u32(&mut self, value: usize) {
        let value = u32::try_from(value).expect("disks have less than 2^32 blocks");
        self.put(&value.to_le_bytes());
    }
}

fn to_u8(value: usize) -> u8 {
    u8::try_from(value).expect("the layout keeps it below 256")
}

fn to_u16(value: usize) -> u16 {
    u16::try_from(value).expect("the layout keeps it below 65536")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout_of(megabytes: usize) -> Layout {
        Layout::new((megabytes << 20) / BLOCK_LEN)
    }

    #[test]
    fn every_size_has_room_and_one_kind_of_table() {
        let sizes = [2048, 4090, 4200, 32_768, 65_535, 131_072, 4_194_304];
        for blocks in (2048..20_000).chain(sizes) {
            let layout = Layout::new(blocks);
            assert!(layout.blocks <= blocks, "{blocks}");
            assert!(layout.clusters <= FAT16_CLUSTERS_MAX);
            let end = layout.data_block() + layout.clusters * layout.cluster_blocks;
            assert_eq!(end, layout.blocks);
            let bits = if is_fat16(layout.clusters) { 16 } else { 12 };
            let needed = (layout.clusters + 2) * bits / 8;
            assert!(layout.table_blocks * BLOCK_LEN >= needed, "{blocks}");
            assert!(blocks - layout.blocks < layout.cluster_blocks.max(1024));
        }
    }

    #[test]
    fn size_decides_between_fat12_and_fat16() {
        assert!(!is_fat16(layout_of(1).clusters));
        let default = layout_of(16);
        assert!(is_fat16(default.clusters));
        assert_eq!(default.cluster_blocks, 2);
        assert_eq!(layout_of(2048).clusters, FAT16_CLUSTERS_MAX);
    }

    #[test]
    fn the_boot_sector_describes_the_layout() {
        let mut image = vec![0; 16 << 20];
        format(&mut image);
        let layout = layout_of(16);
        let word = |at: usize| usize::from(u16::from_le_bytes([image[at], image[at + 1]]));
        assert_eq!(word(11), 512);
        assert_eq!(usize::from(image[13]), layout.cluster_blocks);
        assert_eq!((word(14), image[16], word(17)), (1, 2, 512));
        assert_eq!((word(19), image[21]), (layout.blocks, MEDIA));
        assert_eq!(word(22), layout.table_blocks);
        assert_eq!(image[54..62], *b"FAT16   ");
        assert_eq!(image[510..512], [0x55, 0xaa]);
        assert_eq!(image[512..520], [0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
        let second = (1 + layout.table_blocks) * 512;
        assert_eq!(image[second..second + 6], image[512..518]);
    }

    #[test]
    fn twelve_bit_entries_are_packed() {
        let mut table = [0; 9];
        for (index, value) in [0xfff8, 0xffff, 0x123, 0x456, 0x789, 0xabc].into_iter().enumerate() {
            set_entry(&mut table, index, value, false);
        }
        let expected = [0xf8, 0xff, 0xff, 0x23, 0x61, 0x45, 0x89, 0xc7, 0xab];
        assert_eq!(table, expected);
    }
}
