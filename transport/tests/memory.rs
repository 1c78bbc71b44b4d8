//! The memory backend keeps to what every backend must do.

use transload_transport::conformance::Backend;
use transload_transport::memory::MemoryTransport;

mod copying {
    use super::{Backend, MemoryTransport};

    fn backend() -> Backend {
        Backend::new(MemoryTransport::new(), "")
    }

    transload_transport::conformance_suite!(backend);
}

mod handing_over {
    use super::{Backend, MemoryTransport};

    fn backend() -> Backend {
        Backend {
            receives_into_destination: false,
            ..Backend::new(MemoryTransport::handing_over(), "")
        }
    }

    transload_transport::conformance_suite!(backend);
}

mod wrapped_without_rules {
    use super::{Backend, MemoryTransport};
    use transload_transport::faulty::{Faulty, Rules};

    fn backend() -> Backend {
        Backend::new(Faulty::new(MemoryTransport::new(), Rules::new(1)), "")
    }

    transload_transport::conformance_suite!(backend);
}

mod wrapped_in_delays {
    use super::{Backend, MemoryTransport};
    use std::time::Duration;
    use transload_transport::faulty::{Faulty, Operation, Rule, Rules, Verdict};

    /// A third of all fetches start late, so that they overtake each other.
    fn backend() -> Backend {
        let late = Verdict::Delay(Duration::from_millis(1));
        let rule = Rule::on(Operation::Fetch, late).per_thousand(333);
        Backend::new(
            Faulty::new(MemoryTransport::new(), Rules::new(7).rule(rule)),
            "",
        )
    }

    transload_transport::conformance_suite!(backend);
}
