//! Replaces the variables that BuildKit refuses.

use std::path::Path;

use ocikit::Platform;

use super::model::{BuildOptions, ImageError};
use crate::project::dockerfile::{Arguments, Dockerfile, DockerfileError};
use crate::project::error::{Problem, ProjectError};
use crate::project::files::read_file;
use crate::project::limits::MAX_DOCKERFILE_BYTES;
use crate::project::place::{FilePlace, replaced};

/// Returns a Dockerfile in which `COPY --from` and `RUN --mount=from` have no variables. References that depend on the
/// platform stay; BuildKit refuses them.
pub(super) fn resolved(path: &Path, options: &BuildOptions<'_>, platforms: &[Platform]) -> Result<Vec<u8>, ImageError> {
    let bytes = read_file(path, MAX_DOCKERFILE_BYTES)?.unwrap_or_default();
    let wrong = |error: DockerfileError| {
        let place = FilePlace { file: path.to_owned(), line: error.line, column: error.column };
        ProjectError::Invalid(vec![Problem::Dockerfile { place, problem: error.problem }])
    };
    let file = Dockerfile::parse(&bytes).map_err(wrong)?;
    let mut arguments = Arguments::default().with(&options.registry_argument, &options.registry);
    arguments.build.extend(options.solve.build_arguments.iter().cloned());
    arguments.platform = platforms.first().cloned();
    let found = file.references(&arguments).map_err(wrong)?;
    if found.depends_on_platform {
        return Ok(bytes);
    }
    let mut references: Vec<_> = found.references.iter().filter(|reference| reference.has_refused_variable()).collect();
    references.sort_by_key(|reference| reference.span);
    let mut end = 0;
    references.retain(|reference| {
        let is_next = reference.span.start >= end;
        end = if is_next { reference.span.end } else { end };
        is_next
    });
    Ok(replaced(&bytes, references.into_iter().map(|reference| (reference.span, reference.text.bytes()))))
}
