//! Hooks: programs that events of a device start, as the rules name them ([`config::hooks`]).
//!
//! - `event`: an event in words for a program, its environment;
//! - `output`: what a program writes, for the log;
//! - `program`: one run of a program, from its start to its end or its killing;
//! - `runner`: the queue of events, and the threads with the programs.
//!
//! # The world of a program
//! A program gets the arguments of its rule, no shell, and the facts in variables of its
//! environment. Facts from devices and clients are values of variables only, without control
//! characters, so no device and no client has a word in the choice of what runs. The directory is
//! `/`, standard input is empty, the first lines of standard output and standard error go to the
//! log, and no other descriptor of the server comes along.
//!
//! # Limits
//! The programs of a device run one after another, in the order of the events; the programs of
//! different devices side by side, [`HOOKS_RUNNING_MAX`] at most. A program that authorizes an
//! import waits for none of these: such programs have [`QUESTIONS_RUNNING_MAX`] places of their
//! own, [`QUESTIONS_PER_DEVICE_MAX`] for a device, half of either for an address, and are killed
//! when their client has left. [`HOOKS_WAITING_MAX`] events wait, further events are dropped. A
//! program leads a process group of its own. After [`HOOK_TIMEOUT`] the group is killed, and at the
//! end of the program whatever is left of the group: nothing outlives its event, unless it leaves
//! the group (`setsid`), as for udev's programs. A program that does not do well is a line of the
//! log, within the budget for such lines.
//!
//! [`config::hooks`]: crate::config::hooks
//! [`HOOKS_RUNNING_MAX`]: crate::limits::HOOKS_RUNNING_MAX
//! [`HOOKS_WAITING_MAX`]: crate::limits::HOOKS_WAITING_MAX
//! [`QUESTIONS_RUNNING_MAX`]: crate::limits::QUESTIONS_RUNNING_MAX
//! [`QUESTIONS_PER_DEVICE_MAX`]: crate::limits::QUESTIONS_PER_DEVICE_MAX
//! [`HOOK_TIMEOUT`]: crate::limits::HOOK_TIMEOUT
//!
//! Contract: the reactor puts events in and takes answers out, without a wait; programs are started
//! and awaited on threads of their own. Only [`Runner::end`] blocks, for a bounded time.

mod event;
mod output;
mod program;
mod runner;

pub(crate) use event::{Event, Facts};
pub(crate) use program::Failure;
pub(crate) use runner::{Order, Runner};
