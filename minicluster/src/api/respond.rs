//! From a request to its answer: who asks, whether they may, what they get.

use std::sync::Arc;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use super::answer::{self, Answer};
use super::negotiation::{self, Form};
use super::request::RequestInfo;
use super::serve::{Connection, Shared, who};
use super::status::Status;
use super::{delete, discovery, portforward, read, reviews, subresources, table, watch, write};
use crate::faults::Who;
use crate::rbac::{Attributes, Policy, Subject};
use crate::resource::Resource;

/// Most bytes of a body, as with a real API server.
const BODY: usize = 3 << 20;

/// A request, and who makes it.
pub struct Asked {
    info: RequestInfo,
    /// None: the credentials are not ours.
    subject: Option<Subject>,
}

impl Asked {
    /// Reads a request's head.
    pub fn read(shared: &Shared, connection: &Connection, request: &Request<Incoming>) -> Asked {
        let uri = request.uri();
        let info = RequestInfo::of(request.method(), uri.path(), uri.query().unwrap_or_default());
        let bearer = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = bearer.map(|value| value.strip_prefix("Bearer ").unwrap_or_default().trim());
        let user = match (&connection.certificate, bearer) {
            (Some(user), _) => Some(user),
            (None, Some(token)) => match shared.accounts.of_token(token) {
                Some(user) => Some(user),
                None => return Asked { info, subject: None },
            },
            // A certificate of a stranger.
            (None, None) if connection.shown => return Asked { info, subject: None },
            (None, None) => None,
        };
        let subject = match user {
            Some(user) => {
                let mut groups = user.groups.clone();
                groups.push("system:authenticated".to_owned());
                Subject { name: user.name.clone(), groups }
            }
            None => Subject { name: "system:anonymous".to_owned(), groups: vec!["system:unauthenticated".to_owned()] },
        };
        Asked { info, subject: Some(subject) }
    }

    /// For the rules of faults.
    pub fn who(&self) -> Who {
        who(&self.info, self.subject.as_ref().map_or("", |subject| &subject.name))
    }
}

/// A request that is allowed, as those see it who answer it.
pub struct Call<'a> {
    pub shared: &'a Arc<Shared>,
    pub info: &'a RequestInfo,
    pub subject: &'a Subject,
    pub who: Who,
    pub resource: &'static Resource,
    pub form: Form,
}

/// Answers a request.
pub async fn respond(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    asked: Asked,
    who: Who,
    request: Request<Incoming>,
) -> Answer {
    let Asked { info, subject } = asked;
    let answered = async {
        let subject = subject.ok_or_else(Status::unauthorized)?;
        let policy = Policy::of(&shared.store);
        let subject = impersonated(&policy, subject, request.headers())?;
        authorize(&policy, &subject, &info.attributes)?;
        if !info.is_resource() {
            return discovery::answer(&info, request.headers());
        }
        resource(shared, connection, &info, &policy, &subject, who, request).await
    };
    answered.await.unwrap_or_else(|status| answer::status(&status))
}

/// Whether somebody may.
///
/// # Errors
/// 403 where they may not.
pub fn authorize(policy: &Policy, subject: &Subject, wanted: &Attributes) -> Result<(), Status> {
    let decision = policy.decide(subject, wanted);
    if decision.allowed {
        return Ok(());
    }
    let why = forbidden(subject, wanted);
    let why = if decision.reason.is_empty() { why } else { format!("{why}: {}", decision.reason) };
    Err(Status::forbidden(&wanted.group, &wanted.resource, &wanted.name, &why))
}

fn forbidden(subject: &Subject, wanted: &Attributes) -> String {
    let Attributes { verb, group, namespace, path, .. } = wanted;
    let user = &subject.name;
    let text = if wanted.resource.is_empty() {
        format!("User {user:?} cannot {verb} path {path:?}")
    } else {
        let resource = match wanted.subresource.as_str() {
            "" => wanted.resource.clone(),
            subresource => format!("{}/{subresource}", wanted.resource),
        };
        let place = match namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}")
    };
    // What looks like HTML is not echoed.
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Whom somebody wants to be, if they may.
fn impersonated(policy: &Policy, subject: Subject, headers: &HeaderMap) -> Result<Subject, Status> {
    let all = |name: &str| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let Some(name) = all("Impersonate-User").next().filter(|name| !name.is_empty()) else { return Ok(subject) };
    let mut groups: Vec<String> = all("Impersonate-Group").map(str::to_owned).collect();
    let wanted = |resource: &str, namespace: &str, name: &str| Attributes {
        verb: "impersonate".to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    };
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let user = match account {
        Some((namespace, name)) => wanted("serviceaccounts", namespace, name),
        None => wanted("users", "", name),
    };
    authorize(policy, &subject, &user)?;
    for group in &groups {
        authorize(policy, &subject, &wanted("groups", "", group))?;
    }
    if let Some((namespace, _)) = account
        && groups.is_empty()
    {
        groups.extend(["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]);
    }
    if !groups.iter().any(|group| group == "system:authenticated" || group == "system:unauthenticated") {
        groups.push("system:authenticated".to_owned());
    }
    Ok(Subject { name: name.to_owned(), groups })
}

async fn resource(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    info: &RequestInfo,
    policy: &Policy,
    subject: &Subject,
    who: Who,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    let wanted = &info.attributes;
    if wanted.group == "authorization.k8s.io" || wanted.group == "authentication.k8s.io" {
        return reviews::answer(policy, subject, info, &body(request).await?);
    }
    let known = Resource::find(&wanted.group, &wanted.resource).filter(|resource| resource.version == info.version);
    let Some(resource) = known else {
        return if discovery::has_group(&wanted.group) { Err(Status::no_such_path()) } else { Ok(answer::nowhere()) };
    };
    // A namespace may stand before what lives in one, and before itself.
    let itself = resource.plural == "namespaces";
    if (!wanted.namespace.is_empty() && !resource.namespaced && !itself) || !info.rest.is_empty() {
        return Err(Status::no_such_path());
    }
    let named = match &*wanted.verb {
        // There the name may come from a selector.
        "list" | "watch" => false,
        _ => !wanted.name.is_empty(),
    };
    if named && resource.namespaced && wanted.namespace.is_empty() {
        return Err(Status::no_such_path());
    }
    let accept = request.headers().get(http::header::ACCEPT).and_then(|value| value.to_str().ok());
    let form = |tables| negotiation::form(accept, tables);
    if !wanted.subresource.is_empty() {
        let call = Call { shared, info, subject, who, resource, form: Form::Object };
        if resource.plural == "pods" && wanted.subresource == "portforward" {
            return portforward::answer(&call, policy, connection, request);
        }
        return subresources::answer(call, request).await;
    }
    let call = Call { shared, info, subject, who, resource, form: form(table::has(resource))? };
    match (&*wanted.verb, named) {
        ("list", _) => read::list(&call),
        ("watch", _) => watch::answer(&call),
        ("get", _) => read::get(&call),
        ("create", false) if !resource.namespaced || !wanted.namespace.is_empty() => {
            check_type(&request)?;
            write::create(&call, &body(request).await?)
        }
        ("update", true) => {
            check_type(&request)?;
            write::replace(&call, &body(request).await?)
        }
        ("patch", true) => {
            let media_type = media_type(&request);
            write::patch(&call, &media_type, &body(request).await?)
        }
        ("delete", true) => delete::one(&call, &body(request).await?),
        ("deletecollection", false) if !resource.namespaced || !wanted.namespace.is_empty() => {
            delete::collection(&call, &body(request).await?)
        }
        (_, _) => Err(Status::method_not_allowed()),
    }
}

/// The whole body.
///
/// # Errors
/// 413 when it is too large, 400 when it breaks off.
pub async fn body(request: Request<Incoming>) -> Result<Bytes, Status> {
    match Limited::new(request.into_body(), BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Status::too_large(BODY)),
        Err(error) => Err(Status::bad_request(format!("unexpected EOF: {error}"))),
    }
}

/// The media type of the body, without its parameters.
pub fn media_type(request: &Request<Incoming>) -> String {
    let value = request.headers().get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let value = value.unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_lowercase()
}

/// Whether the body is JSON, as far as its type says.
///
/// # Errors
/// 415 where it is not.
pub fn check_type(request: &Request<Incoming>) -> Result<(), Status> {
    match media_type(request).as_str() {
        "" | "application/json" | "*/*" => Ok(()),
        _ if request.method() == Method::GET => Ok(()),
        _ => Err(Status::unsupported_media_type(&[
            "application/json",
            "application/yaml",
            "application/vnd.kubernetes.protobuf",
        ])),
    }
}

impl Call<'_> {
    /// The name of the object that the request is about.
    pub fn key(&self, name: &str) -> crate::store::Key {
        let namespace = if self.resource.namespaced { self.info.attributes.namespace.as_str() } else { "" };
        crate::store::Key::new(self.resource, namespace, name)
    }

    /// An object in the form that was asked for.
    pub fn show(&self, code: u16, object: &Value) -> Answer {
        match self.form {
            Form::Object => answer::json(code, object),
            Form::Metadata => answer::json(code, &read::partial(object)),
            Form::Table => {
                answer::json(code, &table::one(self.resource, object, &self.info.query, self.shared.store.now()))
            }
        }
    }
}
