//! Programs of socket calls: what a client and a server do with one connection, made from a seed.
//!
//! None can stand still for ever. Only one side, the heavy one, writes more than every buffer takes; nobody waits for
//! bytes but those that the other writes whatever happens, nor for the end of one that may wait for his own; and a wait
//! for the other's calls is a short one.

use std::fmt;

/// A small generator of numbers (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }

    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// True once in so many times.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// One call, or a few that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Writes so many bytes, at most `chunk` at once.
    Write { length: usize, chunk: usize },
    /// Reads until it has so many bytes more, at most `step` at once.
    Read { length: usize, step: usize },
    /// Reads to the end.
    ReadToEnd { step: usize },
    /// Sends nothing more.
    Shutdown,
    /// Waits a moment for the other to have made so many of its calls.
    Wait { calls: usize },
    /// Closes.
    Close,
    /// Closes with linger 0.
    Reset,
}

/// What the server does when a connection comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Nobody listens.
    Closed,
    /// Accepts it.
    Accepts,
    /// Accepts it when the client has made so many calls.
    Late(usize),
    /// Stops to listen when the client has made so many calls, and never accepts.
    Never(usize),
}

/// What one side does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// Bytes of its buffers, where they are not the system's.
    pub(crate) receives: Option<usize>,
    pub(crate) sends: Option<usize>,
    pub(crate) calls: Vec<Call>,
}

#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) seed: u64,
    pub(crate) v6: bool,
    pub(crate) door: Door,
    pub(crate) client: Script,
    pub(crate) server: Script,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        writeln!(f, "PODWAY_SEED={} PODWAY_PROGRAMS=1, {family}, the server's door: {:?}", self.seed, self.door)?;
        writeln!(f, "  client {:?}", self.client)?;
        write!(f, "  server {:?}", self.server)
    }
}

/// One side while a program is made.
#[derive(Default)]
struct Making {
    calls: Vec<Call>,
    written: usize,
    read: usize,
    /// It writes nothing more.
    ended: bool,
    over: bool,
}

/// Bytes that the heavy side writes at most, and the light one.
const HEAVY: usize = 2_000_000;
const LIGHT: usize = 20_000;
/// The same where buffers are small, which makes kernels slow: they wait for timers.
const SMALL: [usize; 2] = [10_000, 1000];

impl Program {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let v6 = random.once_in(2);
        let small = random.once_in(5);
        let heavy = random.below(2);
        let mut sides = [Making::default(), Making::default()];
        for _ in 0..2 + random.below(9) {
            let side = random.below(2);
            if !sides[side].over {
                let most = match (side == heavy, small) {
                    (true, false) => HEAVY,
                    (false, false) => LIGHT,
                    (heavy, true) => SMALL[usize::from(!heavy)],
                };
                let call = call(&mut random, &sides, side, most, sides[1 - side].calls.len());
                sides[side].make(call);
            }
        }
        for side in [random.below(2), 0, 1] {
            if !sides[side].over {
                if random.once_in(2) && (sides[side].ended || sides[1 - side].ended) {
                    let step = step(&mut random, HEAVY);
                    sides[side].make(Call::ReadToEnd { step });
                }
                let end = if random.once_in(4) { Call::Reset } else { Call::Close };
                sides[side].make(end);
            }
        }
        let [client, server] = sides.map(|side| side.calls);
        let calls = random.below(client.len() + 1);
        let door = match random.below(40) {
            0 | 1 => Door::Closed,
            2..=5 => Door::Late(calls),
            6 => Door::Never(calls),
            _ => Door::Accepts,
        };
        let mut script = |calls| Script {
            receives: (small && random.once_in(2)).then(|| random.of(&[4000, 8000, 20_000])),
            sends: (small && random.once_in(2)).then(|| random.of(&[1, 8000, 20_000])),
            calls,
        };
        Self { seed, v6, door, client: script(client), server: script(server) }
    }
}

impl Making {
    fn make(&mut self, call: Call) {
        match call {
            Call::Write { length, .. } => self.written += length,
            Call::Read { length, .. } => self.read += length,
            Call::ReadToEnd { .. } => self.read = usize::MAX,
            Call::Shutdown => self.ended = true,
            Call::Close | Call::Reset => (self.ended, self.over) = (true, true),
            Call::Wait { .. } => {}
        }
        self.calls.push(call);
    }
}

/// The next call of `side`, which may write at most so much in all.
fn call(random: &mut Random, sides: &[Making; 2], side: usize, most: usize, others: usize) -> Call {
    let (own, other) = (&sides[side], &sides[1 - side]);
    let unread = other.written.saturating_sub(own.read);
    loop {
        return match random.below(16) {
            0..=4 => {
                let size = random.of(&[10, 1000, 1000, 30_000, 30_000, 200_000, 200_000]);
                let size = if random.once_in(40) { HEAVY } else { size };
                let length = 1 + random.below(size);
                let length = length.min(most.saturating_sub(own.written));
                if length == 0 || (own.ended && !random.once_in(4)) {
                    continue;
                }
                let pieces = if most > SMALL[0] { 500 } else { 50 };
                let chunk = random.of(&[1, 7, 536, 1460, 4099, 65_537, 1 << 20]).max(length / pieces);
                Call::Write { length, chunk }
            }
            5..=8 if unread > 0 => {
                let length = if random.once_in(3) { unread } else { 1 + random.below(unread) };
                Call::Read { length, step: step(random, length) }
            }
            9 if own.read < usize::MAX && (own.ended || other.ended) => Call::ReadToEnd { step: step(random, HEAVY) },
            10 => Call::Shutdown,
            11 | 12 => Call::Wait { calls: random.below(others + 1).max(1) },
            13 if random.once_in(2) => Call::Close,
            14 if random.once_in(2) => Call::Reset,
            _ => continue,
        };
    }
}

/// How many bytes to read at once, out of so many. Never a million calls.
fn step(random: &mut Random, length: usize) -> usize {
    random.of(&[1, 13, 1000, 9000, 70_000, 1 << 20]).max(length / 2000)
}
