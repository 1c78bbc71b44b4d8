//! The table of settings: each one's name, kind, flag, place and documentation, written once.

use std::fmt;

use super::Config;
use super::kind;

/// A command that takes flags for settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// `transload scheduler`.
    Scheduler,
    /// `transload worker`.
    Worker,
    /// `transload sql`, which is a client and may start a local cluster.
    Sql,
}

/// One setting.
pub struct Setting {
    /// Its name in the file, as `section.key`.
    pub name: &'static str,
    /// What its values look like.
    pub kind: &'static str,
    /// Its flag, without the dashes; no two settings share one.
    pub flag: &'static str,
    /// Commands that have the flag. File and environment work for all.
    pub commands: &'static [Command],
    /// What it does.
    pub what: &'static str,
    /// What a larger value costs.
    pub cost: &'static str,
    /// When to change it.
    pub change: &'static str,
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    pub(super) get: fn(&Config) -> String,
}

impl Setting {
    /// The environment variable, `TRANSLOAD_SECTION_KEY`.
    pub fn variable(&self) -> String {
        format!("TRANSLOAD_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// The value when nothing is configured, as text.
    pub fn default_value(&self) -> String {
        (self.get)(&Config::default())
    }

    /// The value in `config`, as text that reads back as the same.
    pub fn value(&self, config: &Config) -> String {
        (self.get)(config)
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// Builds a [`Setting`] that lives at one or several places of [`Config`] at once.
macro_rules! setting {
    ($name:literal, $kind:ident, --$flag:literal on [$($command:ident),*] at $first:ident $(.$first_rest:ident)+ $(, and $place:ident $(.$place_rest:ident)+)*;
     what: $what:literal, cost: $cost:literal, change: $change:literal) => {
        Setting {
            name: $name,
            kind: kind::$kind.name,
            flag: $flag,
            commands: &[$(Command::$command),*],
            what: $what,
            cost: $cost,
            change: $change,
            set: |config, text| {
                let value = (kind::$kind.parse)(text)?;
                $(config.$place$(.$place_rest)+ = value.clone();)*
                config.$first$(.$first_rest)+ = value;
                Ok(())
            },
            get: |config| (kind::$kind.print)(&config.$first$(.$first_rest)+),
        }
    };
}

/// Every setting, in the order in which the README lists them.
pub static SETTINGS: &[Setting] = &[
    setting!("scheduler.host", TEXT, --"host" on [Scheduler] at scheduler.host;
        what: "Address on which the scheduler listens.",
        cost: "There is no authentication yet: whoever reaches the port can run work.",
        change: "0.0.0.0 for a cluster of several machines on a trusted network."),
    setting!("scheduler.port", PORT, --"port" on [Scheduler] at scheduler.port;
        what: "Port on which the scheduler listens; 0 for a free one.",
        cost: "None.",
        change: "When the port is taken."),
    setting!("scheduler.file", OPTIONAL_PATH, --"scheduler-file" on [Scheduler, Worker, Sql] at scheduler.file, and worker.scheduler_file;
        what: "File in which the scheduler says where it listens, and where workers and clients look for it; `auto` for none.",
        cost: "The folder must be visible on every machine.",
        change: "On batch systems, where nobody knows beforehand which machine the scheduler will run on."),
    setting!("scheduler.dashboard", DASHBOARD, --"dashboard" on [Scheduler, Sql] at scheduler.dashboard;
        what: "Where the scheduler serves its dashboard: `auto` for 127.0.0.1:8787, or a free port where that one is taken; `off`; or HOST:PORT.",
        cost: "Little while nobody looks; a viewer costs the scheduler some percent. Where other machines can reach it, it wants a token.",
        change: "0.0.0.0:8787 to look from elsewhere; `off` where not even this machine's users may look."),
    setting!("scheduler.dashboard_token_file", OPTIONAL_PATH, --"dashboard-token-file" on [Scheduler, Sql] at scheduler.dashboard_token_file;
        what: "File with the token that viewers of the dashboard have to show, 8 or more letters and digits; `auto` for none.",
        cost: "Whoever has the token can look.",
        change: "Where the dashboard can be reached from other machines, or this one has users who may not look."),
    setting!("scheduler.connections", COUNT, --"connections" on [Scheduler] at scheduler.connections;
        what: "Most connections of workers and clients at once.",
        cost: "Memory and file descriptors per connection.",
        change: "For clusters of thousands of workers; raise the limit of open files with it."),
    setting!("scheduler.queue_per_slot", NUMBER, --"queue-per-slot" on [Scheduler, Sql] at scheduler.queue_per_slot;
        what: "Tasks handed to a worker beyond those that run, per slot, so that fetching overlaps with computing.",
        cost: "More memory pinned by inputs that wait, and less freedom to place tasks late.",
        change: "2 or 3 where inputs take longer to fetch than a task takes to run."),
    setting!("scheduler.max_queue_per_slot", NUMBER, --"max-queue-per-slot" on [Scheduler, Sql] at scheduler.max_queue_per_slot;
        what: "How far that queue grows, per slot, where tasks are so short that it would run empty between two messages.",
        cost: "Short tasks that wait at one worker while another idles, for a few milliseconds.",
        change: "0 to keep the queue at `queue_per_slot`, to compare."),
    setting!("scheduler.worker_timeout", DURATION, --"worker-timeout" on [Scheduler, Sql] at scheduler.worker_timeout;
        what: "A worker that sent nothing for so long counts as lost.",
        cost: "Longer until work of a machine that vanished runs elsewhere.",
        change: "Longer where machines are suspended or swap."),
    setting!("scheduler.worker_deaths_per_task", COUNT, --"worker-deaths-per-task" on [Scheduler, Sql] at scheduler.worker_deaths_per_task;
        what: "Workers that may die while running one task before the task is given up and named.",
        cost: "More workers lost to a task that kills them.",
        change: "Higher on machines that are taken away at any time."),
    setting!("scheduler.retry_backoff", DURATION, --"retry-backoff" on [Scheduler, Sql] at scheduler.retry_backoff;
        what: "A task that failed in a way that may pass waits for so long before it is tried again, and twice as long after each further failure.",
        cost: "Longer until it is tried again.",
        change: "Longer where what tasks need is gone for longer; 0ms to try again at once."),
    setting!("scheduler.retry_backoff_limit", DURATION, --"retry-backoff-limit" on [Scheduler, Sql] at scheduler.retry_backoff_limit;
        what: "The longest such wait.",
        cost: "Longer until a task that failed often is tried again.",
        change: "With `retries` of dozens, to what you would wait yourself."),
    setting!("scheduler.straggler_factor", NUMBER, --"straggler-factor" on [Scheduler, Sql] at scheduler.straggler_factor;
        what: "A running task that takes so many times as long as others of its layer took is logged, and named by `transload cluster info` and `transload explain`; 0 for never.",
        cost: "None.",
        change: "Lower to hear of smaller differences; 0 where the tasks of a layer differ by nature."),
    setting!("scheduler.straggler_after", DURATION, --"straggler-after" on [Scheduler, Sql] at scheduler.straggler_after;
        what: "But not before it has run for so long.",
        cost: "None.",
        change: "Shorter where tasks take milliseconds and one second is long."),
    setting!("scheduler.progress_interval", DURATION, --"progress-interval" on [Scheduler, Sql] at scheduler.progress_interval;
        what: "Shortest time between two progress messages about one graph.",
        cost: "None; a shorter one costs messages.",
        change: "Rarely."),
    setting!("scheduler.published_names", COUNT, --"published-names" on [Scheduler] at scheduler.published_names;
        what: "Most names under which clients publish results; more are refused.",
        cost: "Some hundred bytes each, beside the results, which stay until their name is taken away.",
        change: "For programs that name very many results."),
    setting!("scheduler.coordination_names", COUNT, --"coordination-names" on [Scheduler] at scheduler.coordination.names;
        what: "Most locks, semaphores, events, queues and variables at once; more are refused.",
        cost: "Some hundred bytes each.",
        change: "For programs with a lock for each of very many things."),
    setting!("scheduler.coordination_calls", COUNT, --"coordination-calls" on [Scheduler] at scheduler.coordination.calls;
        what: "Most calls at once that wait for one of these or hold it; more are refused.",
        cost: "Some hundred bytes each.",
        change: "For clusters in which very many tasks wait for each other."),
    setting!("scheduler.coordination_item", BYTES, --"coordination-item" on [Scheduler] at scheduler.coordination.item_bytes;
        what: "Largest item of a queue or value of a variable.",
        cost: "The scheduler copies it for whoever reads it.",
        change: "Rarely: data belongs in partitions."),
    setting!("scheduler.coordination_memory", BYTES, --"coordination-memory" on [Scheduler] at scheduler.coordination.memory_bytes;
        what: "Most bytes of all items and values together; more are refused.",
        cost: "The scheduler's memory.",
        change: "Higher for long queues."),
    setting!("scheduler.client_grace", GRACE, --"client-grace" on [Scheduler, Sql] at scheduler.client_grace;
        what: "The graphs of a client whose connection broke go on for so long; 0ms for not at all.",
        cost: "Work and memory for clients that died.",
        change: "Longer where networks break for longer."),
    setting!("scheduler.journal", OPTIONAL_PATH, --"journal" on [Scheduler] at scheduler.journal.folder;
        what: "Folder of the journal, from which a scheduler started in the place of one that died goes on; `auto` for none.",
        cost: "A write to disk for each client, worker and submitted graph.",
        change: "Wherever work takes longer than you want to lose; on a disk that outlives the machine if another machine is to take over."),
    setting!("scheduler.journal_fsync", FSYNC, --"journal-fsync" on [Scheduler] at scheduler.journal.fsync;
        what: "When the journal is forced onto the disk: `always` before anything is acknowledged, at most a time as in 100ms later, or `never`. The end of the process alone loses nothing in any case.",
        cost: "`always` adds the disk's latency to each submission.",
        change: "Where the disk is slow and a crash of the whole machine may cost the last submissions."),
    setting!("scheduler.journal_limit", BYTES, --"journal-limit" on [Scheduler] at scheduler.journal.limit_bytes;
        what: "A journal that is longer is written anew without what is over, if that halves it.",
        cost: "Disk space and time at the start.",
        change: "Higher where graphs of many megabytes come often."),
    setting!("scheduler.recovery_grace", DURATION, --"recovery-grace" on [Scheduler] at scheduler.recovery_grace;
        what: "A scheduler that goes on from a journal waits at most so long for the workers of the one before, before it hands out tasks.",
        cost: "Longer until work goes on when a worker died, too.",
        change: "Longer where workers take long to notice that the scheduler is back."),
    setting!("scheduler.unschedulable_grace", GRACE, --"unschedulable-grace" on [Scheduler, Sql] at scheduler.unschedulable_grace;
        what: "A graph with a task that no worker in the cluster can run fails after so long, unless a worker that can joins before; 0ms for at once.",
        cost: "Longer until a request that nobody will ever meet is an error; the log and `transload explain` say it at once.",
        change: "Longer where workers with rare resources start late, or are away for longer."),
    setting!("worker.name", OPTIONAL_TEXT, --"name" on [Worker] at worker.name;
        what: "Name shown to people; `auto` for host and process id.",
        cost: "None.",
        change: "To recognise a worker in logs."),
    setting!("worker.slots", OPTIONAL_COUNT, --"slots" on [Worker, Sql] at worker.slots;
        what: "Tasks that run at once on a worker; `auto` for one per CPU, shared out among the workers of a local cluster.",
        cost: "Each running task needs memory.",
        change: "Fewer to leave CPUs to others, more where tasks wait for disks or networks."),
    setting!("worker.resources", AMOUNTS, --"resources" on [Worker, Sql] at worker.resources;
        what: "Further countable resources that tasks can ask for, as in gpu=1,licence=2.",
        cost: "None.",
        change: "When tasks of a graph ask for named resources."),
    setting!("worker.shared_resources", NAMES, --"shared-resources" on [Worker, Sql] at worker.shared_resources;
        what: "Those of them of which a task may ask for a fraction, as in gpu; of all others only whole units are given out.",
        cost: "Tasks that share one unit are not kept apart: they must fit into its memory together.",
        change: "When several tasks at once are to use one GPU."),
    setting!("worker.labels", NAMES, --"labels" on [Worker] at worker.labels;
        what: "Names by which layers ask for workers like this one, as in ssd,rack7.",
        cost: "None.",
        change: "When graphs name places where their tasks must run."),
    setting!("worker.memory", OPTIONAL_BYTES, --"memory" on [Worker, Sql] at worker.memory_bytes;
        what: "Memory for a worker's partitions and operators; `auto` for three quarters of the machine's, shared out among the workers of a local cluster.",
        cost: "The process itself needs some hundred MiB more.",
        change: "When other programs run on the machine, or several workers."),
    setting!("worker.storage_percent", SHARE, --"storage-percent" on [Worker, Sql] at worker.storage_percent;
        what: "Share of that memory for stored partitions; the rest is for running operators, and is what tasks that say how much memory they need are given.",
        cost: "Less for operators: joins and sorts spill or fail sooner.",
        change: "Higher for graphs that keep much and compute little."),
    setting!("worker.spill_above_percent", PERCENT, --"spill-above-percent" on [Worker, Sql] at worker.spill_above_percent;
        what: "Spilling starts when stored partitions exceed this share of their memory.",
        cost: "A higher share spills later and leaves less room for what arrives meanwhile.",
        change: "Lower where spilling is slow and partitions are large."),
    setting!("worker.spill_dir", OPTIONAL_PATH, --"spill-dir" on [Worker, Sql] at worker.spill_dir;
        what: "Folder under which each worker makes one of its own for spilled partitions and temporary files; `auto` for `transload-UID` in the system's temporary folder.",
        cost: "Disk space.",
        change: "To a fast local disk; the temporary folder is often small or in memory."),
    setting!("worker.disk", LIMIT_BYTES, --"disk" on [Worker, Sql] at worker.disk_bytes;
        what: "Most bytes of spilled partitions per worker.",
        cost: "Disk space.",
        change: "When the disk is shared."),
    setting!("worker.disk_operations_in_flight", COUNT, --"disk-operations" on [Worker, Sql] at worker.disk_operations_in_flight;
        what: "Most spills and loads at once.",
        cost: "Memory of partitions on their way, and seeks on spinning disks.",
        change: "Higher for NVMe disks."),
    setting!("worker.served_loads", COUNT, --"served-loads" on [Worker, Sql] at worker.served_loads;
        what: "Most spilled partitions read back at once to serve other workers.",
        cost: "Memory beyond the budget while they are sent.",
        change: "Higher for NVMe disks and fast networks."),
    setting!("worker.fetches_in_flight", COUNT, --"fetches" on [Worker, Sql] at worker.fetches_in_flight;
        what: "Most partitions that a worker fetches at once.",
        cost: "Memory of partitions on their way.",
        change: "Higher on networks with long round trips."),
    setting!("worker.fetch_attempts", COUNT, --"fetch-attempts" on [Worker, Sql] at worker.fetch_attempts;
        what: "Attempts to fetch one partition before its task is given back to the scheduler.",
        cost: "Longer until a partition behind a broken link is made again.",
        change: "Higher on unreliable networks."),
    setting!("worker.link_retry", DURATION, --"link-retry" on [Worker, Sql] at worker.link_retry;
        what: "A transport to another worker that has failed is tried again after so long, and twice as long after each further failure; another one carries its partitions meanwhile.",
        cost: "Longer on the slower transport after a short disturbance.",
        change: "Shorter where links come and go, longer where a broken one is slow to fail."),
    setting!("worker.heartbeat", DURATION, --"heartbeat" on [Worker, Sql] at worker.heartbeat;
        what: "A worker tells its load at least so often; never less often than four times per scheduler.worker_timeout.",
        cost: "A shorter one costs messages.",
        change: "Longer for thousands of workers."),
    setting!("worker.gpu", GPU, --"gpu" on [Worker, Sql] at worker.gpu;
        what: "The GPU that a worker has for itself: `auto` for the first that no other worker of the machine has, and none where there is none; `none`; or its number among those that are visible, without which the worker does not start. CUDA_VISIBLE_DEVICES counts.",
        cost: "Memory of the GPU, from the first task on that works in it.",
        change: "none to leave GPUs to others; a number where a job manager gives one to each worker."),
    setting!("worker.gpu_memory", OPTIONAL_BYTES, --"gpu-memory" on [Worker, Sql] at worker.gpu_memory_bytes;
        what: "Memory that a worker takes of its GPU when the first task works there; `auto` for three quarters of what the GPU has. Operators and stored partitions share it as worker.storage_percent says.",
        cost: "Nobody else can use it while the worker runs.",
        change: "When other programs use the same GPU."),
    setting!("worker.pinned_memory", OPTIONAL_BYTES, --"pinned-memory" on [Worker, Sql] at worker.pinned_memory_bytes;
        what: "Page-locked memory of the host for partitions that leave the GPU, on their way to disk and to other workers; `auto` for a quarter of worker.memory. It comes on top of that, and is taken as needed.",
        cost: "The system can use it for nothing else until the worker ends.",
        change: "More where partitions that leave the GPU soon return; no partition on a GPU should be larger."),
    setting!("worker.transport", TRANSPORT, --"transport" on [Worker, Sql] at worker.transport;
        what: "What carries partitions between workers: `auto` for the best that both have, UCX where it can be started and otherwise TCP; `tcp` for TCP alone; `ucx` for UCX, without which the worker does not start. Clients fetch over TCP in any case.",
        cost: "UCX has a thread that looks for messages before it sleeps.",
        change: "tcp to compare, or where UCX makes trouble; ucx where nobody is to be slow unnoticed."),
    setting!("worker.data_host", OPTIONAL_TEXT, --"data-host" on [Worker] at worker.data_host;
        what: "Address on which a worker serves partitions; `auto` for the one from which it reaches the scheduler.",
        cost: "None.",
        change: "On machines with several networks: the fastest."),
    setting!("worker.data_port", PORT, --"data-port" on [Worker] at worker.data_port;
        what: "Port on which a worker serves partitions over TCP; 0 for a free one.",
        cost: "A fixed port serves one worker per machine.",
        change: "Behind firewalls."),
    setting!("worker.connect_timeout", DURATION, --"worker-connect-timeout" on [Worker, Sql] at worker.connect_timeout;
        what: "How long a worker tries to reach the scheduler.",
        cost: "Longer until a wrong address is reported.",
        change: "Longer where workers start long before the scheduler."),
    setting!("worker.reconnect_timeout", DURATION, --"worker-reconnect-timeout" on [Worker, Sql] at worker.reconnect_timeout;
        what: "How long a worker keeps what it has and tries to come back when it loses a scheduler that keeps a journal.",
        cost: "Longer until workers of a scheduler that is gone for good end.",
        change: "Longer where a scheduler is started again by hand."),
    setting!("worker.stop_timeout", DURATION, --"stop-timeout" on [Worker, Sql] at worker.stop_timeout;
        what: "How long running operators may take to stop when a worker ends; then they are cut off.",
        cost: "Longer until a worker whose operators do not listen has ended.",
        change: "Longer for operators that must clean up."),
    setting!("client.connect_timeout", DURATION, --"connect-timeout" on [Sql] at client.connect_timeout;
        what: "How long a client tries to reach the scheduler.",
        cost: "Longer until a wrong address is reported.",
        change: "Longer where the scheduler may still be starting."),
    setting!("client.reconnect_timeout", DURATION, --"reconnect-timeout" on [Sql] at client.reconnect_timeout;
        what: "How long a client tries to come back when its connection breaks; no longer than scheduler.client_grace where the scheduler keeps no journal.",
        cost: "Longer until a scheduler that is gone is reported.",
        change: "Longer where a scheduler is started again by hand."),
    setting!("client.fetches_in_flight", COUNT, --"client-fetches" on [Sql] at client.fetches_in_flight;
        what: "Most partitions that a client fetches at once.",
        cost: "Memory of partitions on their way.",
        change: "Lower for clients with little memory."),
    setting!("client.fetch_attempts", COUNT, --"client-fetch-attempts" on [Sql] at client.fetch_attempts;
        what: "Attempts to fetch one partition from one worker before it is made again elsewhere.",
        cost: "Longer until a partition behind a broken link is made again.",
        change: "Higher on unreliable networks."),
    setting!("control.handshake_timeout", DURATION, --"handshake-timeout" on [Scheduler, Worker, Sql]
        at scheduler.control.handshake_timeout, and worker.control.handshake_timeout, and client.control.handshake_timeout;
        what: "How long a peer may take to say hello.",
        cost: "Strangers that say nothing hold a connection for longer.",
        change: "Longer on very slow networks."),
    setting!("control.send_timeout", DURATION, --"send-timeout" on [Scheduler, Worker, Sql]
        at scheduler.control.send_timeout, and worker.control.send_timeout, and client.control.send_timeout;
        what: "A peer that has messages waiting and reads nothing for so long is given up.",
        cost: "Longer until a peer that hangs is noticed.",
        change: "Longer for clients that stop in a debugger."),
    setting!("control.backlog", BYTES, --"backlog" on [Scheduler, Worker, Sql]
        at scheduler.control.backlog_bytes, and worker.control.backlog_bytes, and client.control.backlog_bytes;
        what: "Most bytes of messages that wait for one peer before it is given up.",
        cost: "Memory for peers that read slowly.",
        change: "Higher for graphs whose description is larger than a few hundred MiB."),
    setting!("tcp.connect_timeout", DURATION, --"tcp-connect-timeout" on [Worker, Sql] at worker.tcp.connect_timeout, and client.tcp.connect_timeout;
        what: "Time in which a worker must accept a data connection.",
        cost: "Longer until a broken link is noticed.",
        change: "Longer on slow networks."),
    setting!("tcp.stall_timeout", DURATION, --"tcp-stall-timeout" on [Worker, Sql] at worker.tcp.stall_timeout, and client.tcp.stall_timeout;
        what: "Silence on a data connection in use after which the peer counts as dead.",
        cost: "Longer until a broken link is noticed.",
        change: "Longer where one partition takes longer to read from disk."),
    setting!("tcp.requests_per_connection", COUNT, --"tcp-requests" on [Worker, Sql]
        at worker.tcp.max_requests_per_connection, and client.tcp.max_requests_per_connection;
        what: "Most requests in flight on one data connection; further ones wait.",
        cost: "About 200 B each.",
        change: "Rarely."),
    setting!("tcp.open_per_connection", COUNT, --"tcp-open" on [Worker, Sql]
        at worker.tcp.max_open_per_connection, and client.tcp.max_open_per_connection;
        what: "Partitions that a worker opens at once for one data connection; further requests wait.",
        cost: "Memory for those that must be read from disk.",
        change: "Higher for many small spilled partitions."),
    setting!("tcp.bytes_in_flight", BYTES, --"tcp-bytes-in-flight" on [Worker, Sql]
        at worker.tcp.max_bytes_in_flight_per_connection, and client.tcp.max_bytes_in_flight_per_connection;
        what: "Bytes of the partitions that a worker sends at once on one data connection.",
        cost: "Memory at the receiver.",
        change: "Higher on networks with long round trips."),
    setting!("tcp.partition_max", BYTES, --"tcp-partition-max" on [Worker, Sql]
        at worker.tcp.max_partition_bytes, and client.tcp.max_partition_bytes;
        what: "Largest partition accepted from a peer.",
        cost: "A wrong size in a broken header is noticed later.",
        change: "Rarely."),
    setting!("tcp.chunk", CHUNK_BYTES, --"tcp-chunk" on [Worker, Sql] at worker.tcp.chunk_bytes, and client.tcp.chunk_bytes;
        what: "Partitions are sent in pieces of this size, between which others get their turn.",
        cost: "Larger is a little faster, smaller is fairer.",
        change: "Rarely."),
    setting!("tcp.connections", COUNT, --"tcp-connections" on [Worker, Sql] at worker.tcp.max_connections, and client.tcp.max_connections;
        what: "Most data connections that a worker accepts.",
        cost: "Two small buffers and a file descriptor each.",
        change: "For clusters of thousands of workers; raise the limit of open files with it."),
    setting!("ucx.library_dir", OPTIONAL_PATH, --"ucx-library-dir" on [Worker, Sql] at worker.ucx.library_dir;
        what: "Folder of the UCX library to use, the one that has `libucp.so.0`; `auto` for where the system finds libraries.",
        cost: "None; UCX between two workers needs the same version at both.",
        change: "Where your site brings its own UCX, for InfiniBand or NVLink."),
    setting!("ucx.port", PORT, --"ucx-port" on [Worker] at worker.ucx.port;
        what: "TCP port on which a worker greets others that want to use UCX; 0 for a free one.",
        cost: "A fixed port serves one worker per machine.",
        change: "Behind firewalls."),
    setting!("ucx.spin", OPTIONAL_SPIN, --"ucx-spin" on [Worker, Sql] at worker.ucx.spin;
        what: "How long the thread of UCX looks for more messages before it sleeps, as in 100us; `auto` for 20us on machines with at least 4 CPUs, and not at all on smaller ones.",
        cost: "CPU time that tasks could have.",
        change: "0us where CPUs are few; longer for the shortest latency where one can be spared."),
    setting!("ucx.connect_timeout", DURATION, --"ucx-connect-timeout" on [Worker, Sql] at worker.ucx.connect_timeout;
        what: "Time in which a worker must have answered a greeting and a first message over UCX.",
        cost: "Longer until partitions come over TCP instead.",
        change: "Longer on slow networks."),
    setting!("ucx.stall_timeout", DURATION, --"ucx-stall-timeout" on [Worker, Sql] at worker.ucx.stall_timeout;
        what: "Silence on a UCX connection in use after which the peer counts as dead.",
        cost: "Longer until partitions come over TCP instead.",
        change: "Longer where one partition takes longer to read from disk."),
];
