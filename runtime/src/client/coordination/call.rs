//! One call of a client, from its message to its end. Used by all kinds of things.

use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use transload_protocol::{Blob, ClientMessage, CoordinationAnswer, CoordinationCall, RequestId};

use super::{CoordinationError, Named};
use crate::client::Client;

/// A call that was sent. Dropping it tells the scheduler that nothing is wanted of it any more, unless it is known to be over.
pub(super) struct Call {
    named: Named,
    request: RequestId,
    answers: mpsc::UnboundedReceiver<CoordinationAnswer>,
    is_over: bool,
}

impl Call {
    pub(super) fn send(named: &Named, call: CoordinationCall) -> Result<Self, CoordinationError> {
        let inner = &named.client.inner;
        let request = RequestId(inner.next_call.fetch_add(1, Ordering::Relaxed));
        let answers = inner.state.expect_answers(request);
        let sent = Self {
            named: named.clone(),
            request,
            answers,
            is_over: false,
        };
        say(&named.client, request, call).map_err(CoordinationError::Client)?;
        Ok(sent)
    }

    /// The next answer. A call that was refused or timed out is an error.
    pub(super) async fn answer(&mut self) -> Result<CoordinationAnswer, CoordinationError> {
        let what = || format!("{:?}", self.named);
        match self.answers.recv().await {
            None => {
                self.is_over = true;
                let error = self.named.client.connection_lost();
                Err(CoordinationError::Client(error))
            }
            Some(CoordinationAnswer::TimedOut) => {
                self.is_over = true;
                Err(CoordinationError::TimedOut {
                    what: what(),
                    waited: self.named.patience.unwrap_or_default(),
                })
            }
            Some(CoordinationAnswer::Refused(source)) => {
                self.is_over = true;
                Err(CoordinationError::Refused {
                    what: what(),
                    source,
                })
            }
            Some(CoordinationAnswer::Expired) => {
                self.is_over = true;
                Err(CoordinationError::LeaseOver { what: what() })
            }
            Some(
                answer @ (CoordinationAnswer::Granted
                | CoordinationAnswer::Done
                | CoordinationAnswer::Value(_)),
            ) => Ok(answer),
        }
    }

    /// Waits until it is done.
    pub(super) async fn done(mut self) -> Result<(), CoordinationError> {
        let CoordinationAnswer::Done = self.answer().await? else {
            return Err(self.wrong_answer());
        };
        self.is_over = true;
        Ok(())
    }

    /// Waits for a value, and says that it has arrived.
    pub(super) async fn value(mut self) -> Result<Blob, CoordinationError> {
        let CoordinationAnswer::Value(value) = self.answer().await? else {
            return Err(self.wrong_answer());
        };
        self.is_over = true;
        // Of a connection that is lost, everything is known to the scheduler already.
        let _ = say(&self.named.client, self.request, CoordinationCall::Taken);
        Ok(value)
    }

    pub(super) fn wrong_answer(&self) -> CoordinationError {
        let what = format!("{:?}", self.named);
        CoordinationError::WrongAnswer { what }
    }

    pub(super) const fn request(&self) -> RequestId {
        self.request
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let client = &self.named.client;
        client.inner.state.expect_no_answers(self.request);
        if !self.is_over {
            // A lost connection has ended all calls already.
            let _ = say(client, self.request, CoordinationCall::End);
        }
    }
}

pub(super) fn say(
    client: &Client,
    request: RequestId,
    call: CoordinationCall,
) -> Result<(), crate::ClientError> {
    client.send(ClientMessage::Coordinate { request, call })
}
