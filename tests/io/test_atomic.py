"""Files and folders appear whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cygnoreco.io.atomic import atomic_folder, atomic_write, remove_leftovers


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_appears_at_the_end_only(tmp_path: Path) -> None:
    target = tmp_path / "new" / "run.h5"
    with atomic_write(target) as partial:
        partial.write_bytes(b"all")
        assert partial.parent == target.parent
        assert f".partial-{os.getpid()}-" in partial.name
        assert not target.exists()
    assert target.read_bytes() == b"all"
    assert names(target.parent) == ["run.h5"]


def test_a_failed_write_leaves_the_older_file_alone(tmp_path: Path) -> None:
    target = tmp_path / "run.h5"
    target.write_bytes(b"old")

    def interrupted() -> None:
        with atomic_write(target) as partial:
            partial.write_bytes(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["run.h5"]


def test_a_file_gets_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    with atomic_write(tmp_path / "atomic") as partial:
        partial.write_bytes(b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_takes_the_place_of_the_older_one_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "run.zarr"
    for content in ("first", "second"):
        with atomic_folder(target) as partial:
            (partial / content / "deep").mkdir(parents=True)
            (partial / content / "deep" / "file").write_text(content)
        assert names(target) == [content]
    assert names(tmp_path) == ["run.zarr"]


def test_a_failed_folder_leaves_the_older_one_alone(tmp_path: Path) -> None:
    target = tmp_path / "run.zarr"
    target.mkdir()
    (target / "old").touch()

    def broken() -> None:
        with atomic_folder(target) as partial:
            (partial / "new").touch()
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["run.zarr"]


@pytest.mark.parametrize("kind", ["atomic_write", "atomic_folder"])
def test_what_a_killed_writer_left_is_removed_by_the_next_one(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "run"
    program = f"""
import time
from cygnoreco.io.atomic import {kind}
with {kind}({str(target)!r}) as partial:
    (partial / "file" if partial.is_dir() else partial).write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert remove_leftovers(tmp_path) == []  # it lives
        writer.send_signal(signal.SIGKILL)
    (leftover,) = names(tmp_path)
    assert leftover.startswith(f"run.partial-{writer.pid}-")
    with atomic_write(tmp_path / "other") as partial:
        partial.touch()
    assert leftover in names(tmp_path)  # of another file
    with atomic_write(target) as partial:
        partial.write_text("whole")
    assert names(tmp_path) == ["other", "run"]


def test_a_leftover_from_elsewhere_is_removed_after_a_day_only(tmp_path: Path) -> None:
    foreign = tmp_path / "run.partial-1-00000012345678"
    foreign.mkdir()
    (foreign / "file").touch()
    assert remove_leftovers(tmp_path) == []
    yesterday = time.time() - 25 * 3600
    os.utime(foreign, (yesterday, yesterday))
    assert remove_leftovers(tmp_path) == []  # something in it is fresh
    os.utime(foreign / "file", (yesterday, yesterday))
    assert remove_leftovers(tmp_path, "walk") == []
    assert remove_leftovers(tmp_path, "run") == [foreign]


def test_files_that_only_look_like_leftovers_stay(tmp_path: Path) -> None:
    for name in ("run.partial", "run.partial-1", "run.partial-x-00000012345678", "partial-1-00000012345678"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    assert remove_leftovers(tmp_path) == []
