//! Headers of SPDY streams: zlib with a dictionary of its own, one stream of it from the first frame to the last. Pure.

use std::collections::BTreeMap;

use bytes::Buf as _;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// What clients take to be there already (SPDY/3, 2.6.10.1).
static DICTIONARY: &[u8] = include_bytes!("../spdy.dict");
/// How far back zlib refers.
const WINDOW: usize = 32 << 10;
/// Most bytes of headers of a frame.
const HEADERS: usize = 64 << 10;

/// The reader of all headers of a connection.
pub struct Inflate {
    state: Box<DecompressorOxide>,
    window: Box<[u8]>,
    at: usize,
    begun: bool,
}

impl Inflate {
    /// At the beginning.
    pub fn new() -> Inflate {
        let window = vec![0; WINDOW].into_boxed_slice();
        Inflate { state: Box::new(DecompressorOxide::new()), window, at: 0, begun: false }
    }

    /// The headers of the next frame, their names in small letters; `None` when they cannot be read.
    pub fn read(&mut self, block: &[u8]) -> Option<BTreeMap<String, String>> {
        let mut input = block;
        if !self.begun {
            // RFC 1950: method and flags, and the number of the dictionary where one is used.
            let [_, flags, rest @ ..] = input else { return None };
            input = rest;
            if flags & 0x20 != 0 {
                input = input.get(4..)?;
                self.window.get_mut(..DICTIONARY.len())?.copy_from_slice(DICTIONARY);
                self.at = DICTIONARY.len();
            }
            self.begun = true;
        }
        let mut plain = Vec::new();
        loop {
            let (status, read, wrote) =
                decompress(&mut self.state, input, &mut self.window, self.at, TINFL_FLAG_HAS_MORE_INPUT);
            plain.extend_from_slice(self.window.get(self.at..self.at + wrote)?);
            self.at = (self.at + wrote) % WINDOW;
            input = input.get(read..)?;
            if plain.len() > HEADERS {
                return None;
            }
            match status {
                TINFLStatus::HasMoreOutput => {}
                TINFLStatus::NeedsMoreInput => return pairs(&plain),
                TINFLStatus::Done
                | TINFLStatus::Failed
                | TINFLStatus::BadParam
                | TINFLStatus::Adler32Mismatch
                | TINFLStatus::FailedCannotMakeProgress
                | _ => return None,
            }
        }
    }
}

/// A number, then so many names and values, each with its length in front.
fn pairs(mut plain: &[u8]) -> Option<BTreeMap<String, String>> {
    let text = |plain: &mut &[u8]| {
        let length = usize::try_from(plain.try_get_u32().ok()?).ok()?;
        let text = plain.get(..length)?;
        let text = String::from_utf8_lossy(text).into_owned();
        plain.advance(length);
        Some(text)
    };
    let count = plain.try_get_u32().ok()?;
    let mut pairs = BTreeMap::new();
    for _ in 0..count {
        let name = text(&mut plain)?;
        pairs.insert(name.to_lowercase(), text(&mut plain)?);
    }
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two blocks that zlib 1.3 made with the dictionary, each flushed.
    const FIRST: &str =
        "78f9e3c6a7c202253a703a2b294a4dcc851625aca9a0808614cb45a024cc64610024398b209198094adc8c0600000000ffff";
    const SECOND: &str = "c2aa15540a2512d209000000ffff";

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digit).collect()
    }

    #[test]
    fn headers_are_read_one_frame_after_the_other() {
        let mut inflate = Inflate::new();
        for (block, kind) in [(FIRST, "error"), (SECOND, "data")] {
            let headers = inflate.read(&bytes(block)).unwrap();
            let wanted = [("port", "80"), ("requestid", "0"), ("streamtype", kind)];
            assert_eq!(headers, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        }
    }

    #[test]
    fn what_is_no_zlib_is_refused() {
        assert_eq!(Inflate::new().read(&[]), None);
        assert_eq!(Inflate::new().read(&[0x78, 0x01, 7, 7, 7]), None);
        assert_eq!(Inflate::new().read(&[0x78, 0x01, 0, 4, 0, 0xfb, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
        let mut empty = Inflate::new();
        assert_eq!(empty.read(&[0x78, 0x01, 0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0]), Some(BTreeMap::new()));
    }
}
