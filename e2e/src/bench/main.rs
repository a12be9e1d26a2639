//! `make bench`: the figures of BENCHMARKS.md, measured on the release binary and, with `--peers`, on upstream's programs in
//! the same run. Each phase starts its own servers on an empty folder and gives the values of some rows; the median over
//! the runs is printed. It relies on `/proc` for processor time and memory.
use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

mod feed;
mod load;
mod node;
mod objects;
mod phases;
mod target;

use target::Target;

#[derive(Parser)]
#[command(name = "xebec-bench", about = "Measures the release binary; see BENCHMARKS.md")]
struct Arguments {
    /// The binary to measure
    #[arg(long)]
    xebec: PathBuf,
    /// The folder of the image archives; without it, rows that need a node are left out
    #[arg(long)]
    images: Option<PathBuf>,
    /// A folder whose bin/ holds kube-apiserver, etcd, kube-controller-manager and kube-scheduler
    #[arg(long)]
    peers: Option<PathBuf>,
    /// How many runs the median is taken of
    #[arg(long, env = "BENCH_RUNS", default_value_t = 3)]
    runs: usize,
    /// Objects of each kind in a run
    #[arg(long, default_value_t = 5000)]
    objects: usize,
    /// Only these phases: start, idle, api, watch, bound, node
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

struct Row {
    key: &'static str,
    title: &'static str,
    unit: &'static str,
}

/// Every row, in the order in which they are printed.
const ROWS: &[Row] = &[
    Row { key: "start", title: "start to /readyz, empty", unit: "ms" },
    Row { key: "start cpu", title: "start: CPU", unit: "ms" },
    Row { key: "idle rss", title: "idle: resident memory", unit: "MB" },
    Row { key: "idle pss", title: "idle: proportional memory", unit: "MB" },
    Row { key: "idle cpu", title: "idle: CPU, per cent of a core", unit: "%" },
    Row { key: "create configmap", title: "create ConfigMap, 64 clients: CPU a call", unit: "µs" },
    Row { key: "create configmap rate", title: "create ConfigMap, 64 clients: calls a second", unit: "/s" },
    Row { key: "create pod", title: "create Pod, 64 clients: CPU a call", unit: "µs" },
    Row { key: "create pod rate", title: "create Pod, 64 clients: calls a second", unit: "/s" },
    Row { key: "create pod p99", title: "create Pod, 64 clients: latency p99", unit: "ms" },
    Row { key: "create one", title: "create, 1 client: latency p50", unit: "ms" },
    Row { key: "patch", title: "PATCH, 64 clients: CPU a call", unit: "µs" },
    Row { key: "get", title: "GET, 64 clients: CPU a call", unit: "µs" },
    Row { key: "list", title: "LIST of all Pods, JSON: CPU", unit: "ms" },
    Row { key: "list size", title: "LIST of all Pods, JSON: size", unit: "MB" },
    Row { key: "api rss", title: "resident memory after that", unit: "MB" },
    Row { key: "watch", title: "watch, 100 watchers x 1,000 creates: CPU an event", unit: "µs" },
    Row { key: "watch rate", title: "watch, 100 watchers x 1,000 creates: events a second", unit: "/s" },
    Row { key: "bound", title: "1,000 Pods created and bound: Pods a second", unit: "/s" },
    Row { key: "bound cpu", title: "1,000 Pods created and bound: CPU a Pod", unit: "µs" },
    Row { key: "pod start", title: "Pod start, create to Running seen by a watch: p50", unit: "ms" },
    Row { key: "node memory", title: "whole node after that: resident memory without containerd", unit: "MB" },
];

/// What a phase found: values by the key of their row.
type Values = Vec<(&'static str, f64)>;
type Figures = BTreeMap<&'static str, Vec<f64>>;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut targets = vec![Target::Xebec(arguments.xebec.clone())];
    targets.extend(arguments.peers.as_ref().map(|folder| Target::Upstream(folder.join("bin"))));
    let mut figures: Vec<Figures> = vec![Figures::new(); targets.len()];
    for run in 1..=arguments.runs {
        for (target, figures) in targets.iter().zip(&mut figures) {
            eprintln!("run {run}: {}", target.name());
            measure(&arguments, target, figures).await?;
        }
    }
    print(&targets, &figures);
    Ok(())
}

async fn measure(arguments: &Arguments, target: &Target, figures: &mut Figures) -> Result<()> {
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    for phase in phases::PHASES.iter().filter(|phase| wanted(phase.name)) {
        eprintln!("  {}", phase.name);
        match (phase.run)(target, arguments.objects).await {
            Ok(values) => values.into_iter().for_each(|(key, value)| figures.entry(key).or_default().push(value)),
            // The other rows are worth having without this one.
            Err(error) => eprintln!("  {}: {error:#}", phase.name),
        }
    }
    if let (Target::Xebec(_), Some(_), true) = (target, &arguments.images, wanted("node")) {
        eprintln!("  node");
        match node::pod_start().await {
            Ok(values) => values.into_iter().for_each(|(key, value)| figures.entry(key).or_default().push(value)),
            Err(error) => eprintln!("  node: {error:#}"),
        }
    }
    Ok(())
}

fn print(targets: &[Target], figures: &[Figures]) {
    let names: Vec<_> = targets.iter().map(Target::name).collect();
    let ratio = if targets.len() > 1 { " ratio |" } else { "" };
    println!("| what | {} |{ratio}", names.join(" | "));
    println!("|---|{}", "---|".repeat(names.len() + usize::from(targets.len() > 1)));
    for row in ROWS {
        let values: Vec<_> = figures.iter().map(|figures| figures.get(row.key).map(|values| median(values))).collect();
        if values.iter().all(Option::is_none) {
            continue;
        }
        let cells: Vec<_> =
            values.iter().map(|value| value.map_or("-".into(), |value| shown(value, row.unit))).collect();
        let ratio = match values.as_slice() {
            [Some(ours), Some(theirs)] if *ours > 0.0 && theirs > ours => format!(" 1/{:.1} |", theirs / ours),
            [Some(ours), Some(theirs)] if *theirs > 0.0 => format!(" {:.1} x |", ours / theirs),
            [_, _] => " - |".into(),
            _ => String::new(),
        };
        println!("| {} | {} |{ratio}", row.title, cells.join(" | "));
    }
}

fn shown(value: f64, unit: &str) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0} {unit}"),
        value if value >= 10.0 => format!("{value:.1} {unit}"),
        value => format!("{value:.2} {unit}"),
    }
}

/// The middle value; of an even number the lower one of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len().saturating_sub(1)) / 2).copied().unwrap_or(f64::NAN)
}
