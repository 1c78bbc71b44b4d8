//! UCX for tests, where this machine has it.

use std::time::Duration;

use transload_transport_ucx::{UcxOptions, UcxTransport};

/// The defaults, but for the patience that a machine busy with other builds needs.
pub(crate) fn options() -> UcxOptions {
    UcxOptions {
        connect_timeout: Duration::from_secs(120),
        stall_timeout: Duration::from_secs(120),
        ..UcxOptions::default()
    }
}

/// A transport of its own, or `None` and a printed reason.
pub(crate) fn start(options: UcxOptions) -> Option<UcxTransport> {
    match UcxTransport::start(options) {
        Ok(transport) => Some(transport),
        Err(unavailable) => {
            println!("skipped: {unavailable}");
            None
        }
    }
}
