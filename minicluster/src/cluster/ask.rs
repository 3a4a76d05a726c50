//! Questions from outside.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Cluster, OperationError, kind};
use crate::control::Request;

impl Cluster {
    /// Does what is asked for, and answers with what came of it. `kubeconfig` makes one for a user and says where it is.
    ///
    /// # Errors
    /// What could not be done, and why.
    pub async fn ask(
        &self,
        request: Request,
        kubeconfig: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Value, String> {
        match self.operate(request, kubeconfig).await {
            Ok(value) => Ok(value),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn operate(
        &self,
        request: Request,
        kubeconfig: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Value, OperationError> {
        let failed = OperationError::Runtime;
        match request {
            Request::Get { name } => {
                return Ok(self.store.get(&super::key(&name)?).map_or(Value::Null, |object| Value::clone(&object)));
            }
            Request::List { kind: plural, namespace } => {
                let (_, objects) = self.store.list(kind(&plural)?, namespace.as_deref());
                return Ok(objects.iter().map(|object| Value::clone(object)).collect());
            }
            Request::Apply { object } => self.apply(object)?,
            Request::Delete { name, grace } => self.delete(&name, grace)?,
            Request::Scale { name, replicas } => self.scale(&name, replicas)?,
            Request::Restart { name } => self.restart(&name)?,
            Request::Wait { condition, seconds } => {
                let limit = Duration::try_from_secs_f64(seconds).map_err(|error| failed(error.to_string()))?;
                self.wait(&condition, limit).await?;
            }
            Request::Signal { namespace, pod, target, signal } => self.signal(&namespace, &pod, target, signal)?,
            Request::Fetch { namespace, pod, port, path } => return self.fetch(&namespace, &pod, port, &path).await,
            Request::AddNode => return Ok(json!(self.add_node()?)),
            Request::RemoveNode { name } => self.remove_node(&name)?,
            Request::Kubeconfig { user } => return Ok(json!(kubeconfig(&user).map_err(failed)?)),
            Request::Fault { fault } => return self.faults.control(fault).map_err(failed),
            Request::Compact => self.store.compact(),
        }
        Ok(Value::Null)
    }
}
