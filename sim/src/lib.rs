//! Both pure machines under one seed: fake clock, fake network, faults.
