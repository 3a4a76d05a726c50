//! The daemon stands still for a while, as under a debugger or on a host that is out of memory, and goes on.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::world::{Daemon, World, seconds, until};

const VIA: [&str; 2] = ["--proxy-via", "service=web"];

/// Stands still, and goes on also where a test fails meanwhile.
struct Still<'a>(&'a Daemon<'a>);

impl<'a> Still<'a> {
    fn stand(podway: &'a Daemon<'a>) -> Still<'a> {
        kill(podway.pid(), Signal::SIGSTOP).unwrap();
        Still(podway)
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        kill(self.0.pid(), Signal::SIGCONT).unwrap();
    }
}

/// What comes back, or that the connection ended; fails where it says nothing.
fn echo(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"podway")?;
    let mut back = [0; 6];
    stream.read_exact(&mut back)?;
    assert_eq!(&back, b"podway");
    Ok(())
}

#[test]
fn a_short_standstill_is_survived_by_flows_and_a_long_one_is_told_and_recovered_from() {
    let Some(world) = World::start() else { return };
    world.connected(&VIA, |podway| {
        let web: IpAddr = world.ws.lookup("edge").unwrap()[0];
        let mut flow = world.ws.connect(SocketAddr::new(web, 9001)).unwrap();
        echo(&mut flow).unwrap();

        // Shorter than a link may be silent: all is as before, and a connection that was begun meanwhile is made.
        let still = Still::stand(podway);
        let began = Instant::now();
        std::thread::scope(|scope| {
            let meanwhile = scope.spawn(|| world.ws.connect(SocketAddr::new(web, 9001)));
            std::thread::sleep(seconds(3).saturating_sub(began.elapsed()));
            drop(still);
            echo(&mut flow).unwrap();
            echo(&mut meanwhile.join().unwrap().unwrap()).unwrap();
        });
        until("Ready", seconds(5), || podway.status().holds("Ready").then_some(()));

        // Longer: both ends have given the carrier up. A command that asks meanwhile is told.
        let still = Still::stand(podway);
        let began = Instant::now();
        let done = world.podway(&["status"]);
        assert_eq!(done.status.code(), Some(3), "{done:?}");
        assert!(done.err.contains("it runs and has said nothing for 5 s\nhint: "), "{done:?}");
        std::thread::sleep(seconds(10).saturating_sub(began.elapsed()));
        drop(still);
        let went_on = Instant::now();
        // Goes on, or has ended and says so: in no case is it silent.
        let told = echo(&mut flow);
        println!("a flow after ten seconds: {told:?}, {:?} later", went_on.elapsed());
        assert!(
            told.as_ref().map_or_else(|error| error.kind() != std::io::ErrorKind::WouldBlock, |()| true),
            "{told:?}"
        );
        let (_, took) = until("a new connection", seconds(5), || world.ws.who("edge").ok());
        println!("a new connection {took:?} later");
        until("Ready", seconds(10), || podway.status().holds("Ready").then_some(()));
        assert_eq!(world.seen_from("edge"), "demo/deployment/web");
        assert!(went_on.elapsed() < Duration::from_secs(15), "{:?}", went_on.elapsed());
    });
}
