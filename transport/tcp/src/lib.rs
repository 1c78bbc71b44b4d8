//! TCP backend of the transport.
