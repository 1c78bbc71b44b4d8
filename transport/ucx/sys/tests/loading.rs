//! Loading: what is said where there is no UCX, or something else under its name, and that what is bound is what is there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::cell::RefCell;
use std::ffi::{CString, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use std::time::{Duration, Instant};

use ucx_sys::{
    LIBRARY, LoadError, OLDEST, Posted, UCP_AM_FLAG_WHOLE_MSG, UCP_AM_HANDLER_PARAM_FIELD_ARG,
    UCP_AM_HANDLER_PARAM_FIELD_CB, UCP_AM_HANDLER_PARAM_FIELD_FLAGS, UCP_AM_HANDLER_PARAM_FIELD_ID,
    UCP_AM_RECV_ATTR_FLAG_RNDV, UCP_AM_SEND_FLAG_EAGER, UCP_AM_SEND_FLAG_RNDV, UCP_API_MAJOR,
    UCP_API_MINOR, UCP_EP_PARAM_FIELD_REMOTE_ADDRESS, UCP_FEATURE_AM, UCP_FEATURE_WAKEUP,
    UCP_OP_ATTR_FIELD_FLAGS, UCP_PARAM_FIELD_FEATURES, UCP_WORKER_PARAM_FIELD_THREAD_MODE,
    UCS_ERR_NO_MEMORY, UCS_INPROGRESS, UCS_OK, UCS_THREAD_MODE_SINGLE, Ucx, ucp_am_handler_param_t,
    ucp_am_recv_param_t, ucp_context_h, ucp_ep_h, ucp_ep_params_t, ucp_params_t,
    ucp_request_param_t, ucp_worker_h, ucp_worker_params_t, ucs_status_t,
};

/// UCX, if this machine has any.
fn ucx() -> Option<&'static Ucx> {
    match Ucx::load(None) {
        Ok(ucx) => Some(ucx),
        Err(LoadError::NotLoaded { reason }) => {
            println!("skipped: no UCX on this machine ({reason})");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn where_there_is_no_ucx_the_error_names_the_file_and_the_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = Ucx::load(Some(folder.path()))
        .expect_err("it is empty")
        .to_string();
    let file = folder.path().join(LIBRARY).display().to_string();
    assert!(error.contains(&file), "{error}");
    assert!(error.contains("install it"), "{error}");
}

#[test]
fn a_file_that_is_no_library_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(LIBRARY), "no library").expect("written");
    let error = Ucx::load(Some(folder.path())).expect_err("it is text");
    assert!(matches!(error, LoadError::NotLoaded { .. }), "{error:?}");
}

#[test]
fn another_library_under_its_name_is_refused_with_the_function_that_it_lacks() {
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(a_library(), folder.path().join(LIBRARY)).expect("linked");
    let error = Ucx::load(Some(folder.path())).expect_err("it is the C library");
    assert!(matches!(error, LoadError::Incomplete { .. }), "{error:?}");
    let error = error.to_string();
    assert!(error.contains("ucs_status_string"), "{error}");
    assert!(error.contains(&OLDEST.to_string()), "{error}");
}

/// The C library of this process.
fn a_library() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
    let mut files = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5));
    let libc = files.find(|file| file.contains("/libc.so") || file.contains("/libc-"));
    Path::new(libc.expect("every program has one")).to_owned()
}

#[test]
fn what_is_loaded_says_its_version_and_describes_statuses() {
    let Some(ucx) = ucx() else { return };
    assert!(ucx.version() >= OLDEST, "{ucx:?}");
    assert_eq!(ucx.describe(UCS_OK), "Success");
    assert_eq!(ucx.describe(UCS_ERR_NO_MEMORY), "Out of memory");
    assert_eq!(ucx.file(), Path::new(LIBRARY));
}

/// Header and payload, and whether that came by rendezvous; then it lies in `LANDING`.
type Message = (Vec<u8>, Vec<u8>, bool);

/// A context and a worker of it, on one thread, with what has arrived there.
struct Peer {
    ucx: &'static Ucx,
    context: ucp_context_h,
    worker: ucp_worker_h,
    arrived: RefCell<Vec<Message>>,
    /// Payloads on their way.
    arriving: Vec<*mut c_void>,
}

const ID: u32 = 1;
/// What a rendezvous writes into; one at a time.
static LANDING: std::sync::Mutex<Vec<u8>> = std::sync::Mutex::new(Vec::new());

/// Takes in a message.
///
/// # Safety
/// UCX calls it, with `peer` as it was registered, and everything else valid until it returns.
unsafe extern "C" fn on_message(
    peer: *mut c_void,
    header: *const c_void,
    header_length: usize,
    data: *mut c_void,
    length: usize,
    param: *const ucp_am_recv_param_t,
) -> ucs_status_t {
    // SAFETY: registered by `Peer::new`, which keeps the peer where it is, and called by `progress`, while nobody else uses it.
    let peer = unsafe { &mut *peer.cast::<Peer>() };
    // SAFETY: so long, says UCX.
    let header = unsafe { std::slice::from_raw_parts(header.cast::<u8>(), header_length) };
    // SAFETY: valid for this call.
    let attributes = unsafe { (*param).recv_attr };
    if attributes & u64::from(UCP_AM_RECV_ATTR_FLAG_RNDV) == 0 {
        // SAFETY: an eager message lies there whole.
        let payload = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) };
        let message = (header.to_vec(), payload.to_vec(), false);
        peer.arrived.borrow_mut().push(message);
        return UCS_OK;
    }
    let mut landing = LANDING.lock().expect("one thread");
    landing.resize(length, 0);
    // SAFETY: all zeros is "no field set".
    let request: ucp_request_param_t = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer is as long, stays where it is until the request is over, and is read only then.
    let posted = unsafe {
        peer.ucx.ucp_am_recv_data_nbx(
            peer.worker,
            data,
            landing.as_mut_ptr().cast(),
            length,
            &raw const request,
        )
    };
    peer.arrived
        .borrow_mut()
        .push((header.to_vec(), Vec::new(), true));
    match Posted::from(posted) {
        Posted::Done => {}
        Posted::Pending(request) => peer.arriving.push(request.as_ptr()),
        Posted::Failed(status) => return status,
    }
    UCS_INPROGRESS
}

impl Peer {
    fn new(ucx: &'static Ucx) -> Box<Self> {
        // SAFETY: each structure is zeros but for the fields that its mask names; each handle is used after it was made, and only
        // on this thread.
        unsafe {
            let mut config = ptr::null_mut();
            let prefix = CString::new("").expect("no zero");
            let read = ucx.ucp_config_read(prefix.as_ptr(), ptr::null(), &raw mut config);
            assert_eq!(read, UCS_OK, "{}", ucx.describe(read));
            let mut params: ucp_params_t = std::mem::zeroed();
            params.field_mask = u64::from(UCP_PARAM_FIELD_FEATURES);
            params.features = u64::from(UCP_FEATURE_AM | UCP_FEATURE_WAKEUP);
            let mut context = ptr::null_mut();
            let status = ucx.ucp_init_version(
                UCP_API_MAJOR,
                UCP_API_MINOR,
                &raw const params,
                config,
                &raw mut context,
            );
            assert_eq!(status, UCS_OK, "{}", ucx.describe(status));
            ucx.ucp_config_release(config);
            let mut params: ucp_worker_params_t = std::mem::zeroed();
            params.field_mask = u64::from(UCP_WORKER_PARAM_FIELD_THREAD_MODE);
            params.thread_mode = UCS_THREAD_MODE_SINGLE;
            let mut worker = ptr::null_mut();
            let status = ucx.ucp_worker_create(context, &raw const params, &raw mut worker);
            assert_eq!(status, UCS_OK, "{}", ucx.describe(status));
            let mut peer = Box::new(Self {
                ucx,
                context,
                worker,
                arrived: RefCell::default(),
                arriving: Vec::new(),
            });
            let mut handler: ucp_am_handler_param_t = std::mem::zeroed();
            handler.field_mask = u64::from(
                UCP_AM_HANDLER_PARAM_FIELD_ID
                    | UCP_AM_HANDLER_PARAM_FIELD_FLAGS
                    | UCP_AM_HANDLER_PARAM_FIELD_CB
                    | UCP_AM_HANDLER_PARAM_FIELD_ARG,
            );
            handler.id = ID;
            handler.flags = UCP_AM_FLAG_WHOLE_MSG;
            handler.cb = Some(on_message);
            handler.arg = (&raw mut *peer).cast();
            let status = ucx.ucp_worker_set_am_recv_handler(worker, &raw const handler);
            assert_eq!(status, UCS_OK, "{}", ucx.describe(status));
            peer
        }
    }

    fn address(&self) -> Vec<u8> {
        let (mut address, mut length) = (ptr::null_mut(), 0);
        // SAFETY: UCX gives an address of this length, which is ours until it is released.
        unsafe {
            let status =
                self.ucx
                    .ucp_worker_get_address(self.worker, &raw mut address, &raw mut length);
            assert_eq!(status, UCS_OK);
            let bytes = std::slice::from_raw_parts(address.cast::<u8>(), length).to_vec();
            self.ucx.ucp_worker_release_address(self.worker, address);
            bytes
        }
    }

    fn connect(&self, address: &[u8]) -> ucp_ep_h {
        let mut endpoint = ptr::null_mut();
        // SAFETY: the address is read before the call returns.
        let status = unsafe {
            let mut params: ucp_ep_params_t = std::mem::zeroed();
            params.field_mask = u64::from(UCP_EP_PARAM_FIELD_REMOTE_ADDRESS);
            params.address = address.as_ptr().cast();
            self.ucx
                .ucp_ep_create(self.worker, &raw const params, &raw mut endpoint)
        };
        assert_eq!(status, UCS_OK, "{}", self.ucx.describe(status));
        endpoint
    }

    /// Posts a message, whose parts the caller keeps until it is over.
    fn send(&self, endpoint: ucp_ep_h, header: &[u8], payload: &[u8], flags: u32) -> Posted {
        // SAFETY: the caller keeps both until what was posted is over.
        let posted = unsafe {
            let mut request: ucp_request_param_t = std::mem::zeroed();
            request.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
            request.flags = flags;
            self.ucx.ucp_am_send_nbx(
                endpoint,
                ID,
                header.as_ptr().cast(),
                header.len(),
                payload.as_ptr().cast(),
                payload.len(),
                &raw const request,
            )
        };
        Posted::from(posted)
    }

    fn progress(&self) {
        // SAFETY: on the thread that made it.
        unsafe { self.ucx.ucp_worker_progress(self.worker) };
    }

    /// Whether a request is over; then it is gone.
    fn is_over(&self, request: *mut c_void) -> bool {
        // SAFETY: a request that was posted here and has not been freed.
        let status = unsafe { self.ucx.ucp_request_check_status(request) };
        if status == UCS_INPROGRESS {
            return false;
        }
        assert_eq!(status, UCS_OK, "{}", self.ucx.describe(status));
        // SAFETY: it is over, and nobody uses it again.
        unsafe { self.ucx.ucp_request_free(request) };
        true
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // SAFETY: nothing is under way, and neither is used again.
        unsafe {
            self.ucx.ucp_worker_destroy(self.worker);
            self.ucx.ucp_cleanup(self.context);
        }
    }
}

/// Sends one message from one peer to the other and waits until it is there.
fn exchange(flags: u32, payload: &[u8]) -> Option<Message> {
    let ucx = ucx()?;
    let (sender, receiver) = (Peer::new(ucx), Peer::new(ucx));
    let endpoint = sender.connect(&receiver.address());
    let header = b"a header".to_vec();
    let mut posted = sender.send(endpoint, &header, payload, flags);
    let late = Instant::now() + Duration::from_secs(30);
    let mut receiver = receiver;
    loop {
        assert!(Instant::now() < late, "it does not arrive");
        sender.progress();
        receiver.progress();
        match posted {
            Posted::Pending(request) if sender.is_over(request.as_ptr()) => posted = Posted::Done,
            Posted::Failed(status) => panic!("{}", ucx.describe(status)),
            Posted::Pending(_) | Posted::Done => {}
        }
        let arriving = std::mem::take(&mut receiver.arriving);
        let still = arriving
            .into_iter()
            .filter(|request| !receiver.is_over(*request))
            .collect();
        receiver.arriving = still;
        let is_there = !receiver.arrived.borrow().is_empty() && receiver.arriving.is_empty();
        if is_there && posted == Posted::Done {
            break;
        }
    }
    receiver.arrived.take().pop()
}

#[test]
fn a_small_message_arrives_whole() {
    if let Some((header, payload, by_rendezvous)) = exchange(UCP_AM_SEND_FLAG_EAGER, b"payload") {
        assert_eq!(
            (&header[..], &payload[..]),
            (&b"a header"[..], &b"payload"[..])
        );
        assert!(!by_rendezvous);
    }
}

#[test]
fn a_large_message_goes_straight_into_the_buffer_of_the_receiver() {
    let payload: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    if let Some((header, _, by_rendezvous)) = exchange(UCP_AM_SEND_FLAG_RNDV, &payload) {
        assert_eq!(header, b"a header");
        assert!(by_rendezvous);
        assert!(*LANDING.lock().expect("one thread") == payload);
    }
}
