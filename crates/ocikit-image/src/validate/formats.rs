use std::sync::Arc;

use super::options::{ValidateDepth, ValidateOptions};
use super::part::{At, FoundManifest, fault_of};
use super::report::{Fault, Problem, Report};
use crate::error::{Error, Result};
use crate::root::Root;
use crate::source::Source;
use crate::walk::Edge;

/// Checks what further formats add to the manifests.
pub(super) async fn check_all(
    source: &Arc<dyn Source>,
    manifests: Vec<FoundManifest>,
    options: &ValidateOptions,
    report: &mut Report,
) -> Result<()> {
    let Some(formats) = options.formats.as_ref().filter(|_| options.depth == ValidateDepth::Contents) else {
        return Ok(());
    };
    for FoundManifest { descriptor, path } in manifests {
        let checked = async {
            let root = Root::at(source.clone(), descriptor.clone()).await?;
            formats.check(&root).await
        };
        match checked.await {
            Ok(problems) => {
                for found in problems {
                    let at = match found.layer {
                        Some(layer) => At::below(&path, Edge::Layer(layer)),
                        None => At::of(&path),
                    };
                    let fault = Fault::Format { problem: found.problem };
                    report.add(Problem::new(at.to_string(), Some(descriptor.digest), fault), options.max_problems);
                }
            }
            // The blob itself has been reported.
            Err(Error::NotFound { .. } | Error::Mismatch { .. }) if report.errors > 0 => {}
            Err(error) => {
                let fault = fault_of(error)?;
                report
                    .add(Problem::new(At::of(&path).to_string(), Some(descriptor.digest), fault), options.max_problems);
            }
        }
    }
    Ok(())
}
