//! Everything that a simulation may vary, drawn from its seed.

use crate::random::Random;

/// The knobs of one simulation. Chances are per mille; durations are in microseconds unless named otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// Where all chance comes from.
    pub seed: u64,
    /// Workers at the start, 0 to 6.
    pub workers: u32,
    /// Fewest and most slots of a worker.
    pub slots_per_worker: (u32, u32),
    /// Whether workers have one or two of a resource called `gpu`, and some tasks ask for one, or for half of one.
    pub gpus: bool,
    /// Where layers work on devices, the chance that a worker other than the first has any; else every worker has.
    pub worker_has_gpu_per_mille: u32,
    /// Chance that a layer works in device memory. Where there is any, every worker that has `gpu` has a device.
    pub device_per_mille: u32,
    /// Device memory of each worker that has any, in bytes.
    pub device_bytes: u64,
    /// Page-locked memory beside it, in bytes.
    pub pinned_bytes: u64,
    /// Whether disks reach devices without memory of the host in between.
    pub direct_storage: bool,
    /// `worker::Config::copies_in_flight`.
    pub copies_in_flight: u32,
    /// Memory of each worker for partitions, in bytes.
    pub memory_bytes: u64,
    /// Disk that each worker's machine may use, in bytes.
    pub disk_bytes: u64,
    /// Disk that there really is for each worker, in bytes: a spill that does not fit fails.
    pub disk_capacity_bytes: u64,
    /// `worker::Config::spill_above_percent`.
    pub spill_above_percent: u8,
    /// `worker::Config::fetches_in_flight`.
    pub fetches_in_flight: u32,
    /// `worker::Config::disk_operations_in_flight`.
    pub disk_operations_in_flight: u32,
    /// `worker::Config::fetch_attempts`.
    pub fetch_attempts: u32,
    /// `worker::Config::heartbeat_ms`.
    pub heartbeat_ms: u32,
    /// `scheduler::Config::worker_timeout_ms`.
    pub worker_timeout_ms: u32,
    /// `scheduler::Config::queue_per_slot`.
    pub queue_per_slot: u32,
    /// `scheduler::Config::max_queue_per_slot`.
    pub max_queue_per_slot: u32,
    /// `scheduler::Config::worker_deaths_per_task`.
    pub worker_deaths_per_task: u32,
    /// `scheduler::Config::retry_backoff_ms`; waits are limited to a second.
    pub retry_backoff_ms: u32,
    /// `scheduler::Config::unschedulable_grace_ms`.
    pub unschedulable_grace_ms: u32,
    /// Chance that the scheduler takes in what arrived and decides only after more has arrived.
    pub batch_per_mille: u32,

    /// Clients, 1 to 3.
    pub clients: u32,
    /// Most graphs of one client.
    pub graphs_per_client: u32,
    /// Most layers of a graph.
    pub layers: u32,
    /// Most tasks of a layer whose size no edge decides.
    pub tasks_per_layer: u32,
    /// Most slots that a task asks for.
    pub slots_per_task: u32,
    /// Most retries of a layer.
    pub retries: u32,
    /// Size of the largest partition, in bytes.
    pub partition_bytes: u64,
    /// Whether another attempt makes outputs of other sizes.
    pub sizes_vary: bool,
    /// Chance that a layer is a gang.
    pub gang_per_mille: u32,
    /// Chance that a layer's tasks may run only on workers with a label, on a host, or each on its own worker; that they ask for
    /// memory; and that where they ask for a GPU, they ask for half of one.
    pub held_per_mille: u32,
    /// Chance that a layer before the last is kept.
    pub layer_kept_per_mille: u32,
    /// Chance that a graph keeps no layer at all.
    pub nothing_kept_per_mille: u32,
    /// Chance that a client submits a graph that must be refused.
    pub bad_graph_per_mille: u32,
    /// Chance that a task always fails.
    pub task_fails_per_mille: u32,
    /// Chance that a task fails the first times, in a way that can be tried again.
    pub task_flaky_per_mille: u32,
    /// Chance that a task kills its worker's process the first times.
    pub task_deadly_per_mille: u32,
    /// Chance that a graph has to end in a time that may be too short.
    pub deadline_per_mille: u32,
    /// Chance that a layer's tasks have to.
    pub time_limit_per_mille: u32,
    /// Longest run of a task.
    pub task_micros: u64,
    /// Chance that a task waits for something without its slot, once or a few times.
    pub task_waits_per_mille: u32,
    /// Chance that what it waits for is a graph of its own.
    pub task_submits_per_mille: u32,
    /// Most graphs that tasks submit, all together.
    pub graphs_within_tasks: u32,

    /// Longest base latency of a link.
    pub latency_micros: u64,
    /// Longest extra delay of one message.
    pub jitter_micros: u64,
    /// Chance that a connection is fifty times slower.
    pub slow_link_per_mille: u32,
    /// Payload bytes that move between two processes per millisecond.
    pub bytes_per_milli: u64,
    /// Chance that one fetch fails.
    pub fetch_fails_per_mille: u32,
    /// Chance that two processes never reach each other.
    pub apart_per_mille: u32,
    /// A fetch that is not answered for so long fails.
    pub fetch_timeout_micros: u64,
    /// Longest duration of a spill or load.
    pub disk_micros: u64,
    /// Chance that a spill fails.
    pub spill_fails_per_mille: u32,
    /// Chance that a load fails, which loses the partition.
    pub load_fails_per_mille: u32,
    /// Chance that a device or page-locked memory refuses what is moved there, which harms nothing.
    pub copy_fails_per_mille: u32,
    /// Chance that what is fetched to a device ends in page-locked or host memory, though there was room.
    pub fetch_strays_per_mille: u32,
    /// Chance that a task that works in device memory runs out of it at first, or until it works in halves, or in any case.
    pub task_hungry_per_mille: u32,

    /// Workers that are killed: the connection ends at once or soon.
    pub kills: u32,
    /// Workers that fall silent: only the heartbeat tells.
    pub power_cuts: u32,
    /// Workers whose connection to the scheduler is cut while the process lives on for a moment.
    pub cut_connections: u32,
    /// Workers that do nothing for a while.
    pub stalls: u32,
    /// Times at which the scheduler does nothing for a while.
    pub scheduler_stalls: u32,
    /// Schedulers that die and are followed by another one, made of their journal. Where there are any, workers and clients
    /// come back after broken connections.
    pub scheduler_crashes: u32,
    /// Longest stall.
    pub stall_micros: u64,
    /// Workers that leave in good order.
    pub departures: u32,
    /// Workers that join late.
    pub arrivals: u32,
    /// Chance that a dead worker is replaced by a new one.
    pub respawn_per_mille: u32,
    /// The time from which nothing fails by chance any more.
    pub calm_after_micros: u64,

    /// Chance that a graph imports results of another one.
    pub import_per_mille: u32,
    /// Chance that a client holds results of others, gives them names, and drops handles of its own graphs.
    pub share_per_mille: u32,
    /// Chance that a graph is something that its client scatters.
    pub scatter_per_mille: u32,
    /// Chance that a client cancels a graph.
    pub cancel_per_mille: u32,
    /// Chance that a client releases some of what it holds without having read it.
    pub release_early_per_mille: u32,
    /// Chance that a client reads and releases each output as soon as it is there.
    pub stream_per_mille: u32,
    /// Chance that a client's connection ends in the middle.
    pub vanish_per_mille: u32,
    /// Longest time that a client holds its outputs before it reads or releases them.
    pub hold_micros: u64,
    /// Questions (explain, info) and messages without use (releases and cancels of what is gone) of each client.
    pub chatter: u32,
    /// Chance that a client shuts the cluster down at the end.
    pub shutdown_per_mille: u32,
}

impl Scenario {
    /// A small cluster with enough of everything, where nothing fails. A base for tests of one thing.
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            workers: 3,
            slots_per_worker: (2, 2),
            gpus: false,
            worker_has_gpu_per_mille: 1_000,
            device_per_mille: 0,
            device_bytes: 1 << 40,
            pinned_bytes: 1 << 40,
            direct_storage: false,
            copies_in_flight: 4,
            memory_bytes: 1 << 40,
            disk_bytes: u64::MAX,
            disk_capacity_bytes: 1 << 40,
            spill_above_percent: 70,
            fetches_in_flight: 16,
            disk_operations_in_flight: 4,
            fetch_attempts: 2,
            heartbeat_ms: 500,
            worker_timeout_ms: 3_000,
            queue_per_slot: 1,
            max_queue_per_slot: 0,
            worker_deaths_per_task: 3,
            unschedulable_grace_ms: 0,
            retry_backoff_ms: 100,
            batch_per_mille: 0,
            clients: 1,
            graphs_per_client: 2,
            layers: 5,
            tasks_per_layer: 6,
            slots_per_task: 1,
            retries: 2,
            partition_bytes: 1_000,
            sizes_vary: false,
            gang_per_mille: 0,
            held_per_mille: 0,
            layer_kept_per_mille: 200,
            nothing_kept_per_mille: 0,
            bad_graph_per_mille: 0,
            task_fails_per_mille: 0,
            task_flaky_per_mille: 0,
            task_deadly_per_mille: 0,
            deadline_per_mille: 0,
            time_limit_per_mille: 0,
            task_micros: 20_000,
            task_waits_per_mille: 0,
            task_submits_per_mille: 0,
            graphs_within_tasks: 0,
            latency_micros: 500,
            jitter_micros: 500,
            slow_link_per_mille: 0,
            bytes_per_milli: 100_000,
            fetch_fails_per_mille: 0,
            apart_per_mille: 0,
            fetch_timeout_micros: 1_000_000,
            disk_micros: 5_000,
            spill_fails_per_mille: 0,
            load_fails_per_mille: 0,
            copy_fails_per_mille: 0,
            fetch_strays_per_mille: 0,
            task_hungry_per_mille: 0,
            kills: 0,
            power_cuts: 0,
            cut_connections: 0,
            stalls: 0,
            scheduler_stalls: 0,
            scheduler_crashes: 0,
            stall_micros: 0,
            departures: 0,
            arrivals: 0,
            respawn_per_mille: 1_000,
            calm_after_micros: 1_000_000,
            import_per_mille: 0,
            share_per_mille: 0,
            scatter_per_mille: 0,
            cancel_per_mille: 0,
            release_early_per_mille: 0,
            stream_per_mille: 300,
            vanish_per_mille: 0,
            hold_micros: 10_000,
            chatter: 0,
            shutdown_per_mille: 0,
        }
    }

    /// The scenario of a seed. Each kind of trouble is there in some seeds and absent in others, so that it is seen
    /// alone and together with every other.
    pub fn from_seed(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x7363_656e_6172_696f);
        let mut scenario = Self::calm(seed);
        scenario.vary_cluster(&mut random);
        scenario.vary_work(&mut random);
        scenario.vary_network(&mut random);
        scenario.vary_faults(&mut random);
        scenario.vary_clients(&mut random);
        scenario.task_waits_per_mille = random.pick(&[0, 0, 100, 500], 0);
        scenario.scheduler_crashes = random.pick(&[0, 0, 1, 3], 0);
        scenario.task_submits_per_mille = random.pick(&[0, 300, 1_000, 1_000], 0);
        scenario.graphs_within_tasks = random.small(1, 8);
        scenario.import_per_mille = random.pick(&[0, 300, 800], 0);
        scenario.deadline_per_mille = random.pick(&[0, 0, 200], 0);
        scenario.time_limit_per_mille = random.pick(&[0, 0, 200], 0);
        scenario.retry_backoff_ms = random.pick(&[0, 10, 100, 1_000], 100);
        scenario.unschedulable_grace_ms = random.pick(&[0, 100, 2_000], 0);
        scenario.gang_per_mille = random.pick(&[0, 0, 200, 500], 0);
        scenario.held_per_mille = random.pick(&[0, 0, 200], 0);
        scenario.share_per_mille = random.pick(&[0, 0, 500, 1_000], 0);
        if scenario.share_per_mille > 0 {
            scenario.scatter_per_mille = random.pick(&[0, 300], 0);
        }
        if scenario.gpus || random.chance(200) {
            scenario.vary_devices(&mut random);
        }
        scenario.apart_per_mille = random.pick(&[0, 0, 0, 0, 0, 0, 100, 400], 0);
        scenario
    }

    fn vary_cluster(&mut self, random: &mut Random) {
        self.workers = if random.chance(30) {
            0
        } else {
            random.small(1, 6)
        };
        let fewest = random.small(1, 3);
        self.slots_per_worker = (fewest, fewest + random.small(0, 2));
        // Now and then, more than some worker or any worker has.
        self.slots_per_task = if random.chance(50) {
            fewest + random.small(1, 3)
        } else {
            random.small(1, fewest)
        };
        self.gpus = random.chance(200);
        self.spill_above_percent = random.pick(&[0, 30, 50, 70, 90, 100], 70);
        self.fetches_in_flight = random.pick(&[1, 2, 4, 16], 16);
        self.disk_operations_in_flight = random.pick(&[1, 2, 4], 4);
        self.fetch_attempts = random.small(1, 3);
        self.heartbeat_ms = random.pick(&[100, 250, 500], 500);
        self.worker_timeout_ms = self.heartbeat_ms * random.small(4, 8);
        self.queue_per_slot = random.small(0, 2);
        self.max_queue_per_slot = random.pick(&[0, 0, 16], 0);
        self.worker_deaths_per_task = random.small(1, 4);
        self.batch_per_mille = random.pick(&[0, 0, 300, 900], 0);
    }

    fn vary_work(&mut self, random: &mut Random) {
        self.clients = random.small(1, 3);
        self.graphs_per_client = random.small(1, 3);
        self.layers = random.small(2, 8);
        self.tasks_per_layer = random.pick(&[2, 4, 6, 10, 16], 6);
        self.retries = random.small(0, 3);
        self.partition_bytes = random.pick(&[0, 1_000, 1_000, 1_000, 100_000], 1_000);
        self.sizes_vary = random.chance(200);
        self.layer_kept_per_mille = random.pick(&[0, 200, 1_000], 0);
        self.nothing_kept_per_mille = random.pick(&[0, 0, 300], 0);
        self.task_micros = random.pick(&[0, 1_000, 20_000, 200_000], 20_000);
        // Memory from plenty down to less than one task needs.
        let partitions = random.pick(&[1, 2, 5, 10, 20, 50, 10_000, 10_000], 10_000);
        self.memory_bytes = partitions * self.partition_bytes + random.below(100);
        if random.chance(200) {
            self.disk_capacity_bytes = random.below(20) * self.partition_bytes;
        }
        if random.chance(100) {
            self.disk_bytes = random.below(20) * self.partition_bytes;
        }
        self.disk_micros = random.pick(&[0, 1_000, 20_000], 1_000);
    }

    fn vary_devices(&mut self, random: &mut Random) {
        self.device_per_mille = random.pick(&[0, 300, 600, 1_000], 0);
        if self.device_per_mille == 0 {
            return;
        }
        self.gpus = true;
        self.worker_has_gpu_per_mille = random.pick(&[1_000, 700, 300], 1_000);
        // From plenty down to less than one task needs, as in host memory.
        let some = [1, 2, 4, 6, 10, 20, 50, 10_000];
        let partitions = random.pick(&some, 10_000);
        self.device_bytes = partitions * self.partition_bytes + random.below(100);
        let partitions = random.pick(&[0, 1, 2, 5, 20, 10_000], 10_000);
        self.pinned_bytes = partitions * self.partition_bytes + random.below(100);
        self.copies_in_flight = random.pick(&[1, 2, 4], 4);
        self.copy_fails_per_mille = random.pick(&[0, 0, 50, 300], 0);
        self.fetch_strays_per_mille = random.pick(&[0, 100, 500], 0);
        self.task_hungry_per_mille = random.pick(&[0, 100, 400], 0);
        self.direct_storage = random.chance(500);
    }

    fn vary_network(&mut self, random: &mut Random) {
        self.latency_micros = random.pick(&[0, 100, 1_000, 20_000], 100);
        self.jitter_micros = random.pick(&[0, 100, 1_000, 50_000], 100);
        self.slow_link_per_mille = random.pick(&[0, 0, 200], 0);
        self.bytes_per_milli = random.pick(&[10, 1_000, 1_000_000], 1_000);
        self.fetch_timeout_micros = random.pick(&[100_000, 1_000_000, 5_000_000], 1_000_000);
    }

    fn vary_faults(&mut self, random: &mut Random) {
        let sometimes = |random: &mut Random, most: u32| {
            if random.chance(350) {
                random.small(1, most)
            } else {
                0
            }
        };
        self.calm_after_micros = random.pick(&[50_000, 500_000, 3_000_000], 500_000);
        self.task_fails_per_mille = sometimes(random, 40);
        self.task_flaky_per_mille = sometimes(random, 200);
        self.task_deadly_per_mille = sometimes(random, 40);
        self.fetch_fails_per_mille = sometimes(random, 200);
        self.spill_fails_per_mille = sometimes(random, 300);
        self.load_fails_per_mille = sometimes(random, 200);
        self.kills = sometimes(random, 6);
        self.power_cuts = sometimes(random, 3);
        self.cut_connections = sometimes(random, 3);
        self.stalls = sometimes(random, 4);
        self.stall_micros =
            u64::from(self.worker_timeout_ms) * random.pick(&[300, 900, 1_500], 300);
        self.scheduler_stalls = sometimes(random, 2);
        self.departures = sometimes(random, 2);
        self.arrivals = sometimes(random, 3);
        self.respawn_per_mille = random.pick(&[200, 700, 1_000], 700);
    }

    fn vary_clients(&mut self, random: &mut Random) {
        self.cancel_per_mille = random.pick(&[0, 0, 200, 500], 0);
        self.release_early_per_mille = random.pick(&[0, 0, 300], 0);
        self.stream_per_mille = random.pick(&[0, 300, 1_000], 300);
        self.vanish_per_mille = random.pick(&[0, 0, 300], 0);
        self.hold_micros = random.pick(&[0, 10_000, 1_000_000, 4_000_000], 10_000);
        self.bad_graph_per_mille = random.pick(&[0, 0, 100], 0);
        self.chatter = random.small(0, 6);
        self.shutdown_per_mille = random.pick(&[0, 0, 1_000], 0);
    }
}
