//! The common parts of the benches of the whole server:
//!
//! - [`server`]: servers as processes; - [`ceiling`]: the minimal server;
//! - [`capturing`]: servers with captures; - [`scraping`]: a server whose metrics are scraped;
//! - [`rows`]: loads; - [`settings`]: the choice of loads on the command line;
//! - [`measure`]: in pairs against the ceiling; - [`syscalls`]: counting with `perf`;
//! - [`report`]: tables and JSON of the results, which `benches/plot` draws.
//!
//! The bench itself is the client: its single thread runs the load generator. A bench fails when a
//! server gives a wrong answer. The speed is printed, not judged.

pub(crate) mod capturing;
pub(crate) mod ceiling;
pub(crate) mod measure;
pub(crate) mod report;
pub(crate) mod rows;
#[allow(dead_code, reason = "only the bench of the exporter has a server with scraped metrics")]
pub(crate) mod scraping;
pub(crate) mod server;
pub(crate) mod settings;
pub(crate) mod syscalls;

use std::fs;
use std::process::ExitCode;

use measure::Bench;
use report::Figures;
use rows::{Row, Target};
use settings::Settings;
use usbferry_load::workload::Workload;

/// The main function of a bench: runs the ceiling's server on request, otherwise `bench`.
pub(crate) fn main(bench: impl FnOnce(&Settings) -> Result<(), String>) -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let result = if arguments.next().is_some_and(|argument| argument == server::CEILING) {
        ceiling::serve().map_err(|error| error.to_string())
    } else {
        bench(&Settings::read())
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Measures all selected rows, prints each at once, and writes the results to files. `target` has
/// the goal of a load on a single session; `more` are rows of one bench alone.
pub(crate) fn measure(
    name: &str,
    bench: &Bench<'_>,
    target: impl Fn(&Workload) -> Target,
    more: Vec<Row>,
) -> Result<(), String> {
    let is_beside = bench.beside.is_some();
    let mut rows = if is_beside { rows::beside() } else { rows::all(target) };
    rows.extend(more.into_iter().map(|row| if is_beside { row.beside() } else { row }));
    if bench.capturing.is_some() {
        rows.extend(rows::captured());
    }
    if bench.scraped.is_some() {
        rows.extend(rows::scraped());
    }
    measure_rows(name, bench, &rows)
}

/// Measures those rows of a bench that the settings select.
pub(crate) fn measure_rows(name: &str, bench: &Bench<'_>, rows: &[Row]) -> Result<(), String> {
    let settings = bench.settings;
    let name = &settings.results_name(name);
    let how = format!(
        "{} pairs of {} ms, cores {:?}",
        settings.pairs,
        settings.plan.time.as_millis(),
        settings.cores,
    );
    let selected = rows.iter().filter(|row| settings.selects(&row.name, row.smoke));
    let selected: Vec<&Row> = selected.collect();
    settings.expect_some(&selected)?;
    println!("{name}: {how}\n{}", report::head(bench.bare.is_some()));
    let mut all = Vec::new();
    for row in selected {
        let figures = Figures::of(&bench.row(row)?);
        println!("{}", report::line(&figures));
        all.push(figures);
    }
    println!("{}", report::LEGEND);
    if let Some(other) = settings.beside() {
        println!("{}", report::beside(other, &all));
    }
    if let Some(summary) = report::beside_bare(&all) {
        println!("{summary}");
    }
    if all.iter().any(|row| row.syscalls.is_none()) {
        println!("{}", syscalls::MISSING);
    }
    let directory = settings::results()?;
    write(&directory.join(format!("{name}.json")), &report::json(name, &how, &all))?;
    println!("written to target/bench/{name}.json; benches/plot draws the file");
    Ok(())
}

pub(crate) fn write(path: &std::path::Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
