//! The UCX backend keeps to what every backend must do, with its defaults and with limits that make every queue fill up. Skipped, with a
//! printed reason, where there is no UCX.

mod common;

use common::{options, start};
use transload_transport::conformance::Backend;
use transload_transport_ucx::UcxOptions;

mod with_defaults {
    use super::{Backend, options, start};

    fn backend() -> Option<Backend> {
        Some(Backend::new(start(options())?, "127.0.0.1:0").with_most_open(32))
    }

    transload_transport::conformance_suite!(backend);
}

mod with_tight_limits {
    use super::{Backend, UcxOptions, options, start};

    fn backend() -> Option<Backend> {
        let options = UcxOptions {
            max_requests_per_connection: 21,
            max_open_per_connection: 20,
            max_bytes_in_flight_per_connection: 1,
            chunk_bytes: 64 << 10,
            ..options()
        };
        Some(Backend::new(start(options)?, "127.0.0.1:0").with_most_open(20))
    }

    transload_transport::conformance_suite!(backend);
}

mod wrapped_without_rules {
    use super::{Backend, options, start};
    use transload_transport::faulty::{Faulty, Rules};

    fn backend() -> Option<Backend> {
        let transport = start(options())?;
        Some(Backend::new(
            Faulty::new(transport, Rules::new(1)),
            "[::1]:0",
        ))
    }

    transload_transport::conformance_suite!(backend);
}
