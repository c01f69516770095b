//! A client's wait before the first URB: for the list of devices, and for a device, with thirty
//! devices on the bus. Over loopback TCP, on the real libusb with the simulated usbfs of
//! `testkit/usbfs`.
//!
//! Each request is a connection of its own, like the stock `usbip` tool's. The baseline is the same
//! server with one device on the bus: a server that looks through the bus for each request takes
//! longer for more devices. With `--beside PROGRAM` the baseline is another build of usbferry.
//!
//! Linux only; on other systems the bench says so.

use std::process::ExitCode;

#[allow(dead_code, reason = "this bench has rows and a report of its own")]
mod harness;
#[cfg(target_os = "linux")]
#[path = "harness/tree.rs"]
#[allow(dead_code, reason = "nothing is counted here")]
mod tree;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    println!("requests: there is no usbfs to simulate on this system");
    ExitCode::SUCCESS
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    harness::main(linux::bench)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::path::Path;
    use std::thread;
    use std::time::{Duration, Instant};

    use usbferry_load::client::{AttachError, Client, PATIENCE, devlist};
    use usbferry_load::preload;

    use crate::harness::report::spread;
    use crate::harness::server::Server;
    use crate::harness::settings::{self, Cores, Settings, pin};
    use crate::tree::Tree;

    /// The devices on the bus of the measured server, and of its baseline.
    const MANY: &str = "count=30:quota=512M";
    const SINGLE: &str = "count=1:quota=512M";

    /// Requests of a kind in a measurement; the median counts.
    const REQUESTS: usize = 50;
    const REQUESTS_SMOKE: usize = 5;

    /// The rest before each request: clients come one by one, to a server that has done what the
    /// request before left to do.
    const REST: Duration = Duration::from_millis(20);

    /// A kind of request: its name, and the client's timed action.
    type Request = (&'static str, fn(&Subject) -> Result<Duration, String>);
    const ROWS: [Request; 4] = [
        ("DEVLIST", ask_devlist),
        ("IMPORT", import),
        ("IMPORT of a busid without a device", import_nothing),
        ("IMPORT, use and return", visit),
    ];

    pub(crate) fn bench(settings: &Settings) -> Result<(), String> {
        let scratch = settings::results()?;
        let library = preload::build(Path::new(env!("CARGO_MANIFEST_DIR")), &scratch)?;
        let arguments: Vec<String> =
            std::iter::once("--all".to_owned()).chain(settings.serve.iter().cloned()).collect();
        let tree = Tree::new(&scratch, "requests", MANY)?;
        let server = Subject::new(Server::usbferry(&arguments, &tree.environment(&library))?)?;
        let (what, devices) = match settings.beside() {
            Some(program) => (program.display().to_string(), MANY),
            None => ("the same with one device".to_owned(), SINGLE),
        };
        let baseline_tree = Tree::new(&scratch, "requests-baseline", devices)?;
        let environment = baseline_tree.environment(&library);
        let baseline = Subject::new(match settings.beside() {
            Some(program) => Server::build(program, &arguments, &environment)?,
            None => Server::usbferry(&arguments, &environment)?,
        })?;
        if settings.cores == Cores::One {
            for pid in [std::process::id(), server.server.pid(), baseline.server.pid()] {
                pin(pid, 0);
            }
        }
        let rows: Vec<_> = ROWS.iter().filter(|(name, _)| settings.selects(name, true)).collect();
        settings.expect_some(&rows)?;
        println!("requests, 30 devices on the bus, beside {what}: {} pairs", settings.pairs);
        println!("{:38} {:>9} {:>9} {:>7} {:>11}", "row", "us", "base us", "ratio", "least-most");
        for request in rows {
            println!("{}", row(request, settings, [&server, &baseline])?);
        }
        println!(
            "us: from connecting until the reply is whole, the median of a pair's requests, of \
             which the table has the median over the pairs. ratio: us beside base us, pair by pair."
        );
        Ok(())
    }

    /// A measured server.
    struct Subject {
        server: Server,
        /// Devices in the list while no client has a device.
        devices: u32,
    }

    impl Subject {
        fn new(server: Server) -> Result<Self, String> {
            let devices = devlist(&*server.address).map_err(|error| error.to_string())?;
            Ok(Self { server, devices })
        }

        fn devlist(&self) -> Result<u32, String> {
            devlist(&*self.server.address).map_err(|error| error.to_string())
        }

        fn attach(&self) -> Result<Client, String> {
            Client::attach(&*self.server.address, "1-1").map_err(|error| error.to_string())
        }

        /// Waits until no client has a device: a device is listed again after being given back.
        fn wait_until_free(&self) -> Result<(), String> {
            let begun = Instant::now();
            while self.devlist()? < self.devices {
                if begun.elapsed() > PATIENCE {
                    return Err("the device is not given back".to_owned());
                }
            }
            Ok(())
        }
    }

    /// Measures a kind of request in pairs.
    fn row(
        &(name, request): &Request,
        settings: &Settings,
        [subject, baseline]: [&Subject; 2],
    ) -> Result<String, String> {
        let count = if settings.smoke { REQUESTS_SMOKE } else { REQUESTS };
        let median = |subject: &Subject| -> Result<f64, String> {
            let rested = |_| {
                thread::sleep(REST);
                request(subject)
            };
            let times: Result<Vec<_>, _> = (0..count).map(rested).collect();
            let times = times.map_err(|error| format!("{name}: {error}"))?;
            Ok(spread(times.iter().map(Duration::as_secs_f64)).median * 1e6)
        };
        let mut pairs = Vec::new();
        for _ in 0..settings.pairs.max(1) {
            pairs.push((median(subject)?, median(baseline)?));
        }
        let own = spread(pairs.iter().map(|(own, _)| *own)).median;
        let base = spread(pairs.iter().map(|(_, base)| *base)).median;
        let ratio = spread(pairs.iter().map(|(own, base)| own / base));
        Ok(format!(
            "{name:38} {own:>9.0} {base:>9.0} {:>7.2} {:>5.2}-{:<5.2}",
            ratio.median, ratio.least, ratio.most
        ))
    }

    fn ask_devlist(subject: &Subject) -> Result<Duration, String> {
        let begun = Instant::now();
        let devices = subject.devlist()?;
        let time = begun.elapsed();
        if devices == subject.devices { Ok(time) } else { Err(format!("{devices} listed")) }
    }

    /// The time until a client has its device.
    fn import(subject: &Subject) -> Result<Duration, String> {
        let begun = Instant::now();
        let client = subject.attach()?;
        let time = begun.elapsed();
        drop(client);
        subject.wait_until_free()?;
        Ok(time)
    }

    fn import_nothing(subject: &Subject) -> Result<Duration, String> {
        let begun = Instant::now();
        match Client::attach(&*subject.server.address, "9-9") {
            Err(AttachError::Refused(_)) => Ok(begun.elapsed()),
            other => Err(format!("9-9: {other:?} instead of a refusal")),
        }
    }

    /// The time of a whole visit: import, a control transfer, and until the device is free.
    fn visit(subject: &Subject) -> Result<Duration, String> {
        let begun = Instant::now();
        let mut client = subject.attach()?;
        client.clear_counters().map_err(|error| error.to_string())?;
        drop(client);
        subject.wait_until_free()?;
        Ok(begun.elapsed())
    }
}
