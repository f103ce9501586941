//! The source record for a consumer, and the notes that writers store in it.

use crate::manifest::{
    GUARD_FIELD, Generation, Guard, LONG_FIELD, LONGEST_FIELD, Manifest, Position, SENT_FIELD, Sent, begun_with,
};
use resp::StreamId;

/// The field for the ID up to which several consumers of a group shared the entries.
/// [`StreamId::MAX`] while they still do.
#[must_use]
pub fn shared_field(group: &str) -> String {
    format!("shared:{group}")
}

/// The field for the output of a consumer.
#[must_use]
pub fn output_field(group: &str, consumer: &str) -> String {
    format!("{}{consumer}", output_prefix(group))
}

pub(super) fn output_prefix(group: &str) -> String {
    format!("output:{group}:")
}

/// Small fields that change while a writer runs. They are read along with other queries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// The output that has this consumer's name.
    pub output: Option<String>,
    /// The ID up to which entries were shared with other consumers.
    pub shared: Option<StreamId>,
    /// The size of the largest payload ever added.
    pub longest: Option<u64>,
    /// The last entry with a payload above [`SHORT`](crate::manifest::SHORT).
    pub long: Option<StreamId>,
    /// The end of the reader's latest batch.
    pub end: Option<StreamId>,
    /// When the reader's latest batch was sent.
    pub sent: Option<Sent>,
}

impl Notes {
    /// The fields for `HMGET`, in the order that [`read`](Self::read) expects.
    #[must_use]
    pub fn fields(group: &str, consumer: &str) -> [String; 6] {
        let [longest, long, guard, sent] = [LONGEST_FIELD, LONG_FIELD, GUARD_FIELD, SENT_FIELD].map(str::to_owned);
        [output_field(group, consumer), shared_field(group), longest, long, guard, sent]
    }

    /// Parses the values of [`fields`](Self::fields). An unreadable value counts as absent.
    #[must_use]
    pub fn read<'a>(values: impl IntoIterator<Item = Option<&'a [u8]>>) -> Self {
        let mut values = values.into_iter().map(Option::unwrap_or_default);
        let mut value = || values.next().unwrap_or_default();
        let output = value();
        Self {
            output: (!output.is_empty()).then(|| String::from_utf8_lossy(output).into_owned()),
            shared: StreamId::parse(value()),
            longest: std::str::from_utf8(value()).ok().and_then(|text| text.parse().ok()),
            long: StreamId::parse(value()),
            end: serde_json::from_slice::<Guard>(value()).ok().map(|g| StreamId { ms: g.generation, seq: g.tail.end }),
            sent: Sent::parse(value()),
        }
    }
}

/// The verdict on a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The record has the generation.
    Known,
    /// The record is complete and lacks the generation: no reader wrote that entry.
    Foreign,
    /// The record is missing or incomplete, and may have had the generation.
    Missing,
}

/// The source record, as a consumer sees it.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// The readable generations.
    pub manifest: Manifest,
    /// The number of partitions of the source, if the record has it.
    pub partitions: Option<u32>,
    /// The unreadable fields.
    pub complaint: Option<String>,
    /// The notes of the writers.
    pub notes: Notes,
    /// The outputs of the group's consumers, by consumer name.
    pub names: Vec<(String, String)>,
    /// Generations up to this one may have been lost from the record. `None`: no generation is
    /// lost.
    hole: Option<u64>,
}

impl Record {
    /// Parses the fields of the record (`HGETALL`). Unreadable ones are skipped and reported.
    #[must_use]
    pub fn read<'a>(
        fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
        group: &str,
        consumer: &str,
    ) -> Self {
        let mut record = Self::default();
        match begun_with(fields.clone()) {
            Ok(begun) => record.partitions = begun,
            Err(error) => record.complaint = Some(error.to_string()),
        }
        let prefix = output_prefix(group);
        let asked = Notes::fields(group, consumer);
        let mut values: [Option<&[u8]>; 6] = [None; 6];
        let mut links: Vec<(u64, u64)> = Vec::new();
        for (name, value) in fields {
            if let Some(place) = asked.iter().zip(&mut values).find(|(field, _)| field.as_bytes() == name) {
                *place.1 = Some(value);
            }
            if let Some(consumer) = name.strip_prefix(prefix.as_bytes()) {
                let [consumer, output] = [consumer, value].map(|text| String::from_utf8_lossy(text).into_owned());
                record.names.push((consumer, output));
            }
            match Manifest::from_fields([(name, value)]) {
                Ok(one) => {
                    record.manifest.guard = one.guard.clone().or_else(|| record.manifest.guard.take());
                    record.manifest.confirmed = one.confirmed.or(record.manifest.confirmed);
                    for generation in one.iter() {
                        links.push((predecessor(name).unwrap_or(u64::MAX), generation.generation));
                        record.manifest.insert(generation.clone());
                    }
                }
                Err(error) => {
                    if let Some(predecessor) = predecessor(name) {
                        links.push((predecessor, u64::MAX));
                    }
                    record.complaint.get_or_insert(error.to_string());
                }
            }
        }
        record.notes = Notes::read(values);
        record.hole = record.find_hole(links);
        record
    }

    /// The path of the input, according to the record.
    #[must_use]
    pub fn input_path(&self) -> Option<&str> {
        self.manifest.last().map(|generation| generation.path.as_str())
    }

    /// A complete record with these generations.
    #[must_use]
    pub fn complete(manifest: Manifest) -> Self {
        Self { manifest, ..Self::default() }
    }

    /// Each generation names its predecessor, so a missing one is detected. The oldest ones are
    /// dropped on purpose.
    fn find_hole(&self, mut links: Vec<(u64, u64)>) -> Option<u64> {
        if self.manifest.is_empty() {
            return Some(u64::MAX);
        }
        let named = [
            self.manifest.guard.as_ref().map(|guard| guard.generation),
            self.manifest.confirmed.map(|at| at.generation),
        ];
        let last = self.manifest.last().map_or(0, |last| last.generation);
        if named.into_iter().flatten().any(|generation| generation > last) {
            return Some(u64::MAX);
        }
        links.sort_unstable();
        let mut hole = links.first().map(|&(first, _)| first).filter(|&first| first > 0);
        for pair in links.windows(2) {
            if let [(_, generation), (predecessor, next)] = *pair
                && generation != predecessor
            {
                hole = Some(next.max(generation));
            }
        }
        if links.iter().any(|&(_, generation)| generation == u64::MAX) {
            hole = Some(u64::MAX);
        }
        hole
    }

    /// The verdict on this generation.
    #[must_use]
    pub fn judge(&self, generation: u64) -> Verdict {
        if self.manifest.get(generation).is_some() {
            Verdict::Known
        } else if self.hole.is_some_and(|hole| generation <= hole) {
            Verdict::Missing
        } else {
            Verdict::Foreign
        }
    }

    /// Whether the newest generation comes from the file with this identity. `here` is the identity
    /// of the file at the input's path on this host. Inode numbers repeat on other volumes, so an
    /// equal number alone proves nothing.
    #[must_use]
    pub fn is_read_from(&self, file: &FileIdentity, here: Option<(u64, u64)>) -> Option<&Generation> {
        let last = self.manifest.last()?;
        let is_same = here == Some((file.dev, file.ino)) && (last.dev, last.ino) == (file.dev, file.ino);
        let head = usize::try_from(last.head_len).ok().and_then(|len| file.head.get(..len));
        (is_same && head.is_some_and(|head| crate::hash(head) == last.head_hash)).then_some(last)
    }

    /// The position of a generation in the source, to compare IDs with ranges in the output.
    pub(super) fn clamp(&self, id: StreamId) -> Option<Position> {
        clamp(&self.manifest, id)
    }
}

/// The last position of the source that is not after `id`. A foreign program may have chosen `id`.
fn clamp(manifest: &Manifest, id: StreamId) -> Option<Position> {
    let generation = manifest.get(id.ms).or_else(|| manifest.before(id.ms))?.generation;
    let guard = manifest.guard.as_ref().filter(|guard| guard.generation == generation);
    let end = guard.map(|guard| guard.tail.end).or_else(|| manifest.end(generation));
    // After a foreign entry, Redis may have refused the latest batch.
    let certain = || manifest.end(generation).or_else(|| guard?.before.map(|before| before.offset)).or(end);
    let offset = if generation == id.ms { id.seq.min(end.unwrap_or(id.seq)) } else { certain()? };
    Some(Position { generation, offset })
}

/// The identity of an output file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileIdentity {
    /// Its device.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
    /// Its first bytes, at most [`HEAD_LEN`](crate::manifest::HEAD_LEN) of them.
    pub head: Vec<u8>,
}

fn predecessor(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field.strip_prefix(b"next:")?).ok()?.parse().ok()
}
