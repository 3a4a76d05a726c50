//! The command line, as it is typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter};

use super::complete::{Shell, candidates};

use crate::demo::args::DemoArgs;
use crate::kubeconfig::ConnectionFlags;
use crate::logs::Level;
use crate::net::cidr::Cidr;
use crate::span;
use crate::spec::{AgentMode, DnsMode, RangeSelector, ViaRule, parse_cidr, parse_image, parse_name};

/// Reach a Kubernetes cluster's pods and services, by address and by name, from every program on this host.
#[derive(Debug, Parser)]
#[command(name = "podway", version, subcommand_required = true)]
pub struct Cli {
    /// The daemon's control socket; else PODWAY_SOCKET, the configuration, /run/podway/podway.sock.
    #[arg(long, global = true)]
    pub socket: Option<PathBuf>,
    /// Only results and errors: no progress, no notes.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Connect this host to a cluster.
    Connect(Box<ConnectArgs>),
    /// End a connection.
    #[command(alias = "quit")]
    Disconnect(DisconnectArgs),
    /// Show connections.
    Status(StatusArgs),
    /// Wait until a connection, a workload or names work.
    Wait(WaitArgs),
    /// List the workloads that carry traffic, with their agents.
    List(ListArgs),
    /// Show what podwayd has logged that concerns your connections, or nobody's.
    Logs(LogsArgs),
    /// Print the least rights that connecting needs, as YAML for `kubectl apply -f -`.
    Rbac(RbacArgs),
    /// Show podway on this machine alone: a miniature cluster in namespaces, and a real connection to it.
    Demo(DemoArgs),
    /// Show settings: those that count, and where each comes from.
    Config(ConfigArgs),
    /// Print the script that completes what is typed, with live names, for a shell to read.
    Completion(CompletionArgs),
    /// Print the versions of the command and of the daemon.
    Version(VersionArgs),
}

/// kubectl's connection flags.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Cluster")]
pub struct KubeFlags {
    /// Path of the kubeconfig file.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Name of the kubeconfig context.
    #[arg(long, add = ArgValueCandidates::new(candidates::contexts))]
    pub context: Option<String>,
    /// Name of the kubeconfig cluster.
    #[arg(long, add = ArgValueCandidates::new(candidates::clusters))]
    pub cluster: Option<String>,
    /// Name of the kubeconfig user.
    #[arg(long, add = ArgValueCandidates::new(candidates::users))]
    pub user: Option<String>,
    /// URL of the API server.
    #[arg(long, short)]
    pub server: Option<String>,
    /// Bearer token.
    // Taken whatever it begins with: an error about a stray argument would print it.
    #[arg(long, allow_hyphen_values = true)]
    pub token: Option<String>,
    /// User to impersonate.
    #[arg(long = "as")]
    pub as_user: Option<String>,
    /// Group to impersonate.
    #[arg(long)]
    pub as_group: Vec<String>,
    /// Do not check the server's certificate.
    #[arg(long)]
    pub insecure_skip_tls_verify: bool,
    /// File of the certificates to trust.
    #[arg(long)]
    pub certificate_authority: Option<PathBuf>,
    /// File of the client's certificate.
    #[arg(long)]
    pub client_certificate: Option<PathBuf>,
    /// File of the client's key.
    #[arg(long)]
    pub client_key: Option<PathBuf>,
    /// Name to expect in the server's certificate.
    #[arg(long)]
    pub tls_server_name: Option<String>,
    /// Proxy to the API server.
    #[arg(long)]
    pub proxy_url: Option<String>,
    /// Namespace to connect to.
    #[arg(long, short, add = ArgValueCandidates::new(candidates::namespaces))]
    pub namespace: Option<String>,
    /// Longest time of one request to the API server, such as 10s; 0 is no limit.
    #[arg(long, value_parser = span::read, value_name = "TIME")]
    pub request_timeout: Option<Duration>,
}

impl From<&KubeFlags> for ConnectionFlags {
    fn from(flags: &KubeFlags) -> ConnectionFlags {
        let flags = flags.clone();
        ConnectionFlags {
            kubeconfig: flags.kubeconfig,
            context: flags.context,
            cluster: flags.cluster,
            user: flags.user,
            server: flags.server,
            token: flags.token,
            as_user: flags.as_user,
            as_groups: flags.as_group,
            insecure_skip_tls_verify: flags.insecure_skip_tls_verify,
            certificate_authority: flags.certificate_authority,
            client_certificate: flags.client_certificate,
            client_key: flags.client_key,
            tls_server_name: flags.tls_server_name,
            proxy_url: flags.proxy_url,
            namespace: flags.namespace,
        }
    }
}

// The token stays out of every log.
impl std::fmt::Debug for KubeFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeFlags").field("context", &self.context).finish_non_exhaustive()
    }
}

/// `podway connect`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  podway connect -n shop                            every pod and service, directly
  podway connect -n shop --proxy-via service=web    services through a pod of the workload web, by virtual addresses
  podway connect --proxy-via 10.9.0.0/16=other/deployment/gate --also-proxy 10.9.0.0/16
                                                    a range that only pods of that workload reach")]
pub struct ConnectArgs {
    /// kubectl's flags.
    #[command(flatten)]
    pub kube: KubeFlags,
    /// RANGE=WORKLOAD: reach RANGE (a CIDR, also, service, pods or all) through the pods of WORKLOAD.
    #[arg(long, value_delimiter = ',', value_name = "RANGE=WORKLOAD", add = ArgValueCompleter::new(candidates::via_rules))]
    pub proxy_via: Vec<ViaRule>,
    /// Ranges to reach besides the cluster's own.
    #[arg(long, value_delimiter = ',', value_parser = cidr, value_name = "CIDR")]
    pub also_proxy: Vec<Cidr>,
    /// Ranges to leave alone.
    #[arg(long, value_delimiter = ',', value_parser = cidr, value_name = "CIDR")]
    pub never_proxy: Vec<Cidr>,
    /// Ranges to reach by virtual addresses: a CIDR, also, service, pods or all.
    #[arg(long, value_delimiter = ',', value_name = "RANGE")]
    pub vnat: Vec<RangeSelector>,
    /// Ranges of the cluster that are routed, as wholes, although routes of this host overlap them.
    #[arg(long, value_delimiter = ',', value_parser = cidr, value_name = "CIDR")]
    pub allow_conflicting_subnets: Vec<Cidr>,
    /// Which traffic agents to place; the configuration's when absent, else auto.
    #[arg(long, value_parser = PossibleValuesParser::new(["auto", "ephemeral", "pod"]).try_map(agent_mode))]
    pub agent: Option<AgentMode>,
    /// Image of the traffic agent; the daemon's when absent (podway-agent:VERSION unless its configuration says another).
    #[arg(long, value_parser = parse_image)]
    pub agent_image: Option<String>,
    /// How names are attached to this host; the configuration's when absent, else auto.
    #[arg(long, value_parser = PossibleValuesParser::new(["auto", "resolved", "file", "off"]).try_map(dns_mode))]
    pub dns: Option<DnsMode>,
    /// Name of the connection; the context's when absent, else default.
    #[arg(long, value_parser = parse_name)]
    pub name: Option<String>,
    /// How long to wait for what is starting; the configuration's when absent, else 30s.
    #[arg(long, value_parser = span::read, value_name = "TIME")]
    pub timeout: Option<Duration>,
    /// Print what would change on this host and in the cluster, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Form of the result.
    #[arg(long, short, default_value = "text")]
    pub output: TextOrJson,
}

/// `podway disconnect`.
#[derive(Args, Debug)]
pub struct DisconnectArgs {
    /// Which; the only one when absent.
    #[arg(conflicts_with = "all", add = ArgValueCandidates::new(candidates::connections))]
    pub name: Option<String>,
    /// Every connection of this user.
    #[arg(long)]
    pub all: bool,
    /// Remove our own pods from the namespace now, of every agent image.
    #[arg(long)]
    pub clean: bool,
    /// Form of the result.
    #[arg(long, short, default_value = "text")]
    pub output: TextOrJson,
}

/// `podway status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Which; all when absent.
    #[arg(add = ArgValueCandidates::new(candidates::connections))]
    pub name: Option<String>,
    /// Form of the result.
    #[arg(long, short, default_value = "table")]
    pub output: StatusForm,
    /// Print again at each change.
    #[arg(long, short)]
    pub watch: bool,
    /// Print nothing: exit 0 when it holds.
    #[arg(long, conflicts_with = "watch")]
    pub check: Option<Check>,
}

/// `podway wait`.
#[derive(Args, Debug)]
pub struct WaitArgs {
    /// Which; the only one when absent.
    #[arg(add = ArgValueCandidates::new(candidates::connections))]
    pub name: Option<String>,
    /// condition=TYPE (Ready, WatchReady, RoutesReady, DNSReady, AgentReady or WorkloadReady), workload/WORKLOAD (as
    /// NAME, KIND/NAME or NAMESPACE/KIND/NAME) or dns.
    #[arg(long = "for", value_name = "GOAL", default_value = "condition=Ready", add = ArgValueCompleter::new(candidates::goals))]
    pub what: super::wait::Goal,
    /// How long.
    #[arg(long, default_value = "30s", value_parser = span::read, value_name = "TIME")]
    pub timeout: Duration,
    /// Form of the result.
    #[arg(long, short, default_value = "text")]
    pub output: TextOrJson,
}

/// `podway list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Which connection's; all when absent.
    #[arg(add = ArgValueCandidates::new(candidates::connections))]
    pub name: Option<String>,
    /// Form of the result.
    #[arg(long, short, default_value = "text")]
    pub output: TextOrJson,
}

/// `podway logs`.
#[derive(Args, Debug)]
pub struct LogsArgs {
    /// Which connection's lines alone; also the daemon's own when absent.
    #[arg(add = ArgValueCandidates::new(candidates::connections))]
    pub name: Option<String>,
    /// Go on with what is logged from now on, until Ctrl-C.
    #[arg(long, short)]
    pub follow: bool,
    /// Leave out what matters less. podwayd logs as much as its own --log says.
    #[arg(long, default_value = "trace")]
    pub level: Level,
    /// Form of the lines; json is one object a line.
    #[arg(long, short, default_value = "text")]
    pub output: TextOrJson,
}

/// `podway rbac`.
#[derive(Args, Debug)]
pub struct RbacArgs {
    /// Namespace to connect to.
    #[arg(long, short, default_value = "default", add = ArgValueCandidates::new(candidates::namespaces))]
    pub namespace: String,
    /// The user who gets the rights, as the API server names them.
    #[arg(long, conflicts_with = "group")]
    pub user: Option<String>,
    /// The group that gets the rights, instead of one user.
    #[arg(long)]
    pub group: Option<String>,
    /// Which agents may be placed.
    #[arg(long, default_value = "auto")]
    pub agent: RbacAgent,
    /// Form of the rights: both are what `kubectl apply -f -` takes.
    #[arg(long, short, default_value = "yaml")]
    pub output: YamlOrJson,
}

/// Which agents the printed rights allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RbacAgent {
    /// Both kinds.
    Auto,
    /// Ephemeral containers in the pods of workloads.
    Ephemeral,
    /// A pod of our own.
    Pod,
}

/// `podway config`.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub what: ConfigCommand,
}

/// What `podway config` does.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show the settings of podway and of podwayd, each with the file, variable or flag that it comes from.
    View(ConfigViewArgs),
}

/// `podway config view`.
#[derive(Args, Debug)]
pub struct ConfigViewArgs {
    /// Form of the result.
    #[arg(long, short, default_value = "text")]
    pub output: TextOrJson,
}

/// `podway completion`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  source <(podway completion bash)                      in ~/.bashrc
  source <(podway completion zsh)                       in ~/.zshrc, after compinit
  podway completion fish | source                       in ~/.config/fish/config.fish")]
pub struct CompletionArgs {
    /// Which shell.
    pub shell: Shell,
}

/// `podway version`.
#[derive(Args, Debug)]
pub struct VersionArgs {
    /// Form of the result.
    #[arg(long, short, default_value = "text")]
    pub output: TextOrJson,
}

/// For people, or for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TextOrJson {
    /// For people.
    Text,
    /// For scripts.
    Json,
}

/// How an object of Kubernetes is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum YamlOrJson {
    /// With comments.
    Yaml,
    /// One `List`.
    Json,
}

/// How `status` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatusForm {
    /// What matters.
    Table,
    /// All of it.
    Wide,
    /// For scripts.
    Json,
    /// For scripts.
    Yaml,
}

/// What `status --check` asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// The daemon answers.
    Live,
    /// Every connection is ready.
    Ready,
}

impl ConnectArgs {
    /// What clap's grammar cannot say.
    ///
    /// # Errors
    ///
    /// A sentence: `all` beside another symbolic range in `--proxy-via`; `also` that stands for nothing.
    pub fn check(&self) -> Result<(), String> {
        let ranges = || self.proxy_via.iter().map(|rule| rule.range);
        if self.also_proxy.is_empty() && ranges().chain(self.vnat.iter().copied()).any(|r| r == RangeSelector::Also) {
            return Err("also stands for the ranges of --also-proxy, and none is given".to_owned());
        }
        let all = ranges().filter(|range| *range == RangeSelector::All).count();
        let symbolic = ranges().filter(|range| !matches!(range, RangeSelector::Cidr(_))).count();
        match all > 0 && symbolic > 1 {
            true => Err("--proxy-via: all covers also, pods and service; give it alone or name them singly".to_owned()),
            false => Ok(()),
        }
    }
}

fn cidr(text: &str) -> Result<Cidr, String> {
    parse_cidr(text).ok_or_else(|| format!("{text:?} is not a CIDR"))
}

fn agent_mode(text: String) -> Result<AgentMode, String> {
    match text.as_str() {
        "auto" => Ok(AgentMode::Auto),
        "ephemeral" => Ok(AgentMode::Ephemeral),
        "pod" => Ok(AgentMode::Pod),
        _ => Err("expected auto, ephemeral or pod".to_owned()),
    }
}

fn dns_mode(text: String) -> Result<DnsMode, String> {
    match text.as_str() {
        "auto" => Ok(DnsMode::Auto),
        "resolved" => Ok(DnsMode::Resolved),
        "file" => Ok(DnsMode::File),
        "off" => Ok(DnsMode::Off),
        _ => Err("expected auto, resolved, file or off".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(args: &[&str]) -> Result<ConnectArgs, clap::Error> {
        let cli = Cli::try_parse_from(["podway", "connect"].iter().chain(args))?;
        let Command::Connect(args) = cli.command else { panic!("another command") };
        Ok(*args)
    }

    #[test]
    fn the_grammar_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn proxy_via_repeats_and_takes_lists() {
        let args = connect(&["--proxy-via", "service=web,pods=db", "--proxy-via=10.1.0.0/16=web"]).expect("parsed");
        assert_eq!(args.proxy_via.len(), 3);
        assert_eq!(args.check(), Ok(()));
    }

    #[test]
    fn help_names_the_values_that_flags_take() {
        for (command, values) in [
            (
                "connect",
                ["auto, ephemeral, pod", "auto, resolved, file, off", "RANGE=WORKLOAD", "text: ", "--timeout <TIME>"],
            ),
            ("wait", ["condition=TYPE", "WatchReady", "workload/WORKLOAD", "NAMESPACE/KIND/NAME", "dns"]),
        ] {
            let help = Cli::try_parse_from(["podway", command, "--help"]).expect_err("help").to_string();
            let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
            values.iter().for_each(|value| assert!(words.contains(value), "{value}: {help}"));
        }
    }

    #[test]
    fn all_stands_alone_among_symbols() {
        assert!(connect(&["--proxy-via=all=web,service=db"]).expect("parsed").check().is_err());
        assert!(connect(&["--proxy-via=all=web,10.1.0.0/16=db"]).expect("parsed").check().is_ok());
    }

    #[test]
    fn also_stands_for_something() {
        for bad in ["--proxy-via=also=web", "--vnat=also"] {
            assert!(connect(&[bad]).expect("parsed").check().expect_err("refused").contains("--also-proxy"));
            assert_eq!(connect(&[bad, "--also-proxy=10.9.0.0/16"]).expect("parsed").check(), Ok(()));
        }
    }

    #[test]
    fn usage_errors_exit_2() {
        for bad in [
            ["--proxy-via", "web"],
            ["--timeout", "soon"],
            ["--agent", "x"],
            ["--also-proxy", "y"],
            ["--agent-image", "no image!"],
            ["--name", ""],
            ["--name", "a/b"],
            ["--name", "a\nb"],
        ] {
            assert_eq!(connect(&bad).expect_err("refused").exit_code(), 2);
        }
    }

    #[test]
    fn the_token_is_not_printed() {
        let args = connect(&["--token", "canary-7f3a"]).expect("parsed");
        assert!(!format!("{args:?}").contains("canary-7f3a"));
        for bad in [
            ["connect", "--token", "canary-7f3a", "--agent", "x"].as_slice(),
            &["connect", "--token", "-canary-7f3a", "--agent", "x"],
            &["connect", "--token", "--canary-7f3a", "--nothing"],
            &["connect", "--token=canary-7f3a", "--token=canary-7f3a"],
            &["connect", "--tokn=canary-7f3a"],
            &["--token=canary-7f3a", "connect"],
            &["--token", "canary-7f3a", "connect"],
            &["status", "--token", "canary-7f3a"],
            &["status", "--token=canary-7f3a"],
        ] {
            let error = Cli::try_parse_from(["podway"].iter().chain(bad)).expect_err("refused");
            let text = format!("{error} {error:?} {}", error.render().ansi());
            assert!(!text.contains("canary-7f3a"), "{bad:?}: {text}");
        }
    }
}
