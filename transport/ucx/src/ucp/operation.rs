//! Operations that UCX was given, with the memory that they need. An operation is a box that UCX holds the only pointer to until it is
//! over; whatever it owns can be neither freed nor changed before.

use std::mem;
use std::ptr;
use std::rc::Rc;

use transload_gpu::device::Device;
use ucx_sys::{
    Posted, UCP_OP_ATTR_FIELD_CALLBACK, UCP_OP_ATTR_FIELD_FLAGS, UCP_OP_ATTR_FIELD_MEMORY_TYPE,
    UCP_OP_ATTR_FIELD_USER_DATA, UCS_MEMORY_TYPE_CUDA, ucp_ep_h, ucp_request_param_t,
};

use super::endpoint::Faults;
use super::remains::Remains;
use super::{
    Claim, Event, Inner, MAX_HEADER_BYTES, MESSAGE_ID, Offer, Parcel, Tag, UcpError, callbacks,
    posted_or_over,
};

/// What UCX has, and why.
pub(crate) struct Operation {
    pub(super) inner: Rc<Inner>,
    /// Of its endpoint.
    remains: Rc<Remains>,
    kind: Kind,
}

/// What every operation is of.
pub(super) type Owner<'a> = (&'a Rc<Inner>, &'a Rc<Remains>);

enum Kind {
    Send {
        tag: Tag,
        header: [u8; MAX_HEADER_BYTES],
        body: Parcel,
    },
    Receive {
        tag: Tag,
        claim: Claim,
    },
    Close {
        _faults: Box<Faults>,
    },
}

impl Operation {
    /// What is told of its end.
    pub(super) fn into_event(
        self: Box<Self>,
        result: impl FnOnce(&'static str) -> Result<(), UcpError>,
    ) -> Option<Event> {
        let Self { remains, kind, .. } = *self;
        match kind {
            Kind::Send { tag, body, .. } => {
                let result = result("a message was not sent");
                let mut body = Some(body);
                let may_be_used = |body: &mut Parcel| remains.may_be_used(body.device().is_some());
                if result.is_err()
                    && let Some(body) = body.take_if(may_be_used)
                {
                    let bytes = body.bytes();
                    remains.keep(body, bytes);
                }
                let _body = body;
                Some(Event::Sent { tag, result, _body })
            }
            Kind::Receive { tag, claim } => {
                let result = result("a body was not received");
                // Else it ends before the event is read: who reads that may take the memory back.
                if result.is_err() && remains.may_be_used(claim.device().is_some()) {
                    let bytes = claim.bytes();
                    remains.keep(claim, bytes);
                }
                Some(Event::Received { tag, result })
            }
            Kind::Close { .. } => None,
        }
    }
}

/// Tells UCX that the operation is about memory of a device, if it is.
fn about(device: Option<&Device>, inner: &Inner, param: &mut ucp_request_param_t) {
    let Some(device) = device else { return };
    inner.use_device(device);
    param.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMORY_TYPE;
    param.memory_type = UCS_MEMORY_TYPE_CUDA;
}

/// Counts the operation, and gives it to `post` with the parameters that bring it back.
fn start(
    (inner, remains): Owner<'_>,
    kind: Kind,
    flags: u32,
    post: impl FnOnce(&mut ucp_request_param_t, &mut Kind) -> Posted,
) {
    let operation = Box::into_raw(Box::new(Operation {
        inner: Rc::clone(inner),
        remains: Rc::clone(remains),
        kind,
    }));
    inner.posted.set(inner.posted.get() + 1);
    // SAFETY: all zeros is "no field set".
    let mut param: ucp_request_param_t = unsafe { mem::zeroed() };
    param.op_attr_mask =
        UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = flags;
    param.user_data = operation.cast();
    // SAFETY: leaked above, and until `post` returns nobody else has it: callbacks come later, from `progress`.
    let posted = post(&mut param, unsafe { &mut (*operation).kind });
    posted_or_over(inner, operation, posted);
}

/// Posts a message. `endpoint` is one of this worker, and open.
pub(super) fn send(
    owner: Owner<'_>,
    endpoint: ucp_ep_h,
    header: &[u8],
    body: Parcel,
    (tag, flags): (Tag, u32),
) {
    let mut owned = [0; MAX_HEADER_BYTES];
    let header_bytes = header.len().min(MAX_HEADER_BYTES);
    owned[..header_bytes].copy_from_slice(&header[..header_bytes]);
    let kind = Kind::Send {
        tag,
        header: owned,
        body,
    };
    let inner = owner.0;
    start(owner, kind, flags, |param, kind| {
        let Kind::Send { header, body, .. } = kind else {
            return Posted::Done;
        };
        param.cb.send = Some(callbacks::on_sent);
        about(body.device(), inner, param);
        // SAFETY: header and body are the operation's, which stays where it is until it is over; a body's bytes never change, and are of
        // the kind that is said.
        unsafe {
            inner.ucx.ucp_am_send_nbx(
                endpoint,
                MESSAGE_ID,
                header.as_ptr().cast(),
                header_bytes,
                body.start().cast(),
                body.bytes(),
                ptr::from_ref(param),
            )
        }
        .into()
    });
}

/// Posts the reception of an offered body into a place that must be as large.
pub(super) fn receive(owner: Owner<'_>, offer: Offer, claim: Claim, tag: Tag) {
    let inner = owner.0;
    if claim.bytes() != offer.bytes {
        let error = UcpError {
            what: "a body was not received",
            words: format!(
                "its {} B do not fit a place of {} B",
                offer.bytes,
                claim.bytes()
            ),
        };
        inner.push(Event::Received {
            tag,
            result: Err(error),
        });
        return;
    }
    let kind = Kind::Receive { tag, claim };
    start(owner, kind, 0, |param, kind| {
        let Kind::Receive { claim, .. } = kind else {
            return Posted::Done;
        };
        param.cb.recv_am = Some(callbacks::on_received);
        about(claim.device(), inner, param);
        let (_, data, bytes) = offer.take_apart();
        // SAFETY: the offer was not used before. The claim's memory is nobody else's, as large and of the kind that is said, and is the
        // operation's until that is over.
        unsafe {
            inner.ucx.ucp_am_recv_data_nbx(
                inner.worker,
                data.as_ptr(),
                claim.start().cast(),
                bytes,
                ptr::from_ref(param),
            )
        }
        .into()
    });
}

/// Closes an endpoint without a word to the peer: what is under way on it ends with an error, and nothing can hang.
pub(super) fn close(owner: Owner<'_>, endpoint: ucp_ep_h, faults: Box<Faults>) {
    let inner = owner.0;
    let kind = Kind::Close { _faults: faults };
    start(owner, kind, ucx_sys::UCP_EP_CLOSE_FLAG_FORCE, |param, _| {
        param.cb.send = Some(callbacks::on_sent);
        // SAFETY: an endpoint of this worker, used by nobody from here on. What its error handler uses is the operation's.
        unsafe { inner.ucx.ucp_ep_close_nbx(endpoint, ptr::from_ref(param)) }.into()
    });
}
