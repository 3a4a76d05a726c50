//! Holds the architecture: what may import what.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![crate::package().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the source tree") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

/// Lines of code, comments left out.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_start).filter(|line| !line.starts_with("//"))
}

#[test]
fn cores_know_no_actor_no_runtime_no_cluster_client_and_no_clock() {
    let forbidden =
        ["actix", "tokio::", "kube::", "std::time::Instant", "SystemTime", "std::thread", "std::fs", "std::net::Tcp"];
    let is_core = |path: &Path| {
        path.file_name().is_some_and(|name| name == "core.rs")
            || path.components().any(|part| part.as_os_str() == "core")
    };
    let cores: Vec<_> = sources("src/actors").into_iter().filter(|(path, _)| is_core(path)).collect();
    assert!(cores.len() >= 7, "only {} files of cores were found", cores.len());
    for (path, text) in cores {
        for line in code(&text) {
            for word in forbidden {
                assert!(!line.contains(word), "{} has {word}: {line}", path.display());
            }
        }
    }
}

#[test]
fn net_imports_nothing_of_actors() {
    for (path, text) in sources("src/net") {
        for line in code(&text) {
            assert!(!line.contains("crate::actors"), "{}: {line}", path.display());
        }
    }
}

#[test]
fn unsafe_lives_in_two_files() {
    for folder in ["src", "agent/src", "tunnel/src"] {
        for (path, text) in sources(folder) {
            let has = code(&text).any(|line| line.contains("unsafe {") || line.contains("unsafe fn"));
            let may = ["src/net/tun.rs", "tunnel/src/heap.rs"].iter().any(|file| path.ends_with(file));
            assert!(!has || may, "{} has unsafe code", path.display());
        }
    }
}
