//! Bounded lists and maps. Three bytes of JSON can take a hundred bytes of memory, so a limit on the size of a document
//! is not enough.

use std::fmt;
use std::marker::PhantomData;

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Number, Value};

use crate::keys::folds_to;

/// The maximum number of annotations or labels in one place. Real documents have dozens.
const MAX_ANNOTATIONS: usize = 10_000;

/// A list of at most `MAX_ITEMS` items; a longer one is an error as soon as the limit is exceeded. `null` is an empty
/// list, as Go writes it.
#[derive(Debug)]
pub struct List<T, const MAX_ITEMS: usize>(pub Vec<T>);

impl<T, const MAX_ITEMS: usize> Default for List<T, MAX_ITEMS> {
    fn default() -> List<T, MAX_ITEMS> {
        List(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX_ITEMS: usize> Deserialize<'de> for List<T, MAX_ITEMS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<List<T, MAX_ITEMS>, D::Error> {
        struct Items<T, const MAX_ITEMS: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX_ITEMS: usize> Visitor<'de> for Items<T, MAX_ITEMS> {
            type Value = List<T, MAX_ITEMS>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(List::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    if list.len() == MAX_ITEMS {
                        return Err(A::Error::custom(format_args!("more than {MAX_ITEMS} items")));
                    }
                    list.push(item);
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_any(Items(PhantomData))
    }
}

/// Deserializes a list of at most `MAX_ITEMS` items, for a field of a struct.
pub(crate) fn list<'de, D, T, const MAX_ITEMS: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    Ok(List::<T, MAX_ITEMS>::deserialize(deserializer)?.0)
}

/// Deserializes annotations. `null`, which Go writes for none, is an empty map, and an annotation with the value `null`
/// is skipped.
pub(crate) fn annotations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IndexMap<String, String>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = IndexMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of strings")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(IndexMap::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
            let mut map = IndexMap::new();
            while let Some((key, value)) = pairs.next_entry::<String, Option<String>>()? {
                let Some(value) = value else { continue };
                if map.len() == MAX_ANNOTATIONS {
                    return Err(A::Error::custom(format_args!("more than {MAX_ANNOTATIONS} annotations")));
                }
                map.insert(key, value);
            }
            Ok(map)
        }
    }
    deserializer.deserialize_any(Pairs)
}

/// The maximum number of JSON values in the unknown fields of one descriptor. Real ones have a handful.
pub(crate) const MAX_EXTRA_VALUES: usize = 64;

/// Deserializes a JSON value that counts against a budget of values, including nested ones.
pub(crate) struct Budgeted<'a>(pub(crate) &'a mut usize);

impl<'de> DeserializeSeed<'de> for Budgeted<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        *self.0 = self
            .0
            .checked_sub(1)
            .ok_or_else(|| D::Error::custom(format_args!("unknown fields with more than {MAX_EXTRA_VALUES} values")))?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Budgeted<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Budgeted(self.0))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Value, A::Error> {
        let mut map = serde_json::Map::new();
        while let Some(key) = pairs.next_key()? {
            map.insert(key, pairs.next_value_seed(Budgeted(self.0))?);
        }
        Ok(Value::Object(map))
    }
}

/// Whether a JSON text has an object that refers to a blob at any level: a `digest` beside a `size`, or the `blobSum`
/// of Docker schema 1. Nothing of the text is kept.
#[derive(Debug)]
pub(crate) struct NamesBlobs(pub(crate) bool);

impl<'de> Deserialize<'de> for NamesBlobs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NamesBlobs, D::Error> {
        struct Search;
        impl<'de> Visitor<'de> for Search {
            type Value = NamesBlobs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<NamesBlobs, E> {
                Ok(NamesBlobs(false))
            }

            fn visit_bool<E>(self, _: bool) -> Result<NamesBlobs, E> {
                Ok(NamesBlobs(false))
            }

            fn visit_i64<E>(self, _: i64) -> Result<NamesBlobs, E> {
                Ok(NamesBlobs(false))
            }

            fn visit_u64<E>(self, _: u64) -> Result<NamesBlobs, E> {
                Ok(NamesBlobs(false))
            }

            fn visit_f64<E>(self, _: f64) -> Result<NamesBlobs, E> {
                Ok(NamesBlobs(false))
            }

            fn visit_str<E>(self, _: &str) -> Result<NamesBlobs, E> {
                Ok(NamesBlobs(false))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<NamesBlobs, A::Error> {
                let mut found = false;
                while let Some(NamesBlobs(inside)) = items.next_element()? {
                    found |= inside;
                }
                Ok(NamesBlobs(found))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<NamesBlobs, A::Error> {
                let (mut digest, mut size, mut found) = (false, false, false);
                while let Some(key) = pairs.next_key::<std::borrow::Cow<'de, str>>()? {
                    digest |= folds_to(&key, "digest");
                    size |= folds_to(&key, "size");
                    found |= folds_to(&key, "blobSum");
                    if found {
                        pairs.next_value::<IgnoredAny>()?;
                    } else {
                        found |= pairs.next_value::<NamesBlobs>()?.0;
                    }
                }
                Ok(NamesBlobs(found || digest && size))
            }
        }
        deserializer.deserialize_any(Search)
    }
}
