//! Field-by-field access to DER (X.690), for the structures that `x509-cert` does not parse.

use x509_cert::der::asn1::AnyRef;
use x509_cert::der::{Decode, Encode, Error, Reader, SliceReader, Tag, TagNumber, Tagged};

/// The fields of a structure, in order.
pub(crate) struct Fields<'a>(SliceReader<'a>);

impl<'a> Fields<'a> {
    /// Returns the fields of a structure that takes up all of `der` and has this tag.
    pub(crate) fn of(der: &'a [u8], tag: Tag) -> Result<Fields<'a>, Error> {
        let outer = AnyRef::from_der(der)?;
        outer.tag().assert_eq(tag)?;
        Fields::within(outer.value())
    }

    /// Returns the fields in the content of a structure, without its tag and length.
    pub(crate) fn within(value: &'a [u8]) -> Result<Fields<'a>, Error> {
        Ok(Fields(SliceReader::new(value)?))
    }

    /// Returns the content of the next field, which must have this tag.
    pub(crate) fn value(&mut self, tag: Tag) -> Result<&'a [u8], Error> {
        let field: AnyRef<'a> = self.0.decode()?;
        field.tag().assert_eq(tag)?;
        Ok(field.value())
    }

    /// Returns the content of the next field if it has this tag.
    pub(crate) fn optional(&mut self, tag: Tag) -> Result<Option<&'a [u8]>, Error> {
        if self.peek()? == Some(tag) { self.value(tag).map(Some) } else { Ok(None) }
    }

    /// Returns the tag of the next field, if there is one.
    pub(crate) fn peek(&self) -> Result<Option<Tag>, Error> {
        if self.is_finished() { Ok(None) } else { Tag::peek(&self.0).map(Some) }
    }

    /// Returns the fields of the next field, which must have this tag.
    pub(crate) fn fields(&mut self, tag: Tag) -> Result<Fields<'a>, Error> {
        Fields::within(self.value(tag)?)
    }

    /// Returns all bytes of the next field, including tag and length.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Error> {
        self.0.tlv_bytes()
    }

    pub(crate) fn decode<T: Decode<'a, Error = Error>>(&mut self) -> Result<T, Error> {
        self.0.decode()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Checks that no field is left.
    pub(crate) fn finish(self) -> Result<(), Error> {
        self.0.finish()
    }
}

/// Returns the tag of an explicitly tagged or constructed field: `[number]` around other fields.
pub(crate) const fn outer(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: true, number: TagNumber(number) }
}

/// Returns the tag of an implicitly tagged primitive field: `[number]` instead of its universal tag.
pub(crate) const fn inner(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: false, number: TagNumber(number) }
}

/// Encodes a field.
pub(crate) fn field(tag: Tag, content: &[u8]) -> Result<Vec<u8>, Error> {
    AnyRef::new(tag, content)?.to_der()
}
