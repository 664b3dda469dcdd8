"""What tests/support/python_image.py packs."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

from tests.support.python_image import Tree, files_below, libraries


def packed(*paths: Path) -> dict[str, tarfile.TarInfo]:
    """What is in a tree with these files, by name."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tree = Tree(tar)
        for path in paths:
            tree.file(path)
    data.seek(0)
    with tarfile.open(fileobj=data) as tar:
        members = tar.getmembers()
    assert len({member.name for member in members}) == len(members)
    return {"/" + member.name: member for member in members}


def test_links_to_a_file_and_on_the_way_are_kept_and_lead_to_it(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/libz.so.1.2").write_bytes(b"z")
    (tmp_path / "usr/lib/libz.so.1").symlink_to("libz.so.1.2")
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "lib64").symlink_to(tmp_path / "lib")
    there = packed(tmp_path / "lib64/libz.so.1", tmp_path / "lib/libz.so.1.2")
    assert there[f"{tmp_path}/lib64"].linkname == f"{tmp_path}/lib"
    assert there[f"{tmp_path}/lib"].linkname == "usr/lib"
    assert there[f"{tmp_path}/usr/lib"].isdir()
    assert there[f"{tmp_path}/usr/lib/libz.so.1"].linkname == "libz.so.1.2"
    assert there[f"{tmp_path}/usr/lib/libz.so.1.2"].size == 1


def test_others_may_read_all_and_run_what_may_be_run(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for name, mode in (("text", 0o600), ("program", 0o700)):
        (closed / name).write_text("x")
        (closed / name).chmod(mode)
    there = packed(closed / "text", closed / "program")
    modes = [there[f"{closed}{name}"].mode for name in ("", "/text", "/program")]
    assert modes == [0o755, 0o644, 0o755]
    assert there["/tmp"].mode == 0o1777


def test_no_tests_and_only_what_is_compiled_for_this_python(tmp_path: Path) -> None:
    names = ["a.py", f"__pycache__/a.{sys.implementation.cache_tag}.pyc", "__pycache__/a.x-1.pyc"]
    names += ["test/b.py", "site-packages/c.py"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = {str(path.relative_to(tmp_path)) for path in files_below(tmp_path)}
    assert found == set(names[:2])


def test_a_program_comes_with_its_libraries_and_the_loader() -> None:
    found = {
        path.name.partition(".")[0].rstrip("0123456789-") for path in libraries([Path("/bin/sh")])
    }
    assert "libc" in found
    assert any(name.startswith("ld") for name in found)
