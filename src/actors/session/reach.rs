//! The first question to the API server: is it there, does it know us, does the namespace exist?

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;

use crate::actors::shell::TaskFailed;
use crate::error::{Reason, UserError, chain};
use crate::net::kube_client::{self, KubeClientError};
use crate::refusal;
use crate::spec::ClusterAccess;

/// How often 401 is asked again.
const TRIES: u128 = refusal::GOES_ON.as_millis() / refusal::AGAIN.as_millis();

/// Asks for the connected namespace; a right to read it is not needed. Gives the API server's addresses.
pub async fn reach(
    access: ClusterAccess,
    client: kube::Client,
    namespace: String,
) -> Result<BTreeSet<IpAddr>, UserError> {
    let namespaces: Api<Namespace> = Api::all(client);
    let ask = async {
        // An API server that has just started may not know all credentials yet: 401 counts when it goes on.
        for _ in 0..TRIES {
            match namespaces.get_opt(&namespace).await {
                Err(kube::Error::Api(status)) if status.code == 401 => tokio::time::sleep(refusal::AGAIN).await,
                other => return other,
            }
        }
        namespaces.get_opt(&namespace).await
    };
    let (addresses, answer) = tokio::join!(kube_client::api_server_addresses(&access), ask);
    match answer {
        Ok(Some(_)) => {}
        Ok(None) => {
            return Err(UserError::new(
                Reason::NamespaceNotFound,
                format!("namespace {namespace}: does not exist"),
                "kubectl get namespaces lists those that do; -n names another",
            ));
        }
        Err(kube::Error::Api(status)) if status.code == 401 => {
            return Err(UserError::new(
                Reason::Unauthorized,
                format!("API server {}: {}", access.server, status.message),
                "log in again, then connect again",
            ));
        }
        // Forbidden is an answer: the server is there and knows us.
        Err(kube::Error::Api(status)) if status.code == 403 => {}
        Err(error) => return Err(unreachable(&access.server, &chain(&error))),
    }
    match addresses {
        Ok(addresses) => Ok(addresses.into_iter().collect()),
        Err(error) => Err(unusable(&error)),
    }
}

/// The error when the access makes no client.
pub fn unusable(error: &KubeClientError) -> UserError {
    UserError::new(
        Reason::KubeconfigInvalid,
        format!("API server: {}", chain(error)),
        "check that kubectl version works with the same flags",
    )
}

/// The error when there is no key pair.
pub fn keyless(error: &dyn std::error::Error) -> UserError {
    UserError::new(Reason::Internal, format!("key pair: {}", chain(error)), "check podwayd's state directory")
}

/// The error when asking gave no result.
pub fn failed(failed: &TaskFailed) -> UserError {
    match failed {
        TaskFailed::TimedOut => unreachable("", "no answer in time"),
        TaskFailed::Aborted => UserError::new(Reason::Cancelled, "connect: withdrawn", ""),
        TaskFailed::Panicked(why) => UserError::new(
            Reason::Internal,
            format!("connect: {why}"),
            "this is a bug in podway: please report it with the log",
        ),
    }
}

fn unreachable(server: &str, why: &str) -> UserError {
    UserError::new(
        Reason::ClusterUnreachable,
        format!("API server {server}: {why}"),
        "check that kubectl version works with the same flags",
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "measures how long it took")]

    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::spec::Credential;

    /// What an API server says to a user whom it does not know for the first `times` questions.
    async fn reached(times: usize) -> Result<BTreeSet<IpAddr>, UserError> {
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
        let access = ClusterAccess {
            server: "https://192.0.2.1:6443".into(),
            tls_server_name: None,
            certificate_authority_data: None,
            insecure_skip_tls_verify: false,
            proxy_url: None,
            impersonate: None,
            credential: Credential::None,
            expires_at: None,
        };
        reach(access, kube::Client::new(tower::service_fn(serve), "demo"), "demo".into()).await
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_an_api_server_does_not_know_yet_are_shown_again() {
        let addresses = reached(3).await.expect("reached");
        assert_eq!(addresses, ["192.0.2.1".parse().expect("an address")].into());
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_are_refused_for_a_second_are_refused() {
        let begun = tokio::time::Instant::now();
        let error = reached(usize::MAX).await.expect_err("refused");
        assert_eq!(error.reason, Reason::Unauthorized);
        assert!(begun.elapsed() >= refusal::GOES_ON && begun.elapsed() < Duration::from_secs(2));
    }
}
