use std::convert::Infallible;
use std::future::pending;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use tokio::time::{interval, sleep};

use super::exchange::Exchange;

/// Delay before the bar appears; short transfers show none.
const DELAY: Duration = Duration::from_secs(1);

/// Interval between updates.
const STEP: Duration = Duration::from_millis(200);

/// Templates for input of known and of unknown size. At most 80 columns wide.
const BAR: &str = "{bar:12} {percent}%, {binary_bytes_per_sec}, {eta} left, {msg}";
const COUNT: &str = "{binary_bytes} sent, {binary_bytes_per_sec}, {msg}";

/// Shows a progress bar on stderr if stderr is a terminal and stdout is not. Dropping the future
/// erases the bar.
pub(super) async fn show(exchange: &Exchange<'_>) -> Infallible {
    if !io::stderr().is_terminal() || io::stdout().is_terminal() {
        return pending().await;
    }
    sleep(DELAY).await;
    let (bar, template) = match input_length() {
        Some(length) => (ProgressBar::new(length), BAR),
        None => (ProgressBar::no_length(), COUNT),
    };
    let bar = Cleared(bar);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.0.set_style(style.progress_chars("##-"));
    }
    let mut steps = interval(STEP);
    loop {
        steps.tick().await;
        let (lines, bytes, replies) = exchange.counts();
        bar.0.set_message(format!("{} of {} replies", HumanCount(replies), HumanCount(lines)));
        bar.0.set_position(bytes);
    }
}

/// Returns the size of stdin if it is a regular file.
fn input_length() -> Option<u64> {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;

        let stdin = std::fs::File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
        stdin.metadata().ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len())
    }
    #[cfg(not(unix))]
    None
}

struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
