//! What happens in a world, in words: written down only while somebody wants to read it.

use std::cell::RefCell;

thread_local! {
    static SAID: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Says something, if anybody listens.
pub fn say(line: impl FnOnce() -> String) {
    SAID.with_borrow_mut(|said| {
        if let Some(said) = said {
            said.push(line());
        }
    });
}

/// What is said while this runs.
pub fn of(work: impl FnOnce()) -> Vec<String> {
    SAID.set(Some(Vec::new()));
    work();
    SAID.take().unwrap_or_default()
}

/// The first words of what `Debug` says: enough to tell messages apart.
pub fn short(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    match text.char_indices().nth(150) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}
