//! The TCP backend keeps to what every backend must do, with its defaults and with limits that make every queue fill up.

use std::time::Duration;

use transload_transport::conformance::Backend;
use transload_transport_tcp::{TcpOptions, TcpTransport};

/// The defaults, but for the patience that a machine busy with other builds needs.
fn options() -> TcpOptions {
    TcpOptions {
        connect_timeout: Duration::from_secs(120),
        stall_timeout: Duration::from_secs(120),
        ..TcpOptions::default()
    }
}

mod with_defaults {
    use super::{Backend, TcpTransport, options};

    fn backend() -> Backend {
        Backend::new(TcpTransport::new(options()), "127.0.0.1:0")
            .with_most_open(options().max_open_per_connection)
    }

    transload_transport::conformance_suite!(backend);
}

mod with_tight_limits {
    use super::{Backend, TcpOptions, TcpTransport, options};

    fn backend() -> Backend {
        let options = TcpOptions {
            max_requests_per_connection: 21,
            max_open_per_connection: 20,
            max_bytes_in_flight_per_connection: 1,
            chunk_bytes: 4 << 10,
            ..options()
        };
        Backend::new(TcpTransport::new(options), "127.0.0.1:0").with_most_open(20)
    }

    transload_transport::conformance_suite!(backend);
}

mod wrapped_without_rules {
    use super::{Backend, TcpTransport, options};
    use transload_transport::faulty::{Faulty, Rules};

    fn backend() -> Backend {
        Backend::new(
            Faulty::new(TcpTransport::new(options()), Rules::new(1)),
            "[::1]:0",
        )
    }

    transload_transport::conformance_suite!(backend);
}

mod wrapped_in_delays {
    use super::{Backend, TcpTransport, options};
    use std::time::Duration;
    use transload_transport::faulty::{Faulty, Operation, Rule, Rules, Verdict};

    /// A third of all fetches start late, so that they overtake each other.
    fn backend() -> Backend {
        let late = Verdict::Delay(Duration::from_millis(1));
        let rule = Rule::on(Operation::Fetch, late).per_thousand(333);
        Backend::new(
            Faulty::new(TcpTransport::new(options()), Rules::new(7).rule(rule)),
            "127.0.0.1:0",
        )
    }

    transload_transport::conformance_suite!(backend);
}
