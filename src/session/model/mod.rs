//! A model beside the machine: a session between a client and a device made of chance, checked at
//! every step.
//!
//! A run is a list of words. The first says how large everything is ([`operation::Scale`]), each
//! other one lets one thing happen ([`operation::Operation`]): the client sends or gives up a URB,
//! some bytes get through, a transfer ends, the worker does its job, the device goes. Beside the
//! session stands what it should be: [`client`] knows all that was asked and reads each reply as a
//! strict kernel would, [`verdict`] says what has to become of a URB, [`device`] notes what it
//! gets, [`account`] counts, and [`checks`] compares. Nothing of that looks at how the session
//! decides, only at which URB a slot carries and whether all is at home.
//!
//! - [`world`]: what happens; - [`script`]: what the client sends; - [`ending`]: that nothing is
//!   left; - [`stream`]: a client that sends any bytes.
//!
//! `cargo test model` runs some seeds that never change and some that are new each time. A seed
//! that fails is printed, with the few of its steps that are needed. Run again with
//! `USBFERRY_SEED=<seed>`; `USBFERRY_STEPS=10000000` runs so many steps over new seeds, which takes
//! `cargo test --release` a quarter of a minute.

mod account;
mod checks;
mod client;
mod device;
mod ending;
mod operation;
mod script;
pub(crate) mod stream;
mod verdict;
mod world;

#[cfg(test)]
mod tests;

use operation::Operation;
#[cfg(test)]
pub(crate) use operation::Rng;
use world::World;
#[cfg(test)]
pub(super) use {client::DEVID, script::submit_of};

/// Runs words: one world after the other, each until its client goes.
pub(crate) fn run(words: impl IntoIterator<Item = u64>) {
    let mut words = words.into_iter();
    while let Some(scale) = words.next() {
        let mut world = World::new(scale);
        for word in words.by_ref() {
            if !world.apply(Operation::decode(word)) {
                break;
            }
        }
        world.finish();
    }
}
