use ocikit_spec::Digest;
use serde::Serialize;

/// What differs between two roots; nothing, if they are the same or differ in nothing that anybody could name.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    /// The digest of the one.
    pub left: Digest,
    /// The digest of the other.
    pub right: Digest,
    /// What differs, in the order of the documents and then of the files.
    pub differences: Vec<Difference>,
}

impl Diff {
    /// Whether there are differences that matter to whoever runs the image.
    pub fn is_semantic(&self) -> bool {
        self.count(Class::Semantic) > 0
    }

    /// How many differences of a class there are.
    pub fn count(&self, class: Class) -> usize {
        self.differences.iter().filter(|difference| difference.class == class).count()
    }
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// How much it matters.
    pub class: Class,
    /// Which entry of an index it is in: its platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// What it is in.
    pub area: Area,
    /// Where: a key of a document, the number of a layer, the path of a file.
    pub at: String,
    /// What of a file or layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<&'static str>,
    /// Whether it is on one side only.
    pub change: Change,
    /// What the one has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// What the other has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<String>,
}

/// How much a difference matters; what matters most is least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// The image is another one.
    Semantic,
    /// Only a time is another one.
    Time,
    /// Only the order is another one, where order means nothing.
    Order,
    /// The same is written in another way: compressed, cut into layers, laid out, typed.
    Encoding,
}

/// What a difference is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Area {
    /// An index.
    Index,
    /// What a document says of something that it points to.
    Descriptor,
    /// A manifest.
    Manifest,
    /// A config.
    Config,
    /// A layer, or whatever else a manifest lists.
    Layer,
    /// A file, as a container sees it.
    File,
}

/// Whether both sides have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// Only the right side has it.
    Added,
    /// Only the left side has it.
    Removed,
    /// Both have it.
    Changed,
}

impl Difference {
    /// Something that is on the sides that have a value.
    pub(crate) fn of(
        area: Area,
        at: impl Into<String>,
        class: Class,
        left: Option<String>,
        right: Option<String>,
    ) -> Difference {
        let change = match (&left, &right) {
            (None, Some(_)) => Change::Added,
            (Some(_), None) => Change::Removed,
            _ => Change::Changed,
        };
        Difference { class, entry: None, area, at: at.into(), what: None, change, left, right }
    }

    pub(crate) fn changed(area: Area, at: impl Into<String>, class: Class) -> Difference {
        Difference::of(area, at, class, None, None)
    }

    pub(crate) fn added(area: Area, at: impl Into<String>) -> Difference {
        Difference { change: Change::Added, ..Difference::changed(area, at, Class::Semantic) }
    }

    pub(crate) fn removed(area: Area, at: impl Into<String>) -> Difference {
        Difference { change: Change::Removed, ..Difference::changed(area, at, Class::Semantic) }
    }

    pub(crate) fn values(self, left: Option<String>, right: Option<String>) -> Difference {
        Difference { left, right, ..self }
    }

    pub(crate) fn about(self, what: &'static str) -> Difference {
        Difference { what: Some(what), ..self }
    }
}

/// Differences as they are found, below one entry of an index or the root.
#[derive(Debug, Default)]
pub(crate) struct Report {
    entry: Option<String>,
    pub(crate) differences: Vec<Difference>,
}

impl Report {
    pub(crate) fn add(&mut self, difference: Difference) {
        let entry = self.entry.clone();
        self.differences.push(Difference { entry, ..difference });
    }

    /// A report about an entry of what this is about.
    pub(crate) fn below(&self, key: &str) -> Report {
        let entry = match &self.entry {
            Some(above) => format!("{above} / {key}"),
            None => key.to_owned(),
        };
        Report { entry: Some(entry), differences: Vec::new() }
    }

    pub(crate) fn take(&mut self, below: Report) {
        self.differences.extend(below.differences);
    }
}
