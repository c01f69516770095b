//! Imports that wait for a program, while a test moves the time.

use std::path::PathBuf;

use super::waiting::status;
use super::*;
use crate::config::hooks::{Hook, Hooks, Program};
use crate::config::rules::matching::Match;
use crate::config::rules::{Origin, Rule, Rules};
use crate::limits::AUTHORIZE_TIMEOUT;
use crate::reactor::client::Awaited;

const NOT_AVAILABLE: u32 = 1;

/// A file, and a program that runs as long as the file is there.
struct Gate(PathBuf);

impl Gate {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("usbferry-gate-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        Self(path)
    }

    fn program(&self) -> Program {
        let text = "while test -e \"$1\"; do sleep 0.01; done";
        let file = self.0.to_str().unwrap();
        let arguments = ["-c", text, "script", file].map(str::to_owned).to_vec();
        Program { path: "/bin/sh".to_owned(), arguments }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn an_import_waits_only_so_long_for_a_program() {
    let gate = Gate::new();
    let mut held = Held::new();
    let mut hooks = Hooks::default();
    hooks.authorize = true;
    hooks.set(Hook::Attach, gate.program());
    let origin = Origin::Flag("--all".to_owned());
    let rule = Rule::exporting(Match::default(), origin);
    held.reactor.settings.rules = Rules::new([Rule { hooks: Arc::new(hooks), ..rule }]);
    let client = held.import(0);
    held.turn_until("a program is asked", |reactor| {
        let mut clients = reactor.connections.iter().filter_map(|(_, c)| c.client.as_ref());
        let asked = clients.find_map(|client| client.asked());
        asked.is_some_and(|asked| asked.awaits == Awaited::Authorization)
    });
    assert!(held.reactor.timeout() > Some(Duration::ZERO), "nothing is to be done meanwhile");
    held.reactor.now += AUTHORIZE_TIMEOUT;
    let reply = held.answer(&client);
    assert_eq!(status(&reply), NOT_AVAILABLE);
    // The late answer is nobody's.
    drop(gate);
    held.turn_until("the client is gone", |_| client.shutdown(Shutdown::Both).is_err());
}
