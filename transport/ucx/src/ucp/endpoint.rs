//! An endpoint: the way to one peer. Dropped, it is closed, and what is under way on it ends.

use std::mem;
use std::ptr;
use std::rc::Rc;

use transload_gpu::device::Device;
use ucx_sys::{
    UCP_AM_SEND_FLAG_EAGER, UCP_AM_SEND_FLAG_RNDV, UCP_EP_PARAM_FIELD_ERR_HANDLER,
    UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE, UCP_EP_PARAM_FIELD_REMOTE_ADDRESS,
    UCP_ERR_HANDLING_MODE_PEER, ucp_ep_h, ucp_ep_params_t,
};

use super::memory_stream::MemoryStream;
use super::{Claim, Inner, Offer, Parcel, Remains, Tag, UcpError, callbacks, operation};

/// How a body gets to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// At once, with the header.
    Eager,
    /// When the receiver has said where to.
    Rendezvous,
}

/// A way to one peer.
pub(crate) struct Endpoint {
    inner: Rc<Inner>,
    handle: ucp_ep_h,
    /// Taken when it closes.
    faults: Option<Box<Faults>>,
    remains: Rc<Remains>,
}

/// What the error handler needs. It stays where it is until the endpoint has closed.
pub(super) struct Faults {
    /// Not an `Rc`: an endpoint that never finishes closing must not keep the worker alive by itself; its operation does.
    pub(super) inner: *const Inner,
    pub(super) tag: u64,
}

impl Endpoint {
    pub(super) fn new(inner: &Rc<Inner>, address: &[u8], tag: u64) -> Result<Self, UcpError> {
        let faults = Box::new(Faults {
            inner: Rc::as_ptr(inner),
            tag,
        });
        // SAFETY: all zeros is "no field set".
        let mut params: ucp_ep_params_t = unsafe { mem::zeroed() };
        params.field_mask = u64::from(
            UCP_EP_PARAM_FIELD_REMOTE_ADDRESS
                | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE
                | UCP_EP_PARAM_FIELD_ERR_HANDLER,
        );
        params.address = address.as_ptr().cast();
        params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
        params.err_handler.cb = Some(callbacks::on_fault);
        params.err_handler.arg = ptr::from_ref(&*faults).cast_mut().cast();
        let mut handle = ptr::null_mut();
        // SAFETY: the structure is valid for its mask. The address was made by a UCX of exactly this version, which the hello made sure of,
        // and is read before this returns; the handler's argument lives until the endpoint has closed.
        let status = unsafe {
            inner
                .ucx
                .ucp_ep_create(inner.worker, &raw const params, &raw mut handle)
        };
        inner.check("no endpoint can be made", status)?;
        Ok(Self {
            inner: Rc::clone(inner),
            handle,
            faults: Some(faults),
            remains: Rc::default(),
        })
    }

    /// Sends a message: a header of at most [`super::MAX_HEADER_BYTES`], and a body. The event that says how it ended bears `tag`.
    pub(crate) fn send(&self, header: &[u8], body: Parcel, protocol: Protocol, tag: Tag) {
        let flags = match protocol {
            Protocol::Eager => UCP_AM_SEND_FLAG_EAGER,
            Protocol::Rendezvous => UCP_AM_SEND_FLAG_RNDV,
        };
        operation::send(self.owner(), self.handle, header, body, (tag, flags));
    }

    /// Receives an offered body of the peer's into its place. The event that says so bears `tag`.
    pub(crate) fn receive(&self, offer: Offer, claim: Claim, tag: Tag) {
        operation::receive(self.owner(), offer, claim, tag);
    }

    /// Ends what is under way on it, without a word to the peer.
    pub(crate) fn close(self) -> Rc<Remains> {
        Rc::clone(&self.remains)
    }

    fn owner(&self) -> operation::Owner<'_> {
        (&self.inner, &self.remains)
    }

    /// To be called before something is received from that device's memory or into it, also where it is this end's host that has the
    /// other place.
    pub(crate) fn use_device(&self, device: &Device) {
        self.inner.use_device(device);
    }

    /// What UCX chose to go over, as in `posix/memory` or `rc_mlx5/mlx5_0:1`; sorted, several with a plus between. Empty where it does not
    /// say.
    pub(crate) fn transports(&self) -> String {
        let Some(mut stream) = MemoryStream::open() else {
            return String::new();
        };
        // SAFETY: the endpoint is open, and so is the stream.
        unsafe {
            self.inner
                .ucx
                .ucp_ep_print_info(self.handle, stream.as_file());
        }
        let transports = lanes(&stream.into_text());
        self.remains.learn(&transports);
        transports
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(faults) = self.faults.take() {
            operation::close(self.owner(), self.handle, faults);
        }
    }
}

/// The transports in what UCX prints of an endpoint. Each lane is a line as in
/// `lane[0]:  5:posix/memory.0 md[3] -> md[3]/posix/sysdev[255] am`.
fn lanes(printed: &str) -> String {
    let name = |line: &str| {
        let (_, lane) = line.split_once("lane[")?;
        let (_, lane) = lane.split_once("]:")?;
        let device = lane.split_whitespace().next()?;
        let (_, device) = device.split_once(':')?;
        // The path of a device that has several.
        let (device, _) = device.rsplit_once('.').unwrap_or((device, ""));
        Some(device.to_owned())
    };
    let mut names: Vec<String> = printed.lines().filter_map(name).collect();
    names.sort();
    names.dedup();
    names.join("+")
}

/// Whether these are nothing better than TCP; as in [`Endpoint::transports`].
pub(crate) fn goes_over_tcp(transports: &str) -> bool {
    !transports.is_empty() && transports.split('+').all(|it| it.starts_with("tcp/"))
}

#[cfg(test)]
mod tests {
    use super::{goes_over_tcp, lanes};

    #[test]
    fn the_lanes_are_found_in_what_is_printed() {
        let printed = "#\n# UCP endpoint \n#\n#               peer: host:12\n\
            #                 lane[0]:  5:posix/memory.0 md[3]    -> md[3]/posix/sysdev[255] am am_bw#0\n\
            #                 lane[1]:  1:rc_mlx5/mlx5_0:1.0 md[4]    -> md[4]/ib/sysdev[1] rma_bw#1\n\
            #                 lane[2]:  1:rc_mlx5/mlx5_0:1.1 md[4]    -> md[4]/ib/sysdev[1] rma_bw#2\n#\n\
            #                tag_send: 0..<egr/short>..8185\n";
        assert_eq!(lanes(printed), "posix/memory+rc_mlx5/mlx5_0:1");
        assert_eq!(lanes("nothing of the kind"), "");
    }

    #[test]
    fn only_tcp_alone_is_nothing_better_than_tcp() {
        assert!(goes_over_tcp("tcp/eth0"));
        assert!(goes_over_tcp("tcp/eth0+tcp/eth1"));
        assert!(!goes_over_tcp("rc_mlx5/mlx5_0:1+tcp/eth0"));
        assert!(!goes_over_tcp("posix/memory"));
        assert!(!goes_over_tcp(""));
    }
}
