"""What reads data that no digest covers is made in every run, and the reason is given."""

import os


def test_what_no_digest_covers_is_never_reused(project):
    said = project.run("evaluate.web=['https://a.b/c']")
    assert said.code == 0, said.err
    reason = "a change of https://a.b/c would not be noticed"
    assert f"evaluate is made in every run and never reused: {reason}" in said.err
    project.calls()
    said = project.run("evaluate.web=['https://a.b/c']")
    assert said.code == 0, said.err
    made = [call for call in project.calls() if not call.startswith(("finished", "metrics", "run"))]
    assert made == ["evaluate tuned", "evaluate base", "evaluate tuned"]
    plan = project.call("plan", "recipe.toml", "evaluate.web=['https://a.b/c']")
    assert f"never reused: evaluate ({reason})" in " ".join(plan.out.split())


def test_what_every_digest_covers_is_reused(project):
    assert project.run("evaluate.web=[]").code == 0
    project.calls()
    said = project.run("evaluate.web=[]")
    assert "never reused" not in said.err
    assert not [call for call in project.calls() if call.startswith("evaluate")]


def test_the_reason_names_the_pipe(project):
    (project.folder / "pool.jsonl").unlink()
    os.mkfifo(project.folder / "pool.jsonl")
    plan = project.call("plan", "recipe.toml")
    place = project.folder / "pool.jsonl"
    reason = f"never reused: pool (a change of what is read from {place} would not be noticed)"
    assert reason in " ".join(plan.out.split())


def test_many_reasons_are_counted(project):
    plan = project.call("plan", "recipe.toml", "evaluate.web=['a','b','c','d']")
    assert "(a change of a and b and 2 more would not be noticed)" in " ".join(plan.out.split())
