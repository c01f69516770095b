//! A model beside the machine: a session between a client and a device made of chance, checked at
//! every step.
//!
//! A run is a list of words. The first says how large everything is ([`operation::Scale`]), each
//! other makes a single thing happen ([`operation::Operation`]): the client sends or gives up a
//! URB, some bytes get through, a transfer ends, the worker does a job, the device goes. Beside the
//! session stands the measure: [`client`] knows all commands, [`replies`] reads each reply as a
//! strict kernel would, [`verdict`] says how a URB is to be treated, [`device`] notes each
//! submission, [`account`] counts, and [`checks`] compares. None of these modules look at how the
//! session decides, only at which URB a slot carries and whether all is at home.
//!
//! - [`world`]: the steps; [`results`]: how transfers end; [`script`]: the client's commands;
//! - [`ending`]: the end, with nothing left;
//! - [`stream`]: a client of any bytes;
//! - [`rng`]: chance from a seed.
//!
//! `cargo test model` runs some seeds which never change and some new each time. A failing seed is
//! printed, with the few steps needed for the failure. Run again with `USBFERRY_SEED=<seed>`;
//! `USBFERRY_STEPS=10000000` runs ten million steps over new seeds, which takes `cargo test
//! --release` a quarter of a minute.

mod account;
mod checks;
mod client;
mod device;
mod ending;
mod operation;
mod replies;
mod results;
mod rng;
mod script;
pub(crate) mod stream;
mod verdict;
mod world;

#[cfg(test)]
mod tests;

use operation::Operation;
#[cfg(test)]
pub(crate) use rng::Rng;
use world::World;
#[cfg(test)]
pub(super) use {client::DEVID, script::submit_of};

/// Runs words: world after world, each until the client goes.
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
