//! Named, comparable measurements.
