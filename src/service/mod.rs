//! The service manager that has started the program, most often systemd: passed sockets
//! (`sockets`), and messages (`notify`).
//!
//! The protocols are a few variables of the environment and a datagram (sd_listen_fds(3),
//! sd_notify(3)), without a library of systemd's.
//!
//! Contract: each function says whether it blocks.

pub mod notify;
pub mod sockets;
