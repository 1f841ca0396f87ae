//! What this machine is and can do.

use std::fs::{File, OpenOptions};
use std::io;

use results::Accel;

use crate::{Error, Result};

/// Checks that this is x86-64 Linux.
///
/// # Errors
/// Names what it is instead.
pub fn check_platform() -> Result<()> {
    check_platform_of(std::env::consts::OS, std::env::consts::ARCH)
}

fn check_platform_of(os: &'static str, arch: &'static str) -> Result<()> {
    if (os, arch) == ("linux", "x86_64") { Ok(()) } else { Err(Error::UnsupportedHost { os, arch }) }
}

/// Checks that the accelerator works here: only KVM may not.
///
/// # Errors
/// The CPU or the device is missing. `/dev/kvm` alone says too little: it can open on a CPU without
/// virtualisation, and a guest then hangs.
pub fn check_accel(accel: Accel) -> Result<()> {
    if accel != Accel::Kvm {
        return Ok(());
    }
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    check_kvm(&cpuinfo, OpenOptions::new().read(true).write(true).open("/dev/kvm"))
}

fn check_kvm(cpuinfo: &str, device: io::Result<File>) -> Result<()> {
    let has_virtualisation = field(cpuinfo, "flags")
        .is_some_and(|flags| flags.split(' ').any(|flag| matches!(flag, "vmx" | "svm")));
    if !has_virtualisation {
        return Err(Error::KvmNoCpu);
    }
    device.map(drop).map_err(|source| Error::KvmNoDevice { source })
}

/// The name of this machine's CPU.
#[must_use]
pub fn cpu_name() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    field(&cpuinfo, "model name").unwrap_or("unknown").to_owned()
}

/// The first value of that name in `/proc/cpuinfo`.
fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_platforms_are_named() {
        assert!(check_platform_of("linux", "x86_64").is_ok());
        assert_eq!(
            check_platform_of("macos", "aarch64").unwrap_err().to_string(),
            "killifish runs on x86-64 Linux, but this is macos on aarch64"
        );
        assert!(check_platform_of("linux", "aarch64").is_err());
    }

    #[test]
    fn kvm_needs_the_cpu_and_the_device() {
        let intel = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu vmx sse\n";
        let none = "flags\t\t: fpu sse vmx_not_quite\n";
        let open = || File::open("/dev/null");
        let denied = || Err(io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(check_kvm(intel, open()).is_ok());
        assert!(matches!(check_kvm(none, open()), Err(Error::KvmNoCpu)));
        assert!(matches!(check_kvm("", open()), Err(Error::KvmNoCpu)));
        assert!(matches!(check_kvm(intel, denied()), Err(Error::KvmNoDevice { .. })));
        assert_eq!(field(intel, "model name"), Some("Some CPU @ 2 GHz"));
    }

    #[test]
    fn other_accelerators_need_nothing() {
        assert!(check_accel(Accel::Icount).is_ok());
        assert!(check_accel(Accel::Tcg).is_ok());
    }
}
