//! Where a reader goes on.
//!
//! Starting up and recovering from a fault are the same: look at what Redis holds, and decide. The decision is pure; what it needs to know
//! is in [`View`].

use crate::source::{Generation, Lineage, Position};
use resp::StreamId;

/// What a reader sees when it looks at Redis and at its own state file.
#[derive(Debug, Clone)]
pub struct View {
    /// The source record in Redis.
    pub redis: Lineage,
    /// The lineage in the state file beside the input.
    pub local: Lineage,
    /// The stream's last-generated ID; zero when there is no stream.
    pub last_id: StreamId,
    /// Whether the entry at the guard's first position has the form of ours; `None` when there is none (any more).
    pub first_is_ours: Option<bool>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The source's generations, to go on with.
    pub lineage: Lineage,
    /// Generations that Redis does not know (any more): to be written to the source record first, in this order, each with the generation
    /// before it.
    pub restore: Vec<Generation>,
    /// Where to go on.
    pub resume: Resume,
}

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// No source is known: the input begins one.
    Fresh,
    /// At this position; the next entries carry its generation.
    At(Position),
    /// Entries that are none of ours lie above our last one. Go on from this position, in a new generation of the same content.
    Renumber(Position),
}

impl View {
    /// Decides where to go on.
    #[must_use]
    pub fn plan(self) -> Plan {
        let Self { redis, local, last_id, first_is_ours } = self;
        // A state file of another source says nothing here; the path decides whether the input belongs to this one.
        let usable = redis.is_empty() || redis.shares(&local);
        let restore = if usable { local.missing_in(&redis) } else { Vec::new() };
        let mut lineage = redis;
        for generation in &restore {
            lineage.insert(generation.clone());
        }
        let resume = match lineage.first() {
            None => Resume::Fresh,
            Some(first) => {
                let start = Position { generation: first.generation, offset: first.start };
                match lineage.get(last_id.ms) {
                    // The guard is written together with the entries: where it stands, the last ID is ours.
                    Some(_) if lineage.guard.is_some_and(|g| g.stands_at(last_id)) && first_is_ours != Some(false) => {
                        Resume::At(Position::of(last_id))
                    }
                    // Nothing of ours is in the stream, and nothing stands above what we will send.
                    None if last_id.ms < first.generation => Resume::At(start),
                    _ => Resume::Renumber(
                        lineage.confirmed.filter(|c| lineage.get(c.generation).is_some()).unwrap_or(start),
                    ),
                }
            }
        };
        Plan { lineage, restore, resume }
    }
}

/// Which generation carries a content that follows the one that was just finished.
///
/// `known`: the generations of the next content. A number that lies above the present one is used; else (Redis was renumbered meanwhile) the content
/// gets a new number and keeps its root.
#[must_use]
pub fn carried_by(known: impl IntoIterator<Item = u64>, present: u64) -> Option<u64> {
    known.into_iter().filter(|&generation| generation > present).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Guard;

    fn generation(number: u64) -> Generation {
        Generation {
            generation: number,
            root: number,
            start: 0,
            previous_end: None,
            previous_guard: None,
            path: "/in".to_owned(),
            dev: 1,
            ino: number,
            head_len: 1,
            head_hash: number,
        }
    }

    fn lineage(numbers: &[u64]) -> Lineage {
        let mut lineage = Lineage::default();
        numbers.iter().for_each(|&n| lineage.insert(generation(n)));
        lineage
    }

    /// With a guard at the last ID, as our own entries leave it.
    fn plan(redis: &Lineage, local: &Lineage, ms: u64, seq: u64) -> Plan {
        let mut redis = redis.clone();
        redis.guard.get_or_insert(Guard::new(ms, seq, seq, b""));
        View { redis, local: local.clone(), last_id: StreamId { ms, seq }, first_is_ours: None }.plan()
    }

    const fn at(generation: u64, offset: u64) -> Resume {
        Resume::At(Position { generation, offset })
    }

    #[test]
    fn nothing_known_is_a_fresh_source() {
        let plan = plan(&Lineage::default(), &Lineage::default(), 0, 0);
        assert_eq!((plan.resume, plan.restore.len()), (Resume::Fresh, 0));
    }

    #[test]
    fn the_last_id_is_the_checkpoint() {
        assert_eq!(plan(&lineage(&[10, 20]), &lineage(&[10, 20]), 20, 77).resume, at(20, 77));
    }

    #[test]
    fn a_stream_that_lost_its_tail_goes_back_a_generation() {
        assert_eq!(plan(&lineage(&[10, 20]), &lineage(&[10, 20]), 10, 5).resume, at(10, 5));
    }

    #[test]
    fn an_emptied_redis_gets_its_records_back() {
        let plan = plan(&Lineage::default(), &lineage(&[10, 20]), 0, 0);
        assert_eq!(plan.resume, at(10, 0));
        assert_eq!(plan.restore.iter().map(|g| g.generation).collect::<Vec<_>>(), [10, 20]);
    }

    #[test]
    fn a_stale_replica_gets_the_newer_records() {
        let plan = plan(&lineage(&[10]), &lineage(&[10, 20]), 10, 9);
        assert_eq!(plan.restore.len(), 1);
        assert_eq!(plan.resume, at(10, 9));
    }

    #[test]
    fn redis_wins_over_another_state_file() {
        let plan = plan(&lineage(&[10]), &lineage(&[11, 12]), 10, 9);
        assert!(plan.restore.is_empty());
        assert!(plan.lineage.same_generations(&lineage(&[10])));
    }

    #[test]
    fn foreign_entries_above_ours_renumber_from_the_confirmed_position() {
        let mut redis = lineage(&[10]);
        redis.confirmed = Some(Position { generation: 10, offset: 44 });
        redis.guard = Some(Guard::new(10, 45, 50, b""));
        let expected = Resume::Renumber(Position { generation: 10, offset: 44 });
        assert_eq!(plan(&redis, &redis, 999, 0).resume, expected);
        // The same when the foreign ID got our number, with a clock that stands behind it: above our last one, ...
        assert_eq!(plan(&redis, &redis, 10, 51).resume, expected);
        // ... or in the place of the first of a batch, whose other entries landed.
        let last_id = StreamId { ms: 10, seq: 50 };
        let view = View { redis: redis.clone(), local: redis, last_id, first_is_ours: Some(false) };
        assert_eq!(view.plan().resume, expected);
    }

    #[test]
    fn foreign_entries_below_ours_do_not_matter() {
        assert_eq!(plan(&Lineage::default(), &lineage(&[10]), 5, 0).resume, at(10, 0));
    }

    #[test]
    fn a_known_content_keeps_its_number_only_above_the_present_one() {
        assert_eq!(carried_by([20], 10), Some(20));
        assert_eq!(carried_by([20], 30), None);
    }
}
