//! The plan of a seed: a server, its handler, and peers with their timed actions.

use crate::model::{Kind, Model};

/// Virtual milliseconds since the start.
pub type Ms = u64;
pub const NEVER: Ms = Ms::MAX;

/// The splitmix64 generator.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// `next_line` and `write_line`.
    Lines,
    /// `next_line` and `send_line`.
    Sends,
    /// `next_batch`; takes this many lines of each batch and puts the others back.
    Batches(usize),
    Reply,
    ReplyInto,
    /// Borrowed halves, rejoined after this many lines.
    Split(u64),
    /// Each half in its own task.
    Tasks,
    /// `Lines` in a task of its own.
    Spawned,
    /// `next_line` with a timeout; the future is dropped and created again.
    Impatient(Ms),
    /// Waits this long before each reply.
    Sleeper(Ms),
    /// Ends after this many lines, and so do the next two.
    Early(u64),
    Failing(u64),
    Panicking(u64),
}

#[derive(Clone, Debug)]
pub struct Config {
    pub model: Model,
    pub handler: Handler,
    /// How many times a reply repeats the line.
    pub repeats: usize,
    pub max_connections: usize,
    pub max_bad_lines: Option<u64>,
    pub max_unsent: usize,
    pub idle_timeout: Option<Ms>,
    pub line_timeout: Option<Ms>,
    pub write_timeout: Option<Ms>,
    pub drain_timeout: Option<Ms>,
    pub linger_timeout: Ms,
    /// The duration of the handshake.
    pub handshake: Option<Ms>,
    pub handshake_timeout: Option<Ms>,
}

#[derive(Clone, Debug)]
pub enum Step {
    Send(Vec<u8>),
    HalfClose,
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Reads immediately. At the end of the stream it closes, or continues with its steps.
    Eagerly {
        closes_at_end: bool,
    },
    /// Reads at most `most` bytes every `every` milliseconds.
    Slowly {
        most: usize,
        every: Ms,
    },
    Never,
}

#[derive(Clone, Debug)]
pub struct Peer {
    pub connect: Ms,
    /// The errors that `accept` returns before this peer; `true` is an error of a single
    /// connection.
    pub accept_errors: Vec<bool>,
    /// The steps in order of time.
    pub steps: Vec<(Ms, Step)>,
    pub reads: Reads,
    pub capacity: usize,
    pub flaws: Option<Rng>,
}

impl Peer {
    /// Returns the stream that the peer sends, and when how many bytes have arrived.
    pub fn stream(&self) -> (Vec<u8>, Vec<(Ms, usize)>) {
        let (mut stream, mut arrivals) = (Vec::new(), Vec::new());
        for (at, step) in &self.steps {
            if let Step::Send(bytes) = step {
                stream.extend_from_slice(bytes);
                arrivals.push((*at, stream.len()));
            }
        }
        (stream, arrivals)
    }

    pub fn when(&self, is: fn(&Step) -> bool) -> Ms {
        self.steps.iter().find(|(_, step)| is(step)).map_or(NEVER, |(at, _)| *at)
    }
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub config: Config,
    pub peers: Vec<Peer>,
    /// `None` starts the shutdown after everything has ended.
    pub drain_at: Option<Ms>,
}

impl Plan {
    /// Events are at multiples of 4 ms, slow reads 1 ms and the shutdown 2 ms later, so that they
    /// never coincide.
    pub fn new(rng: &mut Rng) -> Self {
        let config = config(rng);
        let mut connect = 0;
        let peers = (0..1 + rng.below(5))
            .map(|_| {
                connect += if rng.one_in(2) { 0 } else { 4 * rng.below(300) };
                peer(rng, &config, connect)
            })
            .collect();
        let drain_at = rng.one_in(3).then(|| 4 * rng.below(1500) + 2);
        Self { config, peers, drain_at }
    }
}

fn config(rng: &mut Rng) -> Config {
    let kind = match rng.below(12) {
        0..4 => Kind::Newline,
        4 => Kind::Lf,
        5 | 6 => Kind::CrLf,
        7 => Kind::Byte(0),
        8 => Kind::Byte(b';'),
        9 => Kind::AnyOf(b"\r\n".to_vec()),
        10 => Kind::Sequence(b"\r\n.\r\n".to_vec()),
        _ => Kind::Sequence(b"aab".to_vec()),
    };
    let max_length = rng.pick(&[0, 1, 5, 20, 20, 100, 1000]);
    let timeout = |rng: &mut Rng| (!rng.one_in(4)).then(|| 50 + rng.below(4000));
    let some = rng.below(6);
    let handler = match rng.below(16) {
        0 | 1 => Handler::Lines,
        2 => Handler::Sends,
        3 | 4 => Handler::Batches(rng.below(4) as usize + 1),
        5 | 6 => Handler::Reply,
        7 => Handler::ReplyInto,
        8 => Handler::Split(some + 1),
        9 => Handler::Tasks,
        10 => Handler::Spawned,
        11 => Handler::Impatient(7 + rng.below(500)),
        12 | 13 => Handler::Sleeper(2 + rng.below(800)),
        14 => Handler::Early(some),
        _ => rng.pick(&[Handler::Failing(some), Handler::Panicking(some)]),
    };
    Config {
        model: Model { kind, max_length, deliver: rng.one_in(5) },
        handler,
        repeats: rng.pick(&[1, 1, 1, 3, 30]),
        max_connections: rng.pick(&[1, 2, 3, 100]),
        max_bad_lines: rng.pick(&[None, Some(0), Some(1), Some(3), Some(100)]),
        max_unsent: rng.pick(&[0, 10, 100, 1000, 64 * 1024]),
        idle_timeout: timeout(rng),
        line_timeout: timeout(rng),
        write_timeout: timeout(rng),
        drain_timeout: (!rng.one_in(5)).then(|| 4 * rng.below(1000) + 1),
        linger_timeout: 1 + rng.below(1500),
        handshake: rng.one_in(4).then(|| 4 * rng.below(500) + 3),
        handshake_timeout: timeout(rng),
    }
}

fn peer(rng: &mut Rng, config: &Config, connect: Ms) -> Peer {
    let is_slow_handler = matches!(config.handler, Handler::Sleeper(_));
    let reads = match rng.below(8) {
        _ if is_slow_handler => Reads::Eagerly { closes_at_end: rng.one_in(2) },
        0 => Reads::Never,
        1 | 2 => Reads::Slowly { most: rng.pick(&[1, 7, 50, 300]), every: 4 * (1 + rng.below(250)) },
        _ => Reads::Eagerly { closes_at_end: rng.one_in(2) },
    };
    let is_eager = matches!(reads, Reads::Eagerly { .. });
    let mut at = connect;
    let mut steps = Vec::new();
    let stream = stream(rng, config);
    let mut rest = &stream[..];
    // 0 never waits; 1 may stall; higher values may also drip.
    let pace = rng.below(4);
    while !rest.is_empty() {
        let wait = match rng.below(12) {
            0 if pace > 0 => 4 * rng.below(1500),
            1 | 2 if pace > 0 => 4 * rng.below(100),
            3 if pace > 1 => {
                // One byte per second, for a while.
                let (drip, behind) = rest.split_at(rest.len().min(1 + rng.below(8) as usize));
                rest = behind;
                for byte in drip {
                    at += 1000;
                    steps.push((at, Step::Send(vec![*byte])));
                }
                continue;
            }
            _ => 0,
        };
        at += wait;
        let length = match rng.below(3) {
            0 => rest.len(),
            1 => 1 + rng.below(8) as usize,
            _ => 1 + rng.below(100) as usize,
        };
        let (piece, behind) = rest.split_at(rest.len().min(length));
        rest = behind;
        steps.push((at, Step::Send(piece.to_vec())));
    }
    at += if rng.one_in(2) { 0 } else { 4 * rng.below(800) };
    match rng.below(8) {
        // A sleeping handler would notice a reset only later.
        0 if !is_slow_handler => steps.push((at + 4, Step::Reset)),
        // The peer stays connected.
        1 | 2 => {}
        _ => steps.push((at, Step::HalfClose)),
    }
    Peer {
        connect,
        accept_errors: if rng.one_in(10) {
            (0..rng.below(4)).map(|_| rng.one_in(2)).collect()
        } else {
            vec![]
        },
        steps,
        reads,
        // While a handler sleeps, it does not send output that exceeds the capacity.
        capacity: if is_slow_handler { 64 * 1024 } else { rng.pick(&[1, 10, 100, 1000, 64 * 1024]) },
        // A sleeping handler needs predictable reads, because time passes between them.
        flaws: (is_eager && !is_slow_handler && rng.one_in(2)).then(|| Rng(rng.next())),
    }
}

fn stream(rng: &mut Rng, config: &Config) -> Vec<u8> {
    let terminator: &[u8] = match &config.model.kind {
        Kind::Newline | Kind::Lf => b"\n",
        Kind::CrLf => b"\r\n",
        Kind::Byte(byte) => std::slice::from_ref(byte),
        Kind::AnyOf(set) => &set[1..],
        Kind::Sequence(sequence) => sequence,
    };
    let mut stream = Vec::new();
    let lines = rng.pick(&[0, 1, 3, 10, 60]);
    for _ in 0..rng.below(lines + 1) {
        let length = match rng.below(8) {
            0 => config.model.max_length as u64,
            1 => config.model.max_length as u64 + 1 + rng.below(30),
            2 => 0,
            _ => rng.below(1 + config.model.max_length.min(40) as u64),
        };
        for _ in 0..length {
            match rng.below(40) {
                0 => stream.push(b'\r'),
                1 => stream.push(b'\n'),
                byte => stream.push(b'a' + byte as u8 % 26),
            }
        }
        if rng.one_in(8) {
            stream.push(b'\r');
        }
        stream.extend_from_slice(terminator);
    }
    if rng.one_in(3) {
        // A tail without a terminator is not a line.
        stream.extend_from_slice(&b"never"[..rng.below(6) as usize]);
    }
    stream
}
