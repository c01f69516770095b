//! `usbferry-load`: puts a USB/IP server under load, from the command line.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use usbferry_load::client::Client;
use usbferry_load::flow::Flow;
use usbferry_load::process::{self, Usage};
use usbferry_load::run::{self, Moment, Outcome, Plan};
use usbferry_load::unlinks;
use usbferry_load::workload::{Check, Traffic, Workload};

/// Keeps URBs in flight on devices of a USB/IP server, and prints the number and rate of the
/// answers.
#[derive(Parser, Debug)]
#[command(max_term_width = 100)]
struct Arguments {
    /// The server, HOST:PORT
    server: String,

    /// Devices, by busid, separated by commas: a session each
    #[arg(value_delimiter = ',', required = true)]
    busids: Vec<String>,

    /// Kind of URBs: bulk-in:LEN, bulk-out:LEN, iso-in:PACKETSxLEN, iso-out:PACKETSxLEN,
    /// control-in, or unlinked:LEN, on a single session
    #[arg(long, default_value = "bulk-in:512")]
    kind: Traffic,

    /// URBs in flight on each session
    #[arg(long, default_value_t = 16)]
    depth: usize,

    /// Endpoint number, if other than in usbferry's simulated devices
    #[arg(long)]
    endpoint: Option<u8>,

    /// Set an interface's alternate setting first, INTERFACE.SETTING; isochronous loads on
    /// usbferry's simulated devices set 1.1
    #[arg(long, value_parser = parse_setting)]
    interface: Option<(u8, u8)>,

    /// Check of IN data
    #[arg(long, value_enum, default_value_t = Data::Length)]
    check: Data,

    /// Length of the run in milliseconds, after a quarter more for warming up
    #[arg(long, default_value_t = 2000)]
    milliseconds: u64,

    /// The server's process, for figures of its resources; on this machine only
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Data {
    /// The length
    Length,
    /// A counter in the first eight bytes, as in the simulated usbfs
    Counter,
    /// The pattern of usbferry's simulated loopback
    Pattern,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), String> {
    let mut workload = Workload::new(arguments.kind, arguments.depth.max(1));
    workload.endpoint = arguments.endpoint.unwrap_or(workload.endpoint);
    let time = Duration::from_millis(arguments.milliseconds);
    let mut usages: [Usage; 2] = Default::default();
    let look = |moment| {
        let usage = arguments.pid.and_then(process::usage).unwrap_or_default();
        usages[usize::from(moment == Moment::End)] = usage;
    };
    let plan = Plan { warm_up: time / 4, time };
    let outcome = if let Traffic::Unlinked(_) = workload.traffic {
        let client = Client::attach_when_free(&arguments.server, &arguments.busids[0]);
        let client = client.map_err(|error| error.to_string())?;
        unlinks::run(client, workload, plan, look)
    } else {
        let mut flows = Vec::new();
        for busid in &arguments.busids {
            flows.push(attach(arguments, workload, busid).map_err(|e| format!("{busid}: {e}"))?);
        }
        run::run(&mut flows, workload.depth, plan, look)
    };
    let outcome = outcome.map_err(|error| error.to_string())?;
    report(arguments, &workload, &outcome, usages[1].since(usages[0]));
    Ok(())
}

fn attach(arguments: &Arguments, workload: Workload, busid: &str) -> Result<Flow, String> {
    let mut client =
        Client::attach_when_free(&arguments.server, busid).map_err(|error| error.to_string())?;
    let setting = arguments.interface.or_else(|| workload.packets().map(|_| (1, 1)));
    if let Some((interface, setting)) = setting {
        client.set_interface(interface, setting).map_err(|error| error.to_string())?;
    }
    let check = match arguments.check {
        Data::Length => Check::Length,
        Data::Counter => Check::Counter,
        Data::Pattern => Check::Pattern,
    };
    Flow::new(client, workload, check).map_err(|error| error.to_string())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn report(arguments: &Arguments, workload: &Workload, outcome: &Outcome, used: Usage) {
    let rate = outcome.rate();
    println!(
        "{}, {} in flight on {} sessions",
        workload.traffic,
        workload.depth,
        arguments.busids.len()
    );
    println!("  {rate:.0} URB/s, {:.1} MB/s", rate * workload.len() as f64 / 1e6);
    let at = |per_million| outcome.turnaround.quantile(per_million).as_nanos() as f64 / 1e3;
    println!(
        "  turnaround p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs",
        at(500_000),
        at(990_000),
        at(999_000)
    );
    let share = |cpu: Duration| 100.0 * cpu.as_secs_f64() / outcome.time.as_secs_f64();
    if let Some(cpu) = outcome.own_cpu {
        println!("  load generator: {:.0} % of a processor", share(cpu));
    }
    if arguments.pid.is_some() {
        let each = used.cpu.as_secs_f64() * 1e6 / outcome.urbs.max(1) as f64;
        println!("  server: {:.0} % of a processor, {each:.2} µs a URB", share(used.cpu));
    }
    if let (Some(least), Some(most)) =
        (outcome.by_session.iter().min(), outcome.by_session.iter().max())
        && outcome.by_session.len() > 1
    {
        println!("  URBs of a session: {least} to {most}");
    }
}

fn parse_setting(text: &str) -> Result<(u8, u8), String> {
    let parsed = text
        .split_once('.')
        .and_then(|(interface, setting)| Some((interface.parse().ok()?, setting.parse().ok()?)));
    parsed.ok_or_else(|| "give INTERFACE.SETTING, such as 1.1".to_owned())
}
