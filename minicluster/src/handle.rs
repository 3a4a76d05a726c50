//! A cluster for a test: starts one in a sandbox of its own, asks it things, runs commands on its workstation, ends it.
//! Any number can run at a time. All of it blocks, each call with a limit.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::control::{Condition, Name, Request, Settings, Signal, Target};
use crate::sandbox::{Options, Program, Sandbox, SandboxError};

/// How long a start and each question may last, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running cluster. Ends, with all that is in it, when it is dropped and when this process dies.
#[derive(Debug)]
pub struct Handle(Sandbox);

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote.
    pub out: String,
    /// What it complained.
    pub err: String,
}

impl Handle {
    /// Starts a cluster by a program that runs [`crate::sandbox::stage`]. Its samples may not be ready yet.
    ///
    /// # Errors
    /// What the machine does not allow, or what went wrong.
    pub fn start(program: Program, settings: &Settings) -> Result<Handle, SandboxError> {
        Handle::start_as(program, settings, None)
    }

    /// The same as another user and group; needs root.
    ///
    /// # Errors
    /// What the machine does not allow, or what went wrong.
    pub fn start_as(program: Program, settings: &Settings, user: Option<(u32, u32)>) -> Result<Handle, SandboxError> {
        let settings = json!(settings);
        let options = Options { program, settings, patience: PATIENCE, needs_tun: false, user };
        Ok(Handle(Sandbox::start(options)?))
    }

    /// The sandbox that it is in.
    pub fn sandbox(&self) -> &Sandbox {
        &self.0
    }

    /// Asks for something else than the methods do.
    ///
    /// # Errors
    /// What the cluster says, or that it ended.
    pub fn ask(&self, request: Request) -> Result<Value, SandboxError> {
        self.0.ask(request)
    }

    /// Waits until a condition holds.
    ///
    /// # Errors
    /// When it does not within `limit`: what is missing.
    pub fn wait(&self, condition: Condition, limit: Duration) -> Result<(), SandboxError> {
        self.ask(Request::Wait { condition, seconds: limit.as_secs_f64() }).map(drop)
    }

    /// Waits until a pod, or a workload's newest rollout, is ready.
    ///
    /// # Errors
    /// When it is not within `limit`.
    pub fn wait_ready(&self, kind: &str, namespace: &str, name: &str, limit: Duration) -> Result<(), SandboxError> {
        self.wait(Condition::Ready { name: Name::new(kind, namespace, name) }, limit)
    }

    /// An object; null if it is not there.
    ///
    /// # Errors
    /// When there is no such kind.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Value, SandboxError> {
        self.ask(Request::Get { name: Name::new(kind, namespace, name) })
    }

    /// Pods of a namespace with the label `app`, in the order of their names.
    ///
    /// # Errors
    /// When the cluster ended.
    pub fn pods(&self, namespace: &str, app: &str) -> Result<Vec<Value>, SandboxError> {
        let pods = self.ask(Request::List { kind: "pods".to_owned(), namespace: Some(namespace.to_owned()) })?;
        let Value::Array(pods) = pods else { return Ok(Vec::new()) };
        Ok(pods.into_iter().filter(|pod| pod["metadata"]["labels"]["app"] == app).collect())
    }

    /// Adds an object, or merges it into the one that is there.
    ///
    /// # Errors
    /// When it may not be as it is.
    pub fn apply(&self, object: Value) -> Result<(), SandboxError> {
        self.ask(Request::Apply { object }).map(drop)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// When it is not there.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<(), SandboxError> {
        self.ask(Request::Delete { name: Name::new(kind, namespace, name), grace: None }).map(drop)
    }

    /// Sets how many replicas a workload should have.
    ///
    /// # Errors
    /// When it is not there, or has none.
    pub fn scale(&self, kind: &str, namespace: &str, name: &str, replicas: u32) -> Result<(), SandboxError> {
        self.ask(Request::Scale { name: Name::new(kind, namespace, name), replicas }).map(drop)
    }

    /// Begins a rollout of the same pods anew.
    ///
    /// # Errors
    /// When it is not there, or has no rollouts.
    pub fn restart(&self, kind: &str, namespace: &str, name: &str) -> Result<(), SandboxError> {
        self.ask(Request::Restart { name: Name::new(kind, namespace, name) }).map(drop)
    }

    /// Sends a signal to processes of a pod.
    ///
    /// # Errors
    /// When there are none.
    pub fn signal(&self, namespace: &str, pod: &str, target: Target, signal: Signal) -> Result<(), SandboxError> {
        let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
        self.ask(Request::Signal { namespace, pod, target, signal }).map(drop)
    }

    /// What a pod's sample server answers, asked from inside the pod.
    ///
    /// # Errors
    /// When there is no such pod, or no answer with code 200: what it says.
    pub fn fetch(&self, namespace: &str, pod: &str, path: &str) -> Result<String, SandboxError> {
        let (namespace, pod, path) = (namespace.to_owned(), pod.to_owned(), path.to_owned());
        let answer = self.ask(Request::Fetch { namespace, pod, port: 8080, path })?;
        let body = answer["body"].as_str().unwrap_or_default().to_owned();
        if answer["code"] == 200 {
            Ok(body)
        } else {
            Err(SandboxError::Failed { step: "the pod".to_owned(), cause: body })
        }
    }

    /// The path, on the workstation, of a kubeconfig of a user, who has the name of a profile of rights.
    ///
    /// # Errors
    /// When there is no such user.
    pub fn kubeconfig(&self, user: &str) -> Result<String, SandboxError> {
        let path = self.ask(Request::Kubeconfig { user: user.to_owned() })?;
        Ok(path.as_str().unwrap_or_default().to_owned())
    }

    /// Says something about faults between clients and the API, as [`crate::faults`] reads it.
    ///
    /// # Errors
    /// What it does not understand.
    pub fn fault(&self, fault: Value) -> Result<Value, SandboxError> {
        self.ask(Request::Fault { fault })
    }

    /// A command on the workstation, to be started as one likes.
    pub fn command(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        self.0.command(words)
    }

    /// Runs a command on the workstation to its end; it is killed when that does not come within `limit`.
    ///
    /// # Errors
    /// When it could not be started, or did not end in time.
    pub fn run(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>, limit: Duration) -> io::Result<Done> {
        run(self.command(words), limit)
    }
}

/// Runs a command to its end; it is killed when that does not come within `limit`.
///
/// # Errors
/// When it could not be started, or did not end in time.
pub fn run(mut command: Command, limit: Duration) -> io::Result<Done> {
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn()?;
    let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
    // Its pipes end with it, and with those that it started.
    let both = out.recv_timeout(limit).and_then(|out| Ok((out, err.recv_timeout(limit)?)));
    if let (Ok((out, err)), Some(status)) = (both, ended(&mut child, limit)?) {
        return Ok(Done { status, out, err });
    }
    child.kill()?;
    child.wait()?;
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("no end within {limit:?}")))
}

/// How it ended, as it does soon after its pipes did; `None` when it goes on without them.
fn ended(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let mut pause = Duration::from_millis(1);
    let mut waited = Duration::ZERO;
    loop {
        match child.try_wait()? {
            None if waited < limit => thread::sleep(pause),
            settled => return Ok(settled),
        }
        waited += pause;
        pause *= 2;
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (text_tx, text) = sync_channel(1);
    if let Some(mut pipe) = pipe {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // What was read before an error is told all the same.
            pipe.read_to_end(&mut bytes).ok();
            text_tx.send(String::from_utf8_lossy(&bytes).into_owned()).ok();
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_command_says_how_it_ended_and_what_it_wrote() {
        let done = run(shell("echo out; echo err >&2; exit 3"), Duration::from_secs(30)).unwrap();
        assert_eq!((done.status.code(), done.out.as_str(), done.err.as_str()), (Some(3), "out\n", "err\n"));
    }

    #[test]
    fn a_command_that_does_not_end_is_killed() {
        for script in ["exec sleep 1000", "exec sleep 1000 >&- 2>&-"] {
            let error = run(shell(script), Duration::from_millis(100)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{script}");
        }
    }
}
