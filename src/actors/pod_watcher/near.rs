//! Names that look like a mistyped one. Pure.

/// Most names that are offered.
const MOST: usize = 5;

/// Those of `candidates` that look like `name`, best first, at most 5. A candidate is (what is shown, its bare name).
pub fn near(name: &str, candidates: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
    let mut scored: Vec<(usize, String)> = candidates
        .into_iter()
        .filter_map(|(shown, bare)| {
            let inside = bare.contains(name) || name.contains(bare.as_str());
            let edits = distance(name, &bare);
            let allowed = (name.len() / 3).max(2);
            (inside || edits <= allowed).then_some((if inside { edits.min(allowed) } else { edits }, shown))
        })
        .collect();
    scored.sort();
    scored.dedup();
    scored.into_iter().take(MOST).map(|(_, shown)| shown).collect()
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

    #[test]
    fn near_names_come_best_first_and_far_ones_not_at_all() {
        let names = ["frontend", "backend", "frontent-canary", "db"].map(|n| (format!("deployment/{n}"), n.to_owned()));
        assert_eq!(near("frontent", names), ["deployment/frontend", "deployment/frontent-canary"]);
    }
}
