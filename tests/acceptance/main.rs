//! Measures what a server costs under pressure. Run it with `tests/acceptance/run`; `cargo test`
//! does not run it. The server runs in a second process of this program.

mod server;

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use server::Server;

type Outcome = Result<bool, Box<dyn Error>>;

#[tokio::main]
async fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match asked.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serve().await.map(|()| true).map_err(Into::into),
        ["descriptors"] => descriptors().await,
        ["floods"] => floods().await,
        ["idle"] => idle().await,
        _ => Err("expected one argument: descriptors, floods or idle".into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> io::Result<()> {
    let server = lineframe::Server::builder().write_timeout(Duration::from_secs(5)).max_connections(20_000);
    server::serve(server.build(), |line| line.to_ascii_uppercase()).await
}

/// Prints a measurement and returns `true` if it is below its limit.
fn report(what: &str, figure: f64, limit: f64, unit: &str) -> bool {
    let is_good = figure < limit;
    let verdict = if is_good { "" } else { "  TOO MUCH" };
    println!("{what:<55} {figure:>9.2} {unit:<4} (less than {limit} {unit}){verdict}");
    is_good
}

/// Sends a line and checks its reply.
async fn ask(peer: &mut TcpStream) -> io::Result<()> {
    peer.write_all(b"line\n").await?;
    let mut reply = [0; 5];
    peer.read_exact(&mut reply).await?;
    assert_eq!(&reply, b"LINE\n");
    Ok(())
}

/// Connects 60 clients to a server that is limited to 32 descriptors.
async fn descriptors() -> Outcome {
    let server = Server::start("ulimit -n 32; exec \"$0\" serve")?;
    let mut peers = Vec::new();
    for _ in 0..60 {
        peers.push(server.connect().await?);
    }
    let (before, since) = (server.cpu()?, Instant::now());
    let mut served = 0;
    for peer in &mut peers {
        // Clients for which the server has no descriptor left stay in the accept queue.
        let patience =
            if served > 0 && served < 40 { Duration::from_millis(200) } else { Duration::from_secs(1) };
        match timeout(patience, ask(peer)).await {
            Ok(asked) => asked?,
            Err(_) => break,
        }
        served += 1;
    }
    sleep(Duration::from_secs(5).saturating_sub(since.elapsed())).await;
    let cpu = (server.cpu()? - before).as_secs_f64() / since.elapsed().as_secs_f64();
    let errors = server.counters()?.count("accept_errors");
    peers.drain(..45);
    let since = Instant::now();
    ask(&mut server.connect().await?).await?;
    let again = since.elapsed();
    println!("60 clients for 5 s, 32 descriptors: {served} were served");
    Ok(report("  accept errors", errors, 200.0, "")
        & report("  CPU of the server", 100.0 * cpu, 20.0, "%")
        & report("  after 45 clients leave, a new one is served within", again.as_secs_f64(), 1.5, "s"))
}

const GIB: usize = 1 << 30;

/// Runs three clients: one sends 1 GiB without a line end, one sends 1 GiB of lines and never
/// reads, and one measures how fast its requests are answered.
async fn floods() -> Outcome {
    let server = Server::start("exec \"$0\" serve")?;
    let mut third = server.connect().await?;
    // Warms up the server, so that its memory grows only because of the floods.
    let mut warm = server.connect().await?;
    warm.write_all(&b"a line of thirty-two bytes, LF..\n".repeat(10_000)).await?;
    drop(warm);
    for _ in 0..100 {
        ask(&mut third).await?;
    }
    let before = server.memory()?;
    let (endless, deaf) = (server.connect().await?, server.connect().await?);
    let endless = tokio::spawn(endless_line(endless));
    let deaf = tokio::spawn(never_reads(deaf));
    let (mut most, mut took) = (before, Vec::new());
    while !endless.is_finished() || !deaf.is_finished() {
        let since = Instant::now();
        ask(&mut third).await?;
        took.push(since.elapsed());
        most = most.max(server.memory()?);
        sleep(Duration::from_millis(1)).await;
    }
    let (seconds, (sent, waited)) = (endless.await??, deaf.await??);
    took.sort();
    let ms = |at: usize| took[at].as_secs_f64() * 1e3;
    // KiB: the longest line (64), `max_unsent` (64), and 1 MiB of tolerance.
    let limit = (64.0 + 64.0) + 1024.0;
    println!("1 GiB of one line in {seconds:.1} s, and {sent:.1} MiB of lines until the socket was full");
    Ok(report("  growth of the server's memory", (most - before) / 1024.0, limit, "KiB")
        & report("  a client that never reads is closed after (limit 5 s)", waited, 6.0, "s")
        & report("  99 % of a third client's replies come within", ms(took.len() * 99 / 100), 100.0, "ms")
        & report(
            &format!("  all of its {} replies come within", took.len()),
            ms(took.len() - 1),
            1000.0,
            "ms",
        ))
}

/// Sends a line of 1 GiB and returns the time it took in seconds.
async fn endless_line(peer: TcpStream) -> io::Result<f64> {
    let since = Instant::now();
    let mut peer = BufReader::new(peer);
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..GIB / piece.len() {
        peer.write_all(&piece).await?;
    }
    peer.write_all(b"\nline\n").await?;
    let took = since.elapsed().as_secs_f64();
    let mut replies = String::new();
    while !replies.ends_with("LINE\n") {
        assert!(peer.read_line(&mut replies).await? > 0, "{replies}");
    }
    assert_eq!(replies.lines().count(), 2);
    Ok(took)
}

/// Returns how many MiB the server took, and after how many seconds it closed the connection.
async fn never_reads(mut peer: TcpStream) -> io::Result<(f64, f64)> {
    let piece = b"a line of thirty-two bytes, LF..\n".repeat(1000);
    let (mut sent, mut since) = (0, Instant::now());
    while sent < GIB {
        match peer.write(&piece[sent % piece.len()..]).await {
            Ok(count) => sent += count,
            Err(_) => break,
        }
        since = Instant::now();
    }
    Ok((sent as f64 / 1024.0 / 1024.0, since.elapsed().as_secs_f64()))
}

const MANY: usize = 10_000;

/// Connects `MANY` clients, then measures after a line each, after a burst each, after all have
/// disconnected, and after `MANY` new clients have connected.
async fn idle() -> Outcome {
    let server = Server::start("exec \"$0\" serve")?;
    let descriptors = server.descriptors()?;
    ask(&mut server.connect().await?).await?;
    let before = server.memory()?;
    let each = || Ok::<_, io::Error>((server.memory()? - before) / MANY as f64);
    let mut peers = crowd(&server).await?;
    let silent = each()?;
    for peer in &mut peers {
        ask(peer).await?;
    }
    let served = each()?;
    let burst = b"a line of thirty-two bytes, LF..\n".repeat(1800);
    let mut replies = vec![0; burst.len()];
    for peer in &mut peers {
        let (mut reader, mut writer) = peer.split();
        tokio::try_join!(writer.write_all(&burst), reader.read_exact(&mut replies))?;
    }
    let burst = each()?;
    drop(peers);
    while server.descriptors()? > descriptors {
        sleep(Duration::from_millis(10)).await;
    }
    // Tokio frees the last closed sockets when it next polls for events.
    ask(&mut server.connect().await?).await?;
    let left = (server.memory()? - 1.2 * before) / MANY as f64;
    let peers = crowd(&server).await?;
    let again = each()?;
    drop(peers);
    println!("{MANY} idle connections, memory of the server for each");
    Ok(report("  that has sent nothing", silent, 1280.0, "B")
        & report("  that has been served a line", served, 1280.0, "B")
        & report("  that has been served 1800 lines in one burst", burst, 1280.0, "B")
        & report("  that has closed, above 1.2 times the initial memory", left, 1024.0, "B")
        & report("  that connected after those had closed", again, 1400.0, "B"))
}

async fn crowd(server: &Server) -> io::Result<Vec<TcpStream>> {
    let before = server.counters()?.count("accepted");
    let mut peers = Vec::new();
    for _ in 0..MANY {
        peers.push(server.connect().await?);
    }
    while server.counters()?.count("accepted") < before + MANY as f64 {
        sleep(Duration::from_millis(10)).await;
    }
    Ok(peers)
}
