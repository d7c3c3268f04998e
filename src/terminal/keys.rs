//! What a person presses while an answer is being written.

use std::collections::VecDeque;
use std::io;

#[cfg(unix)]
use tokio::io::AsyncReadExt as _;

use super::Input;

/// Longest line that is read while an answer is being written; a terminal's own line buffer is 4 KiB.
const MAX_LINE_BYTES: usize = 4096;

/// Listens for Ctrl-C and, on a terminal, for lines typed while an answer is being written.
pub(super) struct Keys {
    has_terminal: bool,
    /// Messages and commands other than `/stop`, to be taken up after the answer.
    pub(super) typed_ahead: VecDeque<String>,
}

impl Keys {
    /// Ctrl-C only: stdin is a file or somebody else's.
    pub(super) fn interrupt_only() -> Self {
        Self { has_terminal: false, typed_ahead: VecDeque::new() }
    }

    /// Ctrl-C, `/stop` and what is typed ahead.
    pub(super) fn with_terminal() -> Self {
        Self { has_terminal: true, typed_ahead: VecDeque::new() }
    }

    /// Returns when the person wants the answer to stop.
    pub(super) async fn stop(&mut self) -> io::Result<()> {
        let Self { has_terminal, typed_ahead } = self;
        let typed = async {
            if !*has_terminal || stop_line(typed_ahead).await.is_err() {
                // A terminal that cannot be watched leaves Ctrl-C.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed,
            () = typed => Ok(()),
        }
    }
}

/// Returns when a line asks for the end of the answer; other lines go to `typed_ahead`.
#[cfg(unix)]
async fn stop_line(typed_ahead: &mut VecDeque<String>) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;

    // Opened a second time, so that nothing is left in a buffer which the line editor does not know, and that waiting
    // here does not change how the editor's own handle reads.
    let mut options = std::fs::OpenOptions::new();
    let terminal = options.read(true).custom_flags(libc::O_NONBLOCK).open("/dev/tty")?;
    let mut terminal = tokio::net::unix::pipe::Receiver::from_file_unchecked(terminal)?;
    loop {
        // In its line mode a terminal gives one line a read.
        let mut line = [0; MAX_LINE_BYTES];
        let n = terminal.read(&mut line).await?;
        let line = String::from_utf8_lossy(&line[..n]).trim().to_owned();
        match Input::parse(&line) {
            Input::Stop => return Ok(()),
            Input::Bye => {
                typed_ahead.push_back(line);
                return Ok(());
            }
            Input::Nothing if n == 0 => return Ok(()),
            Input::Nothing => {}
            Input::Help | Input::New | Input::Unknown(_) | Input::Message(_) => typed_ahead.push_back(line),
        }
    }
}

#[cfg(not(unix))]
async fn stop_line(_typed_ahead: &mut VecDeque<String>) -> io::Result<()> {
    std::future::pending().await
}
