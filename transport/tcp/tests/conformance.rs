//! The TCP backend keeps to what every backend must do, with its defaults and with limits that make every queue fill up.

use transload_transport::conformance::Backend;
use transload_transport_tcp::{TcpOptions, TcpTransport};

mod with_defaults {
    use super::{Backend, TcpTransport};

    fn backend() -> Backend {
        Backend::new(TcpTransport::default(), "127.0.0.1:0")
    }

    transload_transport::conformance_suite!(backend);
}

mod with_tight_limits {
    use super::{Backend, TcpOptions, TcpTransport};

    fn backend() -> Backend {
        let options = TcpOptions {
            max_requests_per_connection: 21,
            max_open_per_connection: 20,
            max_bytes_in_flight_per_connection: 1,
            chunk_bytes: 4 << 10,
            ..TcpOptions::default()
        };
        Backend::new(TcpTransport::new(options), "127.0.0.1:0")
    }

    transload_transport::conformance_suite!(backend);
}

mod wrapped_without_rules {
    use super::{Backend, TcpTransport};
    use transload_transport::faulty::{Faulty, Rules};

    fn backend() -> Backend {
        Backend::new(
            Faulty::new(TcpTransport::default(), Rules::new(1)),
            "[::1]:0",
        )
    }

    transload_transport::conformance_suite!(backend);
}
