//! Ctrl-C while `bench` measures: what was measured so far is not lost.

use std::io::{self, Write as _};
use std::thread;

use mommygpt::bench::stop::Stop;
use tokio::signal::unix::{SignalKind, signal};

/// A wish that the first interrupt utters.
pub(super) fn stop_on_interrupt() -> io::Result<Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut interrupts = {
        // From here on an interrupt no longer ends the process.
        let _in = runtime.enter();
        signal(SignalKind::interrupt())?
    };
    let stop = Stop::default();
    let asked = stop.clone();
    thread::Builder::new().name("interrupt".into()).spawn(move || {
        if runtime.block_on(interrupts.recv()).is_some() {
            let _ = writeln!(io::stderr(), "\nmommygpt: ending after this step");
            asked.ask();
        }
    })?;
    Ok(stop)
}
