//! What the kernel knows of this process, as Prometheus clients everywhere tell it.

use std::fmt::Write;

use jiff::Timestamp;

/// Ticks of the kernel's clock in a second, as it tells them to programs on every architecture.
const TICKS: f64 = 100.0;

pub fn write(out: &mut String) {
    let (user, system) = cpu_ticks().unwrap_or_default();
    let cpu = (user + system) as f64 / TICKS;
    sample(out, "process_cpu_seconds_total", "counter", "Seconds of processor time used", cpu);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = kilobytes(&status, "VmRSS:") * 1024.0;
    sample(out, "process_resident_memory_bytes", "gauge", "Bytes of memory in use", resident);
    let virtual_size = kilobytes(&status, "VmSize:") * 1024.0;
    sample(out, "process_virtual_memory_bytes", "gauge", "Bytes of address space in use", virtual_size);
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    sample(out, "process_open_fds", "gauge", "Open file descriptors", open as f64);
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let most =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok());
    sample(out, "process_max_fds", "gauge", "File descriptors that may be open", most.unwrap_or(0.0));
    write_start_time(out);
}

pub fn write_start_time(out: &mut String) {
    let seconds = super::started().as_second() as f64;
    sample(out, "process_start_time_seconds", "gauge", "When the process began, in seconds since 1970", seconds);
}

/// When the process began: the machine's start and the ticks from there.
pub fn start_time() -> Timestamp {
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<i64>().ok());
    let ticks = stat_fields().and_then(|fields| fields.get(19)?.parse::<f64>().ok());
    match (boot, ticks) {
        (Some(boot), Some(ticks)) => {
            Timestamp::from_second(boot + (ticks / TICKS) as i64).unwrap_or(Timestamp::UNIX_EPOCH)
        }
        _ => Timestamp::UNIX_EPOCH,
    }
}

fn cpu_ticks() -> Option<(u64, u64)> {
    let fields = stat_fields()?;
    Some((fields.get(11)?.parse().ok()?, fields.get(12)?.parse().ok()?))
}

/// The fields behind the program's name, which may hold anything (proc(5)).
fn stat_fields() -> Option<Vec<String>> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn kilobytes(status: &str, name: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

fn sample(out: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_read() {
        let mut out = String::new();
        write(&mut out);
        let value = |name: &str| -> f64 {
            let line = out.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is not in {out}")).parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e5);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        let now = xebec_base::SystemClock::shared().now();
        let age = now.as_second() as f64 - value("process_start_time_seconds");
        assert!((0.0..36_000.0).contains(&age), "{age}");
    }
}
