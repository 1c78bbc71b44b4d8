//! Moves of a simulated worker between its tiers: from device to page-locked memory and disk, from host memory to disk, and back.

use transload_protocol::{PartitionId, TaskId, Tier};
use transload_worker::Input;

use super::Process;
use crate::network::Happening;
use crate::world::{Step, World};

/// A stored partition.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) value: u64,
    pub(super) bytes: u64,
    pub(super) tier: Tier,
    /// Where it is read, here.
    pub(super) read_in: Tier,
    /// The spill or load of it that is under way, and where to.
    pub(super) moves: Option<(u64, Tier)>,
    /// It could not be read back; nobody gets it any more.
    pub(super) corrupt: bool,
}

impl Stored {
    /// Something that has just come to where it is read.
    pub(super) fn new(value: u64, bytes: u64, tier: Tier) -> Self {
        Self {
            value,
            bytes,
            tier,
            read_in: tier,
            moves: None,
            corrupt: false,
        }
    }

    /// It is in a tier, or on its way there: its bytes are reserved when a move starts.
    pub(super) fn occupies(&self, tier: Tier) -> bool {
        self.tier == tier || self.moves.is_some_and(|(_, to)| to == tier)
    }

    pub(super) fn is_readable(&self) -> bool {
        self.tier == self.read_in && self.moves.is_none()
    }
}

/// A spill or load under way.
#[derive(Debug, Clone)]
pub(super) struct Move {
    pub(super) partition: PartitionId,
    pub(super) from: Tier,
    pub(super) to: Tier,
    end: End,
}

/// What will come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    There,
    /// Refused, for the time being.
    Refused,
    /// What is on disk cannot be read.
    Corrupt,
}

impl Move {
    pub(super) fn is_copy(&self) -> bool {
        self.from != Tier::Disk && self.to != Tier::Disk
    }

    fn is_spill(&self) -> bool {
        match self.to {
            Tier::Disk => true,
            Tier::PinnedHost => self.from == Tier::Device,
            Tier::Device | Tier::Host => false,
        }
    }
}

impl Stored {
    /// Whether a spill of it may go there.
    fn may_sink(&self, to: Tier, has_direct_storage: bool) -> bool {
        match (self.tier, to) {
            (Tier::Device, Tier::PinnedHost) => true,
            (Tier::PinnedHost | Tier::Host, Tier::Disk) => true,
            (Tier::Device, Tier::Disk) => has_direct_storage,
            _ => false,
        }
    }

    /// Whether a load of it may go there.
    fn may_rise(&self, to: Tier, has_direct_storage: bool) -> bool {
        match (self.tier, self.read_in, to) {
            (Tier::Disk, Tier::Device, Tier::Device) => has_direct_storage,
            (Tier::Disk, Tier::Device, Tier::PinnedHost) => !has_direct_storage,
            (Tier::Disk, Tier::Host, Tier::Host) => true,
            (Tier::PinnedHost, _, Tier::Device) => true,
            _ => false,
        }
    }
}

impl Process {
    /// Starts a spill, or a load.
    pub(super) fn move_partition(
        &mut self,
        world: &mut World,
        partition: PartitionId,
        (spills, to): (bool, Tier),
    ) -> Step {
        let verb = if spills { "spills" } else { "loads" };
        let Some(stored) = self.store.get(&partition) else {
            return Err(format!("{verb} {partition}, which it does not hold"));
        };
        if stored.moves.is_some() {
            return Err(format!(
                "{verb} {partition} while an earlier move of it is under way"
            ));
        }
        let has_direct_storage = self.has_direct_storage();
        let is_way = if spills {
            stored.may_sink(to, has_direct_storage)
        } else {
            stored.may_rise(to, has_direct_storage)
        };
        if !is_way {
            return Err(format!(
                "{verb} {partition} to {to} from {}, and it is read in {}",
                stored.tier, stored.read_in
            ));
        }
        let (from, bytes) = (stored.tier, stored.bytes);
        if let Some(task) = self.reader_of(partition) {
            return Err(format!("{verb} {partition}, which {task} reads"));
        }
        self.check_room(partition, bytes, to)?;
        let mut moved = Move {
            partition,
            from,
            to,
            end: End::There,
        };
        moved.end = self.draw_end(world, &moved, bytes);
        if !moved.is_copy() && (moved.from == Tier::Device || moved.to == Tier::Device) {
            world.count("moves between devices and disk");
        }
        world.count(match (moved.is_copy(), spills) {
            (false, true) => "spills",
            (false, false) => "loads",
            (true, true) => "copies from devices",
            (true, false) => "copies to devices",
        });
        let operation = world.token();
        if let Some(stored) = self.store.get_mut(&partition) {
            stored.moves = Some((operation, to));
        }
        self.moves.insert(operation, moved);
        let process = self.index;
        world.soon(
            world.scenario.disk_micros,
            Happening::MoveEnds { process, operation },
        );
        Ok(())
    }

    /// Chance, and the real disk, which has the room that it has, whatever the machine's own limit says.
    fn draw_end(&self, world: &mut World, moved: &Move, bytes: u64) -> End {
        let scenario = &world.scenario;
        let (spill_fails, load_fails, copy_fails) = (
            scenario.spill_fails_per_mille,
            scenario.load_fails_per_mille,
            scenario.copy_fails_per_mille,
        );
        let capacity = scenario.disk_capacity_bytes;
        if moved.is_copy() {
            return if world.mishap(copy_fails) {
                End::Refused
            } else {
                End::There
            };
        }
        if moved.to == Tier::Disk {
            let is_full = self.tier_bytes(Tier::Disk) + bytes > capacity;
            return if is_full || world.mishap(spill_fails) {
                End::Refused
            } else {
                End::There
            };
        }
        if world.mishap(load_fails) {
            End::Corrupt
        } else if moved.to != Tier::Host && world.mishap(copy_fails) {
            End::Refused
        } else {
            End::There
        }
    }

    /// A spill or load ends. If the partition was dropped meanwhile, the machine is told all the same.
    pub(crate) fn move_ended(&mut self, world: &mut World, operation: u64) -> Step {
        let Some(ended) = self.moves.remove(&operation) else {
            return Ok(());
        };
        let partition = ended.partition;
        let stored = self.store.get_mut(&partition);
        let stored =
            stored.filter(|stored| stored.moves.is_some_and(|(newest, _)| newest == operation));
        let mut bytes = 0;
        if let Some(stored) = stored {
            bytes = stored.bytes;
            stored.moves = None;
            match ended.end {
                End::There => stored.tier = ended.to,
                End::Refused => {}
                End::Corrupt => stored.corrupt = true,
            }
        }
        let reason = "the fake driver says no".to_owned();
        let input = match (ended.is_spill(), ended.end) {
            (true, End::There) => Input::Spilled { partition, bytes },
            (false, End::There) => Input::Loaded { partition },
            (true, End::Refused | End::Corrupt) => {
                world.count(match ended.to {
                    Tier::PinnedHost => "failed copies",
                    Tier::Device | Tier::Host | Tier::Disk => "failed spills",
                });
                Input::SpillFailed { partition, reason }
            }
            (false, end @ (End::Refused | End::Corrupt)) => {
                let is_lost = end == End::Corrupt;
                world.count(if is_lost {
                    "failed loads"
                } else {
                    "failed copies"
                });
                Input::LoadFailed {
                    partition,
                    is_lost,
                    reason,
                }
            }
        };
        self.handle(world, input)
    }

    pub(super) fn drop_stored(&mut self, partition: PartitionId) -> Step {
        if let Some(task) = self.reader_of(partition) {
            return Err(format!("drops {partition}, which {task} reads"));
        }
        match self.store.remove(&partition) {
            Some(stored) if stored.moves.is_some() => {
                Err(format!("drops {partition}, which is being moved"))
            }
            Some(_) => Ok(()),
            None => Err(format!("drops {partition}, which it does not hold")),
        }
    }

    /// A running task that was given a partition.
    pub(super) fn reader_of(&self, partition: PartitionId) -> Option<TaskId> {
        let mut running = self.running.iter();
        let reader = running.find(|(_, execution)| execution.reads.contains(&partition));
        reader.map(|((task, _), _)| *task)
    }
}
