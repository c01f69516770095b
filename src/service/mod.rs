//! The service manager that has started this program, most often systemd: its sockets
//! (`sockets`), and the messages to it (`notify`).
//!
//! The protocols are a few variables of the environment and a datagram (sd_listen_fds(3),
//! sd_notify(3)), without a library of systemd's.
//!
//! Contract: each function says whether it blocks.

pub mod notify;
pub mod sockets;
