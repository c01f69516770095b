//! The start of a connection: eight bytes that name an operation, and a busid for an import.
//!
//! Contract: takes bytes, knows no socket; never more than [`REQUEST_LEN_MAX`] bytes: the bytes
//! behind a client's request stay in the socket, for the session.

use std::fmt;

use crate::wire::Error;
use crate::wire::op::{self, IMPORT_BODY_LEN, OP_COMMON_LEN};
use crate::wire::types::BusId;

/// Bytes of the longest request.
pub(crate) const REQUEST_LEN_MAX: usize = OP_COMMON_LEN + IMPORT_BODY_LEN;

/// A client's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// The list of exports.
    Devlist,
    /// A device.
    Import(BusId),
    /// News of a device, whose name follows after the first answer.
    Watch,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Devlist => f.write_str("the list of devices"),
            Self::Import(busid) => busid.fmt(f),
            Self::Watch => f.write_str("news of a device"),
        }
    }
}

/// A request that is arriving.
#[derive(Default)]
pub(crate) struct Handshake {
    bytes: Vec<u8>,
    /// Known from the eighth byte on.
    operation: Option<op::Request>,
}

impl Handshake {
    /// How many bytes to read next; more would belong to the next protocol layer.
    pub(crate) fn wanted(&self) -> usize {
        match self.operation {
            None => OP_COMMON_LEN - self.bytes.len(),
            Some(op::Request::Devlist | op::Request::Watch) => 0,
            Some(op::Request::Import) => REQUEST_LEN_MAX - self.bytes.len(),
        }
    }

    /// Takes bytes, at most [`Self::wanted`], and returns the request once the request is complete.
    ///
    /// # Errors
    /// A request that nobody can answer.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<Option<Request>, Error> {
        debug_assert!(bytes.len() <= self.wanted(), "the next protocol layer's bytes");
        self.bytes.extend_from_slice(bytes);
        if self.operation.is_none() {
            let Some(common) = self.bytes.first_chunk() else { return Ok(None) };
            self.operation = Some(op::Request::parse(common)?);
        }
        if self.wanted() > 0 {
            return Ok(None);
        }
        let body = self.bytes.get(OP_COMMON_LEN..).and_then(<[u8]>::first_chunk);
        Ok(match self.operation {
            Some(op::Request::Devlist) => Some(Request::Devlist),
            Some(op::Request::Watch) => Some(Request::Watch),
            Some(op::Request::Import) => body.map(|busid| Request::Import(BusId::from_wire(busid))),
            None => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMPORT: [u8; 8] = [1, 0x11, 0x80, 3, 0, 0, 0, 0];

    fn feed(bytes: &[u8]) -> Result<Option<Request>, Error> {
        let mut handshake = Handshake::default();
        let mut request = None;
        for byte in bytes {
            assert!(handshake.wanted() > 0);
            request = handshake.receive(&[*byte])?;
        }
        Ok(request)
    }

    #[test]
    fn a_request_may_come_byte_by_byte() {
        let devlist = [1, 0x11, 0x80, 5, 0, 0, 0, 0];
        assert_eq!(feed(&devlist), Ok(Some(Request::Devlist)));
        assert_eq!(feed(&devlist[..7]), Ok(None));
        let mut import = IMPORT.to_vec();
        import.extend_from_slice(BusId::new("1-2").unwrap().as_wire());
        assert_eq!(feed(&import), Ok(Some(Request::Import(BusId::new("1-2").unwrap()))));
        assert_eq!(feed(&import[..39]), Ok(None));
    }

    #[test]
    fn a_request_nobody_can_answer_is_an_error_at_its_eighth_byte() {
        assert_eq!(feed(&[1, 6, 0x80, 5, 0, 0, 0, 0]), Err(Error::Version(0x0106)));
    }
}
