//! Why the API server gave no answer, and what a user does about it. Pure.
//!
//! A client's error is a chain of errors of each layer, and the cause is the outermost one that is known here; a proxy's is
//! told as the proxy's. What the layers around it say (`ServiceError: client error (Connect): tcp connect error`) helps nobody.

use std::error::Error;
use std::io;

use rustls::CertificateError;

use crate::error::{Reason, UserError, chain};
use crate::net::kube_client::Mute;
use crate::timestamp::rfc3339;

/// What is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The machine says that nobody listens at the port.
    Refused,
    /// The machine does not answer in its own network, or a router says that there is no way.
    NoHost,
    /// This host has no route there.
    NoNetwork,
    /// Nothing came back.
    Silence,
    /// It took the connection, and said nothing then.
    Mute,
    /// The name is not known to the host's resolver.
    NoName,
    /// The host's name servers do not answer.
    NoNameServer,
    /// The connection was ended without an answer.
    Cut,
    /// It is not TLS that answers.
    NoTls,
    /// It ended TLS; says how it calls that.
    Alert(String),
    /// Its certificate is of an authority that is not trusted.
    Untrusted,
    /// Its certificate is for these names and not for the one that was asked.
    OtherName(Vec<String>),
    /// Its certificate ended then, in seconds since 1970, where that is known.
    Ended(Option<u64>),
    /// Its certificate is not valid yet.
    NotYet,
    /// The proxy leads nowhere; says why.
    Proxy(&'static str),
    /// The proxy wants to know who asks.
    ProxyLogin,
    /// The proxy itself is not reached.
    NoProxy(Box<Obstacle>),
    /// This process has as many files open as it may.
    NoFiles,
    /// Something else, in its own words.
    Other(String),
}

/// Too many open files, of the process and of the host (errno(3)).
const NO_FILES: [i32; 2] = [24, 23];

impl Obstacle {
    /// The obstacle behind an error.
    pub fn of(error: &(dyn Error + 'static)) -> Obstacle {
        let mut next = Some(error);
        let mut proxy = false;
        while let Some(link) = next {
            let found = known(link);
            match (found, proxy) {
                (Some(Obstacle::NoProxy(_)), _) => proxy = true,
                (Some(found), true) => return Obstacle::NoProxy(Box::new(found)),
                (Some(found), false) => return found,
                (None, _) => {}
            }
            next = inner(link);
        }
        Obstacle::Other(chain(error))
    }

    /// What is behind a name that was not resolved.
    pub fn unresolved(error: &(dyn Error + 'static)) -> Obstacle {
        // The C library's EAI_AGAIN, which the standard library tells in words alone (gai_strerror(3)).
        if chain(error).contains("Temporary failure in name resolution") {
            return Obstacle::NoNameServer;
        }
        Obstacle::NoName
    }

    /// What it is, for people: a clause.
    pub fn words(&self) -> String {
        match self {
            Obstacle::Refused => "nobody listens there (connection refused)".to_owned(),
            Obstacle::NoHost => "no machine answers at that address (no route to host)".to_owned(),
            Obstacle::NoNetwork => "no route leads to that address (network is unreachable)".to_owned(),
            Obstacle::Silence => "no answer came from that address".to_owned(),
            Obstacle::Mute => "it takes a connection and then says nothing".to_owned(),
            Obstacle::NoName => "no name server knows that name".to_owned(),
            Obstacle::NoNameServer => "this host's name servers do not answer".to_owned(),
            Obstacle::Cut => "the connection was ended without an answer".to_owned(),
            Obstacle::NoTls => "what answers there does not speak TLS".to_owned(),
            Obstacle::Alert(alert) => format!("it ended TLS with the alert {alert}"),
            Obstacle::Untrusted => "its certificate is of an authority that the kubeconfig does not trust".to_owned(),
            Obstacle::OtherName(names) if names.is_empty() => "its certificate is for another name".to_owned(),
            Obstacle::OtherName(names) => format!("its certificate is for another name: {}", names.join(", ")),
            Obstacle::Ended(Some(at)) => {
                format!("its certificate ended at {}", rfc3339(i64::try_from(*at).unwrap_or(i64::MAX)))
            }
            Obstacle::Ended(None) => "its certificate has ended".to_owned(),
            Obstacle::NotYet => "its certificate is not valid yet".to_owned(),
            Obstacle::Proxy(why) => format!("the proxy does not lead there: {why}"),
            Obstacle::ProxyLogin => "the proxy wants a user name and a password".to_owned(),
            Obstacle::NoProxy(what) => format!("the proxy cannot be used: {}", what.words()),
            Obstacle::NoFiles => "podwayd may open no more files".to_owned(),
            Obstacle::Other(what) => what.clone(),
        }
    }

    /// Whether it may pass without anybody's changing a file or a certificate: asking again may help.
    pub fn may_pass(&self) -> bool {
        match self {
            Obstacle::Refused
            | Obstacle::NoHost
            | Obstacle::NoNetwork
            | Obstacle::Silence
            | Obstacle::Mute
            // Many a name is known in its own network only.
            | Obstacle::NoName
            | Obstacle::NoNameServer
            | Obstacle::Cut
            | Obstacle::Proxy(_)
            | Obstacle::NoFiles
            | Obstacle::Other(_) => true,
            Obstacle::NoTls
            | Obstacle::Alert(_)
            | Obstacle::Untrusted
            | Obstacle::OtherName(_)
            | Obstacle::Ended(_)
            | Obstacle::NotYet
            | Obstacle::ProxyLogin => false,
            Obstacle::NoProxy(what) => what.may_pass(),
        }
    }

    /// What to do about it.
    fn hint(&self) -> &'static str {
        match self {
            Obstacle::Refused => "start the cluster, or choose another one with --context or --server",
            Obstacle::NoHost => "see that the cluster's machine is on, and that your VPN is connected",
            Obstacle::NoNetwork => "join the network of the cluster, such as its VPN, then connect again",
            Obstacle::Silence => {
                "a firewall may drop the packets: join the network or VPN of the cluster, then connect again"
            }
            Obstacle::Mute => {
                "see that kubectl version answers with the same flags; if not, its administrator has to look at it"
            }
            Obstacle::NoName => "check the spelling, or join the network whose name servers know it",
            Obstacle::NoNameServer => "see that this host is online: getent hosts kubernetes.io, and resolv.conf",
            Obstacle::Cut => {
                "something between may do that, such as a load balancer without a server: see kubectl version"
            }
            Obstacle::NoTls => "check port and scheme of the server: kubectl config view --minify shows them",
            Obstacle::Alert(_) => "fetch the kubeconfig anew: the server may want another client certificate",
            Obstacle::Untrusted => "fetch the kubeconfig anew, or name the authority with --certificate-authority",
            Obstacle::OtherName(_) => "say which name it has with --tls-server-name, if you trust it",
            Obstacle::Ended(_) => "an administrator renews it (kubeadm certs renew all); check this host's clock too",
            Obstacle::NotYet => "check this host's clock: date",
            Obstacle::Proxy(_) => "check --proxy-url or HTTPS_PROXY, or take the server out of it with NO_PROXY",
            Obstacle::ProxyLogin => "put them into the proxy's URL: http://USER:PASSWORD@HOST:PORT",
            Obstacle::NoProxy(_) => "correct --proxy-url or HTTPS_PROXY, or go without the proxy by NO_PROXY",
            Obstacle::NoFiles => {
                "raise its limit: LimitNOFILE= by systemctl edit podwayd, or ulimit -n before sudo podwayd"
            }
            Obstacle::Other(_) => "check that kubectl version works with the same flags",
        }
    }

    /// The error for a user who asked for the API server at this URL.
    pub fn error(&self, server: &str) -> UserError {
        UserError::new(Reason::ClusterUnreachable, format!("API server {server}: {}", self.words()), self.hint())
    }
}

/// The error below. That of [`io::Error`] is not what it calls its source: it says what its contents say.
fn inner<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn known(error: &(dyn Error + 'static)) -> Option<Obstacle> {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return of_tls(error);
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return of_io(error);
    }
    if error.is::<Mute>() {
        return Some(Obstacle::Mute);
    }
    // These types are private to their crates.
    let text = error.to_string();
    Some(match text.as_str() {
        "dns error" => Obstacle::unresolved(error),
        "tunnel error: unsuccessful" => Obstacle::Proxy("it refused"),
        "tunnel error: unexpected end of file" | "tunnel error: proxy response headers too long" => {
            Obstacle::Proxy("it gave no answer that a proxy gives")
        }
        "tunnel error: proxy authorization required" => Obstacle::ProxyLogin,
        "tunnel error: failed to create underlying connection"
        | "SOCKS error: failed to create underlying connection" => Obstacle::NoProxy(Box::new(Obstacle::Silence)),
        _ if text.starts_with("SOCKS error: ") => Obstacle::Proxy("it refused"),
        "connection closed before message completed" => Obstacle::Cut,
        _ => return None,
    })
}

fn of_io(error: &io::Error) -> Option<Obstacle> {
    if error.raw_os_error().is_some_and(|number| NO_FILES.contains(&number)) {
        return Some(Obstacle::NoFiles);
    }
    // What only holds another error is named by that.
    if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
        return None;
    }
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the standard library adds kinds; those not named say themselves"
    )]
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(Obstacle::Refused),
        io::ErrorKind::HostUnreachable => Some(Obstacle::NoHost),
        io::ErrorKind::NetworkUnreachable => Some(Obstacle::NoNetwork),
        io::ErrorKind::TimedOut => Some(Obstacle::Silence),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Some(Obstacle::Cut),
        _ => None,
    }
}

fn of_tls(error: &rustls::Error) -> Option<Obstacle> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls adds errors; those not named say themselves")]
    match error {
        rustls::Error::InvalidCertificate(why) => of_certificate(why),
        rustls::Error::InvalidMessage(_) => Some(Obstacle::NoTls),
        rustls::Error::AlertReceived(alert) => Some(Obstacle::Alert(format!("{alert:?}"))),
        _ => None,
    }
}

fn of_certificate(why: &CertificateError) -> Option<Obstacle> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls adds errors; those not named say themselves")]
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Some(Obstacle::Untrusted),
        CertificateError::Expired => Some(Obstacle::Ended(None)),
        CertificateError::ExpiredContext { not_after, .. } => Some(Obstacle::Ended(Some(not_after.as_secs()))),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Some(Obstacle::NotYet),
        CertificateError::NotValidForName => Some(Obstacle::OtherName(Vec::new())),
        CertificateError::NotValidForNameContext { presented, .. } => {
            Some(Obstacle::OtherName(presented.iter().map(|name| plain(name)).collect()))
        }
        _ => None,
    }
}

/// A name as a user writes it: rustls shows `DnsName("kubernetes")` and `IpAddress(10.43.0.1)`.
fn plain(name: &str) -> String {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(name).trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wraps as clients do.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Box<dyn Error + Send + Sync>);

    fn of(kind: io::ErrorKind) -> Obstacle {
        Obstacle::of(&Layer(
            "client error (Connect)",
            Box::new(Layer("tcp connect error", Box::new(io::Error::from(kind)))),
        ))
    }

    fn tls(error: rustls::Error) -> Obstacle {
        Obstacle::of(&Layer("client error (Connect)", Box::new(io::Error::new(io::ErrorKind::InvalidData, error))))
    }

    #[test]
    fn the_known_cause_is_told_and_not_the_layers_around_it() {
        for (kind, wanted) in [
            (io::ErrorKind::ConnectionRefused, Obstacle::Refused),
            (io::ErrorKind::HostUnreachable, Obstacle::NoHost),
            (io::ErrorKind::NetworkUnreachable, Obstacle::NoNetwork),
            (io::ErrorKind::TimedOut, Obstacle::Silence),
            (io::ErrorKind::UnexpectedEof, Obstacle::Cut),
        ] {
            assert_eq!(of(kind), wanted);
        }
        assert_eq!(tls(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)), Obstacle::Untrusted);
        let message = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert_eq!(tls(message), Obstacle::NoTls);
        let layer = Layer(
            "tunnel error: failed to create underlying connection",
            Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)),
        );
        assert_eq!(Obstacle::of(&layer), Obstacle::NoProxy(Box::new(Obstacle::Refused)));
        // What the runtime says of a deadline is known, and what it broke off is not the cause.
        let both = io::Error::new(io::ErrorKind::TimedOut, io::Error::from(io::ErrorKind::ConnectionReset));
        assert_eq!(Obstacle::of(&both), Obstacle::Silence);
        let unresolved = |text: &'static str| Obstacle::unresolved(&io::Error::other(text));
        let again = "failed to lookup address information: Temporary failure in name resolution";
        assert_eq!(unresolved(again), Obstacle::NoNameServer);
        assert_eq!(unresolved("failed to lookup address information: Name or service not known"), Obstacle::NoName);
        let odd = Obstacle::of(&Layer("odd", Box::new(io::Error::other("thing"))));
        assert_eq!(odd, Obstacle::Other("odd: thing".into()));
    }

    #[test]
    fn the_names_of_a_certificate_are_told_as_they_are_typed() {
        assert_eq!(plain("DnsName(\"kubernetes\")"), "kubernetes");
        assert_eq!(plain("IpAddress(10.43.0.1)"), "10.43.0.1");
        assert_eq!(plain("odd"), "odd");
    }

    #[test]
    fn no_two_obstacles_say_the_same() {
        let all = [
            Obstacle::Refused,
            Obstacle::NoHost,
            Obstacle::NoNetwork,
            Obstacle::Silence,
            Obstacle::Mute,
            Obstacle::NoName,
            Obstacle::NoNameServer,
            Obstacle::Cut,
            Obstacle::NoTls,
            Obstacle::Alert("X".into()),
            Obstacle::Untrusted,
            Obstacle::OtherName(vec!["a".into()]),
            Obstacle::Ended(None),
            Obstacle::Ended(Some(0)),
            Obstacle::NotYet,
            Obstacle::Proxy("it refused"),
            Obstacle::ProxyLogin,
            Obstacle::NoFiles,
            Obstacle::NoProxy(Box::new(Obstacle::Refused)),
            Obstacle::Other("x".into()),
        ];
        let texts: std::collections::BTreeSet<String> = all.iter().map(Obstacle::words).collect();
        assert_eq!(texts.len(), all.len());
        assert!(all.iter().all(|obstacle| !obstacle.hint().is_empty()));
        assert!(Obstacle::Ended(Some(0)).words().ends_with("1970-01-01T00:00:00Z"));
    }
}
