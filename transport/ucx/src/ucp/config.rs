//! UCX's settings: ours where the user has none, and which are in force.
//!
//! UCX reads settings from the environment. Before 1.17 that is the only way to those of its transports, and the environment can be written
//! safely only while a process has one thread: hence [`set_environment`].

use std::env;
use std::ffi::{CString, OsString};
use std::fs;
use std::ptr;

use ucx_sys::{UCS_OK, Ucx, Version, ucp_config_t};

use super::{UcpError, check};

const PREFIX: &str = "UCX_";

/// From here on a program can set what concerns transports.
const TRANSPORTS_CAN_BE_SET: Version = Version {
    major: 1,
    minor: 17,
    patch: 0,
};

/// What is set where the user has set nothing, and why. All but the last are of transports.
const OURS: &[(&str, &str)] = &[
    // Where UCX sees no speed of a link, as on a loopback or in most clouds, it would copy through pieces of 8 KiB.
    ("TCP_TX_SEG_SIZE", "256k"),
    ("TCP_RX_SEG_SIZE", "256k"),
    // Without these, endpoints that are to notice a dead peer go over TCP between processes of one machine.
    ("POSIX_ERROR_HANDLING", "y"),
    ("SYSV_ERROR_HANDLING", "y"),
    // A dead peer is noticed within a second, also where no connection of the system's breaks.
    (KEEPALIVE, "500ms"),
];
const KEEPALIVE: &str = "KEEPALIVE_INTERVAL";

/// What only the environment can set, on top of that.
const OURS_OF_THE_PROCESS: &[(&str, &str)] = &[
    // By default it writes what it has to say among the results.
    ("LOG_FILE", "stderr"),
    // A setting of a transport that this machine lacks is no mistake.
    ("WARN_UNUSED_ENV_VARS", "n"),
];

/// Settings that say something of one machine or process alone, so that two may differ in them.
const LOCAL: &[&str] = &[
    "LOG_",
    "NET_DEVICES",
    "SHM_DEVICES",
    "MODULE",
    "CONFIG_DIR",
    "HANDLE_ERRORS",
    "ERROR_SIGNALS",
    "ERROR_MAIL",
    "STATS_",
    "PROFILE_",
    "DEBUG",
    "WARN_",
    "GDB_",
    "SYS_",
    "VFS_",
];

/// Sets in the environment what UCX is to find there, where the user has set nothing. To be called first thing in a program, while it has
/// one thread; later it does nothing. False where it did nothing.
pub(crate) fn set_environment() -> bool {
    let alone = fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
    if !alone {
        return false;
    }
    for (key, value) in OURS.iter().chain(OURS_OF_THE_PROCESS) {
        let name = format!("{PREFIX}{key}");
        if env::var_os(&name).is_none() {
            // SAFETY: this is the only thread of the process, so nobody reads or writes the environment meanwhile.
            unsafe { env::set_var(name, value) };
        }
    }
    true
}

/// A configuration that UCX has read, with our settings.
pub(super) struct Config {
    ucx: &'static Ucx,
    config: *mut ucp_config_t,
    in_force: Vec<String>,
}

impl Config {
    pub(super) fn read(ucx: &'static Ucx) -> Result<Self, UcpError> {
        let mut config = ptr::null_mut();
        // SAFETY: no prefix of ours and no file of ours; writes one pointer.
        let status = unsafe { ucx.ucp_config_read(ptr::null(), ptr::null(), &raw mut config) };
        check(ucx, "its settings cannot be read", status)?;
        let set_by_user = env::vars_os().filter_map(|(name, value)| of_ucx(&name, &value));
        let mut config = Self {
            ucx,
            config,
            in_force: set_by_user.collect(),
        };
        for (key, value) in OURS {
            if env::var_os(format!("{PREFIX}{key}")).is_none() && config.modify(key, value) {
                config.in_force.push(format!("{key}={value}"));
            }
        }
        config.in_force.sort();
        Ok(config)
    }

    /// False where this version takes the setting from the environment alone; it would not say so before it is too late.
    fn modify(&mut self, key: &str, value: &str) -> bool {
        if key != KEEPALIVE && self.ucx.version() < TRANSPORTS_CAN_BE_SET {
            return false;
        }
        let (Ok(key), Ok(value)) = (CString::new(key), CString::new(value)) else {
            return false;
        };
        // SAFETY: a configuration of this library, and two texts that end with a zero, which it copies.
        let status = unsafe {
            self.ucx
                .ucp_config_modify(self.config, key.as_ptr(), value.as_ptr())
        };
        status == UCS_OK
    }

    pub(super) fn as_ptr(&self) -> *const ucp_config_t {
        self.config
    }

    /// What two processes must have alike, each as `KEY=VALUE`, sorted.
    pub(super) fn in_force(&self) -> Vec<String> {
        self.in_force.clone()
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        // SAFETY: read by `read`, and released here alone.
        unsafe { self.ucx.ucp_config_release(self.config) };
    }
}

/// A setting that both sides must have alike.
fn of_ucx(name: &OsString, value: &OsString) -> Option<String> {
    let key = name.to_str()?.strip_prefix(PREFIX)?;
    let is_local = LOCAL.iter().any(|local| key.starts_with(local));
    (!is_local).then(|| format!("{key}={}", value.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_that_both_sides_must_share_are_compared() {
        let of = |name: &str| of_ucx(&name.into(), &"x".into());
        assert_eq!(of("UCX_TLS").as_deref(), Some("TLS=x"));
        assert_eq!(of("UCX_LOG_LEVEL"), None);
        assert_eq!(of("UCX_NET_DEVICES"), None);
        assert_eq!(of("HOME"), None);
    }

    #[test]
    fn a_process_with_threads_leaves_its_environment_alone() {
        // The test runner has a thread of its own.
        assert!(!set_environment());
    }
}
