//! Load for any USB/IP server: a single thread keeps URBs in flight on one or many sessions, at far
//! less cost than the server.
//!
//! The load is cheap for four reasons. PDUs are built once, and only the seqnum is written before
//! sending. Many PDUs go out in one write. All replies of a load have the same length, so a check
//! compares four words. Long data is not copied but discarded by the kernel. Every reply is
//! checked: its seqnum, status and length, and the first bytes of its data.
//!
//! - [`workload`]: the description of a load; - [`pdu`]: its bytes;
//! - [`flow`]: a session under load; - [`run`]: one or many sessions, for a while;
//! - [`unlinks`]: a session whose URBs are all given up;
//! - [`client`]: a plain client for work outside of measurements, and for tests;
//! - [`histogram`]: turnaround times; - [`process`]: the system's figures of a process;
//! - [`abuse`]: malicious clients;
//! - [`preload`]: the simulated usbfs of this repository, built and found.
//!
//! Contract: a single thread, bounded times: a server without an answer is an error, not an endless
//! wait.

#![forbid(unsafe_code)]

pub mod abuse;
pub mod client;
pub mod flow;
pub mod histogram;
pub mod pdu;
pub mod preload;
pub mod process;
pub mod run;
pub mod unlinks;
pub mod workload;
