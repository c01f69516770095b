//! The bytes of sources, and the expectation of sinks: the byte at position `p` of a stream is `p %
//! 251`.
//!
//! 251 is prime and near 256. No packet size, page size or buffer size is a multiple of 251, so
//! lost, doubled or swapped data shows at any cut.
//!
//! Contract: nothing allocates, blocks or panics. Both directions cost about a `memcpy`.

/// Bytes after which the pattern repeats.
pub const PERIOD: usize = 251;

/// Bytes of the table: whole periods. The table and its destination fit into the processor's
/// nearest cache.
const TABLE_LEN: usize = 64 * PERIOD;

static TABLE: [u8; TABLE_LEN] = table();

#[allow(clippy::cast_possible_truncation, reason = "the remainder is below 251")]
const fn table() -> [u8; TABLE_LEN] {
    let mut table = [0; TABLE_LEN];
    let mut position = 0;
    while position < TABLE_LEN {
        table[position] = (position % PERIOD) as u8;
        position += 1;
    }
    table
}

/// Fills `data` with the pattern from `position` on.
pub fn fill(position: u64, data: &mut [u8]) {
    let (head, body) = data.split_at_mut(head_len(position, data.len()));
    head.copy_from_slice(&TABLE[phase(position)..][..head.len()]);
    for chunk in body.chunks_mut(TABLE_LEN) {
        chunk.copy_from_slice(&TABLE[..chunk.len()]);
    }
}

/// Counts the bytes of `data` that differ from the pattern from `position` on.
#[must_use]
pub fn errors(position: u64, data: &[u8]) -> u64 {
    let (head, body) = data.split_at(head_len(position, data.len()));
    let expected = &TABLE[phase(position)..][..head.len()];
    let chunks = body.chunks(TABLE_LEN);
    differing(head, expected)
        + chunks.map(|chunk| differing(chunk, &TABLE[..chunk.len()])).sum::<u64>()
}

/// Bytes until the table starts over.
fn head_len(position: u64, len: usize) -> usize {
    len.min(TABLE_LEN - phase(position))
}

#[allow(clippy::cast_possible_truncation, reason = "the remainder is below 251")]
const fn phase(position: u64) -> usize {
    (position % PERIOD as u64) as usize
}

fn differing(data: &[u8], expected: &[u8]) -> u64 {
    if data == expected {
        return 0;
    }
    // A byte can count 255 differences, so differences are counted in bytes, many at a time: a
    // client with entirely different data should not be much slower.
    let chunks = data.chunks(255).zip(expected.chunks(255));
    let count =
        |(a, b): (&[u8], &[u8])| -> u8 { a.iter().zip(b).map(|(a, b)| u8::from(a != b)).sum() };
    chunks.map(|pair| u64::from(count(pair))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(position: u64, len: usize) -> Vec<u8> {
        let byte = |p| u8::try_from(p % 251).unwrap();
        (position..).take(len).map(byte).collect()
    }

    #[test]
    fn every_position_and_length_has_its_bytes() {
        for position in [0, 1, 250, 251, 16_063, 16_064, u64::from(u32::MAX)] {
            for len in [0, 1, 250, 251, 512, 16_064, 16_065, 70_000] {
                let mut data = vec![0xff; len];
                fill(position, &mut data);
                assert_eq!(data, expected(position, len), "{len} from {position}");
                assert_eq!(errors(position, &data), 0);
            }
        }
    }

    #[test]
    fn wrong_bytes_are_counted() {
        let mut data = expected(100, 40_000);
        data[0] ^= 1;
        data[20_000] ^= 1;
        data[39_999] ^= 1;
        assert_eq!(errors(100, &data), 3);
        assert_eq!(errors(101, &expected(100, 1000)), 1000);
    }
}
