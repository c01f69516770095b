//! Byte vectors in the form of the tests.

/// Reads a vector: words and bytes in hexadecimal, `0` for a zero word, `Z(n)` for n zero bytes,
/// `D` for the devid of the first device. Slashes and white space only divide.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let tokens = text.split(|c: char| c.is_whitespace() || c == '/');
    tokens.filter(|token| !token.is_empty()).flat_map(token_bytes).collect()
}

fn token_bytes(token: &str) -> Vec<u8> {
    if token == "D" {
        return super::D.to_be_bytes().to_vec();
    }
    if token == "0" {
        return vec![0; 4];
    }
    if let Some(count) = token.strip_prefix("Z(").and_then(|rest| rest.strip_suffix(')')) {
        return vec![0; count.parse().expect("a count of zeroes")];
    }
    assert!(token.len().is_multiple_of(2), "an odd number of digits: {token}");
    let byte = |at| u8::from_str_radix(&token[at..at + 2], 16).expect("hexadecimal digits");
    (0..token.len()).step_by(2).map(byte).collect()
}
