//! `--simulate`, in programs that were built with the feature of the same name. Without the feature
//! the option does not exist.
//!
//! Contract: no I/O.

use clap::Args;

use super::error::UsageError;
use super::serve::Chosen;
#[cfg(feature = "simulate")]
use crate::usb::sim::spec::{self, Spec};

/// The choice of simulated devices.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Simulation {
    /// Export simulated devices instead of real devices: a list of disk, microphone, loopback and
    /// serial, each with options after colons, and replay:FILE.pcapng, the device of a recording
    /// (docs/capture.md). Without a list: a disk, a microphone and a loopback.
    /// Examples: --simulate, --simulate=disk:size=64M, --simulate=loopback:delay=1ms:count=2
    #[cfg(feature = "simulate")]
    #[arg(
        long,
        value_name = "DEVICES",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = spec::ONE_OF_EACH,
        conflicts_with = "all"
    )]
    simulate: Option<String>,
}

#[cfg(feature = "simulate")]
impl Simulation {
    /// Whether simulated devices are wanted.
    pub(super) const fn is_wanted(&self) -> bool {
        self.simulate.is_some()
    }

    /// The devices, if any are wanted.
    pub(super) fn chosen(&self) -> Option<Result<Chosen, UsageError>> {
        let text = self.simulate.as_ref()?;
        Some(Spec::parse_list(text).map_err(UsageError::Simulate).map(Chosen::Simulated))
    }
}

#[cfg(not(feature = "simulate"))]
impl Simulation {
    /// Whether simulated devices are wanted.
    pub(super) const fn is_wanted(&self) -> bool {
        false
    }

    /// The devices, if any are wanted.
    pub(super) const fn chosen(&self) -> Option<Result<Chosen, UsageError>> {
        None
    }
}

/// How to type a list of devices behind `--simulate`, if an argument is such a list: the list has
/// an equals sign in front.
#[cfg(feature = "simulate")]
pub(super) fn tip(argument: &str) -> Option<String> {
    let is_list = Spec::parse_list(argument).is_ok();
    is_list.then(|| format!("type --simulate={argument}, with an equals sign"))
}

/// How to type a list of devices: not at all.
#[cfg(not(feature = "simulate"))]
pub(super) const fn tip(_argument: &str) -> Option<String> {
    None
}
