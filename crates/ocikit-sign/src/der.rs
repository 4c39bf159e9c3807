//! DER (X.690), piece by piece, for the structures that `x509-cert` does not read.

use x509_cert::der::asn1::AnyRef;
use x509_cert::der::{Decode, Encode, Error, Reader, SliceReader, Tag, TagNumber, Tagged};

/// What is inside of a structure, in its order.
pub(crate) struct Fields<'a>(SliceReader<'a>);

impl<'a> Fields<'a> {
    /// Of the one structure that all these bytes are.
    pub(crate) fn of(der: &'a [u8], tag: Tag) -> Result<Fields<'a>, Error> {
        let outer = AnyRef::from_der(der)?;
        outer.tag().assert_eq(tag)?;
        Fields::within(outer.value())
    }

    /// Of these bytes, which have no tag of their own any more.
    pub(crate) fn within(value: &'a [u8]) -> Result<Fields<'a>, Error> {
        Ok(Fields(SliceReader::new(value)?))
    }

    /// The content of the next field, which has this tag.
    pub(crate) fn value(&mut self, tag: Tag) -> Result<&'a [u8], Error> {
        let field: AnyRef<'a> = self.0.decode()?;
        field.tag().assert_eq(tag)?;
        Ok(field.value())
    }

    /// The content of the next field if it has this tag.
    pub(crate) fn optional(&mut self, tag: Tag) -> Result<Option<&'a [u8]>, Error> {
        match self.peek()? == Some(tag) {
            true => self.value(tag).map(Some),
            false => Ok(None),
        }
    }

    /// The tag of the next field, if there is one.
    pub(crate) fn peek(&self) -> Result<Option<Tag>, Error> {
        if self.is_finished() { Ok(None) } else { Tag::peek(&self.0).map(Some) }
    }

    /// The fields of the next one, which has this tag.
    pub(crate) fn fields(&mut self, tag: Tag) -> Result<Fields<'a>, Error> {
        Fields::within(self.value(tag)?)
    }

    /// All bytes of the next field, its tag among them.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Error> {
        self.0.tlv_bytes()
    }

    pub(crate) fn decode<T: Decode<'a, Error = Error>>(&mut self) -> Result<T, Error> {
        self.0.decode()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Makes sure that nothing follows.
    pub(crate) fn finish(self) -> Result<(), Error> {
        self.0.finish()
    }
}

/// `[number]` around other fields.
pub(crate) const fn outer(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: true, number: TagNumber(number) }
}

/// `[number]` instead of the tag of what is no structure.
pub(crate) const fn inner(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: false, number: TagNumber(number) }
}

/// A field.
pub(crate) fn field(tag: Tag, content: &[u8]) -> Result<Vec<u8>, Error> {
    AnyRef::new(tag, content)?.to_der()
}
