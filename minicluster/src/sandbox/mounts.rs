//! What the sandbox sees of the host's files.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

const NOTHING: Option<&str> = None;

/// What of /run would lead to the host's resolver, buses and daemons.
const HIDDEN: [&str; 4] = ["systemd", "dbus", "nscd", "podway"];

/// Keeps mounts of this namespace out of all others.
pub fn keep_apart() -> io::Result<()> {
    Ok(mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)?)
}

/// Shows the processes of the PID namespace in /proc. Some containers forbid it; their /proc stays.
pub fn own_proc() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("proc"), "/proc", Some("proc"), flags, NOTHING)?)
}

/// Puts a directory of our own over one of the host's, which stays visible through it, save what is hidden and
/// what is given anew: what is there can be replaced, and nothing of it reaches the host.
fn cover(path: &str, hidden: &[&str], files: &[(&str, String)]) -> io::Result<()> {
    let of_host = File::open(path)?;
    let below = PathBuf::from(format!("/proc/self/fd/{}", of_host.as_raw_fd()));
    let names: Vec<_> = fs::read_dir(&below)?.collect::<Result<_, _>>()?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("mode=0755,size=64m"))?;
    for entry in names {
        let name = entry.file_name();
        let anew = |name: &Path| files.iter().any(|(file, _)| Path::new(file) == name);
        if hidden.iter().any(|hidden| name == *hidden) || anew(Path::new(&name)) {
            continue;
        }
        let to = Path::new(path).join(&name);
        // What went away meanwhile, or may not be seen, is not there.
        show(&below.join(&name), &to).ok();
    }
    for (name, text) in files {
        fs::write(Path::new(path).join(name), text)?;
    }
    Ok(())
}

fn show(from: &Path, to: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if kind.is_dir() {
        fs::create_dir(to)?;
    } else {
        File::create(to)?;
    }
    bind(from, to)
}

/// Shows `from` at `to`.
pub fn bind(from: &Path, to: &Path) -> io::Result<()> {
    Ok(mount(Some(from), to, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)?)
}

/// Shows an open file at `to`.
pub fn bind_file(from: &File, to: &Path) -> io::Result<()> {
    bind(&PathBuf::from(format!("/proc/self/fd/{}", from.as_raw_fd())), to)
}

/// Gives this mount namespace an empty /tmp of its own.
pub fn own_tmp() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), "/tmp", Some("tmpfs"), flags, Some("mode=1777,size=16m"))?)
}

/// Gives this mount namespace a /run and an /etc of its own, in which names are resolved as `resolv_conf` says.
pub fn own_run_and_etc(resolv_conf: &str, hosts: &str) -> io::Result<()> {
    cover("/run", &HIDDEN, &[])?;
    let switch = name_switch(&fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default());
    let files = [("resolv.conf", resolv_conf.to_owned()), ("hosts", hosts.to_owned()), ("nsswitch.conf", switch)];
    cover("/etc", &[], &files)
}

/// The host's nsswitch.conf, with names of hosts from files and DNS alone: any other service may ask the host.
fn name_switch(of_host: &str) -> String {
    let kept = of_host.lines().filter(|line| !line.trim_start().starts_with("hosts:"));
    kept.chain(["hosts: files dns"]).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts_come_from_files_and_dns_alone() {
        let host = "passwd: files systemd\nhosts: mymachines resolve [!UNAVAIL=return] files dns\n";
        assert_eq!(name_switch(host), "passwd: files systemd\nhosts: files dns\n");
        assert_eq!(name_switch(""), "hosts: files dns\n");
    }
}
