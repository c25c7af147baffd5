#!/usr/bin/env python3
"""Builds `ringway` as it was at the last tag, or at the commit in $UPGRADE_FROM, and upgrades it to $RINGWAY under load, and
back. Exit status 77 where there is neither."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def git(*words, check=True):
    done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=check)
    return done.stdout.strip()


def build(commit):
    """The program of that commit, built once."""
    tree = ROOT / "build" / "other" / commit
    if not tree.exists():
        git("worktree", "add", "--force", "--detach", str(tree), commit)
    subprocess.run(["cmake", "-S", tree, "-B", tree / "out", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"], check=True,
                   stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", tree / "out", "--target", "ringway_program"], check=True, stdout=subprocess.DEVNULL)
    return tree / "out" / "ringway"


def main():
    name = os.environ.get("UPGRADE_FROM") or git("describe", "--tags", "--abbrev=0", check=False)
    if not name:
        print("skip: there is no tag, and UPGRADE_FROM names no commit")
        return 77
    commit = git("rev-parse", f"{name}^{{commit}}")
    print(f"from {name}, {commit}", flush=True)
    environment = {**os.environ, "OTHER_RINGWAY": str(build(commit))}
    return subprocess.run([sys.executable, "-B", "-m", "unittest", "-v", "upgrade_test.UpgradeBetweenBuilds"],
                          cwd=pathlib.Path(__file__).parent, env=environment, check=False).returncode


sys.exit(main())
