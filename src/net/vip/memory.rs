//! What virtual addresses stood for in earlier connections: kept for a day, so that an address that a program still
//! holds keeps its meaning after a reconnect.
//!
//! It is a hint: what is damaged, old or does not fit is left out, and addresses are then drawn as if it had never been.
//! A connection that gave out no address leaves it as it is.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

mod files;

use serde::{Deserialize, Serialize};

use super::{RESERVED, nth};
use crate::net::cidr::Cidr;
use crate::net::views::{Target, VipEntry};
use crate::workload::Workload;

/// How long a virtual address is remembered after its last use, in seconds.
const KEPT: u64 = 24 * 60 * 60;
/// The longest file that is read or written, in bytes: all addresses of an IPv4 range need about half of it.
const LONGEST: u64 = 16 << 20;
/// Addresses that are remembered at most.
const MOST: usize = 65_536;
/// Ranges of earlier connections that are remembered at most.
const MOST_EARLIER: usize = 8;
/// Form of the file.
const VERSION: u32 = 1;

/// Virtual addresses of earlier connections, and the ranges they were drawn from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VipMemory {
    version: u32,
    /// The ranges that were configured.
    pub configured: Vec<Cidr>,
    /// The ranges that were used last, one of each family.
    pub ranges: Vec<Cidr>,
    /// Ranges that were used before those, latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Cidr>,
    /// The addresses.
    pub vips: Vec<KeptVip>,
}

/// One virtual address of an earlier connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptVip {
    /// The virtual address.
    pub vip: IpAddr,
    /// The real one.
    pub real: IpAddr,
    /// The workload it went through; none stands for the default egress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Workload>,
    /// Seconds since 1970 when it was last in use.
    pub at: u64,
}

impl KeptVip {
    /// One that stands for `entry`.
    pub fn new(vip: IpAddr, entry: &VipEntry, at: u64) -> KeptVip {
        let via = match &entry.target {
            Target::Workload(workload) => Some(workload.clone()),
            Target::General => None,
        };
        KeptVip { vip, real: entry.real, via, at }
    }

    /// What it stands for.
    pub fn entry(&self) -> VipEntry {
        let target = self.via.clone().map_or(Target::General, Target::Workload);
        VipEntry { real: self.real, target }
    }
}

impl VipMemory {
    /// A memory of these; of too many, those in use last.
    pub fn new(configured: Vec<Cidr>, ranges: Vec<Cidr>, vips: Vec<KeptVip>) -> VipMemory {
        let mut memory = VipMemory { version: VERSION, configured, ranges, earlier: Vec::new(), vips };
        memory.keep(MOST);
        memory
    }

    /// This memory after a connection that gave out addresses of the ranges in `used`, one of a family, and remembers
    /// these of them. What was remembered of other ranges stays; so does the range of a family that was not used, unless
    /// others were configured since.
    #[must_use]
    pub fn after(&self, configured: &[Cidr], used: Vec<(Cidr, Vec<KeptVip>)>) -> VipMemory {
        let (used, vips): (Vec<Cidr>, Vec<Vec<KeptVip>>) = used.into_iter().unzip();
        let within = |vip: &IpAddr| used.iter().any(|range| range.contains(vip));
        let others = self.vips.iter().filter(|kept| !within(&kept.vip)).cloned();
        let alike = |a: &Cidr, b: &Cidr| a.addr().is_ipv4() == b.addr().is_ipv4();
        let before = if self.configured == configured { &*self.ranges } else { &[] };
        let range = |family: &Cidr| {
            let known = used.iter().chain(before).find(|range| alike(range, family));
            known.copied().unwrap_or(*family)
        };
        let ranges = configured.iter().map(range).collect();
        let mut memory =
            VipMemory::new(configured.to_vec(), ranges, vips.into_iter().flatten().chain(others).collect());
        for range in self.all_ranges() {
            if memory.earlier.len() < MOST_EARLIER && !memory.all_ranges().any(|known| known == range) {
                memory.earlier.push(*range);
            }
        }
        memory.keep(MOST);
        memory
    }

    /// Every range that it has addresses of, those used last first.
    pub fn all_ranges(&self) -> impl Iterator<Item = &Cidr> + Clone {
        self.ranges.iter().chain(&self.earlier)
    }

    /// Forgets all but the addresses in use last, and ranges that have none.
    fn keep(&mut self, most: usize) {
        if self.vips.len() > most {
            self.vips.sort_by_key(|kept| std::cmp::Reverse(kept.at));
            self.vips.truncate(most);
        }
        let vips = &self.vips;
        self.earlier.retain(|range| vips.iter().any(|kept| range.contains(&kept.vip)));
    }

    /// As it is written: as much of it as `longest` bytes hold.
    fn text(&self, longest: u64) -> serde_json::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self)?;
        let mut shorter = self.clone();
        while u64::try_from(text.len()).unwrap_or(u64::MAX) > longest && !shorter.vips.is_empty() {
            shorter.keep(shorter.vips.len() / 2);
            text = serde_json::to_vec(&shorter)?;
        }
        Ok(text)
    }

    /// Reads a memory; nothing when the text is damaged or of another form. Leaves out what is more than a day older than
    /// `now` (seconds since 1970), from its future, doubled, or outside its range.
    pub fn parse(text: &[u8], now: u64) -> Option<VipMemory> {
        let mut memory = serde_json::from_slice::<VipMemory>(text).ok().filter(|memory| memory.version == VERSION)?;
        let (mut vips, mut entries) = (BTreeSet::new(), BTreeSet::new());
        let ranges: Vec<Cidr> = memory.all_ranges().copied().collect();
        memory.vips.retain(|kept| {
            let fresh = now.checked_sub(kept.at).is_some_and(|age| age <= KEPT);
            let fits = |range: &&Cidr| range.contains(&kept.vip) && kept.vip >= nth(range, RESERVED);
            let range = ranges.iter().find(fits).filter(|_| kept.vip.is_ipv4() == kept.real.is_ipv4());
            fresh && range.is_some_and(|range| vips.insert(kept.vip) && entries.insert((*range, kept.entry())))
        });
        memory.keep(MOST);
        Some(memory)
    }

    /// Reads the memory at `path`; empty when there is none or it is damaged. Blocks.
    ///
    /// # Errors
    ///
    /// What the file system says. What is there is then not known, and not to be replaced.
    pub fn load(path: &Path, now: u64) -> io::Result<VipMemory> {
        let mut text = Vec::new();
        match fs::File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut text)) {
            Ok(_) => Ok(VipMemory::parse(&text, now).unwrap_or_else(|| {
                tracing::warn!(path = %path.display(), "the virtual addresses of before are damaged; starting without them");
                VipMemory::default()
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(VipMemory::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes the memory to `path`, whole or not at all, for its owner only, and bounds what lies beside it. Blocks.
    ///
    /// # Errors
    ///
    /// What the file system says; the file of before is then still there.
    pub fn save(&self, path: &Path, now: u64) -> io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let temporary = path.with_extension("new");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        // Not synced: what a power cut damages is left out when it is read, and a disconnect does not wait for a disk.
        file.write_all(&self.text(LONGEST)?)?;
        fs::rename(&temporary, path)?;
        if let Err(error) = files::tidy(path, now) {
            tracing::warn!(path = %path.display(), %error, "virtual addresses of other connections were not bounded");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::workload::WorkloadKind;

    const NOW: u64 = 2_000_000_000;

    fn kept(vip: &str, real: &str, at: u64) -> KeptVip {
        KeptVip { vip: vip.parse().unwrap(), real: real.parse().unwrap(), via: None, at }
    }

    fn memory(vips: Vec<KeptVip>) -> VipMemory {
        let ranges: Vec<Cidr> = vec!["246.246.0.0/16".parse().unwrap(), "fd12::/64".parse().unwrap()];
        VipMemory::new(ranges.clone(), ranges, vips)
    }

    fn read_back(memory: &VipMemory) -> VipMemory {
        VipMemory::parse(&serde_json::to_vec(memory).unwrap(), NOW).unwrap_or_default()
    }

    #[test]
    fn a_memory_is_written_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vips").join("a.json");
        assert_eq!(VipMemory::load(&path, NOW).unwrap(), VipMemory::default());
        let mut one = kept("246.246.1.0", "10.96.0.9", NOW - 5);
        one.via = Some(Workload::new("demo", WorkloadKind::Deployment, "web"));
        let memory = memory(vec![one, kept("fd12::1:0", "fd00::9", NOW)]);
        memory.save(&path, NOW).unwrap();
        assert_eq!(VipMemory::load(&path, NOW).unwrap(), memory);
        fs::write(&path, "{").unwrap();
        assert_eq!(VipMemory::load(&path, NOW).unwrap(), VipMemory::default());
        assert!(VipMemory::load(directory.path(), NOW).is_err(), "what is not known is not to be replaced");
    }

    #[test]
    fn what_is_no_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let stuck = directory.path().join("1001-old.json");
        fs::create_dir(&stuck).unwrap();
        fs::File::open(&stuck).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        let path = directory.path().join("1000-a.json");
        let memory = memory(Vec::new());
        memory.save(&path, NOW).unwrap();
        assert!(stuck.exists());
        assert_eq!(VipMemory::load(&path, NOW).unwrap(), memory);
    }

    #[test]
    fn of_what_is_too_long_for_a_file_those_in_use_last_are_kept() {
        let many = (0..200_u64).map(|n| {
            let number = u32::try_from(n).unwrap();
            let vip = std::net::Ipv4Addr::from_bits(0xf6f6_0100 + number).into();
            let real = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into();
            KeptVip { vip, real, via: None, at: NOW - n }
        });
        let memory = memory(many.collect());
        let whole = memory.text(LONGEST).unwrap();
        let short = memory.text(u64::try_from(whole.len() - 1).unwrap()).unwrap();
        let kept = VipMemory::parse(&short, NOW).unwrap().vips;
        assert_eq!(kept.len(), 100);
        assert!(kept.iter().all(|kept| kept.at > NOW - 100), "{kept:?}");
        assert!(memory.text(10).is_ok(), "what cannot be shorter is written all the same");
    }

    #[test]
    fn addresses_of_other_ranges_are_kept_for_a_day_and_their_ranges_with_them() {
        let own = kept("246.246.1.0", "10.96.0.9", NOW);
        let before = memory(vec![own.clone()]);
        let range: Cidr = "247.246.0.0/16".parse().unwrap();
        let other = kept("247.246.1.0", "10.96.0.9", NOW + 60);
        let both = before.after(&before.configured, vec![(range, vec![other.clone()])]);
        assert_eq!(both.vips, [other.clone(), own.clone()]);
        assert_eq!(both.ranges, [range, before.ranges[1]], "a family that was not used stays where it was");
        assert_eq!(both.earlier, [before.ranges[0]], "the one that has addresses");
        let text = serde_json::to_vec(&both).unwrap();
        assert_eq!(VipMemory::parse(&text, NOW + 60).unwrap(), both);
        let later = VipMemory::parse(&text, NOW + KEPT + 1).unwrap();
        assert_eq!((later.vips, later.earlier), (vec![other], Vec::new()));
        // Back again: what the range of before had is known.
        let again = both.after(&before.configured, vec![(before.ranges[0], vec![own])]);
        assert_eq!((again.ranges, again.earlier), (before.ranges, vec![range]));
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let good = kept("246.246.1.0", "10.96.0.9", NOW);
        let bad = [
            kept("246.246.1.1", "10.96.0.10", NOW - KEPT - 1),
            kept("246.246.1.2", "10.96.0.11", NOW + 1),
            kept("246.246.1.0", "10.96.0.12", NOW),
            kept("246.246.1.3", "10.96.0.9", NOW),
            kept("246.246.0.2", "10.96.0.13", NOW),
            kept("10.0.0.1", "10.96.0.14", NOW),
            kept("246.246.1.4", "fd00::9", NOW),
        ];
        let all = std::iter::once(good.clone()).chain(bad).collect();
        assert_eq!(read_back(&memory(all)).vips, [good]);
        let other = VipMemory { version: VERSION + 1, ..memory(Vec::new()) };
        assert_eq!(read_back(&other), VipMemory::default());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            VipMemory::parse(&bytes, NOW);
        }
    }
}
