//! The host: the daemon, its socket, the device, its files, and routes that are there already.

use crate::case::{Case, Group, Stage, case, connect};
use crate::world::{HERE, ONLY, World};

const NOBODY: [&str; 5] = ["setpriv", "--reuid", "65534", "--regid", "65534"];
/// Makes /etc read-only in mounts of one's own.
const READ_ONLY: &str = "mount --bind /etc /etc && mount -o remount,bind,ro /etc";
const LINE: &str = "the daemon waits 5 s for the rest of a line, and looks every 5 s";

pub fn groups() -> Vec<Group> {
    let without = vec![
        case("the daemon does not run", &["status"], "DaemonUnreachable").says(&["systemctl start podwayd"]),
        case("the socket is another program's file", &["status", "--socket", "/run/errors/file"], "DaemonUnreachable")
            .given(|world| drop(world.file("file", "text"))),
        case(
            "who answers at the socket is neither root nor the user",
            &["status", "--socket", "/run/errors/foreign"],
            "NotOwner",
        )
        .given(|world| {
            world.shell("rm -f /run/errors/foreign; chmod 777 /run/errors");
            world.far_as_nobody(&["unix", "/run/errors/foreign"]);
            world.undo(World::end_last);
        }),
        daemon("the daemon's configuration is wrong", &["--config", "/run/errors/config.toml"])
            .given(|world| drop(world.file("config.toml", "mtu = \"wide\"\n")))
            .says(&["config.toml:1"]),
        daemon("the daemon's configuration is not there", &["--config", "/nosuch.toml"]).says(&["/nosuch.toml"]),
        daemon("a second daemon with the same directory", &[])
            .given(|world| {
                world.daemon(&["--state-dir", "/run/errors/state"]);
                world.undo(World::end_last);
            })
            .says(&["another one runs"]),
        daemon("a second daemon at the same socket", &["--state-dir", "/run/errors/second"])
            .given(|world| {
                world.daemon(&[]);
                world.undo(World::end_last);
            })
            .says(&["/run/podway/podway.sock"]),
        daemon("the daemon is started by an ordinary user", &[])
            .given(|world| {
                world.shell("chmod 711 /run/errors");
                world.through(&[&NOBODY[..], &["--clear-groups"]].concat());
            })
            .says(&["sudo podwayd"]),
        daemon("the disk with the daemon's directory is read-only", &["--state-dir", "/run/errors/ro/state"])
            .given(|world| {
                world.shell(&format!("mkdir -p {HERE}/ro; mount -t tmpfs -o ro tmpfs {HERE}/ro"));
                world.undo(|world| drop(world.shell(&format!("umount {HERE}/ro"))));
            })
            .says(&["Read-only"]),
        connect("no right to the socket", &[], "DaemonUnreachable")
            .given(|world| {
                world.daemon(&[]);
                world.undo(World::end_last);
                world.kubeconfig("admin", |_| {});
                world.shell("chmod 755 /run/errors; chmod 644 /run/errors/kubeconfig");
                world.through(&[&NOBODY[..], &["--clear-groups"]].concat());
            })
            .says(&["permission denied", "groupadd"]),
        connect("no `/dev/net/tun`", &[], "DeviceFailed")
            .given(|world| daemon_in(world, "mount -t tmpfs tmpfs /dev/net", &[]))
            .says(&["/dev/net/tun"]),
        connect("no right to `/dev/net/tun`", &[], "DeviceFailed").given(|world| {
            // A node of a file system that has no devices refuses whoever opens it.
            daemon_in(world, "mount -t tmpfs -o nodev tmpfs /dev/net && mknod /dev/net/tun c 10 200", &[]);
        }),
        connect("no capability CAP_NET_ADMIN", &[], "DeviceFailed")
            .given(|world| {
                daemon_in(world, ":", &["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"])
            })
            .says(&["CAP_NET_ADMIN"]),
        connect("`/etc` is read-only, with `--dns file`", &["--dns", "file"], "DnsFailed")
            .given(|world| daemon_in(world, READ_ONLY, &[]))
            .says(&["--dns"]),
        connect("no systemd-resolved, with `--dns resolved`", &["--dns", "resolved"], "DnsFailed").given(|world| {
            world.daemon(&[]);
            world.undo(World::end_last);
        }),
        connect("the disk with the daemon's keys is full", &[], "StateFailed").given(|world| {
            world.shell(&format!(
                "mkdir -p {HERE}/full; mount -t tmpfs -o size=16k tmpfs {HERE}/full; \
                 dd if=/dev/zero of={HERE}/full/all bs=1k 2>/dev/null || true"
            ));
            world.undo(|world| drop(world.shell(&format!("umount {HERE}/full"))));
            world.daemon(&["--state-dir", "/run/errors/full/state"]);
            world.undo(World::end_last);
        }),
        connect("the daemon may open hardly any files", &[], "LimitReached")
            .given(|world| daemon_in(world, "ulimit -n 24", &[])),
        case("names are waited for that cannot be attached", &["wait", "--for=dns"], "DnsFailed").given(|world| {
            daemon_in(world, READ_ONLY, &[]);
            world.podway(&["connect", "-n", "demo"]);
        }),
        connect("`/etc` is read-only, and names are podway's choice", &[], "")
            .notice()
            .given(|world| daemon_in(world, READ_ONLY, &[]))
            .says(&["names"]),
    ];
    let routes = vec![
        connect("the device's name is taken", &[], "")
            .notice()
            .given(|world| {
                world.shell("ip tuntap add podway0 mode tun");
                world.undo(|world| drop(world.shell("ip link del podway0")));
            })
            .says(&["device podway1"]),
        connect("a route overlaps the cluster's", &["--proxy-via", "pods=web"], "")
            .notice()
            .given(|world| clash(world, "10.42.0.0/16"))
            .says(&["10.42.0.0"]),
        connect("a route overlaps the cluster's, and there is no rule", &[], "")
            .notice()
            .given(|world| clash(world, "10.43.0.0/16"))
            .says(&["10.43.0.0"]),
        connect("a route equals the cluster's", &[], "")
            .notice()
            .given(|world| clash(world, "10.42.0.0/24"))
            .says(&["10.42.0.0"]),
        connect("no default route", &[], "")
            .notice()
            .given(|world| {
                world.shell("ip route show default >/run/errors/default; ip route del default");
                world.undo(|world| drop(world.shell("ip route add $(cat /run/errors/default)")));
            })
            .says(&["routes are on device"]),
        line("a line of another version", "another-version", "UnsupportedVersion"),
        line("a line that is no JSON", "no-json", "BadRequest"),
        line("a request that there is not", "unknown-op", "BadRequest"),
        line("a request with an unknown field", "unknown-field", "BadRequest"),
        line("a line that is too long", "too-long", "LimitReached"),
        line("half a line", "half", "TimedOut").exits(1).within(12.0, LINE),
        line("too many requests at a time", "too-many", "LimitReached").given(|world| {
            world.podway(&["connect", "-n", "demo"]);
            own(world);
        }),
    ];
    vec![
        Group { title: "The host", stage: Stage::Nothing, cases: without },
        Group { title: "Routes, devices, and the socket", stage: Stage::Daemon, cases: routes },
    ]
}

/// `podwayd` itself, which has no form for scripts.
fn daemon(name: &str, flags: &[&'static str]) -> Case {
    let state: &[&str] = if flags.contains(&"--state-dir") { &[] } else { &["--state-dir", "/run/errors/state"] };
    case(name, &[&["as", "podwayd"], state, flags].concat(), "")
}

/// Starts the daemon behind `exec`, in mounts of its own, after that line of a shell.
fn daemon_in(world: &World, line: &str, before: &[&str]) {
    let line = format!("{line}; exec \"$@\"");
    world.through(&[&["unshare", "-m", "sh", "-c", &line, "sh"], before].concat());
    world.daemon(&[]);
    world.undo(World::end_last);
    world.through(&[]);
}

fn clash(world: &World, range: &'static str) {
    world.shell(&format!("ip route add {range} via 192.0.2.1 dev eth0"));
    world.undo(move |world| drop(world.shell(&format!("ip route del {range} via 192.0.2.1 dev eth0"))));
}

/// Something odd on the daemon's socket.
fn line(name: &str, what: &'static str, reason: &'static str) -> Case {
    case(name, &["far", "line", what], reason).exits(1).given(own)
}

/// The command is this very program.
fn own(world: &World) {
    let path = std::env::current_exe().unwrap();
    world.through(&[path.to_str().unwrap(), ONLY]);
}
