//! The jobs of a plan for CI engines, stage by stage.

use std::fmt::Write;

use serde_json::{Value, json};

use super::model::BuildPlan;
use super::shard::Shards;
use crate::project::model::Project;

/// A CI engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CiMatrix {
    /// GitHub Actions: a JSON object with a matrix for each stage.
    GitHub,
    /// GitLab CI: a child pipeline with `parallel:matrix` in each stage.
    GitLab,
    /// Jenkins: a JSON object with the parallel branches of each stage.
    Jenkins,
    /// Azure Pipelines: a JSON object with the matrix of each stage.
    Azure,
}

impl CiMatrix {
    /// All engines.
    pub const ALL: [CiMatrix; 4] = [CiMatrix::GitHub, CiMatrix::GitLab, CiMatrix::Jenkins, CiMatrix::Azure];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            CiMatrix::GitHub => "github",
            CiMatrix::GitLab => "gitlab",
            CiMatrix::Jenkins => "jenkins",
            CiMatrix::Azure => "azure",
        }
    }
}

/// A job: a machine in a stage, and the names of its images.
struct Job {
    shard: String,
    images: String,
}

/// Returns the jobs for a CI engine. Only machines with work have a job.
pub fn matrix(project: &Project, plan: &BuildPlan, shards: &Shards, engine: CiMatrix) -> String {
    let machines = shards.work.first().map_or(0, Vec::len);
    let mut stages: Vec<Vec<Job>> = Vec::new();
    for stage in 0..plan.stages() {
        let mut names = vec![Vec::new(); machines];
        for image in plan.builds().filter(|image| image.stage == stage) {
            if let Some(machine) = shards.shard_of[image.position] {
                names[machine].push(project.images()[image.position].name.as_str());
            }
        }
        let jobs = names.into_iter().enumerate().filter(|(_, names)| !names.is_empty());
        let job = |(machine, names): (usize, Vec<&str>)| Job {
            shard: format!("{}/{machines}", machine + 1),
            images: names.join(" "),
        };
        stages.push(jobs.map(job).collect());
    }
    // Stages whose images are all published.
    stages.retain(|jobs| !jobs.is_empty());
    let stage = match engine {
        CiMatrix::GitHub => github,
        CiMatrix::Jenkins => jenkins,
        CiMatrix::Azure => azure,
        CiMatrix::GitLab => return gitlab(&stages),
    };
    let stages: Vec<_> = stages.iter().map(|jobs| stage(jobs)).collect();
    format!("{}\n", json!({ "stages": stages }))
}

/// The value of `strategy.matrix`:
/// <https://docs.github.com/actions/using-jobs/using-a-matrix-for-your-jobs>.
fn github(jobs: &[Job]) -> Value {
    let include: Vec<_> = jobs.iter().map(|job| json!({ "shard": job.shard, "images": job.images })).collect();
    json!({ "include": include })
}

/// Branches for `parallel`, by name.
fn jenkins(jobs: &[Job]) -> Value {
    jobs.iter().map(|job| json!({ "name": name(job), "shard": job.shard, "images": job.images })).collect()
}

/// The value of `strategy.matrix`, whose keys are letters, digits and `_`:
/// <https://learn.microsoft.com/azure/devops/pipelines/yaml-schema/jobs-job-strategy>.
fn azure(jobs: &[Job]) -> Value {
    jobs.iter()
        .map(|job| (name(job), json!({ "shard": job.shard, "images": job.images })))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn name(job: &Job) -> String {
    format!("shard_{}", job.shard.replace('/', "_of_"))
}

/// A child pipeline: <https://docs.gitlab.com/ci/yaml/#parallelmatrix>, which allows 200 jobs each.
fn gitlab(stages: &[Vec<Job>]) -> String {
    const MAX_JOBS: usize = 200;
    let names: Vec<_> = (0..stages.len()).map(|stage| format!("stage-{stage}")).collect();
    let mut yaml = format!("stages: [{}]\n", names.join(", "));
    if stages.is_empty() {
        return "stages: [none]\nnothing-to-build:\n  stage: none\n  script: [\"true\"]\n".to_owned();
    }
    for (stage, jobs) in stages.iter().enumerate() {
        for (part, jobs) in jobs.chunks(MAX_JOBS).enumerate() {
            // Writing to a string does not fail.
            let _ = writeln!(yaml, "stage-{stage}-{part}:\n  stage: stage-{stage}\n  extends: .ocikit-project");
            let _ = writeln!(yaml, "  variables: {{STAGE: \"{stage}\"}}\n  parallel:\n    matrix:");
            for job in jobs {
                let _ = writeln!(yaml, "      - SHARD: \"{}\"\n        IMAGES: \"{}\"", job.shard, job.images);
            }
        }
    }
    yaml
}
