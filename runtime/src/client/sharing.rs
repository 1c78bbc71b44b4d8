//! Results that clients share: holding each other's tasks, giving them names, finding out where they are.
//!
//! Part of [`Client`]. What is held is a [`LayerHandle`].

use std::sync::atomic::Ordering;

use transload_protocol::{
    GraphId, Holding, Publication, RequestId, SharingAnswer, SharingCall, TaskRange,
};

use super::{Client, ClientError, LayerHandle};

impl Client {
    /// Holds tasks of a kept layer of any client's graph, whether they are done or not: they stay as long as the handle does, whoever
    /// else lets go of them.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when they are unknown, were not kept, or were released by all who held them;
    /// [`ClientError::ConnectionLost`].
    pub async fn hold(&self, tasks: TaskRange) -> Result<LayerHandle, ClientError> {
        LayerHandle::new(self, SharingCall::Hold { tasks }).await
    }

    /// Holds what was published under a name.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when nothing was; [`ClientError::ConnectionLost`].
    pub async fn lookup(&self, name: &str) -> Result<LayerHandle, ClientError> {
        let name = name.to_owned();
        LayerHandle::new(self, SharingCall::Lookup { name }).await
    }

    /// Gives tasks a name under which every client finds them. The name holds them until it is taken away, also when this client is
    /// gone; with a journal, also when the scheduler is. Should their graph fail, the name is gone with it.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the name is taken and `replace` is not set, when there are too many names, and as
    /// [`Client::hold`].
    pub async fn publish(
        &self,
        name: &str,
        tasks: TaskRange,
        replace: bool,
    ) -> Result<(), ClientError> {
        let call = SharingCall::Publish {
            name: name.to_owned(),
            tasks,
            replace,
        };
        self.ask(call).await.map(|_| ())
    }

    /// Takes a name away, if there is one.
    ///
    /// # Errors
    /// [`ClientError::ConnectionLost`].
    pub async fn unpublish(&self, name: &str) -> Result<(), ClientError> {
        let name = name.to_owned();
        self.ask(SharingCall::Unpublish { name }).await.map(|_| ())
    }

    /// All names, in order, and how large what they mean is.
    ///
    /// # Errors
    /// [`ClientError::ConnectionLost`].
    pub async fn published(&self) -> Result<Vec<Publication>, ClientError> {
        match self.ask(SharingCall::Published).await? {
            SharingAnswer::Names(names) => Ok(names),
            _ => Ok(Vec::new()),
        }
    }

    /// Where the partitions of tasks of a kept layer are: one entry for each task, `None` where it is not done. Copies that other
    /// workers have fetched are not counted: they come and go without the scheduler.
    ///
    /// # Errors
    /// As [`Client::hold`].
    pub async fn who_has(&self, tasks: TaskRange) -> Result<Vec<Option<Holding>>, ClientError> {
        match self.ask(SharingCall::WhoHas { tasks }).await? {
            SharingAnswer::Holders(holders) => Ok(holders),
            _ => Ok(Vec::new()),
        }
    }

    async fn ask(&self, call: SharingCall) -> Result<SharingAnswer, ClientError> {
        if self.inner.state.lost().is_some() {
            return Err(self.connection_lost());
        }
        let answer = self.inner.state.ask(self.next_request(), call);
        match answer.await {
            Ok(SharingAnswer::Refused(refusal)) => Err(ClientError::Refused(refusal)),
            Ok(answer) => Ok(answer),
            Err(_) => Err(self.connection_lost()),
        }
    }

    pub(super) fn next_request(&self) -> RequestId {
        RequestId(self.inner.next_call.fetch_add(1, Ordering::Relaxed))
    }

    /// What is named before anything is known.
    pub(super) fn no_graph(&self) -> GraphId {
        GraphId {
            client: self.inner.id,
            sequence: u32::MAX,
        }
    }
}
