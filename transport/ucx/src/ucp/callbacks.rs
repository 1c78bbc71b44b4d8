//! What UCX calls back. Everything here runs beneath `ucp_worker_progress` or beneath the call that posted an operation, on the worker's
//! thread, and does no more than put an event in the queue: a panic must not cross C, and nothing of ours may run here.

use std::ptr::NonNull;
use std::rc::Rc;

use libc::c_void;
use ucx_sys::{
    UCP_AM_RECV_ATTR_FLAG_DATA, UCP_AM_RECV_ATTR_FLAG_RNDV, UCS_ERR_INVALID_PARAM, UCS_INPROGRESS,
    UCS_OK, ucp_am_recv_param_t, ucp_ep_h, ucs_status_t,
};

use super::endpoint::Faults;
use super::operation::Operation;
use super::{Body, Event, Held, Inner, MAX_HEADER_BYTES, Message, Offer, check};

/// A message has arrived.
///
/// # Safety
/// Called by UCX, with the `Inner` that `listen` registered, and everything else valid until it returns.
pub(super) unsafe extern "C" fn on_message(
    inner: *mut c_void,
    header: *const c_void,
    header_bytes: usize,
    data: *mut c_void,
    bytes: usize,
    param: *const ucp_am_recv_param_t,
) -> ucs_status_t {
    let inner = inner.cast_const().cast::<Inner>();
    // SAFETY: registered by `listen`, out of an `Rc` that lives as long as the worker.
    let inner = unsafe {
        Rc::increment_strong_count(inner);
        Rc::from_raw(inner)
    };
    let mut head = [0; MAX_HEADER_BYTES];
    if header_bytes > head.len() {
        // The sender hears of it where it waits for the body to be fetched.
        return UCS_ERR_INVALID_PARAM;
    }
    if header_bytes > 0 {
        // SAFETY: UCX says that so many bytes are there, and they fit.
        unsafe {
            std::ptr::copy_nonoverlapping(header.cast::<u8>(), head.as_mut_ptr(), header_bytes);
        }
    }
    // SAFETY: valid for this call.
    let attributes = unsafe { (*param).recv_attr };
    let has = |flag: u32| attributes & u64::from(flag) != 0;
    let (body, status) = match NonNull::new(data) {
        Some(data) if has(UCP_AM_RECV_ATTR_FLAG_RNDV) => {
            let inner = Rc::clone(&inner);
            (Body::Offered(Offer { inner, data, bytes }), UCS_INPROGRESS)
        }
        Some(data) if bytes > 0 && has(UCP_AM_RECV_ATTR_FLAG_DATA) => {
            let inner = Rc::clone(&inner);
            (Body::Held(Held { inner, data, bytes }), UCS_INPROGRESS)
        }
        Some(data) if bytes > 0 => {
            // SAFETY: an eager message lies there whole until this returns.
            let body = unsafe { std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), bytes) };
            (Body::Copied(body.to_vec()), UCS_OK)
        }
        Some(_) | None => (Body::Copied(Vec::new()), UCS_OK),
    };
    inner.push(Event::Arrived(Message {
        header: head,
        header_bytes,
        body,
    }));
    status
}

/// A message has left, or an endpoint has closed.
///
/// # Safety
/// Called by UCX once, with the operation that was posted with it.
pub(super) unsafe extern "C" fn on_sent(
    request: *mut c_void,
    status: ucs_status_t,
    operation: *mut c_void,
) {
    // SAFETY: as of this function.
    unsafe { on_over(request, status, operation.cast()) };
}

/// A body has been received.
///
/// # Safety
/// Called by UCX once, with the operation that was posted with it.
pub(super) unsafe extern "C" fn on_received(
    request: *mut c_void,
    status: ucs_status_t,
    _bytes: usize,
    operation: *mut c_void,
) {
    // SAFETY: as of this function.
    unsafe { on_over(request, status, operation.cast()) };
}

/// # Safety
/// As of the callbacks above.
unsafe fn on_over(request: *mut c_void, status: ucs_status_t, operation: *mut Operation) {
    // SAFETY: the operation is the box that was leaked when it was posted, and lives until `over` takes it.
    let inner = unsafe { Rc::clone(&(*operation).inner) };
    over(&inner, operation, status);
    // SAFETY: UCX made the request, and its callback, which is this one, is its last use.
    unsafe { inner.ucx.ucp_request_free(request) };
}

/// The operation is over: UCX will not touch its memory again.
pub(super) fn over(inner: &Inner, operation: *mut Operation, status: ucs_status_t) {
    // SAFETY: leaked when it was posted; each is over once.
    let operation = unsafe { Box::from_raw(operation) };
    inner.posted.set(inner.posted.get() - 1);
    if let Some(event) = operation.into_event(|what| check(inner.ucx, what, status)) {
        inner.push(event);
    }
}

/// An endpoint has failed.
///
/// # Safety
/// Called by UCX with the `Faults` of the endpoint, which live until it has closed.
pub(super) unsafe extern "C" fn on_fault(
    faults: *mut c_void,
    _endpoint: ucp_ep_h,
    status: ucs_status_t,
) {
    // SAFETY: as of this function.
    let faults = unsafe { &*faults.cast_const().cast::<Faults>() };
    // SAFETY: UCX calls back only as long as the worker lives, and `Inner` ends with it.
    let inner = unsafe { &*faults.inner };
    if let Err(error) = check(inner.ucx, "the endpoint failed", status) {
        let tag = faults.tag;
        inner.push(Event::Broken { tag, error });
    }
}
