//! Load for USB/IP servers, any of them: one thread that keeps URBs in flight on one or many
//! sessions, at far less cost than a server that carries them out.
//!
//! What makes it cheap: PDUs are built once, and only their seqnum is written when they are sent;
//! many go out in one write; replies of a load all have one length, so that taking one up is a
//! comparison of four words; and what is long is not copied but discarded by the kernel. Every
//! reply is checked: its seqnum, status and length, and the first bytes of its data.
//!
//! - [`workload`]: what is asked for; - [`pdu`]: the bytes of it;
//! - [`flow`]: one session under load; - [`run`]: one or many of them, for a while;
//! - [`client`]: a plain client for what is not measured, and for tests;
//! - [`histogram`]: turnaround times; - [`process`]: what the system says of a process;
//! - [`abuse`]: clients that mean no good;
//! - [`preload`]: the simulated usbfs of this repository, built and found.
//!
//! Contract: one thread, bounded times: a server that does not answer is an error, not a wait
//! without end.

#![forbid(unsafe_code)]

pub mod abuse;
pub mod client;
pub mod flow;
pub mod histogram;
pub mod pdu;
pub mod preload;
pub mod process;
pub mod run;
pub mod workload;
