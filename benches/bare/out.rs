//! Replies on their way to a client: headers and short data in a buffer, long data in the blocks of
//! the transfers.
//!
//! Contract: allocates as needed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};

use mio::net::TcpStream;
use usbferry_sys::arena::{Arena, Block};

/// Bytes of data that are cheaper copied than written from their place.
const SHORT: usize = 4096;

/// Slices of a write.
const SLICES_MAX: usize = 64;

/// Written bytes that the buffer keeps at most.
const WRITTEN_MAX: usize = 1 << 20;

/// A part of the output.
enum Part {
    /// Bytes of the buffer.
    Copied(usize),
    /// The first bytes of a block.
    Block(Block, usize),
}

impl Part {
    const fn len(&self) -> usize {
        match self {
            Self::Copied(len) | Self::Block(_, len) => *len,
        }
    }
}

/// The output of a client.
#[derive(Default)]
pub(crate) struct Out {
    buffer: Vec<u8>,
    /// The start of the first copied part.
    start: usize,
    parts: VecDeque<Part>,
    /// Written bytes of the first part.
    written: usize,
}

impl Out {
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        match self.parts.back_mut() {
            Some(Part::Copied(len)) => *len += bytes.len(),
            _ => self.parts.push_back(Part::Copied(bytes.len())),
        }
    }

    /// Puts `len` bytes of a block from `start` on, or a copy.
    pub(crate) fn put_data(
        &mut self,
        block: Block,
        (start, len): (usize, usize),
        arena: &mut Arena,
    ) {
        if len <= SHORT || start > 0 {
            self.put(&block[start..start + len]);
            arena.free(block);
        } else {
            self.parts.push_back(Part::Block(block, len));
        }
    }

    /// Writes as much as the socket takes. False when the socket is full.
    pub(crate) fn flush(
        &mut self,
        mut stream: &TcpStream,
        mut arena: Option<&mut Arena>,
    ) -> io::Result<bool> {
        while !self.parts.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let used = self.slices(&mut slices);
            let len: usize = slices[..used].iter().map(|slice| slice.len()).sum();
            let written = match stream.write_vectored(&slices[..used]) {
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            self.advance(written, arena.as_deref_mut());
            if written < len {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut at, mut skip) = (self.start, self.written);
        let mut used = 0;
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            let bytes = match part {
                Part::Copied(len) => {
                    at += len;
                    &self.buffer[at - len..at]
                }
                Part::Block(block, len) => &block[..*len],
            };
            *slice = IoSlice::new(&bytes[skip..]);
            (skip, used) = (0, used + 1);
        }
        used
    }

    fn advance(&mut self, written: usize, mut arena: Option<&mut Arena>) {
        self.written += written;
        while let Some(part) = self.parts.front()
            && part.len() <= self.written
        {
            self.written -= part.len();
            match (self.parts.pop_front(), &mut arena) {
                (Some(Part::Copied(len)), _) => self.start += len,
                (Some(Part::Block(block, _)), Some(arena)) => arena.free(block),
                _ => {}
            }
        }
        if self.parts.is_empty() || self.start > WRITTEN_MAX {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
    }

    /// Gives all blocks back.
    pub(crate) fn clear(&mut self, arena: &mut Arena) {
        for part in std::mem::take(&mut self.parts) {
            if let Part::Block(block, _) = part {
                arena.free(block);
            }
        }
    }
}
