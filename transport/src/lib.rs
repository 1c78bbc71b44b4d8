//! Moves partitions between processes behind one trait.
