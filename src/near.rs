//! Names that look like a mistyped one. Pure.

/// Most names that are offered.
pub const MOST: usize = 3;
/// Letters that a part has at least to say something of the whole.
const TELLING: usize = 3;

/// How a name is like another, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    /// One begins with the other.
    Begins,
    /// A few letters differ.
    Mistyped,
    /// It has the other inside.
    Holds,
}

/// Those of `candidates` that look like `name`, best first, at most 3. A candidate is (what is shown, its bare name).
pub fn near(name: &str, candidates: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
    let like = |(shown, bare): (String, String)| {
        let edits = distance(name, &bare);
        Some((likeness(name, &bare, edits)?, edits, shown))
    };
    let mut found: Vec<(Likeness, usize, String)> = candidates.into_iter().filter_map(like).collect();
    found.sort();
    found.dedup();
    found.into_iter().take(MOST).map(|(_, _, shown)| shown).collect()
}

fn likeness(name: &str, bare: &str, edits: usize) -> Option<Likeness> {
    let telling = |part: &str| part.chars().count() >= TELLING;
    if (telling(name) && bare.starts_with(name)) || (telling(bare) && name.starts_with(bare)) {
        Some(Likeness::Begins)
    } else if edits <= name.chars().count() / 3 {
        Some(Likeness::Mistyped)
    } else {
        (telling(name) && bare.contains(name)).then_some(Likeness::Holds)
    }
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let mut best = (last[j + 1] + 1).min(row[j] + 1).min(last[j] + usize::from(x != y));
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_swaps_once() {
        for (a, b, wanted) in [("", "abc", 3), ("web", "web", 0), ("wbe", "web", 1), ("kitten", "sitting", 3)] {
            assert_eq!(distance(a, b), wanted, "{a} {b}");
        }
    }

    fn found(name: &str, names: &[&str]) -> Vec<String> {
        near(name, names.iter().map(|n| ((*n).to_owned(), (*n).to_owned())))
    }

    #[test]
    fn near_names_come_best_first_and_far_ones_not_at_all() {
        let names = ["frontend", "backend", "frontent-canary", "my-frontent", "db"];
        assert_eq!(found("frontent", &names), ["frontent-canary", "frontend", "my-frontent"]);
        assert_eq!(found("frontend-v2", &["frontend", "end", "db"]), ["frontend"]);
    }

    #[test]
    fn names_that_only_happen_to_share_letters_are_not_offered() {
        assert_eq!(found("web", &["db", "wxy", "w", "wbe"]), ["wbe"]);
        assert_eq!(found("nope", &["api", "note", "one", "open"]), ["note"]);
        assert_eq!(found("db", &["dc", "d", "mydb", "postgres"]), [""; 0]);
        assert_eq!(found("", &["web"]), [""; 0]);
    }

    #[test]
    fn three_are_enough() {
        assert_eq!(found("web", &["web-1", "web-22", "web-333", "web-4444"]), ["web-1", "web-22", "web-333"]);
    }
}
