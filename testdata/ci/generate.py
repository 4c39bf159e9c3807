#!/usr/bin/env python3
"""Writes the recorded jobs in this directory: environment, event, and the git state that they mean."""
import json, os

HERE = os.path.dirname(os.path.abspath(__file__))
BASE, HEAD = "6c22711f5a0c9d0f5f4c1c0e8b5d7a3e9f1b2c3d", "da39a3ee5e6b4b0d3255bfef95601890afd80709"
REPO = {"name": "app", "default_branch": "main", "owner": {"login": "acme"}}


def write(name, environment, expected, job_type=None, event=None):
    fixture = {"environment": environment}
    if event is not None:
        fixture["event"] = event
    if isinstance(expected, str):
        fixture["error"] = expected
    else:
        fixture["expected"] = expected
    if job_type:
        fixture["jobType"] = job_type
    with open(os.path.join(HERE, name + ".json"), "w") as file:
        json.dump(fixture, file, indent=2)
        file.write("\n")


def github(name, event_name, event, expected, job_type=None, **more):
    environment = {"CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": event_name,
                   "GITHUB_EVENT_PATH": "event.json", "GITHUB_REPOSITORY": "acme/app", **more}
    if not isinstance(expected, str):
        expected = {"system": "github-actions", "git": {"event": expected.pop("event"), "owner": "acme",
                    "repository": "app", **expected}}
    write("github-" + name, environment, expected, job_type, event)


def other(system, name, environment, expected, job_type=None):
    if not isinstance(expected, str):
        expected = {"system": system, "git": {"event": expected.pop("event"), "owner": "acme", "repository": "app",
                    **expected}}
    write(system.split("-")[0] + "-" + name, environment, expected, job_type)


MAIN = {"baseRef": "refs/heads/main", "branch": "main", "isDefaultBranch": True}
github("push", "push", {"ref": "refs/heads/main", "after": BASE, "head_commit": {"id": BASE}, "repository": REPO},
       {"event": "push", "baseSha": BASE, **MAIN}, "postsubmit")
github("push-tag", "push", {"ref": "refs/tags/v1.2.3", "after": BASE, "head_commit": None, "repository": REPO},
       {"event": "push", "baseSha": BASE, "baseRef": "refs/tags/v1.2.3", "isDefaultBranch": False, "tag": "v1.2.3"},
       "postsubmit")
github("push-deleted", "push", {"ref": "refs/heads/x", "after": "0" * 40, "head_commit": None, "repository": REPO},
       "cannot read the event: it has no commit; was the branch deleted?")
github("pull_request_target", "pull_request_target",
       {"pull_request": {"number": 123, "base": {"sha": BASE, "ref": "main"}, "head": {"sha": HEAD, "ref": "x"}},
        "repository": REPO},
       {"event": "pull_request", "baseSha": BASE, "headSha": HEAD, "baseRef": "refs/heads/main",
        "isDefaultBranch": False, "pullRequest": 123}, "presubmit")
github("workflow_dispatch", "workflow_dispatch", {"inputs": {}, "repository": REPO},
       {"event": "dispatch", "baseSha": BASE, **MAIN}, "workflow_dispatch",
       GITHUB_SHA=BASE, GITHUB_REF="refs/heads/main")
github("schedule", "schedule", {"schedule": "0 3 * * *", "repository": REPO},
       {"event": "schedule", "baseSha": BASE, **MAIN}, "schedule", GITHUB_SHA=BASE, GITHUB_REF="refs/heads/main")
github("merge_group", "merge_group", {"merge_group": {"head_sha": HEAD}, "repository": REPO},
       {"event": "merge_group", "baseSha": BASE, "headSha": HEAD,
        "baseRef": "refs/heads/gh-readonly-queue/main/pr-1", "isDefaultBranch": False}, "merge_group",
       GITHUB_SHA=BASE, GITHUB_REF="refs/heads/gh-readonly-queue/main/pr-1")
github("pull_request", "pull_request", {"repository": REPO},
       "cannot read the job: GITHUB_EVENT_NAME has the unsupported value `pull_request`; supported: "
       "pull_request_target, push, workflow_dispatch, schedule, merge_group")
github("no-sha", "schedule", {"repository": REPO},
       "cannot read the job: the environment variable GITHUB_SHA is not set")

GITLAB = {"CI": "true", "GITLAB_CI": "true", "CI_PROJECT_NAMESPACE": "acme", "CI_PROJECT_NAME": "app",
          "CI_COMMIT_SHA": BASE, "CI_DEFAULT_BRANCH": "main"}
other("gitlab-ci", "push", {**GITLAB, "CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": "main"},
      {"event": "push", "baseSha": BASE, **MAIN}, "postsubmit")
other("gitlab-ci", "tag", {**GITLAB, "CI_PIPELINE_SOURCE": "push", "CI_COMMIT_TAG": "v1.2.3"},
      {"event": "push", "baseSha": BASE, "baseRef": "refs/tags/v1.2.3", "isDefaultBranch": False, "tag": "v1.2.3"},
      "postsubmit")
other("gitlab-ci", "merge-request", {**GITLAB, "CI_PIPELINE_SOURCE": "merge_request_event",
      "CI_MERGE_REQUEST_IID": "7", "CI_MERGE_REQUEST_DIFF_BASE_SHA": BASE,
      "CI_MERGE_REQUEST_SOURCE_BRANCH_SHA": HEAD, "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main"},
      {"event": "pull_request", "baseSha": BASE, "headSha": HEAD, "baseRef": "refs/heads/main",
       "isDefaultBranch": False, "pullRequest": 7}, "presubmit")

ADO = {"CI": "true", "BUILD_BUILDID": "42", "REPO_OWNER": "acme", "REPO_NAME": "app", "PULL_BASE_SHA": BASE}
for job_type, event in [("postsubmit", "push"), ("workflow_dispatch", "dispatch"), ("schedule", "schedule")]:
    other("azure-devops", job_type, {**ADO, "JOB_TYPE": job_type},
          {"event": event, "baseSha": BASE, "isDefaultBranch": False}, job_type)
other("azure-devops", "presubmit", {**ADO, "JOB_TYPE": "presubmit", "PULL_NUMBER": "123", "PULL_PULL_SHA": HEAD},
      {"event": "pull_request", "baseSha": BASE, "headSha": HEAD, "isDefaultBranch": False, "pullRequest": 123},
      "presubmit")
other("azure-devops", "bad-number", {**ADO, "JOB_TYPE": "presubmit", "PULL_NUMBER": "x", "PULL_PULL_SHA": HEAD},
      "cannot read the job: PULL_NUMBER is not the number of a pull request")
other("azure-devops", "native-pull-request", {"TF_BUILD": "True", "BUILD_REASON": "PullRequest",
      "BUILD_REPOSITORY_NAME": "acme/app", "BUILD_SOURCEVERSION": "f" * 40,
      "SYSTEM_PULLREQUEST_PULLREQUESTNUMBER": "7", "SYSTEM_PULLREQUEST_SOURCECOMMITID": HEAD,
      "SYSTEM_PULLREQUEST_TARGETBRANCH": "refs/heads/main"},
      {"event": "pull_request", "headSha": HEAD, "baseRef": "refs/heads/main", "isDefaultBranch": False,
       "pullRequest": 7}, "presubmit")

JENKINS = {"CI": "true", "JENKINS_HOME": "/var/jenkins_home", "GIT_URL": "https://github.com/acme/app.git"}
other("jenkins", "push", {**JENKINS, "GIT_COMMIT": BASE, "BRANCH_NAME": "main", "BRANCH_IS_PRIMARY": "true"},
      {"event": "push", "baseSha": BASE, "branch": "main", "isDefaultBranch": True}, "postsubmit")
other("jenkins", "change", {**JENKINS, "GIT_COMMIT": HEAD, "CHANGE_ID": "7", "CHANGE_BRANCH": "x",
      "CHANGE_BASE_SHA": BASE, "CHANGE_TARGET": "main"},
      {"event": "pull_request", "baseSha": BASE, "headSha": HEAD, "baseRef": "refs/heads/main",
       "isDefaultBranch": False, "pullRequest": 7}, "presubmit")
other("jenkins", "no-url", {"CI": "true", "JENKINS_HOME": "/var/jenkins_home"},
      "cannot read the job: the environment variable GIT_URL is not set")
