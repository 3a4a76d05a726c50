//! The first question to the API server: is it there, does it know us, does the namespace exist?

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use tokio::time::{sleep, timeout};

use crate::actors::session::core::reaching::{Outlook, Unreached};
use crate::actors::shell::{self, TaskFailed};
use crate::error::{Reason, UserError, chain};
use crate::net::kube_client::{self, KubeClientError};
use crate::net::obstacle::Obstacle;
use crate::refusal;
use crate::spec::{ClusterAccess, Credential};
use crate::timestamp::rfc3339;

/// How an API server calls whoever shows no credentials.
const ANONYMOUS: &str = "system:anonymous";
/// Limit of one answer, TLS and all.
const ANSWER_LIMIT: Duration = Duration::from_secs(9);

/// Asks for the connected namespace; a right to read it is not needed. Gives the API server's addresses. `now` is seconds
/// since 1970.
pub async fn reach(
    access: ClusterAccess,
    client: kube::Client,
    namespace: String,
    now: i64,
) -> Result<BTreeSet<IpAddr>, Unreached> {
    let namespaces: Api<Namespace> = Api::all(client);
    // An API server that has just started may not know all credentials yet, and one that is busy or starting says so:
    // that counts when it goes on. Credentials that have ended do not come back.
    let may_pass = |code: u16| code == 429 || code >= 500 || (code == 401 && ended(&access, now).is_none());
    let once = async || timeout(ANSWER_LIMIT, namespaces.get_opt(&namespace)).await;
    let ask = async {
        let mut since = None;
        loop {
            match once().await {
                Ok(Err(kube::Error::Api(status)))
                    if may_pass(status.code)
                        && shell::now().since(*since.get_or_insert_with(shell::now)) < refusal::GOES_ON =>
                {
                    sleep(refusal::AGAIN).await;
                }
                other => return other,
            }
        }
    };
    let (addresses, answer) = tokio::join!(kube_client::api_server_addresses(&access), ask);
    // That comes to the same, and does not say why.
    if let Err(KubeClientError::Resolve { source, .. }) = &addresses {
        let unresolved = Obstacle::unresolved(source);
        // Behind a proxy the server's own name is the proxy's to know.
        let proxied = access.proxy_url.is_some();
        let obstacle = if proxied { Obstacle::NoProxy(Box::new(unresolved)) } else { unresolved };
        return Err(behind(&obstacle, &access.shown_server()));
    }
    let Ok(answer) = answer else { return Err(behind(&Obstacle::Mute, &access.shown_server())) };
    match answer {
        Ok(Some(_)) => {}
        Ok(None) => {
            return Err(definite(UserError::new(
                Reason::NamespaceNotFound,
                format!("namespace {namespace}: does not exist"),
                "kubectl get namespaces lists those that do; -n names another",
            )));
        }
        Err(kube::Error::Api(status)) => match status.code {
            401 => return Err(refused(unauthorized(&access, now))),
            // To nobody in particular.
            403 if access.credential == Credential::None && status.message.contains(ANONYMOUS) => {
                return Err(refused(unauthorized(&access, now)));
            }
            // Forbidden is an answer: the server is there and knows us.
            403 => {}
            429 => {
                let message = format!("API server {}: it takes no more requests for now (429)", access.shown_server());
                let hint = "wait until its load is less, then connect again";
                return Err(passing(UserError::new(Reason::ClusterUnreachable, message, hint)));
            }
            code => {
                let message = format!("API server {}: it fails with {code}: {}", access.shown_server(), status.message);
                let hint = "see what it waits for: kubectl get --raw '/readyz?verbose'; then connect again";
                let error = UserError::new(Reason::ClusterUnreachable, message, hint);
                return Err(if code >= 500 { passing(error) } else { definite(error) });
            }
        },
        Err(error) => return Err(behind(&Obstacle::of(&error), &access.shown_server())),
    }
    match addresses {
        Ok(addresses) => Ok(addresses.into_iter().collect()),
        Err(error) => Err(definite(unusable(&error))),
    }
}

/// What may pass by itself.
fn passing(error: UserError) -> Unreached {
    Unreached { error, outlook: Outlook::MayPass }
}

/// What other credentials may cure.
fn refused(error: UserError) -> Unreached {
    Unreached { error, outlook: Outlook::Refused }
}

/// What somebody has to see to.
pub fn definite(error: UserError) -> Unreached {
    Unreached { error, outlook: Outlook::Definite }
}

fn behind(obstacle: &Obstacle, server: &str) -> Unreached {
    let error = obstacle.error(server);
    if obstacle.may_pass() { passing(error) } else { definite(error) }
}

/// When the credential ended, if it has.
fn ended(access: &ClusterAccess, now: i64) -> Option<i64> {
    access.expires_at.filter(|at| *at <= now)
}

/// The credentials are not taken.
fn unauthorized(access: &ClusterAccess, now: i64) -> UserError {
    let (what, renew) = match &access.credential {
        Credential::Token(_) => ("the token", "log in again"),
        Credential::ClientCertificate { .. } => ("the client certificate", "fetch the kubeconfig anew"),
        Credential::Basic { .. } => ("the user name and the password", "correct them in the kubeconfig"),
        Credential::None => {
            let message = format!(
                "API server {}: it wants to know who asks, and there are no credentials",
                access.shown_server()
            );
            let hint = "log in to the cluster, or choose a user with credentials: --user, --token";
            return UserError::new(Reason::Unauthorized, message, hint);
        }
    };
    let message = match ended(access, now) {
        Some(at) => format!("API server {}: {what} ended at {}", access.shown_server(), rfc3339(at)),
        None => format!("API server {}: it does not take {what}", access.shown_server()),
    };
    UserError::new(Reason::Unauthorized, message, format!("{renew}, then connect again"))
}

/// The error when the access makes no client.
pub fn unusable(error: &KubeClientError) -> UserError {
    let hint = match error {
        KubeClientError::Server { .. } => "correct it in the kubeconfig, or name it: --server https://HOST:6443",
        KubeClientError::Proxy => "correct --proxy-url or HTTPS_PROXY, such as http://HOST:3128",
        KubeClientError::CertificateAuthority => {
            "name a PEM file with --certificate-authority, or fetch the kubeconfig anew"
        }
        KubeClientError::Credential(_) | KubeClientError::Tls(_) => "fetch the kubeconfig anew, or log in again",
        KubeClientError::Resolve { .. } => "check the spelling, or join the network whose name servers know it",
    };
    UserError::new(Reason::KubeconfigInvalid, format!("API server: {}", chain(error)), hint)
}

/// The error when there is no key pair.
pub fn keyless(error: &dyn std::error::Error) -> UserError {
    let text = chain(error);
    let hint = match text.contains("os error 28") {
        true => "make room on that disk, then connect again",
        false => "see to podwayd's state directory: it has to be root's, and writable",
    };
    UserError::new(Reason::StateFailed, format!("key pair: {text}"), hint)
}

/// The error when asking gave no result.
pub fn failed(server: &str, failed: &TaskFailed) -> Unreached {
    match failed {
        TaskFailed::TimedOut => behind(&Obstacle::Mute, server),
        TaskFailed::Aborted => {
            definite(UserError::new(Reason::Cancelled, "connect: withdrawn", "podway connect asks for it again"))
        }
        TaskFailed::Panicked(why) => definite(UserError::new(
            Reason::Internal,
            format!("connect: {why}"),
            "this is a bug in podway: please report it with the log",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "measures how long it took")]

    use std::sync::Mutex;

    use super::*;

    /// What an API server says to a user whom it does not know for the first `times` questions.
    async fn reached(times: usize) -> Result<BTreeSet<IpAddr>, Unreached> {
        let asked = Mutex::new(0);
        let serve = move |_: http::Request<kube::client::Body>| {
            let mut asked = asked.lock().expect("unpoisoned");
            *asked += 1;
            let (code, body) = match *asked <= times {
                true => (401, r#"{"status":"Failure","message":"Unauthorized","reason":"x","code":401}"#),
                false => (200, r#"{"metadata":{"name":"demo"}}"#),
            };
            let response =
                http::Response::builder().status(code).body(kube::client::Body::from(body.as_bytes().to_vec()));
            std::future::ready(response.map_err(tower::BoxError::from))
        };
        let access = ClusterAccess::bare("https://me:secret@192.0.2.1:6443");
        reach(access, kube::Client::new(tower::service_fn(serve), "demo"), "demo".into(), 0).await
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_an_api_server_does_not_know_yet_are_shown_again() {
        let addresses = reached(3).await.expect("reached");
        assert_eq!(addresses, ["192.0.2.1".parse().expect("an address")].into());
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_are_refused_for_a_second_are_refused() {
        let begun = tokio::time::Instant::now();
        let refused = reached(usize::MAX).await.expect_err("refused");
        assert_eq!((refused.error.reason, refused.outlook), (Reason::Unauthorized, Outlook::Refused));
        assert!(refused.error.message.starts_with("API server https://192.0.2.1:6443: "), "{}", refused.error.message);
        assert!(begun.elapsed() >= refusal::GOES_ON && begun.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn networks_and_servers_may_come_back_and_certificates_do_not() {
        let outlook = |obstacle: Obstacle| behind(&obstacle, "https://a").outlook;
        let silent_proxy = Obstacle::NoProxy(Box::new(Obstacle::Silence));
        for passing in
            [Obstacle::Refused, Obstacle::NoNetwork, Obstacle::Silence, Obstacle::Mute, Obstacle::NoName, silent_proxy]
        {
            assert_eq!(outlook(passing.clone()), Outlook::MayPass, "{passing:?}");
        }
        let untrusted_proxy = Obstacle::NoProxy(Box::new(Obstacle::Untrusted));
        for definite in [
            Obstacle::Untrusted,
            Obstacle::OtherName(Vec::new()),
            Obstacle::Ended(None),
            Obstacle::NoTls,
            Obstacle::ProxyLogin,
            untrusted_proxy,
        ] {
            assert_eq!(outlook(definite.clone()), Outlook::Definite, "{definite:?}");
        }
    }
}
