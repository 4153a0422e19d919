//! Writes a value as JSON that can be read back.

use std::io;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use super::finite::Finite;

/// How many arrays and objects may be inside each other. serde_json writes more of them, but reads
/// 127 at most.
pub(super) const MAX_DEPTH: u8 = 127;

/// Writes the value's JSON, and fails where nobody could read it back.
pub(super) fn write<T: Serialize>(
    writer: impl io::Write,
    value: &T,
) -> Result<(), serde_json::Error> {
    let mut has_null = false;
    let formatter = Watch {
        depth: 0,
        has_null: &mut has_null,
    };
    value.serialize(&mut Serializer::with_formatter(writer, formatter))?;
    // serde_json writes a NaN and the infinities as `null`, too, and the text does not tell which
    // `null` is one of them.
    if has_null {
        value.serialize(Finite)?;
    }
    Ok(())
}

/// Writes as serde_json does by default, and watches what it writes.
///
/// It stops what is nested too deeply in the middle, and so before the stack overflows.
struct Watch<'a> {
    depth: u8,
    has_null: &'a mut bool,
}

impl Watch<'_> {
    fn begin(&mut self) -> io::Result<()> {
        if self.depth == MAX_DEPTH {
            return Err(io::Error::other("the value is nested too deeply"));
        }
        self.depth += 1;
        Ok(())
    }

    fn end(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }
}

impl Formatter for Watch<'_> {
    fn write_null<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        *self.has_null = true;
        writer.write_all(b"null")
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin()?;
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end();
        writer.write_all(b"]")
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin()?;
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end();
        writer.write_all(b"}")
    }
}
