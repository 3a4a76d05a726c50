//! Who may call: users with their groups, known by a bearer token or by a client certificate.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;

use super::certificates::{Authority, CertificateError, Certified};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// Name.
    pub name: String,
    /// Groups, without `system:authenticated`, in which everybody is.
    pub groups: Vec<String>,
}

impl User {
    /// A user in these groups.
    pub fn new<const N: usize>(name: &str, groups: [&str; N]) -> User {
        User { name: name.to_owned(), groups: groups.map(str::to_owned).to_vec() }
    }
}

struct Account {
    token: String,
    certificate: Certified,
}

/// All users and their credentials.
pub struct Accounts {
    by_name: BTreeMap<String, Account>,
    by_token: BTreeMap<String, User>,
    by_certificate: BTreeMap<Vec<u8>, User>,
}

impl Accounts {
    /// Makes credentials for these users.
    pub fn new(users: Vec<User>, authority: &Authority) -> Result<Accounts, CertificateError> {
        let mut accounts =
            Accounts { by_name: BTreeMap::new(), by_token: BTreeMap::new(), by_certificate: BTreeMap::new() };
        for user in users {
            let (token, certificate) = (token(), authority.client(&user)?);
            accounts.by_token.insert(token.clone(), user.clone());
            accounts.by_certificate.insert(certificate.der().to_vec(), user.clone());
            accounts.by_name.insert(user.name.clone(), Account { token, certificate });
        }
        Ok(accounts)
    }

    /// The user with that token.
    pub fn of_token(&self, token: &str) -> Option<&User> {
        self.by_token.get(token)
    }

    /// The user with that certificate (DER). The handshake has proved that the caller has its key.
    pub fn of_certificate(&self, der: &[u8]) -> Option<&User> {
        self.by_certificate.get(der)
    }

    /// A user's token.
    pub fn token(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(|account| account.token.as_str())
    }

    /// A kubeconfig for a user, as JSON, which is YAML.
    pub fn kubeconfig(
        &self,
        name: &str,
        how: Credential,
        server: &str,
        ca_pem: &str,
        namespace: &str,
    ) -> Option<String> {
        let account = self.by_name.get(name)?;
        let credential = match how {
            Credential::Token => json!({"token": account.token}),
            Credential::Certificate => json!({
                "client-certificate-data": STANDARD.encode(account.certificate.pem()),
                "client-key-data": STANDARD.encode(account.certificate.key_pem()),
            }),
        };
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "minicluster", "cluster": {
                "server": server, "certificate-authority-data": STANDARD.encode(ca_pem),
            }}],
            "users": [{"name": name, "user": credential}],
            "contexts": [{"name": "minicluster", "context": {
                "cluster": "minicluster", "user": name, "namespace": namespace,
            }}],
            "current-context": "minicluster",
        });
        Some(format!("{config:#}\n"))
    }
}

/// How a user proves who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// By a bearer token.
    Token,
    /// By a client certificate.
    Certificate,
}

fn token() -> String {
    let mut bytes = [0; 24];
    // Without random numbers TLS would not work either.
    let _ = SystemRandom::new().fill(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}
