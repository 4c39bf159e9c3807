//! Reading flatbuffers from untrusted bytes: offsets are checked, and the work is bounded by the size.

use crate::error::{Error, Result};

/// A flatbuffer, and how many bytes of it may still be visited. Several tables can share one vector, so that a small buffer
/// could otherwise describe any amount.
pub(super) struct Flat<'a> {
    bytes: &'a [u8],
    rest: usize,
}

/// A table.
#[derive(Clone, Copy)]
pub(super) struct Table {
    position: usize,
    fields: usize,
    fields_bytes: usize,
}

impl<'a> Flat<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Flat<'a> {
        // Each byte belongs to one string, number or offset.
        Flat { bytes, rest: bytes.len().saturating_mul(2) }
    }

    pub(super) fn root(&mut self) -> Result<Table> {
        let position = self.indirect(0)?;
        self.table(position)
    }

    pub(super) fn u8(&self, table: Table, number: usize, default: u8) -> Result<u8> {
        Ok(self.field::<1>(table, number)?.map_or(default, u8::from_le_bytes))
    }

    pub(super) fn u32(&self, table: Table, number: usize) -> Result<u32> {
        Ok(self.field(table, number)?.map_or(0, u32::from_le_bytes))
    }

    pub(super) fn i64(&self, table: Table, number: usize) -> Result<i64> {
        Ok(self.field(table, number)?.map_or(0, i64::from_le_bytes))
    }

    /// Returns the bytes of a string or of a vector of bytes; empty if the field is missing.
    pub(super) fn bytes(&mut self, table: Table, number: usize) -> Result<&'a [u8]> {
        match self.offset(table, number)? {
            Some(position) => self.bytes_at(position),
            None => Ok(&[]),
        }
    }

    /// Returns the positions of the strings or tables of a vector.
    pub(super) fn vector(&mut self, table: Table, number: usize) -> Result<Vec<usize>> {
        let Some(position) = self.offset(table, number)? else { return Ok(Vec::new()) };
        let length = u32::from_le_bytes(self.array(position)?) as usize;
        self.visit(length.saturating_mul(4))?;
        (0..length).map(|at| self.indirect(position + 4 + 4 * at)).collect()
    }

    pub(super) fn bytes_at(&mut self, position: usize) -> Result<&'a [u8]> {
        let length = u32::from_le_bytes(self.array(position)?) as usize;
        self.visit(length)?;
        let start = position + 4;
        start.checked_add(length).and_then(|end| self.bytes.get(start..end)).ok_or_else(out_of_range)
    }

    pub(super) fn table(&mut self, position: usize) -> Result<Table> {
        /// The sizes of the list of fields and of the table, which precede the list.
        const HEADER_BYTES: usize = 4;
        self.visit(HEADER_BYTES)?;
        let back = i64::from(i32::from_le_bytes(self.array(position)?));
        let fields = i64::try_from(position).ok().and_then(|position| position.checked_sub(back));
        let fields = fields.and_then(|fields| usize::try_from(fields).ok()).ok_or_else(out_of_range)?;
        let fields_bytes = usize::from(u16::from_le_bytes(self.array(fields)?));
        Ok(Table { position, fields, fields_bytes })
    }

    pub(super) fn child(&mut self, table: Table, number: usize) -> Result<Option<Table>> {
        self.offset(table, number)?.map(|position| self.table(position)).transpose()
    }

    fn visit(&mut self, bytes: usize) -> Result<()> {
        self.rest = self.rest.checked_sub(bytes).ok_or_else(|| Error::invalid("ztoc", "its parts overlap"))?;
        Ok(())
    }

    fn array<const N: usize>(&self, position: usize) -> Result<[u8; N]> {
        let end = position.checked_add(N).ok_or_else(out_of_range)?;
        self.bytes.get(position..end).and_then(|bytes| bytes.try_into().ok()).ok_or_else(out_of_range)
    }

    /// Returns the position that a relative offset refers to.
    fn indirect(&self, position: usize) -> Result<usize> {
        let offset = u32::from_le_bytes(self.array(position)?) as usize;
        position.checked_add(offset).filter(|target| *target < self.bytes.len()).ok_or_else(out_of_range)
    }

    /// Returns the position of a field; `None` if it has its default.
    fn position(&self, table: Table, number: usize) -> Result<Option<usize>> {
        let slot = 4 + 2 * number;
        if slot + 2 > table.fields_bytes {
            return Ok(None);
        }
        let offset = usize::from(u16::from_le_bytes(self.array(table.fields + slot)?));
        Ok((offset > 0).then_some(table.position + offset))
    }

    fn field<const N: usize>(&self, table: Table, number: usize) -> Result<Option<[u8; N]>> {
        self.position(table, number)?.map(|position| self.array(position)).transpose()
    }

    fn offset(&self, table: Table, number: usize) -> Result<Option<usize>> {
        self.position(table, number)?.map(|position| self.indirect(position)).transpose()
    }
}

fn out_of_range() -> Error {
    Error::invalid("ztoc", "an offset is out of range")
}
