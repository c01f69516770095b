//! What to simulate, from the environment: options behind colons, as in
//! `USBFERRY_USBFS=count=8:delay=200us:stall=100`.
//!
//! | option | meaning | default |
//! | --- | --- | --- |
//! | `count=K` | so many devices, 1-1 to 1-K | 1 |
//! | `delay=TIME` | URBs end so long after they were submitted | at once |
//! | `data=counter`, `pattern`, `none` | what IN data is: a counter in the first eight bytes, or the byte at stream position `p` is `p % 251`, and OUT data is checked for that | `counter` |
//! | `stall=N` | every Nth URB stalls | never |
//! | `unplug=N` | the Nth URB of a device unplugs it | never |
//! | `quota=SIZE` | `usbfs_memory_mb`: bytes of URBs and mappings, beyond which is ENOMEM | 16M |
//! | `slow=TIME` | RESET, SET_INTERFACE and SET_CONFIGURATION take so long | at once |
//! | `driver=NAME` | kernel driver that has all interfaces at first; empty for none | `simulated` |
//!
//! URBs of the default endpoint neither stall nor unplug. A TIME is a number with `us` or `ms`, a
//! SIZE one with `K` or `M`.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use crate::refuse;

/// Most devices: numbers 2 to 255 of one bus.
const DEVICES_MAX: usize = 254;

/// Where the tree goes.
const ROOT: &str = "USBFERRY_USBFS_ROOT";
/// What to simulate.
const OPTIONS: &str = "USBFERRY_USBFS";

/// What IN data is, and OUT data is expected to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Data {
    /// Whatever is in the buffer.
    None,
    /// The number of the URB on its endpoint, in eight bytes.
    Counter,
    /// The pattern.
    Pattern,
}

/// What to simulate.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) root: PathBuf,
    pub(crate) count: usize,
    pub(crate) delay: Duration,
    pub(crate) data: Data,
    pub(crate) stall: Option<u64>,
    pub(crate) unplug: Option<u64>,
    pub(crate) quota: usize,
    pub(crate) slow: Duration,
    pub(crate) driver: String,
}

/// The options of this process.
pub(crate) fn get() -> &'static Options {
    static CHOSEN: OnceLock<Options> = OnceLock::new();
    CHOSEN.get_or_init(|| Options::read().unwrap_or_else(|message| refuse(&message)))
}

impl Options {
    fn read() -> Result<Self, String> {
        let root = std::env::var_os(ROOT).ok_or_else(|| format!("{ROOT} is not set"))?;
        let root = std::fs::canonicalize(&root)
            .map_err(|error| format!("{ROOT} {}: {error}", root.display()))?;
        let mut options = Self {
            root,
            count: 1,
            delay: Duration::ZERO,
            data: Data::Counter,
            stall: None,
            unplug: None,
            quota: 16 << 20,
            slow: Duration::ZERO,
            driver: "simulated".to_owned(),
        };
        let text = std::env::var(OPTIONS).unwrap_or_default();
        for option in text.split(':').filter(|option| !option.is_empty()) {
            options.set(option).ok_or_else(|| format!("{OPTIONS}: “{option}” is no option"))?;
        }
        Ok(options)
    }

    fn set(&mut self, option: &str) -> Option<()> {
        let (name, value) = option.split_once('=')?;
        match name {
            "count" => {
                let count = value.parse().ok();
                self.count = count.filter(|count| (1..=DEVICES_MAX).contains(count))?;
            }
            "delay" => self.delay = parse_time(value)?,
            "data" => {
                self.data = match value {
                    "none" => Data::None,
                    "counter" => Data::Counter,
                    "pattern" => Data::Pattern,
                    _ => return None,
                }
            }
            "stall" => self.stall = Some(parse_number(value)?),
            "unplug" => self.unplug = Some(parse_number(value)?),
            "quota" => self.quota = parse_size(value)?,
            "slow" => self.slow = parse_time(value)?,
            "driver" => value.clone_into(&mut self.driver),
            _ => return None,
        }
        Some(())
    }
}

fn parse_number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|&number| number > 0)
}

fn parse_time(text: &str) -> Option<Duration> {
    match (text.strip_suffix("us"), text.strip_suffix("ms")) {
        (Some(number), _) => number.parse().ok().map(Duration::from_micros),
        (_, Some(number)) => number.parse().ok().map(Duration::from_millis),
        _ => None,
    }
}

fn parse_size(text: &str) -> Option<usize> {
    let (number, shift) = match (text.strip_suffix('K'), text.strip_suffix('M')) {
        (Some(number), _) => (number, 10),
        (_, Some(number)) => (number, 20),
        _ => (text, 0),
    };
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}
