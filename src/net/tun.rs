//! The device that packets come from and go to.
//!
//! [`PacketDevice`] stands between the kernel and everything else: tests use [`pair::PairDevice`], and a device with
//! offloads can follow without a change in the flows.
#![expect(unsafe_code, reason = "registering the descriptor with tokio and asking the kernel for its flags need it")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub mod pair;

/// Longest name of a link that the kernel takes, in bytes (IFNAMSIZ without the final zero).
const NAME_MAX: usize = 15;

/// The driver's file.
const DRIVER: &str = "/dev/net/tun";

/// `TUNGETIFF` of `linux/if_tun.h`: `_IOR('T', 210, unsigned int)`.
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;

/// `IFF_PERSIST` of `linux/if_tun.h`: the device outlives its descriptor.
const IFF_PERSIST: libc::c_short = 0x0800;

/// A source and sink of whole IP packets. All methods may be called from several tasks at once.
#[async_trait::async_trait]
pub trait PacketDevice: Send + Sync + 'static {
    /// Returns when [`PacketDevice::try_recv`] may have a packet.
    ///
    /// Cancel safe. An error means that the device is gone for good.
    async fn readable(&self) -> io::Result<()>;

    /// Takes one packet if there is one; `WouldBlock` if not. Returns its length in bytes.
    fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Hands one whole packet over. `WouldBlock` means that it was dropped, as a full queue of a network does.
    fn try_send(&self, packet: &[u8]) -> io::Result<()>;

    /// The largest packet, in bytes.
    fn mtu(&self) -> usize;
}

/// Why there is no TUN device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The kernel takes no such name.
    #[error("the device name {name:?} is not 1 to 15 ASCII letters, digits, '-', '_' or '.'")]
    Name {
        /// What was asked for.
        name: String,
    },
    /// Another link has the name: joining it would make its owner's packets ours.
    #[error("a link named {name} exists already")]
    Exists {
        /// The name.
        name: String,
    },
    /// No TUN driver.
    #[error("/dev/net/tun is missing")]
    NoDriver,
    /// The driver's file may not be opened.
    #[error("/dev/net/tun may not be opened")]
    Closed,
    /// Not allowed.
    #[error("podwayd may make none: it lacks the capability CAP_NET_ADMIN")]
    NotPermitted,
    /// Anything else.
    #[error("cannot make the TUN device {name}")]
    Other {
        /// The name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A TUN device of the kernel. It vanishes with this value: it is not persistent and its descriptor is close-on-exec.
#[derive(Debug)]
pub struct TunDevice {
    iface: AsyncFd<tun_tap::Iface>,
    mtu: usize,
}

impl TunDevice {
    /// Makes a new link called `name` whose packets have at most `mtu` bytes. Setting the link's MTU, its addresses and
    /// its routes is the caller's part. Needs a tokio runtime with IO.
    pub fn create(name: &str, mtu: usize) -> Result<Self, TunError> {
        let proper = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(proper) || matches!(name, "." | "..") {
            return Err(TunError::Name { name: name.to_owned() });
        }
        // The driver has no "exclusive": it would silently join a persistent device of that name.
        if link_exists(name) {
            return Err(TunError::Exists { name: name.to_owned() });
        }
        let other = |source| TunError::Other { name: name.to_owned(), source };
        let iface = tun_tap::Iface::without_packet_info(name, tun_tap::Mode::Tun).map_err(|e| open_error(name, e))?;
        // Between the look and the creation somebody else may have made one.
        if is_persistent(&iface).map_err(other)? {
            return Err(TunError::Exists { name: name.to_owned() });
        }
        iface.set_non_blocking().map_err(other)?;
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::ERROR;
        // SAFETY: `Iface` owns its file, and `as_raw_fd` gives that same open descriptor until it is dropped.
        let iface = unsafe { AsyncFd::register_with_interest(iface, interest) }.map_err(|e| other(e.into()))?;
        Ok(Self { iface, mtu })
    }

    /// The name of the link.
    pub fn name(&self) -> &str {
        self.iface.get_ref().name()
    }

    /// The index of the link. An error when it is gone.
    pub fn index(&self) -> io::Result<u32> {
        nix::net::if_::if_nametoindex(self.name()).map_err(io::Error::from)
    }
}

#[async_trait::async_trait]
impl PacketDevice for TunDevice {
    async fn readable(&self) -> io::Result<()> {
        // A deleted link never becomes readable; it is in error.
        tokio::select! {
            ready = self.iface.readable() => ready.map(|mut guard| guard.retain_ready()),
            broken = self.iface.ready(Interest::ERROR) => match broken {
                Ok(mut guard) => {
                    guard.clear_ready();
                    let mut none = [0; 0];
                    match self.iface.get_ref().recv(&mut none) {
                        Err(e) if e.raw_os_error() == Some(libc::EBADFD) => Err(gone(self.name(), e)),
                        Ok(_) | Err(_) => Ok(()),
                    }
                }
                Err(e) => Err(e),
            },
        }
    }

    fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.iface.try_io(Interest::READABLE, |iface| iface.recv(buffer)).map_err(|e| gone(self.name(), e))
    }

    fn try_send(&self, packet: &[u8]) -> io::Result<()> {
        match self.iface.get_ref().send(packet) {
            Ok(_) => Ok(()),
            Err(e) => Err(gone(self.name(), e)),
        }
    }

    fn mtu(&self) -> usize {
        self.mtu
    }
}

/// Why no device could be made, as far as that can be told without making one.
///
/// # Errors
///
/// There is no driver, its file may not be opened, or this process lacks the capability.
pub fn foresee() -> Result<(), TunError> {
    if let Err(error) = File::options().read(true).write(true).open(DRIVER) {
        return Err(match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoDriver,
            Some(libc::EPERM | libc::EACCES) => TunError::Closed,
            Some(_) | None => TunError::Other { name: DRIVER.to_owned(), source: error },
        });
    }
    let own = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if lacks_net_admin(&own) { Err(TunError::NotPermitted) } else { Ok(()) }
}

/// Whether a `/proc/PID/status` (proc(5)) says that the effective set has no CAP_NET_ADMIN; what cannot be read says
/// nothing.
fn lacks_net_admin(status: &str) -> bool {
    const CAP_NET_ADMIN: u32 = 12;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << CAP_NET_ADMIN) == 0)
}

/// Whether this network namespace has a link of that name.
pub fn link_exists(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

/// Says in words what the driver means by "file descriptor in bad state".
fn gone(name: &str, error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::EBADFD) {
        return io::Error::new(io::ErrorKind::NotConnected, format!("the link {name} was deleted"));
    }
    error
}

fn open_error(name: &str, source: io::Error) -> TunError {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoDriver,
        Some(libc::EPERM | libc::EACCES) => match File::options().read(true).write(true).open(DRIVER) {
            Ok(_) => TunError::NotPermitted,
            Err(_) => TunError::Closed,
        },
        Some(libc::EBUSY | libc::EINVAL) => TunError::Exists { name: name.to_owned() },
        Some(_) | None => TunError::Other { name: name.to_owned(), source },
    }
}

fn is_persistent(iface: &tun_tap::Iface) -> io::Result<bool> {
    // SAFETY: all-zero bytes are a valid `ifreq`: it is integers and unions of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open for as long as `iface` lives, and TUNGETIFF writes one `ifreq` to the pointer.
    let result = unsafe { libc::ioctl(iface.as_raw_fd(), TUNGETIFF as _, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: TUNGETIFF filled in the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(flags & IFF_PERSIST != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_the_capability_is_told_apart() {
        let status =
            |bits: &str| format!("Name:\tpodwayd\nCapPrm:\t{bits}\nCapEff:\t{bits}\nCapBnd:\t000001ffffffffff\n");
        assert!(lacks_net_admin(&status("0000000000000000")));
        assert!(lacks_net_admin(&status("000001ffffffefff")), "all but that one");
        assert!(!lacks_net_admin(&status("0000000000001000")));
        assert!(!lacks_net_admin(&status("000001ffffffffff")));
        assert!(!lacks_net_admin("Name:\tpodwayd\n"), "it is not said");
    }
}
