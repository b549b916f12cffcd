//! Processes by the kernel's own list: who started whom, and who is still there.

use std::fs;

/// Returns the processes that a process has started, and that have not ended.
pub fn children(pid: u32) -> Vec<u32> {
    all()
        .filter(|child| field(*child, 1) == Some(pid))
        .collect()
}

/// Returns the processes of a group; also dead ones that nobody has waited for.
pub fn group(id: u32) -> Vec<u32> {
    all().filter(|pid| field(*pid, 2) == Some(id)).collect()
}

/// Returns the threads of a process; none where it is gone.
pub fn threads(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let entries = entries.flatten();
    let threads = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    threads.collect()
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("proc is mounted").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Reads a field of `/proc/PID/stat`: `pid (name) state parent group ...`. The state is number 0,
/// as a name may hold anything.
fn field(pid: u32, number: usize) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = stat.rsplit_once(") ")?.1;
    rest.split(' ').nth(number)?.parse().ok()
}
