//! What a reader gives up before it reads: it cannot open, connect, start or write anything any more,
//! and has bounded memory and CPU time. It keeps what is open: its files, its link, and where it
//! prints.
//!
//! Safety rests on seccomp and resource limits, which every kernel that is supported has. Landlock
//! takes the file system away once more where the kernel has it. Whatever is there and fails is an
//! error.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::time::Duration;

use anyhow::Context;
use landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr};
use rustix::process::{Resource, Rlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::ipc::ReaderLimits;

/// The newest set of rights that is known here; older kernels take what they have of it.
const LANDLOCK: ABI = ABI::V5;
/// As a signal of the kernel would find it, enough for any template that a person wrote.
const STACK_BYTES: u64 = 8 << 20;

/// Gives everything up but `link`. Nothing can be opened afterwards.
///
/// # Errors
///
/// Something could not be given up: then nothing may be read. Only who runs the daemon can have it read
/// unconfined, by a setting for machines that are emulated.
pub fn enter(link: RawFd, limits: ReaderLimits) -> anyhow::Result<()> {
    if !limits.confined {
        return limit(limits).context("setting resource limits");
    }
    // Needs a descriptor of its own for a moment, and calls that the filter refuses.
    leave_the_file_system().context("taking the file system away with Landlock")?;
    limit(limits).context("setting resource limits")?;
    let filter = filter(link).context("making the system call filter")?;
    seccompiler::apply_filter(&filter).context("applying the system call filter")?;
    Ok(())
}

fn limit(limits: ReaderLimits) -> anyhow::Result<()> {
    let whole_seconds = limits.cpu.max(Duration::from_secs(1)).as_secs();
    for (resource, most) in [
        (Resource::As, limits.memory_bytes),
        (Resource::Cpu, whole_seconds),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
        // Of new descriptors: those that are open stay.
        (Resource::Nofile, 0),
        (Resource::Stack, STACK_BYTES),
        (Resource::Memlock, 0),
    ] {
        let now = rustix::process::getrlimit(resource);
        // A limit that is lower already stays.
        let most = now.maximum.map_or(most, |maximum| maximum.min(most));
        let both = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        rustix::process::setrlimit(resource, both).with_context(|| format!("{resource:?}"))?;
    }
    Ok(())
}

/// A kernel without Landlock is told apart by the crate, and is no error.
fn leave_the_file_system() -> anyhow::Result<()> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .create()?
        .restrict_self()?;
    Ok(())
}

/// Everything that is not named fails with EPERM.
fn filter(link: RawFd) -> anyhow::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        FREELY.iter().map(|&call| (call, Vec::new())).collect();
    let descriptor = |fd: RawFd| argument(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, fd as u64);
    for call in [libc::SYS_write, libc::SYS_writev] {
        let to = [link, libc::STDOUT_FILENO, libc::STDERR_FILENO];
        let allowed = to.map(|fd| rule(vec![descriptor(fd)?]));
        rules.insert(call, allowed.into_iter().collect::<Result<_, _>>()?);
    }
    for call in [libc::SYS_sendto, libc::SYS_recvfrom] {
        let no_address = argument(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
        rules.insert(call, vec![rule(vec![descriptor(link)?, no_address])?]);
    }
    // Memory that can never be run.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let executable = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
        let never = argument(2, SeccompCmpArgLen::Dword, executable, 0)?;
        rules.insert(call, vec![rule(vec![never])?]);
    }
    // Of abort: a signal to itself.
    let own = u64::from(std::process::id());
    let to_itself = argument(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, own)?;
    rules.insert(libc::SYS_tgkill, vec![rule(vec![to_itself])?]);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?;
    Ok(filter.try_into()?)
}

/// They reach nothing but the process itself and what is open for reading.
const FREELY: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

fn argument(
    index: u8,
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> anyhow::Result<SeccompCondition> {
    Ok(SeccompCondition::new(index, length, operator, value)?)
}

fn rule(conditions: Vec<SeccompCondition>) -> anyhow::Result<SeccompRule> {
    Ok(SeccompRule::new(conditions)?)
}
