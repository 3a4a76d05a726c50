//! The API server: HTTPS on given listeners, in front of the [`Store`].
//!
//! It answers as a Kubernetes API server does for the kinds of [`resource`](crate::resource). Rights come from the Roles
//! and bindings in the store; pods are reached through a [`Kubelet`]; what goes wrong on purpose is set in [`Faults`].

mod answer;
mod certificates;
mod delete;
mod discovery;
mod field_selector;
mod invalid;
mod label_selector;
mod names;
mod negotiation;
mod options;
mod paging;
mod patch;
mod portforward;
mod read;
mod request;
mod respond;
mod reviews;
mod serve;
mod status;
mod strategic;
mod subresources;
mod table;
mod users;
mod validate;
mod watch;
mod write;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};

use self::certificates::Authority;
pub use self::certificates::CertificateError;
use self::serve::{Shared, Tasks};
use self::users::Accounts;
pub use self::users::{Credential, User};
use crate::faults::Faults;
use crate::store::Store;

/// A future on the heap.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the API server asks of the nodes. Called for pods that exist and run.
pub trait Kubelet: Send + Sync + 'static {
    /// Connects to a port of a pod, from inside the pod to its `localhost` (IPv4 first, then IPv6).
    ///
    /// An error's text becomes part of what the client reads. Cancel safe.
    fn dial<'a>(&'a self, pod_uid: &'a str, port: u16) -> Boxed<'a, io::Result<TcpStream>>;

    /// What a container wrote so far.
    fn logs<'a>(&'a self, pod_uid: &'a str, container: &'a str) -> Boxed<'a, io::Result<Vec<u8>>> {
        let _ = (pod_uid, container);
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// What an API server is made of.
pub struct Options {
    /// The objects.
    pub store: Store,
    /// The way into pods.
    pub kubelet: Arc<dyn Kubelet>,
    /// What goes wrong on purpose.
    pub faults: Faults,
    /// Who may call. Their rights come from the store.
    pub users: Vec<User>,
    /// Names and addresses of the server besides those of its listeners, for its certificate.
    pub names: Vec<String>,
    /// Whether a port-forward over a WebSocket needs the right to `create` besides `get`, as from Kubernetes 1.35 on.
    pub websocket_needs_create: bool,
}

/// Why no server could be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no listener, or its address is unknown.
    #[error("no address to listen on")]
    Listener(#[source] io::Error),
    /// Its certificates could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS could not be set up.
    #[error("TLS could not be set up")]
    Tls(#[from] rustls::Error),
}

/// A running API server. Dropping it ends it and all its connections.
pub struct Server {
    addresses: Vec<SocketAddr>,
    ca_pem: String,
    shared: Arc<Shared>,
    tasks: Tasks,
}

impl Server {
    /// Starts serving on the listeners. Needs a runtime around it.
    ///
    /// # Errors
    /// When there is no listener, or certificates and TLS cannot be set up.
    pub fn start(options: Options, listeners: Vec<TcpListener>) -> Result<Server, StartError> {
        let addresses: io::Result<Vec<SocketAddr>> = listeners.iter().map(TcpListener::local_addr).collect();
        let addresses = addresses.map_err(StartError::Listener)?;
        if addresses.is_empty() {
            return Err(StartError::Listener(io::ErrorKind::AddrNotAvailable.into()));
        }
        let authority = Authority::new()?;
        let accounts = Accounts::new(options.users, &authority)?;
        let mut names: Vec<String> = NAMES.map(str::to_owned).to_vec();
        names.extend(options.names);
        let mut ips: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
        ips.extend([IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]);
        let tls = serve::tls(&authority, &authority.server(&names, &ips)?)?;
        let shared = Arc::new(Shared {
            store: options.store,
            kubelet: options.kubelet,
            faults: options.faults,
            accounts,
            websocket_needs_create: options.websocket_needs_create,
        });
        let tasks = Tasks::start(listeners, tls, &shared);
        Ok(Server { addresses, ca_pem: authority.pem(), shared, tasks })
    }

    /// Where it listens; as many as there were listeners, in their order.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// `https://` and the first address.
    pub fn url(&self) -> String {
        self.addresses.first().map_or_else(String::new, |address| format!("https://{address}"))
    }

    /// The certificate authority, for clients to trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A user's bearer token.
    pub fn token(&self, user: &str) -> Option<&str> {
        self.shared.accounts.token(user)
    }

    /// A kubeconfig for a user, whose context has that namespace. `None` when there is no such user.
    pub fn kubeconfig(&self, user: &str, credential: Credential, namespace: &str) -> Option<String> {
        self.shared.accounts.kubeconfig(user, credential, &self.url(), &self.ca_pem, namespace)
    }

    /// Ends it and all its connections, and waits until they are closed.
    pub async fn stop(self) {
        self.tasks.stop().await;
    }
}

/// Names of the server inside the cluster.
const NAMES: [&str; 5] =
    ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
