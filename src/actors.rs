//! Who decides. Each actor is a pure `core` in a thin shell; they speak by messages only.
//!
//! | Actor | Owns | Hears | Tells |
//! |---|---|---|---|
//! | [`daemon`] | Control, one Session per connection | Control, signals | |
//! | [`control`] | the socket | connections, Session | Daemon, Session |
//! | [`session`] | one connection from start to teardown | all its children | all its children |
//! | [`pod_watcher`] | the watches | the API server | ClientList, AgentPlacer, ProxyVia, Dns, Session |
//! | [`client_list`] | links to agents, waiters | PodWatcher, ProxyVia, AgentPlacer, flows | Session, registrants |
//! | [`planner`] | what a connection would change, for a dry run | Daemon, PodWatcher | whoever asked |
//! | [`agent_placer`] | placement of agents | PodWatcher, ProxyVia | ClientList |
//! | [`proxy_via`] | rules, virtual addresses, route plan | Session, PodWatcher, Vif, Dns | Vif, Dns, ClientList, AgentPlacer |
//! | [`vif`] | the device, its routes, the data plane | ProxyVia, netlink | ProxyVia, Dns, Session |
//! | [`dns`] | answers, the host's resolver | the packet path, PodWatcher, ProxyVia, Vif | ProxyVia, Session |

pub mod agent_placer;
pub mod client_list;
pub mod control;
pub mod daemon;
pub mod dns;
pub mod falls;
pub mod late;
pub mod planner;
pub mod pod_watcher;
pub mod proxy_via;
pub mod session;
pub mod shell;
pub mod vif;
