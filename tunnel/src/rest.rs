//! When what moved bytes has come to rest, so that memory can be given back. Pure.

/// Bytes between two looks below which it is calm.
const LITTLE: u64 = 1 << 20;
/// Calm looks in a row that make a rest.
const CALM: u32 = 10;

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Rest {
    bytes: u64,
    busy: bool,
    calm: u32,
}

impl Rest {
    /// Looks at the bytes moved since the beginning. True once, when a rest begins after something moved.
    pub fn begins(&mut self, bytes: u64) -> bool {
        let moved = bytes.saturating_sub(std::mem::replace(&mut self.bytes, bytes));
        if moved >= LITTLE {
            (self.busy, self.calm) = (true, 0);
            return false;
        }
        self.calm += 1;
        self.calm >= CALM && std::mem::take(&mut self.busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At which looks a rest begins, for what moved before each.
    fn rests(moved: &[u64]) -> Vec<usize> {
        let (mut rest, mut bytes) = (Rest::default(), 0);
        let looks = moved.iter().enumerate();
        let begun = looks.filter(|(_, moved)| {
            bytes += **moved;
            rest.begins(bytes)
        });
        begun.map(|(look, _)| look).collect()
    }

    #[test]
    fn a_rest_begins_once_after_something_moved() {
        let busy = [LITTLE, LITTLE];
        let calm = [LITTLE - 1; 30];
        assert_eq!(rests(&calm), Vec::<usize>::new());
        assert_eq!(rests(&[&busy[..], &calm].concat()), [11]);
        assert_eq!(rests(&[&busy[..], &calm[..9], &busy, &calm].concat()), [22]);
        assert_eq!(rests(&[&busy[..], &calm, &busy, &calm].concat()), [11, 43]);
    }
}
