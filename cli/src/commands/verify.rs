use std::path::PathBuf;

use clap::Args;
use ocikit::{Digest, Location, Platform};
use ocikit_sign::{Cell, Coverage, Trust, VerifyOptions};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::keys::{self, DepthArguments, FormatName};

/// Check who signed an image, an index or an artifact
///
/// Prints a line for each digest, signer and format that is asked for, and ends with 5 if a signature is missing. Nothing
/// but the place of the image is asked: transparency logs and timestamps are not looked at.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The image
    location: Location,
    /// A public key (PEM) whose signature has to be there; may be repeated, and then each of them has to have signed
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<PathBuf>,
    /// A form in which there has to be a signature; may be repeated, and then each is asked for. Any one will do if this is
    /// not given
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Vec<FormatName>,
    #[command(flatten)]
    depth: DepthArguments,
    /// The image has to have this digest
    #[arg(long, value_name = "DIGEST")]
    expect: Option<Digest>,
}

#[derive(Serialize)]
struct Facts {
    location: String,
    digest: Digest,
    verified: bool,
    signatures: Vec<CellFacts>,
}

#[derive(Serialize)]
struct CellFacts {
    digest: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
    signer: String,
    /// The format of the signature that was found, or those of which one would have done.
    formats: Vec<&'static str>,
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<Digest>,
    /// What was found and does not count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<RefusedFacts>,
}

#[derive(Serialize)]
struct RefusedFacts {
    signature: Digest,
    why: String,
}

impl Verify {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let root = context.session(&[&location])?.open(&location).await?;
        let mut trusted = Vec::new();
        for path in &self.key {
            trusted.push(Trust::Key { name: path.display().to_string(), key: keys::public_key(path)? });
        }
        let options = VerifyOptions {
            formats: self.format.iter().map(|name| name.format()).collect(),
            depth: self.depth.depth(),
            expect: self.expect,
            ..VerifyOptions::new(trusted)
        };
        let coverage = ocikit_sign::verify(&root, &options).await?;
        let facts = Facts {
            location: location.to_string(),
            digest: coverage.root,
            verified: coverage.is_complete(),
            signatures: coverage.cells.iter().map(CellFacts::of).collect(),
        };
        context.output.facts(&facts, || table(&facts.signatures))?;
        match coverage.accept(&root) {
            Some(_) => Ok(()),
            None => Err(failure(&location, &coverage)),
        }
    }
}

impl CellFacts {
    fn of(cell: &Cell) -> CellFacts {
        let formats = match &cell.verified {
            Some(proof) => vec![proof.format.as_str()],
            None => cell.formats.iter().map(|format| format.as_str()).collect(),
        };
        let refused = cell.refused.iter();
        CellFacts {
            digest: cell.subject.digest,
            platform: cell.platform.clone(),
            signer: cell.signer.clone(),
            formats,
            verified: cell.verified.is_some(),
            signature: cell.verified.as_ref().map(|proof| proof.signature),
            refused: refused.map(|found| RefusedFacts { signature: found.signature, why: found.why.to_string() }).collect(),
        }
    }
}

/// A line for each cell, and below it what was found and does not count.
fn table(cells: &[CellFacts]) -> String {
    let mut text = String::new();
    for cell in cells {
        let platform = cell.platform.as_ref().map_or("-".to_owned(), ToString::to_string);
        let (digest, signer, formats) = (&cell.digest, &cell.signer, cell.formats.join("|"));
        let outcome = match &cell.signature {
            Some(signature) => format!("verified by {signature}"),
            None => "missing".to_owned(),
        };
        text += &format!("{digest} {platform} {signer} {formats} {outcome}\n");
        for refused in &cell.refused {
            text += &format!("  {}: {}\n", refused.signature, refused.why);
        }
    }
    text
}

fn failure(location: &Location, coverage: &Coverage) -> Failure {
    let missing = coverage.cells.iter().filter(|cell| cell.verified.is_none()).count();
    let all = coverage.cells.len();
    let message = format!("{location} is not verified: {missing} of {all} signatures that were asked for are missing");
    Failure::new(Code::Unverified, message)
        .hint("is it the right key, and were signatures copied along? `ocikit referrers` lists what is there")
}
