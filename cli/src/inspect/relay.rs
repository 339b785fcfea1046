//! Inspects the traffic between clients and a server.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use lineframe::{Accepted, AnyIo, Bind, Listener as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::frames::Rules;
use super::log::{Closed, Direction, Log, Place};
use super::notes::Notes;
use super::pass::{Shared, Stopped, pass};
use crate::address::Address;
use crate::failure::Failure;
use crate::listen::Listener;
use crate::signals::Signals;
use crate::{descriptors, stream};

/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// Connects each client to the server, until a signal arrives or the output is closed.
pub(super) async fn run(
    listen: &Address,
    server: Address,
    rules: &Rules,
    log: &Log,
    signals: &mut Option<Signals>,
    notes: &Notes,
) -> Result<(), Failure> {
    let signals = Signals::new().map(|new| signals.insert(new));
    let signals = signals.map_err(|error| Failure::other("cannot wait for signals", error))?;
    descriptors::raise();
    let mut listener = tokio::select! {
        bound = async { Listener::bind(&Bind::new(), listen).await } => bound?,
        _ = signals.next() => return Err(Failure::other("interrupted", "stopped before listening")),
    };
    let address = listener
        .address()
        .map_err(|error| Failure::other("cannot get the address of the listener", error))?;
    notes.note(format_args!("listening {address}"));
    let (rules, server) = (Arc::new(rules.clone()), Arc::new(server));
    let mut connections = JoinSet::new();
    let mut count = 0;
    loop {
        tokio::select! {
            _ = signals.next() => break,
            Some(ended) = connections.join_next() => if let Ok(Err(Closed)) = ended {
                break;
            },
            accepted = listener.accept() => match accepted {
                Ok(client) => {
                    count += 1;
                    let (rules, server) = (rules.clone(), server.clone());
                    let (log, notes) = (log.clone(), notes.clone());
                    connections.spawn(async move {
                        connection(count, client, &server, &rules, &log, &notes).await
                    });
                }
                Err(error) => {
                    notes.note(format_args!("lineframe: cannot accept a connection: {error}"));
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
    Ok(())
}

/// Passes bytes on in both directions until both have ended or one has failed. Then closes both
/// connections; passes on a reset as a reset.
async fn connection(
    count: u64,
    client: Accepted,
    server: &Address,
    rules: &Rules,
    log: &Log,
    notes: &Notes,
) -> Result<(), Closed> {
    let up = Place { connection: count, direction: Direction::ToServer };
    let down = Place { connection: count, direction: Direction::ToClient };
    let mut entries = log.begin(up);
    entries.note(format_args!("from {}", client.peer));
    entries.write().await?;
    let to_server = match stream::connect(server).await {
        Ok(to_server) => to_server,
        Err(failure) => {
            let mut entries = log.begin(up);
            entries.note(failure.message());
            notes.note(format_args!("lineframe: {}", failure.message()));
            return entries.write().await;
        }
    };
    let (mut from_client, mut to_client) = tokio::io::split(client.io);
    let (mut from_server, mut to_server) = tokio::io::split(to_server);
    let shared = Shared::default();
    let both = async {
        tokio::try_join!(
            pass(&mut from_client, &mut to_server, up, &shared, rules, log),
            pass(&mut from_server, &mut to_client, down, &shared, rules, log),
        )
    };
    match both.await {
        Err(Stopped::Output) => Err(Closed),
        Err(Stopped::Read(error)) if error.kind() == ErrorKind::ConnectionReset => {
            reset(from_client.unsplit(to_client));
            reset(from_server.unsplit(to_server));
            Ok(())
        }
        Err(Stopped::Read(_)) | Ok(_) => Ok(()),
    }
}

/// Closes a TCP connection with a reset, and any other stream normally.
fn reset(io: AnyIo) {
    if let Some(io) = io.downcast_ref::<TcpStream>() {
        // Deprecated because lingering may block the closing thread; zero seconds do not block.
        #[allow(deprecated)]
        let set = io.set_linger(Some(Duration::ZERO));
        // If this fails, the peer sees a normal end instead of a reset.
        _ = set;
    }
}
