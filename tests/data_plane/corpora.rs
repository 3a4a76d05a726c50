//! The fuzzer's targets with what `tests/corpora` has: each file as it is, and some thousand times a little different.
//!
//! `PODWAY_SEED=N` replays.

use std::fs;
use std::path::Path;

use super::truth::{Random, number};

#[path = "../../fuzz/targets.rs"]
mod targets;

/// Changed copies of each file.
const COPIES: usize = 3000;

/// One change, or a few.
fn changed(random: &mut Random, file: &[u8], all: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..1 + random.below(3) {
        let at = random.below(bytes.len() + 1);
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.next() as u8),
            2 => bytes.extend_from_slice(&all[random.below(all.len())]),
            3 => {
                let end = (at + random.below(9)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let extreme = random.of(&[0, 1, 0x7f, 0x80, 0xc0, 0xff]);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = extreme);
            }
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
        }
    }
    bytes
}

fn replay(corpus: &str, target: fn(&[u8])) {
    let seed = number("PODWAY_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("PODWAY_SEED={seed}");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora").join(corpus);
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let all: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(all.len() > 10, "{} files", all.len());
    let mut random = Random::new(seed);
    for (path, file) in paths.iter().zip(&all) {
        target(file);
        for _ in 0..COPIES {
            let bytes = changed(&mut random, file, &all);
            let ran = std::panic::catch_unwind(|| target(&bytes));
            assert!(ran.is_ok(), "{} as {bytes:02x?}", path.display());
        }
    }
}

#[test]
fn packets_of_the_corpus_do_no_harm() {
    replay("packets", targets::packets);
}

#[test]
fn frames_of_the_corpus_do_no_harm() {
    replay("frames", targets::frames);
}

#[test]
fn dns_messages_of_the_corpus_do_no_harm() {
    replay("dns", targets::dns);
}
