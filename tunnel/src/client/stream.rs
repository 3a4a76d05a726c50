//! Where a TCP flow's bytes go: over a carrier, nowhere while there is none, or nowhere any more.

use std::pin::Pin;
use std::sync::Arc;

use super::line::WayBack;
use super::{Direction, Shared};
use crate::wire::{Reader, Writer};

/// A flow's stream on a carrier.
#[derive(Debug)]
pub(super) struct Going {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) shared: Arc<Shared>,
}

/// What became of a flow that wanted another carrier.
pub(super) enum Moved {
    /// It is on another, and the agent has so much of it.
    There(Going, u64),
    /// It goes on where it was.
    Stayed(Going),
    Over,
}

/// The wait for the next carrier.
pub(super) type Resuming = Pin<Box<dyn Future<Output = Moved> + Send>>;

/// Where a flow's bytes go.
pub(super) enum Way {
    Going(Going),
    /// Its carrier ended.
    Resuming(Resuming),
    /// Nowhere any more.
    Over,
}

/// The way, and how it goes on elsewhere.
pub(super) struct Stream {
    pub(super) way: Way,
    /// Our side of it has ended.
    finished: bool,
    back: Option<WayBack>,
    /// How often it was taken over since anything came.
    idle: u32,
}

/// An agent that takes a flow over so often and never says anything on it has lost it.
const IDLE_AT_MOST: u32 = 64;

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let way = match self.way {
            Way::Going(_) => "going",
            Way::Resuming(_) => "resuming",
            Way::Over => "over",
        };
        f.debug_struct("Stream").field("way", &way).field("back", &self.back).finish()
    }
}

impl Stream {
    pub(super) fn new(going: Going, back: Option<WayBack>) -> Stream {
        Stream { way: Way::Going(going), finished: false, back, idle: 0 }
    }

    /// Whether it can go on over another carrier at all.
    pub(super) fn may_resume(&self) -> bool {
        self.back.is_some()
    }

    pub(super) fn writer(&mut self) -> Option<&mut Writer> {
        match &mut self.way {
            Way::Going(going) => Some(&mut going.writer),
            Way::Resuming(_) | Way::Over => None,
        }
    }

    /// It goes on over another carrier.
    pub(super) fn resumed(&mut self, going: Going) {
        self.way = Way::Going(going);
        self.finished = false;
        self.idle += 1;
    }

    /// Something came on it.
    pub(super) fn brought(&mut self) {
        self.idle = 0;
    }

    /// The carrier ended: begins the wait for the next one, with a flow of which this side has `received`. Says whether
    /// there is hope.
    pub(super) fn lost(&mut self, received: u64) -> bool {
        match self.back.clone().filter(|back| !back.line.is_over() && self.idle < IDLE_AT_MOST) {
            Some(back) => {
                self.way = Way::Resuming(Box::pin(back.resume(received, self.idle.saturating_sub(1))));
                true
            }
            None => false,
        }
    }

    /// Goes over to the line's carrier for bulk in that direction, if there is one and it is on none yet, with a flow of which
    /// this side has `received`. What is under way on the carrier before is sent again.
    pub(super) fn move_to_bulk(&mut self, direction: Direction, received: u64) {
        let Way::Going(going) = &self.way else { return };
        let Some(back) = self.back.as_ref().filter(|back| !going.shared.bulk && !back.line.is_over()) else { return };
        let Some(carrier) = back.line.bulk(direction).filter(|carrier| carrier.welcome.run == back.run) else { return };
        let back = back.clone();
        if let Way::Going(before) = std::mem::replace(&mut self.way, Way::Over) {
            self.way = Way::Resuming(Box::pin(back.move_to(carrier, before, received)));
        }
    }

    /// It goes on where it was.
    pub(super) fn stayed(&mut self, going: Going) {
        self.way = Way::Going(going);
        self.finished = false;
    }

    /// Whether our side of it has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Nothing more is said or heard, except that the stream ends in order on our side.
    pub(super) fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true)
            && let Some(writer) = self.writer()
        {
            writer.finish();
        }
    }
}
