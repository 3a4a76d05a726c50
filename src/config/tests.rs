use super::*;
use crate::config::layers::Origin;

fn source(text: &str) -> Source<'_> {
    Source { path: Path::new("/etc/x.toml"), text }
}

fn own(text: &str) -> Source<'_> {
    Source { path: Path::new("/home/ann/y.toml"), text }
}

fn daemon(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    Config::of(source(text), variable, DaemonFlags::default()).map(|(config, _)| config)
}

fn from(listed: &[Setting], key: &str) -> String {
    listed.iter().find(|setting| setting.key == key).expect("listed").from.to_string()
}

#[test]
fn the_shipped_file_holds_the_defaults() {
    let shipped = source(include_str!("../../config/podway.toml"));
    let (config, listed) = Config::of(shipped, &|_| None, DaemonFlags::default()).expect("read");
    assert_eq!(config, Config::default());
    // Each is there, not only by default.
    assert!(listed.iter().all(|setting| matches!(setting.from, Origin::File { .. })), "{listed:?}");
    let (config, listed) = CommandConfig::of(shipped, own(""), &|_| None, None).expect("read");
    assert_eq!(config, CommandConfig::default());
    assert!(listed.iter().all(|setting| matches!(setting.from, Origin::File { .. })), "{listed:?}");
}

#[test]
fn variables_override_the_file_and_flags_override_both() {
    let variable = |name: &str| (name == "PODWAY_MTU").then(|| "1400".to_owned());
    assert_eq!(daemon("mtu = 9000", &variable).expect("read").mtu, 1400);
    assert!(daemon("mtus = 1", &|_| None).is_err());
    assert!(daemon("", &|_| Some("x".to_owned())).is_err());
    assert_eq!(daemon("mtu = 9000", &|_| Some(String::new())).expect("read").mtu, 9000, "an empty one says nothing");
    let flags = DaemonFlags { log: Some("debug".to_owned()), ..DaemonFlags::default() };
    let (config, listed) = Config::of(source("log = \"info\"\n"), &|_| None, flags).expect("read");
    assert_eq!((config.log.as_str(), from(&listed, "log").as_str()), ("debug", "--log"));
    let silence = |name: &str| (name == "PODWAY_UDP_IDLE").then(|| "1h".to_owned());
    assert_eq!(daemon("udp_idle = \"1s\"", &|_| None).expect("read").udp_idle, Duration::from_secs(1));
    assert_eq!(daemon("udp_idle = \"1s\"", &silence).expect("read").udp_idle, Duration::from_secs(3600));
    assert!(daemon("", &|name| (name == "PODWAY_UDP_IDLE").then(|| "0".to_owned())).is_err());
    let suffixes = |name: &str| (name == "PODWAY_DNS_INCLUDE_SUFFIXES").then(|| "a.example, b.example".to_owned());
    assert_eq!(daemon("", &suffixes).expect("read").include_suffixes, ["a.example", "b.example"]);
}

#[test]
fn a_users_file_is_over_the_hosts_and_each_setting_says_where_it_is_from() {
    let host = source("mtu = 9000\n\n[connect]\ndns = \"off\"\nagent = \"pod\"\ntimeout = \"1m\"\n");
    let user = own("socket = \"/run/x\"\n[connect]\nagent = \"ephemeral\"\n");
    let variable = |name: &str| (name == "PODWAY_CONNECT_TIMEOUT").then(|| "1m30s".to_owned());
    let (config, listed) = CommandConfig::of(host, user, &variable, None).expect("read");
    let expected = CommandConfig {
        socket: "/run/x".into(),
        agent: AgentMode::Ephemeral,
        dns: DnsMode::Off,
        timeout: Duration::from_secs(90),
        ..CommandConfig::default()
    };
    assert_eq!(config, expected);
    for (key, origin) in [
        ("socket", "/home/ann/y.toml:1"),
        ("connect.agent", "/home/ann/y.toml:3"),
        ("connect.agent_image", "default"),
        ("connect.dns", "/etc/x.toml:4"),
        ("connect.timeout", "PODWAY_CONNECT_TIMEOUT"),
    ] {
        assert_eq!(from(&listed, key), origin, "{key}");
    }
    assert_eq!(listed.iter().find(|s| s.key == "connect.timeout").expect("listed").value, "90s");
    let (config, listed) = CommandConfig::of(host, user, &variable, Some("/s".into())).expect("read");
    assert_eq!((config.socket.to_str(), from(&listed, "socket").as_str()), (Some("/s"), "--socket"));
}

#[test]
fn what_is_wrong_is_said_with_file_and_line_and_what_was_meant() {
    for (text, said, hint) in [
        ("mtu = 9000\nmtus = 1\n", "/etc/x.toml:2: unknown key `mtus`", "did you mean mtu?"),
        ("# a comment\n\nmtu = \"big\"\n", "/etc/x.toml:3: invalid type: string \"big\"", "mend /etc/x.toml"),
        ("mtu = 9000\n[dns\n", "/etc/x.toml:2: ", "mend"),
        ("[dns]\ninclude_suffixes = 1\n", "/etc/x.toml:2: invalid type", "mend"),
        ("[connect]\nagnt = \"pod\"\n", "/etc/x.toml:2: unknown key `agnt`", "did you mean agent?"),
        ("[connect]\nagent = \"ephemerl\"\n", "/etc/x.toml:2: unknown value `ephemerl`", "did you mean ephemeral?"),
        ("agent_image = \"no image!\"\n", "/etc/x.toml:1: \"no image!\" is no name of an image", "mend"),
        ("[connect]\n\ntimeout = \"soon\"\n", "/etc/x.toml:3: \"soon\" is not a time", "mend"),
        ("mtu = 1279\n", "/etc/x.toml:1: 1279 is not a number from 1280 to 65535", "mend"),
        ("udp_idle = \"999ms\"\n", "/etc/x.toml:1: \"999ms\" is not a time from 1s to 1h", "mend"),
        ("\nudp_idle = \"1h1s\"\n", "/etc/x.toml:2: \"1h1s\" is not a time from 1s to 1h", "mend"),
        ("udp_idle = 60\n", "/etc/x.toml:1: invalid type", "mend"),
    ] {
        for error in [
            daemon(text, &|_| None).expect_err("refused"),
            CommandConfig::of(source(text), own(""), &|_| None, None).expect_err("refused"),
        ] {
            let told = error.to_string();
            assert!(told.starts_with(said), "{told}");
            assert_eq!(told.lines().count(), 1, "{told}");
            assert!(error.hint().starts_with(hint), "{}", error.hint());
        }
    }
    let error = CommandConfig::of(source(""), own("mtu = 1"), &|_| None, None).expect_err("the daemon's");
    assert!(error.to_string().starts_with("/home/ann/y.toml:1: unknown key `mtu`"), "{error}");
    let wrong = |name: &str| (name == "PODWAY_CONNECT_AGENT").then(|| "x".to_owned());
    let error = CommandConfig::of(source(""), own(""), &wrong, None).expect_err("refused");
    assert_eq!(error.to_string(), "PODWAY_CONNECT_AGENT=\"x\": expected auto, ephemeral or pod");
    assert_eq!(error.hint(), "unset PODWAY_CONNECT_AGENT, or give it another value");
}

#[test]
fn files_are_found_as_xdg_says_and_one_that_is_named_is_the_only_one() {
    let home = tempfile::tempdir().expect("a directory");
    let own = home.path().join(".config/podway");
    std::fs::create_dir_all(&own).expect("made");
    std::fs::write(own.join("config.toml"), "socket = \"/a\"\n").expect("written");
    let at_home = home.path().to_str().expect("UTF-8").to_owned();
    let files = command_files(&|name| (name == "HOME").then(|| at_home.clone())).expect("read");
    assert_eq!((files[1].path.clone(), files[1].state), (own.join("config.toml"), FileState::Read));
    let elsewhere = |name: &str| match name {
        "HOME" => Some(at_home.clone()),
        "XDG_CONFIG_HOME" => Some(home.path().join("none").to_str()?.to_owned()),
        _ => None,
    };
    assert_eq!(command_files(&elsewhere).expect("read")[1].state, FileState::Absent);
    let relative = |name: &str| match name {
        "HOME" => Some(at_home.clone()),
        "XDG_CONFIG_HOME" => Some("none".to_owned()),
        _ => None,
    };
    assert_eq!(command_files(&relative).expect("read")[1].state, FileState::Read);
    let only = |name: &str| match name {
        "HOME" => Some(at_home.clone()),
        ONLY_FILE => Some(own.join("config.toml").to_str()?.to_owned()),
        _ => None,
    };
    assert_eq!(command_files(&only).expect("read").len(), 1);
    let missing = |name: &str| (name == ONLY_FILE).then(|| "/no/such/file".to_owned());
    assert!(command_files(&missing).expect_err("it was named").to_string().starts_with("/no/such/file: "));
    assert_eq!(command_files(&|_| None).expect("no home").len(), 1);
}
