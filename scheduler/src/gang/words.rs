//! Why a gang is where it is, in words for a person. Part of `explain`.

use crate::machine::Scheduler;
use crate::slab::TaskAt;
use crate::worker::Reach;

use super::start::{is_enough, total};

impl Scheduler {
    /// What a ready member of a gang waits for.
    pub(crate) fn explain_ready_member(&self, at: TaskAt, details: &mut Vec<String>) -> String {
        self.detail_gang(at, details);
        let graph = &self.graphs.slab[at.graph];
        let layer = graph.layer_of(at.index);
        let (rank, ready) = (layer.rank, layer.ready.len());
        let members = self.members(&rank);
        if ready < members {
            return format!(
                "is ready and waits for its gang: {ready} of {members} members are ready"
            );
        }
        if let Some(message) = self.why_too_large(&rank) {
            details.extend(self.gangs.stuck.get(&rank).map(|due| {
                format!(
                    "its graph fails in {} ms, unless workers that make up for it join before",
                    due.micros_since(self.now).div_ceil(1_000)
                )
            }));
            return format!("is ready, but cannot start: {message}");
        }
        let room = self.room_now(&rank, Reach::Queue);
        if is_enough(&room, members) {
            return "is ready, and its gang starts as soon as tasks are handed out again"
                .to_owned();
        }
        let kept = self.gangs.kept.iter().filter(|(of, _)| *of == rank);
        let workers: Vec<String> = kept
            .flat_map(|(_, shares)| shares)
            .filter(|(worker, _)| self.keeps_room(**worker))
            .map(|(worker, share)| format!("{share} on {}", self.worker_name(*worker)))
            .collect();
        details.push(if workers.is_empty() {
            "no room is kept for it: others go before it".to_owned()
        } else {
            format!("room is kept for it: {}", workers.join(", "))
        });
        format!(
            "is ready and waits for room for its whole gang: {} of {members} members fit now",
            total(&room)
        )
    }

    /// How far its gang is.
    pub(crate) fn detail_gang(&self, at: TaskAt, details: &mut Vec<String>) {
        let layer = self.graphs.slab[at.graph].layer_of(at.index);
        if let Some(gang) = &layer.gang {
            details.push(format!(
                "it is member {} of a gang of {}: {} ready, {} running, {} of these ended",
                at.index - layer.first_task,
                gang.members,
                layer.ready.len(),
                layer.counts.running,
                gang.ended.len()
            ));
            if let Some(verdict) = &gang.verdict {
                details.push(format!(
                    "it is being stopped, {} members are left, because {}",
                    verdict.unanswered, verdict.error
                ));
            }
        }
    }
}
