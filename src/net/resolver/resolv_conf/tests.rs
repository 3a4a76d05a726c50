use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use nix::libc;
use tempfile::TempDir;

use super::text::MARKER;
use super::{Applied, BACKUP, EDITED, FILE, ResolvConf, ResolvConfError, Restored, Step, TEMPORARY};
use crate::net::resolver::LinkPlan;

const THEIRS: &str = "# made by hand\nnameserver 192.0.2.53\nsearch corp.example\noptions ndots:2\n";

fn plan() -> LinkPlan {
    LinkPlan {
        ifindex: 7,
        interface: "podway0".into(),
        servers: vec!["246.246.0.2".parse().unwrap()],
        search: vec!["demo.svc.cluster.local".into()],
        routing: vec!["cluster.local".into()],
    }
}

fn etc() -> (TempDir, ResolvConf) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(FILE), THEIRS).unwrap();
    let conf = ResolvConf::new(directory.path());
    (directory, conf)
}

fn text(directory: &TempDir) -> String {
    fs::read_to_string(directory.path().join(FILE)).unwrap()
}

fn names(directory: &TempDir) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn busy(from: &Path, to: &Path) -> io::Result<()> {
    if to.ends_with(FILE) { Err(io::Error::from_raw_os_error(libc::EBUSY)) } else { fs::rename(from, to) }
}

#[test]
fn the_file_names_us_and_comes_back_exactly() {
    let (directory, conf) = etc();
    fs::set_permissions(directory.path().join(FILE), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(conf.apply(&plan()).unwrap(), Applied::Written);
    let ours = text(&directory);
    assert!(ours.lines().next().unwrap().contains(MARKER));
    assert!(ours.contains("\nnameserver 246.246.0.2\nsearch demo.svc.cluster.local corp.example\noptions ndots:2\n"));
    assert_eq!(conf.previous_servers(), Some(vec!["192.0.2.53".parse::<std::net::IpAddr>().unwrap()]));
    assert_eq!(conf.apply(&plan()).unwrap(), Applied::Unchanged);
    assert_eq!(conf.restore().unwrap(), Restored::Exactly);
    assert_eq!(conf.restore().unwrap(), Restored::Nothing);
    assert_eq!((text(&directory), names(&directory)), (THEIRS.to_owned(), vec![FILE.to_owned()]));
    assert_eq!(fs::metadata(directory.path().join(FILE)).unwrap().permissions().mode() & 0o7777, 0o640);
}

#[test]
fn a_host_without_the_file_gets_none_back() {
    let directory = tempfile::tempdir().unwrap();
    let conf = ResolvConf::new(directory.path());
    conf.apply(&plan()).unwrap();
    assert_eq!(conf.restore().unwrap(), Restored::Exactly);
    assert_eq!(names(&directory), Vec::<String>::new());
}

#[test]
fn a_kill_after_any_step_is_recovered_by_the_next_start() {
    for rename in [|from: &Path, to: &Path| fs::rename(from, to), busy] {
        for after in
            [|step| stop(step, Step::BackedUp), |step| stop(step, Step::Prepared), |step| stop(step, Step::Replaced)]
        {
            let (directory, good) = etc();
            let killed = ResolvConf { after, rename, ..good.clone() };
            assert!(killed.apply(&plan()).is_err());
            ResolvConf { rename, ..good.clone() }.restore().unwrap();
            assert_eq!((text(&directory), names(&directory)), (THEIRS.to_owned(), vec![FILE.to_owned()]));

            good.apply(&plan()).unwrap();
            assert!(killed.restore().is_err() || !directory.path().join(TEMPORARY).exists());
            good.restore().unwrap();
            assert_eq!((text(&directory), names(&directory)), (THEIRS.to_owned(), vec![FILE.to_owned()]));
        }
    }
}

#[test]
fn a_kill_in_the_middle_of_writing_in_place_is_recovered() {
    for half in ["", "# podway-temp", "# made by ha"] {
        let (directory, conf) = etc();
        conf.apply(&plan()).unwrap();
        fs::write(directory.path().join(FILE), half).unwrap();
        // The start of the original may be somebody else's, who is still at it.
        let kept = directory.path().join(EDITED);
        let theirs = half.starts_with("# made");
        let restored = if theirs { Restored::KeptEdit(kept.clone()) } else { Restored::Exactly };
        assert_eq!(conf.restore().unwrap(), restored);
        assert_eq!(text(&directory), THEIRS);
        assert_eq!(fs::read_to_string(kept).ok(), theirs.then(|| half.to_owned()));
    }
}

#[test]
fn a_file_that_is_a_mount_is_written_in_place() {
    let (directory, conf) = etc();
    let conf = ResolvConf { rename: busy, ..conf };
    conf.apply(&plan()).unwrap();
    assert!(text(&directory).contains(MARKER));
    assert_eq!(conf.restore().unwrap(), Restored::Exactly);
    assert_eq!((text(&directory), names(&directory)), (THEIRS.to_owned(), vec![FILE.to_owned()]));
}

#[test]
fn links_and_other_things_are_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (real, link) = (directory.path().join("stub"), directory.path().join(FILE));
    fs::write(&real, THEIRS).unwrap();
    symlink(&real, &link).unwrap();
    let conf = ResolvConf::new(directory.path());
    assert!(matches!(conf.apply(&plan()), Err(ResolvConfError::NotRegular(_))));
    assert!(matches!(conf.replaceable(), Err(ResolvConfError::NotRegular(_))));
    assert_eq!(conf.restore().unwrap(), Restored::Nothing);
    assert_eq!(fs::read_to_string(&real).unwrap(), THEIRS);

    fs::remove_file(&link).unwrap();
    nix::unistd::mkfifo(&link, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(conf.apply(&plan()), Err(ResolvConfError::NotRegular(_))));
}

#[test]
fn what_somebody_else_wrote_stays() {
    let (directory, conf) = etc();
    conf.apply(&plan()).unwrap();
    fs::write(directory.path().join(FILE), "nameserver 203.0.113.1\n").unwrap();
    assert_eq!(conf.restore().unwrap(), Restored::LeftToOther);
    assert_eq!(text(&directory), "nameserver 203.0.113.1\n");
    assert_eq!(names(&directory), [FILE]);

    conf.apply(&plan()).unwrap();
    fs::remove_file(directory.path().join(FILE)).unwrap();
    symlink("/run/elsewhere", directory.path().join(FILE)).unwrap();
    assert_eq!(conf.restore().unwrap(), Restored::LeftToOther);
    assert!(directory.path().join(FILE).is_symlink());
}

#[test]
fn a_trampled_file_is_repaired_and_the_newer_one_becomes_the_backup() {
    let (directory, conf) = etc();
    conf.apply(&plan()).unwrap();
    fs::write(directory.path().join(FILE), "nameserver 203.0.113.1\n").unwrap();
    assert_eq!(conf.apply(&plan()).unwrap(), Applied::Repaired);
    assert_eq!(conf.restore().unwrap(), Restored::Exactly);
    assert_eq!(text(&directory), "nameserver 203.0.113.1\n");
}

#[test]
fn an_edit_of_ours_stays_while_connected_and_is_kept_beside_after() {
    let (directory, conf) = etc();
    conf.apply(&plan()).unwrap();
    let edited = format!("{}nameserver 203.0.113.7\n", text(&directory));
    fs::write(directory.path().join(FILE), &edited).unwrap();
    for _ in 0..2 {
        assert_eq!(conf.apply(&plan()).unwrap(), Applied::Edited, "nobody writes over it");
        assert_eq!(text(&directory), edited);
    }
    let beside = directory.path().join(EDITED);
    assert_eq!(conf.restore().unwrap(), Restored::KeptEdit(beside.clone()));
    assert_eq!(conf.restore().unwrap(), Restored::Nothing);
    assert_eq!((text(&directory), fs::read_to_string(&beside).unwrap()), (THEIRS.to_owned(), edited.clone()));

    // Where ours has to say something else, the edit is kept then.
    fs::remove_file(&beside).unwrap();
    conf.apply(&plan()).unwrap();
    fs::write(directory.path().join(FILE), &edited).unwrap();
    let other = LinkPlan { search: vec!["other.svc.cluster.local".into()], ..plan() };
    assert_eq!(conf.apply(&other).unwrap(), Applied::Kept(beside.clone()));
    assert_eq!(fs::read_to_string(&beside).unwrap(), edited);
    assert_eq!(conf.restore().unwrap(), Restored::Exactly);
    assert_eq!(text(&directory), THEIRS);
}

#[test]
fn an_edit_that_takes_our_server_out_of_the_first_place_is_told_apart() {
    for (edit, told) in [
        ("nameserver 246.246.0.2\nnameserver 203.0.113.7\n", Applied::Edited),
        ("nameserver 203.0.113.7\nnameserver 246.246.0.2\n", Applied::Unasked),
        ("nameserver 203.0.113.7\n", Applied::Unasked),
        ("options ndots:2", Applied::Unasked),
    ] {
        let (directory, conf) = etc();
        conf.apply(&plan()).unwrap();
        let edited = format!("{}\n{edit}", text(&directory).lines().next().unwrap());
        fs::write(conf.path(), &edited).unwrap();
        assert_eq!(conf.apply(&plan()).unwrap(), told, "{edit}");
        assert_eq!((text(&directory), conf.is_ours().unwrap()), (edited.clone(), true));
        assert_eq!(conf.restore().unwrap(), Restored::KeptEdit(directory.path().join(EDITED)));
        assert_eq!(fs::read_to_string(directory.path().join(EDITED)).unwrap(), edited);
    }
}

#[test]
fn each_edit_is_kept_up_to_a_bound() {
    let (directory, conf) = etc();
    let mut paths = Vec::new();
    for number in [0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9] {
        conf.apply(&plan()).unwrap();
        fs::write(conf.path(), format!("{}# edit {number}\n", text(&directory))).unwrap();
        let Restored::KeptEdit(path) = conf.restore().unwrap() else { panic!("edit {number} is lost") };
        assert!(fs::read_to_string(&path).unwrap().ends_with(&format!("# edit {number}\n")));
        paths.push(path);
    }
    assert_eq!(paths[0], directory.path().join(EDITED));
    assert_eq!(paths[1], paths[2], "the same is kept once");
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), 8);
    assert!(fs::read_to_string(directory.path().join(EDITED)).unwrap().ends_with("# edit 0\n"), "the first one stays");
}

#[test]
fn a_shorter_text_of_somebody_else_is_theirs() {
    let shorter = "# made by hand\nnameserver 192.0.2.53\n";
    let (directory, conf) = etc();
    conf.apply(&plan()).unwrap();
    fs::write(conf.path(), shorter).unwrap();
    assert_eq!(conf.restore().unwrap(), Restored::LeftToOther);
    assert_eq!(text(&directory), shorter);
    conf.apply(&plan()).unwrap();
    fs::write(conf.path(), "# made by hand\n").unwrap();
    assert_eq!(conf.apply(&plan()).unwrap(), Applied::Repaired);
    assert_eq!(conf.restore().unwrap(), Restored::Exactly);
    assert_eq!(text(&directory), "# made by hand\n");
}

#[test]
fn an_empty_or_missing_file_is_nothing_to_come_back_to() {
    let empty: fn(&Path) = |path| fs::write(path, "").unwrap();
    for cut in [empty, |path| fs::remove_file(path).unwrap()] {
        let (directory, conf) = etc();
        conf.apply(&plan()).unwrap();
        cut(&conf.path());
        assert_eq!(conf.apply(&plan()).unwrap(), Applied::Repaired);
        assert_eq!(conf.previous_servers().map(|servers| servers.len()), Some(1));
        conf.restore().unwrap();
        assert_eq!(text(&directory), THEIRS);
        conf.apply(&plan()).unwrap();
        cut(&conf.path());
        assert_eq!(conf.restore().unwrap(), Restored::Exactly);
        assert_eq!((text(&directory), names(&directory)), (THEIRS.to_owned(), vec![FILE.to_owned()]));
    }
}

#[test]
fn a_kill_between_two_plans_is_no_edit() {
    for after in
        [|step| stop(step, Step::BackedUp), |step| stop(step, Step::Prepared), |step| stop(step, Step::Replaced)]
    {
        let (directory, good) = etc();
        good.apply(&plan()).unwrap();
        let other = LinkPlan { search: vec!["other.svc.cluster.local".into()], ..plan() };
        assert!(ResolvConf { after, ..good.clone() }.apply(&other).is_err());
        assert_eq!(good.restore().unwrap(), Restored::Exactly);
        assert_eq!((text(&directory), names(&directory)), (THEIRS.to_owned(), vec![FILE.to_owned()]));
    }
}

#[test]
fn a_new_plan_keeps_the_first_backup() {
    let (directory, conf) = etc();
    conf.apply(&plan()).unwrap();
    let other = LinkPlan { search: vec!["other.svc.cluster.local".into()], ..plan() };
    assert_eq!(conf.apply(&other).unwrap(), Applied::Written);
    assert!(text(&directory).contains("other.svc.cluster.local"));
    conf.restore().unwrap();
    assert_eq!(text(&directory), THEIRS);
}

#[test]
fn a_lost_or_damaged_backup_is_said_and_nothing_is_overwritten() {
    let (directory, conf) = etc();
    conf.apply(&plan()).unwrap();
    let ours = text(&directory);
    fs::write(directory.path().join(BACKUP), "something").unwrap();
    assert!(matches!(conf.restore(), Err(ResolvConfError::Damaged(_))));
    fs::remove_file(directory.path().join(BACKUP)).unwrap();
    assert!(matches!(conf.restore(), Err(ResolvConfError::NoBackup(_))));
    assert!(matches!(conf.apply(&plan()), Err(ResolvConfError::NoBackup(_))));
    assert_eq!(text(&directory), ours);
}

fn stop(step: Step, at: Step) -> io::Result<()> {
    if step == at { Err(io::Error::other("killed")) } else { Ok(()) }
}
