//! The shared nouns of the cluster and their wire format.
