//! [`Table`]: where the entries are in the bytes of a [`Data`](super::Data).

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use super::entry::{Entry, EntryRef};

/// The number of entries.
const COUNT_LEN: usize = size_of::<u32>();

/// Two numbers: where an entry ends, and how long its key is.
type Row = [u8; 2 * size_of::<u32>()];

/// The parts of a data's bytes. All numbers have four bytes, and are big-endian:
///
/// 1. the number of entries
/// 2. for each entry, in the order of their keys: where it ends, counted from where the first entry
///    begins; and the length of its key
/// 3. the entries: each is its key, and behind that its JSON
///
/// Data without entries has no bytes at all.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    bytes: &'a [u8],
    rows: &'a [Row],
    text: &'a [u8],
}

impl<'a> Table<'a> {
    /// The parts, as far as they are there.
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        let parts = bytes.split_first_chunk().and_then(|(count, rest)| {
            let size = to_usize(u32::from_be_bytes(*count)).checked_mul(size_of::<Row>())?;
            rest.split_at_checked(size)
        });
        let (rows, text) = parts.unwrap_or_default();
        Self {
            bytes,
            rows: rows.as_chunks().0,
            text,
        }
    }

    /// Whether each entry is where the one before it ends, the keys are texts in order, and nothing
    /// follows.
    pub(super) fn is_sound(self) -> bool {
        let mut end = 0;
        let mut last_key = None;
        for index in 0..self.len() {
            let Some(entry) = self.entry(index) else {
                return false;
            };
            let is_in_order = last_key.is_none_or(|last| last < entry.key);
            if !is_in_order || str::from_utf8(entry.key).is_err() {
                return false;
            }
            last_key = Some(entry.key);
            end += entry.key.len() + entry.json.len();
        }
        end == self.text.len() && !self.rows.is_empty()
    }

    /// Whether all entries are equal. Equal entries have the same length, and so the same place.
    pub(super) fn is_equal(self, other: Table<'_>) -> bool {
        let is_equal = |index| {
            let place = self.start(index)..self.start(index + 1);
            self.text.get(place.clone()) == other.text.get(place)
                || self.entry(index) == other.entry(index)
        };
        self.rows == other.rows && (0..self.len()).all(is_equal)
    }

    pub(super) fn len(self) -> usize {
        self.rows.len()
    }

    /// All keys and values.
    pub(super) fn text(self) -> &'a [u8] {
        self.text
    }

    pub(super) fn entries(self) -> impl Iterator<Item = EntryRef<'a>> {
        (0..self.len()).filter_map(move |index| self.entry(index))
    }

    pub(super) fn entry(self, index: usize) -> Option<EntryRef<'a>> {
        let (end, key_len) = numbers(self.rows.get(index)?);
        let text = self.text.get(self.start(index)..end)?;
        let (key, json) = text.split_at_checked(key_len)?;
        Some(EntryRef { key, json })
    }

    fn key(self, index: usize) -> Option<&'a [u8]> {
        let (_, key_len) = numbers(self.rows.get(index)?);
        self.text.get(self.start(index)..)?.get(..key_len)
    }

    /// Where the entry begins.
    fn start(self, index: usize) -> usize {
        let before = index
            .checked_sub(1)
            .and_then(|before| self.rows.get(before));
        before.map_or(0, |row| numbers(row).0)
    }

    /// The place of the key, or the place where it would be.
    pub(super) fn find(self, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            // Mostly the first bytes differ, which is quicker to see.
            let compare = |own: &[u8]| own.first().cmp(&key.first()).then_with(|| own.cmp(key));
            match self.key(middle).map(compare) {
                Some(Ordering::Less) => low = middle + 1,
                Some(Ordering::Equal) => return Ok(middle),
                Some(Ordering::Greater) | None => high = middle,
            }
        }
        Err(low)
    }

    /// The bytes with a new entry, or with none, in place of those in the range.
    pub(super) fn with(self, range: Range<usize>, new: Option<&Entry>) -> Arc<[u8]> {
        let (start, end) = (self.start(range.start), self.start(range.end));
        let text = new.map(Entry::text).unwrap_or_default();
        let count = self.len() - range.len() + usize::from(new.is_some());
        if count == 0 {
            return Arc::default();
        }
        if new.is_some() && !range.is_empty() && text.len() == end - start {
            return self.with_text_at(start, text);
        }
        let before = self.rows.get(..range.start).unwrap_or_default();
        let after = self.rows.get(range.end..).unwrap_or_default();
        let text_len = self.text.len() - (end - start) + text.len();
        let mut bytes = zeros(COUNT_LEN + count * size_of::<Row>() + text_len);
        // Nobody else has the bytes yet.
        let mut rest = Arc::get_mut(&mut bytes).unwrap_or_default();
        put(&mut rest, &to_u32(count).to_be_bytes());
        put(&mut rest, before.as_flattened());
        if let Some(new) = new {
            put(&mut rest, &row(start + text.len(), new.key_len()));
        }
        for old in after {
            let (old_end, key_len) = numbers(old);
            put(&mut rest, &row(old_end - end + start + text.len(), key_len));
        }
        put(&mut rest, self.text.get(..start).unwrap_or_default());
        put(&mut rest, text);
        put(&mut rest, self.text.get(end..).unwrap_or_default());
        bytes
    }

    /// The bytes with another entry of the same length and the same key at this place. Many new
    /// values are as long as the old ones.
    fn with_text_at(self, start: usize, text: &[u8]) -> Arc<[u8]> {
        let start = self.bytes.len() - self.text.len() + start;
        let mut bytes: Arc<[u8]> = self.bytes.into();
        // Nobody else has the bytes yet.
        let place = Arc::get_mut(&mut bytes).and_then(|bytes| bytes.get_mut(start..));
        put(&mut place.unwrap_or_default(), text);
        bytes
    }
}

/// So many zeros, in one allocation if they are few. Filling them is the only way to write them
/// piece by piece without a copy of the whole.
fn zeros(size: usize) -> Arc<[u8]> {
    static FEW: [u8; 4096] = [0; 4096];
    match FEW.get(..size) {
        Some(zeros) => zeros.into(),
        None => vec![0; size].into(),
    }
}

/// Writes bytes at the beginning of the rest, which is smaller then.
fn put(rest: &mut &mut [u8], bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    if let Some(place) = rest.split_off_mut(..bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn row(end: usize, key_len: usize) -> Row {
    let numbers = u64::from(to_u32(end)) << 32 | u64::from(to_u32(key_len));
    numbers.to_be_bytes()
}

fn numbers(row: &Row) -> (usize, usize) {
    let numbers = u64::from_be_bytes(*row);
    let low = numbers & u64::from(u32::MAX);
    (to_usize_of(numbers >> 32), to_usize_of(low))
}

/// [`MAX_SIZE`](super::MAX_SIZE) is so small that no number is larger.
fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn to_usize(number: u32) -> usize {
    to_usize_of(number.into())
}

fn to_usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
