//! Faults that the explorer has to find: each breaks one rule of one core, and none may survive.

use podway::actors::client_list::core::{ClientListCore, Input};
use podway::cluster::PodFact;
use podway::ids::{Generation, Millis, WaiterId};

use crate::support::by_name::ByName;
use crate::support::clients_world::{ClientsWorld, Machine};
use crate::support::connect_world::{ConnectWorld, Event, Expected, Part, Waits, host};
use crate::support::explore::{Broken, Explored, World, explore};
use crate::support::facts::{Agent, FINGERPRINT, KEY, pod, snapshot, target, via};
use crate::support::mutants::Mutant;
use crate::support::on_presence::OnPresence;

use Event::{Again, Asks, Connect, Disconnect, HostIs, PodGoes, PodIs, WatchEnds};

type Walked = Result<Explored, Box<Broken>>;

/// What comes of the world as it is, and with the fault.
fn both<A: World, B: World>(name: &'static str, right: A, wrong: B) -> (&'static str, Walked, Walked) {
    (name, explore(right), explore(wrong))
}

fn web_there() -> ConnectWorld {
    let world = ConnectWorld::new([pod("t", "web", Agent::Running)]).watching().naming().serving();
    world.expects(Expected::Ready)
}

/// A world in which this fault can be seen.
fn world(mutant: Mutant) -> ConnectWorld {
    let web = |uid| PodIs(Box::new(pod(uid, "web", Agent::Running)));
    match mutant {
        Mutant::EdgeTriggered | Mutant::OrderDependentSelection => {
            web_there().slow(&[], &[Waits::Start]).says("user", [Connect])
        }
        Mutant::VipBeforeTable | Mutant::DnsHandsOutReal => web_there().says("user", [Connect, Asks]),
        Mutant::MissedRelist => {
            let world = web_there().slow(&[], &[Waits::Watch]).expects(Expected::Any);
            world.says("user", [Connect]).says("cluster", [WatchEnds, PodGoes("t")])
        }
        Mutant::ReplyDropped => web_there()
            .slow(&[], &[Waits::Undo])
            .says("one", [Connect, Disconnect])
            .says("another", [Disconnect])
            .expects(Expected::Any),
        Mutant::TimerLost => {
            let mut world = web_there().slow(&[], &[Waits::Dial]).says("user", [Connect]);
            world.failing_dials = 1;
            world
        }
        Mutant::StaleGeneration => {
            let again = [web("t"), PodGoes("t"), Again(Part::PodWatcher, Part::ClientList)];
            let world = ConnectWorld::new([]).watching().naming().serving().expects(Expected::Any);
            world.says("user", [Connect]).says("cluster", again)
        }
        Mutant::RoutesStay => {
            let mut other = host();
            other.resolvers.insert([10, 43, 0, 53].into());
            let pods = [pod("t", "web", Agent::Running)];
            let world = ConnectWorld::via_rule("10.42.0.0/16=web", pods).watching().naming().serving();
            world.says("user", [Connect]).says("host", [HostIs(Box::new(other))]).expects(Expected::Ready)
        }
        Mutant::EndUnseen => {
            web_there().slow(&[], &[Waits::Undo]).says("user", [Connect, Disconnect, Connect]).expects(Expected::Any)
        }
        Mutant::DeviceForgotten => web_there().says("user", [Connect, Disconnect]),
    }
}

const MUTANTS: [Mutant; 11] = [
    Mutant::EdgeTriggered,
    Mutant::OrderDependentSelection,
    Mutant::VipBeforeTable,
    Mutant::MissedRelist,
    Mutant::ReplyDropped,
    Mutant::TimerLost,
    Mutant::StaleGeneration,
    Mutant::DnsHandsOutReal,
    Mutant::RoutesStay,
    Mutant::EndUnseen,
    Mutant::DeviceForgotten,
];

fn list() -> ClientListCore {
    ClientListCore::new(KEY, FINGERPRINT)
}

fn waits<M: Machine>(machine: M, snapshots: Vec<Vec<PodFact>>) -> ClientsWorld<M> {
    let snapshots = snapshots.into_iter().zip(1..).map(|(pods, n)| Input::Pods(Generation(n), snapshot(pods)));
    let register = Input::Register { id: WaiterId(1), target: target("web"), deadline: Millis(30_000) };
    let mut world = ClientsWorld::new(machine)
        .sends("PodWatcher", snapshots)
        .sends("ProxyVia", [Input::Via(Generation(1), via(&["web"]))])
        .sends("Session", [register]);
    (world.late_results, world.failing_dials) = (1, 1);
    world
}

#[test]
fn no_mutant_survives() {
    let there = |uid: &str| PodFact { name: "web-0".into(), ..pod(uid, "web", Agent::Running) };
    let replaced = || vec![vec![there("old")], vec![there("new")]];
    let returned = || vec![vec![there("t")], vec![], vec![there("t")]];
    let mut tried = vec![
        both("key by pod name", waits(list(), replaced()), waits(ByName::new(list()), replaced())),
        both("a failure removes by key", waits(list(), returned()), waits(ByName::new(list()), returned())),
        both("ready on presence", waits(list(), returned()), waits(OnPresence::new(list()), returned())),
    ];
    for mutant in MUTANTS {
        let name: &'static str = Box::leak(format!("{mutant:?}").into_boxed_str());
        tried.push(both(name, world(mutant).begun(), world(mutant).with_mutant(mutant).begun()));
    }
    for (name, right, wrong) in &tried {
        assert!(right.is_ok(), "{name}: without the fault: {}", right.as_ref().expect_err("an error").story);
        let caught = wrong.as_ref().err().map(|broken| broken.why.clone());
        println!("{name}: {}", caught.as_deref().unwrap_or("SURVIVES"));
    }
    let survivors: Vec<&str> = tried.iter().filter(|(.., wrong)| wrong.is_ok()).map(|(name, ..)| *name).collect();
    assert_eq!(survivors, [""; 0], "of {}", tried.len());
}
